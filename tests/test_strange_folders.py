"""Strange folders and disks: damaged models and runs, changed images, no room, killed processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_images import noise, stored
from test_strange_input import Call, call

from relocal.camera import Camera
from relocal.datasets.colmap import read_colmap_model
from relocal.errors import InputError
from relocal.evaluation import evaluate
from relocal.images import build_cache, load_view, training_camera
from relocal.localizers import Regressor
from relocal.report import save_report
from relocal.scene import Scene, load_scene, save_scene
from relocal.scene.files import new_folder
from relocal.training import TrainConfig
from relocal.training.run import locked

__all__ = ["call"]  # a fixture

SETTINGS = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
OPTIONS: tuple[Any, ...] = (
    *("--backbone.name", "tiny", "--pretrained", "none", "--view.input-px", 32),
    *("--model.width", 32, "--loss", "posenet", "--accelerator", "cpu"),
    *("--precision", "32-true"),
)


# --- COLMAP models -----------------------------------------------------------------------------


def project(scene: Scene, folder: Path, form: str) -> Path:
    """The scene's model in one form, without its images."""
    import pycolmap

    assert scene.folder is not None
    model = pycolmap.Reconstruction(str(scene.folder / "sparse/0"))
    (folder / "sparse/0").mkdir(parents=True, exist_ok=True)
    (model.write_text if form == "txt" else model.write_binary)(str(folder / "sparse/0"))
    (folder / "images").symlink_to((scene.folder / "images").resolve())
    return folder


