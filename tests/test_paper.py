"""The source paper's experiment, tiny, on a scene in the layout of 7-Scenes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from web_server import WebServer, names, seven_scenes_zip

import relocal
from relocal import cli, paper
from relocal.cli import public
from relocal.datasets.downloads import DOWNLOADS
from relocal.datasets.fetching import RemoteFile
from relocal.errors import InputError
from relocal.training import PRESETS, TrainConfig, stored_config


@pytest.fixture
def heads(web: WebServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WebServer:
    web.files["/heads.zip"] = seven_scenes_zip(8, 3)
    known = replace(DOWNLOADS["7scenes/heads"], archive=RemoteFile(web.url("/heads.zip")))
    monkeypatch.setitem(DOWNLOADS, "7scenes/heads", known)
    monkeypatch.chdir(tmp_path)
    return web


def test_every_loss_is_trained_and_gathered_and_finished_parts_are_kept(
    heads: WebServer, tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: Any = {
        "scenes": ("heads",),
        "config": replace(tiny_config, epochs=1),
        "accept_licence": True,
    }
    # Interrupted in the second training, it goes on there.
    trained: list[str] = []
    train = paper.train

    def once(*arguments: Any, **more: Any) -> Any:
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(Path(arguments[1]).name)
        return train(*arguments, **more)

    monkeypatch.setattr(paper, "train", once)
    with pytest.raises(KeyboardInterrupt):
        relocal.repeat_paper("paper", **options)
    assert trained == ["default"]
    assert "3 trainings" in paper.needs(Path("paper"), ("heads",), options["config"])

    trained.extend(["", ""])
    page = relocal.repeat_paper("paper", **options)
    assert [name for name in trained if name] == list(paper.LOSSES)
    assert len(heads.asked) == 1
    assert "to download" not in paper.needs(Path("paper"), ("heads",), options["config"])
    assert " 0 trainings" in paper.needs(Path("paper"), ("heads",), options["config"])
    text = page.read_text()
    for method in ("mean pose", "oracle nearest", "retrieval", *paper.LOSSES):
        assert f"| heads | {method} |" in text
    assert "7-Scenes depth SLAM" in text
    assert "no verdict" in text
    for loss in paper.LOSSES:
        assert Path("paper", "reports", "heads", loss, "top_view.png").is_file()
    rows = json.loads(Path("paper/paper.json").read_text())["scenes"]["heads"]
    assert rows["default"]["median_position_to_default"] == 1
    config = stored_config(Path("paper/runs/heads/default+frustum"))
    assert config is not None
    # Frames 0 to 7 are 1 m to 1.007 m deep, of which the first is looked at.
    assert (config.loss.name, config.loss.depth) == ("default+frustum", 1.0)

    def too_late(*arguments: Any, **more: Any) -> None:
        raise AssertionError("it is finished")

    monkeypatch.setattr(paper, "train", too_late)
    monkeypatch.setattr(paper, "evaluate", too_late)
    assert relocal.repeat_paper("paper", **options).read_text() == text
    options["config"] = replace(options["config"], seed=1)
    with pytest.raises(InputError, match="other options"):
        relocal.repeat_paper("paper", **options)


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["paper", *arguments])
        assert isinstance(end.value.code, int)
        out, error = capsys.readouterr()
        return end.value.code, out, error

    return run


def test_licence_and_network_are_asked_for_first(
    call: Call, heads: WebServer, tmp_path: Path
) -> None:
    code, out, error = call("--scenes", "heads")
    assert (code, out) == (2, "")
    for words in (" 4 trainings", "LICENCE=accept", "non-commercial", "--accept-licence"):
        assert words in error
    assert names(tmp_path) <= {"paper", "paper/scenes"}
    heads.faults = [("status", 404)]
    code, out, error = call("--scenes", "heads", "--accept-licence")
    assert (code, out) == (2, "")
    assert "put it at downloads/7scenes/heads.zip" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--scenes", "head"), "Did you mean heads"),
        (("--googlenet", "none.safetensors"), "no such file"),
        (("--epochs", "0"), "at least 1"),
    ],
)
def test_senseless_options_are_refused(
    call: Call, heads: WebServer, arguments: tuple[str, ...], words: str
) -> None:
    code, _, error = call(*arguments, "--accept-licence")
    assert code == 2
    assert words in error
    assert heads.asked == []


def test_googlenet_is_trained_as_in_2015(tmp_path: Path) -> None:
    weights = tmp_path / "googlenet.safetensors"
    weights.touch()
    preset = PRESETS["posenet2015"]
    wanted = replace(preset.backbone, weights=str(weights))
    assert paper.paper_config(weights) == replace(preset, backbone=wanted)
    assert paper.paper_config(epochs=3) == TrainConfig(epochs=3)
    assert public.Paper(out=Path("x")).scenes == paper.SCENES
