"""Photos that are added to a scene: placed among its poses, which stay as they are."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
import torch
from labelled_room import QUICK, ROOM, errors
from PIL import ExifTags, Image, ImageOps

from relocal.cli import parse
from relocal.datasets import import_scene
from relocal.datasets.published import sha256
from relocal.datasets.synthetic import render_room
from relocal.errors import InputError
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.report import save_labels
from relocal.scene import load_scene, save_scene
from relocal.sfm import add_photos, label


@pytest.fixture(scope="module")
def walk(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first recording, labelled."""
    out = tmp_path_factory.mktemp("walk") / "place"
    label([room / "seq-01"], out, QUICK, split="blocks:5/2/0")
    return out


@pytest.fixture
def copy(walk: Path, tmp_path: Path) -> Path:
    """The labelled recording, and what was made on the way to it."""
    for folder in (walk, walk.with_name("place.label")):
        shutil.copytree(folder, tmp_path / folder.name, symlinks=True, copy_function=shutil.copy2)
    return tmp_path / "place"


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in found}


def test_added_photos_are_placed_and_the_others_stay(
    room: Path, copy: Path, truth: dict[str, Pose]
) -> None:
    before = load_scene(copy)
    steps: list[tuple[int, str]] = []
    made = add_photos(
        [room / "seq-02"],
        copy,
        QUICK,
        progress=lambda done, total, text: steps.append((done, text)),
    )
    scene = load_scene(copy)
    assert scene.images[: len(before)] == before.images
    assert len(scene) == len(before) + ROOM.test_frames
    assert torch.equal(scene.poses.position[: len(before)], before.poses.position)
    assert torch.equal(scene.poses.quaternion[: len(before)], before.poses.quaternion)
    assert torch.equal(scene.cameras[0].params, before.cameras[0].params)
    moved, turned = errors(scene, truth)
    assert moved < 0.005
    assert turned < 0.3
    new = scene.images[len(before) :]
    assert set(scene.splits["train"]) == {*before.splits["train"], *new}
    assert scene.splits["test"] == before.splits["test"]
    assert scene.provenance["split"].endswith("and 12 more in train")
    # Features and matches of the photos that were labelled are not made again.
    assert min(done for done, text in steps if text == "finding features") == len(before)
    assert min(done for done, text in steps if text == "matching") >= 22 * 21 // 2
    assert len(list(copy.with_name("place.label").glob("*.db"))) == 1
    model = pycolmap.Reconstruction(copy / "sparse/0")
    assert model.num_reg_images() == len(scene)
    assert made.about["placed"] == len(scene) == scene.provenance["label"]["placed"]
    assert scene.points is not None
    for i in (0, len(scene) - 1):
        mine = scene.points.image_index == i
        assert mine.sum() > 50
        world = torch.from_numpy(scene.points.xyz[scene.points.point_index[mine]])
        pixels, _ = scene.camera(i).project(scene.poses[i].inverse().apply(world))
        off = (pixels - torch.from_numpy(scene.points.xy[mine])).abs().median()
        assert float(off) < 1
    with pytest.raises(InputError, match="has all of them"):
        add_photos([room / "seq-02"], copy, QUICK)


def test_photos_are_added_to_an_imported_scene_in_its_metres_far_from_its_origin(
    room: Path, tmp_path: Path, truth: dict[str, Pose]
) -> None:
    far = torch.tensor([389212.4, 5819731.8, 54.1], dtype=torch.float64)
    import_scene("synthetic", room, tmp_path / "whole", split="sequence")
    whole = load_scene(tmp_path / "whole")
    train = [name for name in whole.images if name in whole.splits["train"]]
    rows = torch.tensor([whole.images.index(name) for name in train])
    known = replace(
        whole,
        images=tuple(train),
        camera_index=whole.camera_index[rows],
        poses=Pose(whole.poses[rows].position + far, whole.poses[rows].quaternion),
        points=None,
        splits={"train": tuple(train)},
    )
    save_scene(known, tmp_path / "known")
    made = add_photos([room / "seq-02"], tmp_path / "known", QUICK, split="sequence").scene
    assert made.unit == "m"
    assert made.provenance["labels"].endswith("; 12 added by SfM")
    assert "photos" not in made.provenance  # the old ones may be shared
    assert len(made.splits["test"]) == ROOM.test_frames
    index = made.indices("test")
    wanted = Pose.stack([truth[made.images[i]] for i in index.tolist()])
    placed = Pose(made.poses[index].position - far, made.poses[index].quaternion)
    assert float(position_error(placed, wanted).max()) < 0.05
    assert float(rotation_error_deg(placed, wanted).max()) < 1
    assert made.camera(int(index[0])) is not made.camera(0)
    assert made.points is not None
    assert np.abs(np.median(made.points.xyz, axis=0) - far.numpy()).max() < 10


def test_a_split_that_cannot_be_is_refused_before_photos_are_added(room: Path, copy: Path) -> None:
    seen: set[str] = set()
    with pytest.raises(InputError, match="leaves no images for test"):
        add_photos(
            [room / "seq-02"],
            copy,
            QUICK,
            split="blocks:40/5/5",
            progress=lambda done, total, text: seen.add(text),
        )
    assert seen == {"reading seq-02"}


def test_photos_of_another_place_change_nothing(room: Path, copy: Path, tmp_path: Path) -> None:
    render_room(tmp_path / "other", replace(ROOM, seed=3))
    (tmp_path / "elsewhere").mkdir()
    for file in sorted((tmp_path / "other" / "seq-01").glob("*.jpg"))[:5]:
        with Image.open(file) as image:
            ImageOps.mirror(image).save(tmp_path / "elsewhere" / file.name, quality=95)
    before = files(copy)
    with pytest.raises(InputError, match="none of 5 new photos could be placed: elsewhere/"):
        add_photos([tmp_path / "elsewhere"], copy, QUICK)
    assert files(copy) == before