@pytest.fixture(scope="module", params=["txt", "bin"])
def model(request: Any, tiny_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, to be left as it was found."""
    return project(tiny_scene, tmp_path_factory.mktemp("projects") / request.param, request.param)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_model_cut_short_is_refused(model: Path, name: str, tiny_scene: Scene) -> None:
    file = next((model / "sparse/0").glob(f"{name}.*"))
    whole = file.read_bytes()
    head = whole.find(b"# Number") + 40 if file.suffix == ".txt" else 0
    cuts = {*range(head, head + 60), *np.linspace(head, len(whole) - 1, 40).astype(int).tolist()}
    try:
        for cut in sorted(c for c in cuts if c < len(whole)):
            file.write_bytes(whole[:cut])
            with pytest.raises(InputError, match=file.name):
                read_colmap_model(model)
    finally:
        file.write_bytes(whole)
    assert len(read_colmap_model(model)) == len(tiny_scene)


@given(data=st.data())
@SETTINGS
def test_flipped_bits_are_refused_or_read_as_a_sound_scene(
    model: Path, data: st.DataObject
) -> None:
    file = data.draw(st.sampled_from(sorted((model / "sparse/0").glob("[cip]*"))))
    whole = file.read_bytes()
    content = bytearray(whole)
    # The beginning has the counts and ids, where a flip reaches farthest.
    places = st.integers(0, min(400, len(whole) - 1)) | st.integers(0, len(whole) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=3)):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    try:
        scene = read_colmap_model(model)
    except InputError:
        return
    finally:
        file.write_bytes(whole)
    assert bool(torch.isfinite(scene.poses.matrix()).all())
    assert all(scene.path(i).is_file() for i in range(len(scene)))
    assert scene.points is None or bool(np.isfinite(scene.points.xyz).all())


def test_text_model_without_the_words_of_colmap_is_read(tiny_scene: Scene, tmp_path: Path) -> None:
    """As scripts write it: no comments, no last line end, names with spaces."""
    assert tiny_scene.folder is not None
    model = tmp_path / "project"
    (model / "images").mkdir(parents=True)
    for name in ("a b.jpg", "c.jpg"):
        shutil.copyfile(tiny_scene.path(0), model / "images" / name)
    (model / "cameras.txt").write_text("7 PINHOLE 160 120 144 144 80 60")
    (model / "images.txt").write_text(
        "2 1 0 0 0 1 2 3 7 a b.jpg\n10 11 5 20 21 -1\n4 1 0 0 0 4 5 6 7 c.jpg"
    )
    (model / "points3D.txt").write_text("5 1 2 3 255 0 7 0.5 2 0")
    scene = read_colmap_model(model)
    assert scene.images == ("a b.jpg", "c.jpg")
    assert scene.poses.position.tolist() == [[-1, -2, -3], [-4, -5, -6]]
    assert scene.points is not None
    assert (scene.points.xyz.tolist(), scene.points.rgb.tolist()) == ([[1, 2, 3]], [[255, 0, 7]])
    assert scene.points.xy.tolist() == [[10, 11]]


# --- runs --------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([-1, 0, 10**9, 10**30, -(10**400), 1e308, float("nan"), float("inf")])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON document; of lists the first."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1])
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


@given(data=st.data())
@SETTINGS
def test_run_of_any_nonsense_is_refused_or_answers(
    tiny_run: Path, tiny_scene: Scene, tmp_path: Path, data: st.DataObject
) -> None:
    content = json.loads((tiny_run / "config.json").read_text())
    *parents, key = data.draw(st.sampled_from(sorted(places(content), key=str)))
    part = content
    for parent in parents:
        part = part[parent]
    if data.draw(st.booleans()) and isinstance(part, dict):
        del part[key]
    else:
        part[key] = data.draw(JSON_VALUES)
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    if not (run / "weights.safetensors").exists():
        os.link(tiny_run / "weights.safetensors", run / "weights.safetensors")
    (run / "config.json").write_text(json.dumps(content))
    with suppress(InputError):
        Regressor(run).localize(tiny_scene.path(0))


@pytest.mark.parametrize("width", [True, 1.5, 10**9, 10**30, "256", None])
def test_network_of_a_nonsense_width_is_not_even_tried(
    tiny_run: Path, tmp_path: Path, width: Any
) -> None:
    content = json.loads((tiny_run / "config.json").read_text())
    content["train"]["model"]["width"] = width
    (tmp_path / "config.json").write_text(json.dumps(content))
    shutil.copyfile(tiny_run / "weights.safetensors", tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"config\.json.*width"):
        Regressor(tmp_path)


def test_second_training_in_a_folder_is_refused(
    call: Call, tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    command = ("train", tiny_scene.folder, "--out", tmp_path / "run", *OPTIONS, "--epochs", 1)
    with locked(tmp_path / "run"):
        (tmp_path / "run/config.json").write_text("{}")  # as one that has begun
        code, said = call(*command)
    assert (code, "run" in said) == (2, True)
    shutil.rmtree(tmp_path / "run")
    assert call(*command)[0] == 0
    code, said = call(*command)
    assert (code, "this run is finished" in said) == (2, True)


@pytest.mark.slow
def test_two_devices_say_once_that_they_are_done(tiny_scene: Scene, tmp_path: Path) -> None:
    options = ["--pretrained", "none", "--view.input-px", "32", "--epochs", "1", "--devices", "2"]
    options += ["--batch-size", "8", "--precision", "32-true", "--accelerator", "cpu"]
    command = [sys.executable, "-m", "relocal", "train", str(tiny_scene.folder), *options]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("Next: relocal evaluate") == 1


# --- images that change ------------------------------------------------------------------------

CAMERA = Camera.pinhole(64, 48, 50.0, 50.0, 32.0, 24.0)
TARGET = training_camera(CAMERA, 24)


def test_changed_image_is_told_of_and_its_cache_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = [stored(tmp_path / f"{i}.png", noise(64, 48, i)) for i in range(3)]
    folder = tmp_path / "cache"

    def read(files: list[Path], target: Camera = TARGET) -> torch.Tensor:
        return build_cache(files, [CAMERA] * len(files), target, folder)

    read(photos)
    read(photos[::-1])  # other images, or others for another network, are no change
    read(photos[:2], training_camera(CAMERA, 20))
    read(photos)
    assert (caplog.messages, len(list(folder.iterdir()))) == ([], 3)
    before = set(folder.iterdir())
    stored(photos[2], noise(64, 48, 9))
    assert torch.equal(read(photos)[2], load_view(photos[2], CAMERA, TARGET))
    assert len(caplog.messages) == 1
    assert f"{folder}: made of other images" in caplog.messages[0]
    after = set(folder.iterdir())
    assert (len(before - after), len(after - before)) == (1, 1)


def test_training_tells_of_a_changed_image(
    call: Call, tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    assert tiny_scene.folder is not None
    scene = tmp_path / "scene"
    shutil.copytree(tiny_scene.folder, scene, ignore=shutil.ignore_patterns("cache"))
    training = ("train", scene, *OPTIONS, "--epochs", 1, "--out")
    assert "other images" not in call(*training, tmp_path / "first")[1]
    photo = scene / "images" / tiny_scene.splits["train"][0]
    pixels = np.asarray(Image.open(photo)).copy()
    Image.fromarray(255 - pixels).save(photo)
    code, said = call(*training, tmp_path / "second")
    assert (code, said.count("relocal: ")) == (0, 2)  # and that one epoch is few steps
    assert f"relocal: {scene / 'cache'}: made of other images" in said
    assert len(list((scene / "cache").iterdir())) == 1


# --- no room -----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a disk of a megabyte, with so many bytes left."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small disk can be mounted here")

    def fill(left: int) -> Path:
        (folder / "ballast").unlink(missing_ok=True)
        (folder / "ballast").write_bytes(b"\0" * max(0, shutil.disk_usage(folder).free - left))
        return folder

    try:
        yield fill
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name != "ballast")


@pytest.mark.parametrize("left", [4096, 65536, 120_000])
def test_import_on_a_full_disk_leaves_nothing(
    call: Call, tiny_room: Path, small_disk: Callable[[int], Path], left: int
) -> None:
    disk = small_disk(left)
    command = ("import", "synthetic", tiny_room, "--out", disk / "scene")
    code, said = call(*command)
    assert code == 2
    assert str(disk / "scene") in said
    assert "No space left" in said
    assert kept(disk) == []
    (disk / "ballast").unlink()
    assert call(*command)[0] == 0
    assert len(load_scene(disk / "scene")) == 32


def test_model_that_the_disk_has_no_room_for_is_refused(
    tiny_scene: Scene, small_disk: Callable[[int], Path]
) -> None:
    from relocal.scene.colmap import write_colmap

    disk = small_disk(16384)  # pycolmap writes what fits, and says nothing
    (disk / "model").mkdir()
    with pytest.raises(OSError, match="No space left"):
        write_colmap(tiny_scene, disk / "model")


def test_training_goes_on_when_there_is_room_again(
    call: Call,
    tiny_scene: Scene,
    tiny_config: TrainConfig,
    small_disk: Callable[[int], Path],
) -> None:
    for left in (0, 4096, 8192, 24576):
        disk = small_disk(left)
        command = ("train", tiny_scene.folder, "--out", disk / "run", *OPTIONS, "--epochs", 2)
        code, said = call(*command)
        assert code == 2
        assert str(disk / "run") in said
        assert "No space left" in said
        assert [name for name in kept(disk) if "partial" in name] == []
        begun = (disk / "run/config.json").exists()
        assert begun or kept(disk) == []
        (disk / "ballast").unlink()
        assert call(*command, *(("--resume",) if begun else ()))[0] == 0
        shutil.rmtree(disk / "run")


def test_cache_on_a_full_disk_names_it(
    call: Call, tiny_config: TrainConfig, tiny_scene: Scene, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(10**6)
    (disk / "ballast").unlink()
    assert tiny_scene.folder is not None
    scene = disk / "scene"
    shutil.copytree(tiny_scene.folder, scene, ignore=shutil.ignore_patterns("cache"))
    small_disk(16384)
    command = ("train", scene, "--out", disk.parent / "run", *OPTIONS, "--epochs", 1)
    code, said = call(*command)
    assert (code, f"{scene / 'cache'}: the cache needs" in said) == (2, True)
    assert list((scene / "cache").iterdir()) == []
    assert not (disk.parent / "run").exists()
    (disk / "ballast").unlink()
    assert call(*command)[0] == 0


def test_report_on_a_full_disk_leaves_nothing(
    tiny_scene: Scene, tiny_run: Path, small_disk: Callable[[int], Path]
) -> None:
    report = evaluate(tiny_run, tiny_scene)
    for left in (0, 4096, 40_000):
        disk = small_disk(left)
        with pytest.raises((InputError, OSError), match="No space left") as refused:
            save_report(report, disk / "report")
        assert "report" in str(refused.value)
        assert kept(disk) == []
    (disk / "ballast").unlink()
    assert save_report(report, disk / "report").is_file()


# --- killed processes --------------------------------------------------------------------------


def test_what_a_killed_import_left_is_swept_away(tiny_scene: Scene, tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom relocal.scene.files import new_folder\n"
        "with new_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').touch()\n    print('there', flush=True)\n    time.sleep(600)\n"
    )
    out = tmp_path / "a [1] scene"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "there\n"
        (left,) = tmp_path.iterdir()
        # What is still being made stays, and so does what only looks alike.
        (tmp_path / f".{out.name}-mine.partial").mkdir()
        with new_folder(out):
            assert left.is_dir()
        shutil.rmtree(out)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (left / "half").is_file()
    save_scene(replace(tiny_scene, folder=None), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f".{out.name}-mine.partial",
        out.name,
    ]
    assert not (out / ".lock").exists()
