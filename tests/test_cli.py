"""The command line: the whole chain, exit codes, and what is refused without leaving a trace."""

import io
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from relocal import __version__, cli
from relocal.cli import localizing, verbs
from relocal.localizers import Regressor
from relocal.scene import Scene
from relocal.training import PRESETS, TrainConfig

VERBS = ("import", "get", "train", "evaluate", "localize", "align", "demo", "paper")

Ended = tuple[int, str, str]  # exit code, output, error output


@pytest.fixture
def photos(tiny_scene: Scene) -> list[Path]:
    return [tiny_scene.path(i) for i in tiny_scene.indices("test").tolist()]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A nerfstudio folder of six photos."""
    folder = tmp_path / "capture"
    (folder / "images").mkdir(parents=True)
    draw, frames = np.random.default_rng(0), []
    for i in range(6):
        name = f"images/{i}.jpg"
        Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8)).save(folder / name)
        matrix = np.eye(4)
        matrix[:3, 3] = draw.normal(size=3)
        frames.append({"file_path": name, "transform_matrix": matrix.tolist()})
    transforms = {"fl_x": 30.0, "w": 32, "h": 24, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(transforms))
    return folder


def change_transforms(capture: Path, change: Callable[[Any], Any]) -> None:
    file = capture / "transforms.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# --- the whole chain ---------------------------------------------------------------------------


def test_chain_from_a_room_to_answers(
    call: Callable[..., Ended], tiny_room: Path, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    scene, run, report = tmp_path / "scene", tmp_path / "run", tmp_path / "run-report"
    code, out, error = call("import", "synthetic", tiny_room, "--out", scene)
    assert (code, error) == (0, "")
    assert re.fullmatch(rf"{scene}: 32 images \(24 train, 8 test\), metres, \d+ map points.\n", out)
    options = ("--backbone.name", "tiny", "--pretrained", "none", "--view.input-px", 32)
    options = (*options, "--epochs", 1, "--model.width", 32, "--loss", "posenet+frustum")
    options = (*options, "--batch-size", 8)
    code, out, error = call("train", scene, "--out", run, *options)
    assert code == 0
    assert "made only 3 steps" in error
    trained = r"trained 1 epoch in \d+\.\d min; last training median [\d.]+ m, [\d.]+°"
    found = re.fullmatch(rf"{run}: {trained}\. Next: (relocal evaluate .*)\n", out)
    assert found
    code, out, error = call(*shlex.split(found[1])[1:])
    assert (code, error) == (0, "")
    assert "tiny: 8 test images, another recording" in out
    assert re.search(r"^run  +\d", out, re.MULTILINE)
    assert out.endswith(f"Report: {report / 'report.html'}\n")
    photo = tiny_room / "seq-02" / "frame-000003.jpg"
    code, out, error = call("localize", run, photo, "--format", "json")
    assert code == 0
    answer = json.loads(out)
    row = json.loads((report / "report.json").read_text())["rows"][3]
    assert answer["photo"] == str(photo)
    assert answer["position"] == row["answers"]["run"]["pose"]["position"]
    assert "the scene's camera is taken" in error  # the same camera, but nobody said so


def test_answers_stream_and_one_bad_photo_does_not_stop_the_others(
    call: Callable[..., Ended],
    tiny_run: Path,
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received, out = io.BytesIO(), list[bytes]()
    localize = Regressor.localize

    def late(self: Any, *arguments: Any) -> Any:
        out.append(received.getvalue())  # what has left the process before this photo
        return localize(self, *arguments)

    monkeypatch.setattr(Regressor, "localize", late)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(received, "utf-8"))
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    code, _, error = call("localize", tiny_run, photos[0], pipe, photos[1], "--format", "tum")
    assert (code, "pipe.jpg: this is not a photo that can be read (a pipe" in error) == (3, True)
    numbers = [[line.split()[0] for line in lines.splitlines()] for lines in out]
    assert numbers == [[], [b"0"], [b"0"]]
    assert received.getvalue().splitlines()[1].startswith(b"2 ")


def test_all_photos_bad_is_nothing_done(
    call: Callable[..., Ended], tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    code, out, error = call("localize", tiny_run, tmp_path / "text.jpg", tmp_path / "gone.jpg")
    assert (code, out) == (2, "")
    assert "text.jpg" in error
    assert "gone.jpg" in error


@pytest.mark.parametrize("form", ["text", "json", "colmap", "tum"])
def test_every_format_is_a_line_a_photo(
    call: Callable[..., Ended], tiny_run: Path, photos: list[Path], form: str
) -> None:
    camera = "SIMPLE_PINHOLE,160,120,144,80,60"
    code, out, error = call("localize", tiny_run, *photos[:2], "--format", form, "--camera", camera)
    assert (code, error) == (0, "")
    assert len(out.splitlines()) == 2
    start = {"tum": ("0", "1"), "json": ('{"photo":',) * 2}.get(form, tuple(map(str, photos[:2])))
    for line, head in zip(out.splitlines(), start, strict=True):
        assert line.startswith(head)


def test_missing_images_are_told(call: Callable[..., Ended], capture: Path, tmp_path: Path) -> None:
    (capture / "images" / "2.jpg").unlink()
    code, out, error = call("import", "nerfstudio", capture, "--out", tmp_path / "scene")
    assert code == 0
    assert "5 images" in out
    assert "no known scale, no map points" in out
    assert error.startswith("relocal: 1 of 6 listed images left out, no file: images/2.jpg.\n")
    assert "no test images" in error


def test_interrupted_training_says_how_to_go_on(
    call: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs, "train", stop)
    code, _, error = call("train", "scenes/heads", "--out", "runs/heads")
    assert (code, error) == (130, "relocal: stopped before the training began; nothing was made.\n")
    monkeypatch.setattr(verbs, "stored_config", lambda run: TrainConfig())
    code, _, error = call("train", "scenes/heads", "--out", "runs/heads")
    assert code == 130
    assert "relocal train scenes/heads --out runs/heads --resume" in error


def test_full_disk_is_told_without_a_traceback(
    call: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device", "run/weights.safetensors")

    monkeypatch.setattr(verbs, "train", full)
    assert call("train", "scene", "--out", "run") == (
        *(2, ""),
        "relocal: run/weights.safetensors: No space left on device.\n",
    )


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_that_works(call: Callable[..., Ended], verb: str) -> None:
    code, out, _ = call(verb, "--help")
    assert code == 0
    found = re.search(rf"Example: (relocal {verb} .*?)\n\n", out, re.DOTALL)
    assert found
    assert isinstance(cli.parse(shlex.split(found[1])[1:]), getattr(cli, verb.capitalize()))


def test_help_lists_the_verbs(call: Callable[..., Ended]) -> None:
    out = call("--help")[1]
    assert all(verb in out for verb in VERBS)
    assert call("--version") == (0, f"relocal {__version__}\n", "")


def train_options(*arguments: str) -> TrainConfig:
    verb = cli.parse(["train", "scene", "--out", "run", *arguments])
    assert isinstance(verb, cli.Train)
    return verb.config


def test_short_names_of_options_are_the_long_ones() -> None:
    short = ("--pretrained", "none", "--loss=position+sightline", "--model", "posenet")
    long = ("--backbone.weights", "none", "--loss.name=position+sightline")
    assert train_options(*short) == train_options(*long)
    assert train_options(*short).backbone.weights == "none"
    assert train_options(*short).loss.name == "position+sightline"
    assert train_options() == TrainConfig()


@pytest.mark.parametrize("how", [("--preset", "posenet2015"), ("--preset=posenet2015",)])
def test_preset_changes_defaults_and_options_override_it(how: tuple[str, ...]) -> None:
    preset = PRESETS["posenet2015"]
    assert preset != TrainConfig()
    assert train_options(*how) == preset
    changed = train_options("--epochs", "7", "--loss", "posenet", *how, "--view.jitter", "0.1")
    assert changed == replace(
        preset,
        epochs=7,
        loss=replace(preset.loss, name="posenet"),
        view=replace(preset.view, jitter=0.1),
    )


# --- what is refused ---------------------------------------------------------------------------


@pytest.fixture
def refused(call: Callable[..., Ended], tmp_path: Path) -> Callable[..., None]:
    """Expects exit code 2, words in the message, and no new file beside what was there."""

    def check(words: list[str], *arguments: Any) -> None:
        before = sorted(tmp_path.rglob("*"))
        code, out, error = call(*arguments)
        assert (code, out) == (2, "")
        assert [word for word in words if word not in error] == []
        assert sorted(tmp_path.rglob("*")) == before

    return check


@pytest.mark.parametrize("reader", ["7scenes", "nerfstudio"])
def test_empty_folder_is_refused(refused: Any, tmp_path: Path, reader: str) -> None:
    (tmp_path / "empty").mkdir()
    refused(["empty"], "import", reader, tmp_path / "empty", "--out", tmp_path / "scene")


def test_cut_transforms_are_refused(refused: Any, capture: Path, tmp_path: Path) -> None:
    file = capture / "transforms.json"
    file.write_text(file.read_text()[:200])
    refused(["transforms.json", "not whole"], *importing(capture, tmp_path))


def importing(capture: Path, tmp_path: Path, *options: Any) -> tuple[Any, ...]:
    return ("import", "nerfstudio", capture, "--out", tmp_path / "scene", *options)


def test_pose_that_is_no_rotation_is_refused(refused: Any, capture: Path, tmp_path: Path) -> None:
    def spoil(content: Any) -> None:
        content["frames"][4]["transform_matrix"][1] = [0, 2.0, 0, 0]

    change_transforms(capture, spoil)
    refused(["images/4.jpg", "no rotation"], *importing(capture, tmp_path))


def test_mostly_lost_frames_are_refused(refused: Any, capture: Path, tmp_path: Path) -> None:
    def spoil(content: Any) -> None:
        for frame in content["frames"][1:5]:
            frame["transform_matrix"][0] = [float("nan"), 0, 0, 0]

    change_transforms(capture, spoil)
    refused(["4 of 6 images", "--allow-missing"], *importing(capture, tmp_path))


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"train": ["images/0.jpg"], "test": ["images/9.jpg"]}, ["images/9.jpg", "test"]),
        (
            {"train": ["images/0.jpg", "images/1.jpg"], "test": ["images/1.jpg"]},
            ["images/1.jpg", "in train and in test"],
        ),
        ({"train": ["images/0.jpg"]}, ["rule.json"]),
    ],
)
def test_contradictory_split_file_is_refused(
    refused: Any, capture: Path, tmp_path: Path, split: Any, words: list[str]
) -> None:
    (tmp_path / "rule.json").write_text(json.dumps(split))
    refused(words, *importing(capture, tmp_path, "--split", tmp_path / "rule.json"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--split", "block:40/5/5"), ["block:40/5/5", "blocks:40/5/5"]),
        (("--split", "last:25%", "--fold", 1), ["--fold 1"]),
        (("--unit", "m", "--labels", "x.txt"), ["--labels", "nerfstudio"]),
    ],
)
def test_option_that_does_not_fit_is_refused(
    refused: Any, capture: Path, tmp_path: Path, options: Any, words: list[str]
) -> None:
    refused(words, *importing(capture, tmp_path, *options))


def test_unknown_names_are_refused_with_the_nearest(refused: Any, tiny_scene: Scene) -> None:
    scene, out = tiny_scene.folder, ("--out", "nowhere")
    refused(["READER", "nerfstudoi", "nerfstudio"], "import", "nerfstudoi", scene, *out)
    refused(["--preset", "posenet2015"], "train", scene, *out, "--preset", "posenet2016")
    refused(["--loss", "Did you mean posenet"], "train", scene, *out, "--loss", "posnet")
    refused(["coupled", "frustum"], "train", scene, *out, "--loss", "default+frustrum")
    refused(["--backbone.name", "googlenet"], "train", scene, *out, "--backbone.name", "googlnet")
    refused(["--epoch", "--epochs"], "train", scene, *out, "--epoch", "3")
    refused(["--view.inputpx", "--view.input-px"], "train", scene, *out, "--view.inputpx", "64")
    refused(["--epochs", "at least 1"], "train", scene, *out, "--epochs", "0")
    assert not Path("nowhere").exists()


def test_existing_out_is_refused_at_once(
    refused: Any,
    capture: Path,
    tiny_run: Path,
    tiny_scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_late(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it was evaluated in vain")

    monkeypatch.setattr(localizing, "evaluate", too_late)
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "letter.txt").write_text("dear")
    refused(["scene", "exists already"], *importing(capture, tmp_path))
    out = ("--out", tmp_path / "scene")
    refused(["scene", "exists already"], "evaluate", tiny_run, tiny_scene.folder, *out)
    refused(["scene", "exists already"], "train", tiny_scene.folder, *out)
    out = ("--out", tmp_path / "scene" / "letter.txt" / "inside")
    refused(["letter.txt", "cannot be made"], "evaluate", tiny_run, tiny_scene.folder, *out)


def test_folder_that_is_no_scene_or_no_run_is_refused(
    refused: Any, tiny_run: Path, tiny_scene: Scene, photos: list[Path], tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    refused(["scene.json"], "train", tmp_path, *out)
    refused(["config.json"], "evaluate", tmp_path, tiny_scene.folder, *out)
    empty = shutil.copytree(tiny_run, tmp_path / "empty-run")
    (empty / "weights.safetensors").unlink()
    words = ["empty-run", "weights.safetensors"]
    refused(words, "localize", empty, photos[0])
    refused(["PHOTO"], "localize", tiny_run)
    refused(words, "evaluate", empty, tiny_scene.folder, *out)


def test_cut_photo_in_a_scene_is_refused_by_name(
    refused: Any, tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    assert tiny_scene.folder is not None
    scene = shutil.copytree(tiny_scene.folder, tmp_path / "scene")
    (scene / "cache").mkdir(exist_ok=True)  # may be there already, and then stays
    photo = scene / "images" / tiny_scene.splits["train"][3]
    photo.write_bytes(photo.read_bytes()[:1000])
    options = ("--backbone.name", "tiny", "--pretrained", "none", "--epochs", 1)
    refused([photo.name, "damaged"], "train", scene, "--out", tmp_path / "run", *options)


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        ("PINHOL,160,120,144,144,80,60", ["PINHOLE"]),
        ("PINHOLE,160,120,wide,144,80,60", ["wide"]),
        ("PINHOLE,160,120", ["fx,fy,cx,cy"]),
        ("PINHOLE,160,120,144,80,60", ["4 parameters"]),
        ("PINHOLE,160.5,120,144,144,80,60", ["MODEL,width,height"]),
        ("PINHOLE,160,120,nan,144,80,60", ["finite"]),
        ("PINHOLE,160,120,-144,144,80,60", ["positive"]),
        ("PINHOLE,0,120,144,144,80,60", ["0 x 120"]),
        ("PINHOLE,inf,120,144,144,80,60", ["--camera"]),
    ],
)
def test_senseless_camera_is_refused(
    refused: Any, tiny_run: Path, photos: list[Path], camera: str, words: list[str]
) -> None:
    refused(["camera", *words], "localize", tiny_run, photos[0], "--camera", camera)