def test_another_photo_under_a_name_of_the_scene_is_refused(
    room: Path, copy: Path, tmp_path: Path
) -> None:
    (tmp_path / "seq-01").mkdir()
    shutil.copy(room / "seq-02" / "frame-000003.jpg", tmp_path / "seq-01" / "frame-000003.jpg")
    with pytest.raises(InputError, match=r"1 are other photos than .* seq-01/frame-000003\.jpg"):
        add_photos([tmp_path / "seq-01"], copy, QUICK)


@pytest.mark.parametrize("steps", range(8))
def test_a_kill_while_photos_are_added_leaves_a_scene_that_opens(
    room: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    before, real, done = load_scene(copy), Path.replace, 0

    def killed(self: Path, target: Any) -> Path:
        nonlocal done
        if Path(target).is_relative_to(copy):
            if done == steps:
                raise KeyboardInterrupt
            done += 1
        return real(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    few = copy.parent / "seq-02"
    few.mkdir()
    for i in range(3):
        shutil.copy(room / "seq-02" / f"frame-{i:06d}.jpg", few)
    with pytest.raises(KeyboardInterrupt):
        add_photos([few], copy, QUICK)
    monkeypatch.undo()
    left = load_scene(copy)
    assert left.images[: len(before)] == before.images
    assert torch.equal(left.poses.position[: len(before)], before.poses.position)
    (copy / "tmpxyz.partial").mkdir()  # as a killed process leaves one
    scene = add_photos([few], copy, QUICK).scene
    assert len(scene) == len(before) + 3
    assert {f"seq-02/frame-{i:06d}.jpg" for i in range(3)} <= set(scene.splits["train"])
    assert torch.equal(scene.poses.position[: len(before)], before.poses.position)
    assert not list(copy.glob("*.partial"))
    assert not list((copy.parent / "place.label").glob("*.partial"))
    assert not (copy / "adding.json").exists()


def test_another_lens_in_the_same_folder_is_another_camera(
    room: Path, copy: Path, tmp_path: Path
) -> None:
    """Photos of the recording's folder and size, but with a focal length that it did not have."""
    (tmp_path / "seq-01").mkdir()
    for i in range(6):
        with Image.open(room / "seq-02" / f"frame-{i:06d}.jpg") as image:
            width, height = image.size
            inner = image.crop((30, 22, width - 30, height - 23)).resize((width, height))
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 43
        inner.save(tmp_path / "seq-01" / f"tele-{i}.jpg", quality=95, exif=exif)
    before = load_scene(copy)
    scene = add_photos([tmp_path / "seq-01"], copy, QUICK).scene
    assert len(scene) == len(before) + 6
    wide, tele = (float(scene.camera(i).focal[0]) for i in (0, len(scene) - 1))
    assert tele / wide == pytest.approx(240 / 180, rel=0.03)
    apart = (scene.poses.position[-6:] - before.poses.position.mean(0)).norm(dim=1)
    assert float(apart.max()) < before.extent()


def test_a_photo_that_was_written_over_is_refused(room: Path, tmp_path: Path) -> None:
    walk = Path(shutil.copytree(room / "seq-01", tmp_path / "seq-01"))
    label([walk], tmp_path / "place", QUICK)
    content = (room / "seq-02" / "frame-000003.jpg").read_bytes()
    (walk / "frame-000003.jpg").write_bytes(content)  # into the same file, not in its place
    with pytest.raises(InputError, match=r"1 are other photos than .* seq-01/frame-000003\.jpg"):
        add_photos([walk], tmp_path / "place", QUICK)


def test_scenes_among_the_photos_are_not_taken(room: Path, tmp_path: Path) -> None:
    shutil.copytree(room / "seq-01", tmp_path / "home")
    # Another scene of the photos, and what was made on the way to it.
    others = [tmp_path / "home/old/images/seq-01", tmp_path / "home/old.label/upright/seq-01"]
    for other in others:
        shutil.copytree(room / "seq-01", other)
    (tmp_path / "home/old/scene.json").write_text("{}")
    (tmp_path / "home/old.label/.lock").touch()
    made = label([tmp_path / "home"], tmp_path / "home" / "scene", QUICK)
    save_labels(made)
    assert len(made.scene) == ROOM.train_frames
    with pytest.raises(InputError, match=f"{ROOM.train_frames} photos .* has all of them"):
        add_photos([tmp_path / "home"], tmp_path / "home" / "scene", QUICK)
    with pytest.raises(InputError, match="scene: is a scene already; its photos are in"):
        label([tmp_path / "home/scene"], tmp_path / "again", QUICK)
    with pytest.raises(InputError, match=r"lies in the scene .*; give a folder outside it"):
        label([tmp_path / "home"], tmp_path / "home/scene/again", QUICK)


def test_an_account_that_is_none_is_refused_before_the_work(room: Path, copy: Path) -> None:
    (copy / "label.json").write_text("[]")
    with pytest.raises(InputError, match=r"label\.json: is not what label writes"):
        add_photos([room / "seq-02"], copy, QUICK)


def test_the_verb_adds_photos(room: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["label", str(room / "seq-02"), "--out", str(copy), "--add", "--features", "1500"]
    with pytest.raises(InputError, match="keeps its own"):
        parse([*words, "--scale", "gps"]).run()
    assert parse(words).run() == 0
    said = capsys.readouterr().out
    assert "34 of 34 photos placed" in said
    assert "| photos placed | 34 of 34 |" in (copy / "label.md").read_text()
