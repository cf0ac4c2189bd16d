"""What is said where something stands in the way: that it fits the case, and that it works."""

import ast
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from relocal import cli
from relocal.backbones import BackboneConfig, build_backbone
from relocal.camera import parse_camera
from relocal.cli import verbs
from relocal.datasets.cambridge import read_cambridge
from relocal.datasets.colmap import read_colmap_model
from relocal.datasets.downloads import DOWNLOADS
from relocal.errors import InputError
from relocal.scene import Scene, apply_split
from relocal.scene.splits import fitting_blocks

ROOT = Path(__file__).resolve().parents[1]
SceneOf = Callable[..., Scene]


def frames(count: int, folder: str = "seq") -> list[str]:
    return [f"{folder}/{i:04d}.jpg" for i in range(count)]


# --- commands ----------------------------------------------------------------------------------


def printed_commands() -> list[str]:
    """Commands with arguments in the package's texts and the README; a hole is the letter X."""
    pattern = re.compile(
        rf"relocal (?:{'|'.join(cli.VERBS)}) [^\s`].*?(?=$|`|\.? *#|\.$|, or | --\.)"
    )
    texts: list[str] = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts += [line for line in node.value.splitlines() if "Example: " in line]
    texts += (ROOT / "README.md").read_text("utf-8").splitlines()
    return [found[0] for text in texts if (found := pattern.search(text))]


def test_every_command_of_the_texts_is_one(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    commands = printed_commands()
    assert len(commands) > 15
    for command in commands:
        cli.parse(shlex.split(command.strip())[1:])


def test_wrong_verb_and_wrong_values_are_a_clean_line(capsys: pytest.CaptureFixture[str]) -> None:
    train = ("train", "scene", "--out", "run")
    for arguments, words in (
        (("trian", "scene"), "Did you mean train"),
        ((*train, "--model.rotation", "euler"), "there is no 'euler'"),
        ((*train, "--view.turn-deg", "99"), "must be in"),
        (("triangulate", "scene", "--neighbours", "1"), "at least 2"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main([*arguments])
        error = capsys.readouterr().err
        assert end.value.code == 2
        assert error.startswith("relocal: ")
        assert error.count("\n") == 1
        assert words in error
        assert "dummy" not in error
        assert arguments[0] == "trian" or f"See relocal {arguments[0]} --help." in error


def test_next_command_keeps_modules_and_odd_names(tiny_scene: Scene, tmp_path: Path) -> None:
    scene = shutil.copytree(str(tiny_scene.folder), tmp_path / "my scene")
    train = verbs.Train(scene=scene, out=tmp_path / "run", modules=("mine",))
    words = shlex.split(train._next())
    assert words[1:4] == ["evaluate", str(tmp_path / "run"), str(scene)]
    assert words[4:] == ["--out", str(tmp_path / "run-report"), "--import", "mine"]


# --- splits ------------------------------------------------------------------------------------


@given(count=st.integers(2, 500))
def test_blocks_that_are_advised_work(count: int, scene_of: SceneOf) -> None:
    scene = scene_of(frames(count))
    splits = apply_split(scene, fitting_blocks(scene)).splits
    assert all(splits[part] for part in ("train", "test"))


@pytest.mark.parametrize(
    ("rule", "advice"),
    [
        ("last:25", "Did you mean last:25%?"),
        ("blocks:10/5", "blocks needs three numbers: blocks:10/5/2."),
        ("official", "blocks:3/5/0"),
        ("sequence", "blocks:3/5/0"),
        ("last:90%", "take blocks:3/5/0"),
        ("blocks:40/5/5", "blocks:3/5/0"),
    ],
)
def test_split_that_does_not_fit_is_mended(rule: str, advice: str, scene_of: SceneOf) -> None:
    with pytest.raises(InputError, match=re.escape(advice)):
        apply_split(scene_of(frames(30)), rule)


# --- cameras -----------------------------------------------------------------------------------


def test_camera_is_read_as_colmap_writes_it() -> None:
    camera = parse_camera("OPENCV,160,120,144,143,80,60,0.1,0,0.01,-0.02")
    assert (camera.model, camera.width, camera.height) == ("OPENCV", 160, 120)
    assert camera.params.tolist() == [144, 143, 80, 60, 0.1, 0, 0.01, -0.02]


# --- readers, downloads, backbones -------------------------------------------------------------


def test_cambridge_without_its_nvm_file_is_told(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "b.png")
    for split, name in (("train", "a.png"), ("test", "b.png")):
        (tmp_path / f"dataset_{split}.txt").write_text(f"\n\n\n{name} 0 0 0 1 0 0 0\n")
    account = read_cambridge(tmp_path).account
    assert account is not None
    assert [notice.code for notice in account.notices] == ["intrinsics-assumed"]
    assert "reconstruction.nvm is missing" in account.notices[0].text
    assert "wrong for another camera" in account.notices[0].text


def test_scene_read_as_a_colmap_model_is_told(tiny_scene: Scene) -> None:
    assert tiny_scene.folder is not None
    account = read_colmap_model(tiny_scene.folder).account
    assert account is not None
    assert [notice.code for notice in account.notices] == ["scene-already"]
    assert "is a scene already" in account.notices[0].text


def test_images_in_the_parent_are_found(tiny_scene: Scene, tmp_path: Path) -> None:
    assert tiny_scene.folder is not None
    shutil.copytree(tiny_scene.folder / "sparse", tmp_path / "sparse")
    # As if the model's names began with the folder's.
    folder = tiny_scene.folder / "images" / Path(tiny_scene.images[0]).parts[0]
    with pytest.raises(InputError, match=r"in its parent: --images .*images"):
        read_colmap_model(tmp_path, images=folder)


def test_refused_download_names_every_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any) -> None:
        raise InputError("no network.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("relocal.datasets.downloads.fetch", refuse)
    get = ["get", "7scenes/heads", "--out", "a/scene", "--labels", "sfm", "--accept-licence"]
    with pytest.raises(SystemExit):
        cli.main(get)
    error = capsys.readouterr().err
    known = DOWNLOADS["7scenes/heads"]
    assert all(remote.url in error for remote in (known.archive, *known.labels["sfm"]))
    assert "downloads/7scenes/sfm/heads_test.txt" in error
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit):
        cli.main(["paper", "--accept-licence", "--scenes", "heads", "fire"])
    error = capsys.readouterr().err
    assert all(f"downloads/7scenes/{name}.zip" in error for name in ("heads", "fire"))
    with pytest.raises(SystemExit):
        cli.main(["get", "cambridge/street", "--labels", "sfm", "--accept-licence"])
    assert "Licence" not in capsys.readouterr().out


def test_timm_that_cannot_be_imported_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(InputError, match=r"nms .* with .*torch \d.*from one index"):
        build_backbone(BackboneConfig(name="timm:resnet18"))
