"""Labelling a rendered room from its photos alone, against where they were rendered from."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
import torch
from filelock import FileLock
from labelled_room import QUICK, ROOM, errors
from PIL import Image, ImageOps

from relocal.cli import parse
from relocal.datasets.synthetic import render_room
from relocal.errors import InputError
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.report import save_labels
from relocal.scene import load_scene
from relocal.sfm import LabelConfig, Labelling, label
from relocal.sfm.alignment import fitted
from relocal.sfm.mapping import choose_pairs
from relocal.sfm.sources import Photo


@pytest.fixture(scope="module")
def made(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Labelling:
    out = tmp_path_factory.mktemp("scenes") / "place"
    return label([room / "seq-01", room / "seq-02"], out, QUICK, split="sequence")


@pytest.fixture
def photos(room: Path, tmp_path: Path) -> Callable[[int], Path]:
    """A folder of the first photos of the room."""

    def folder(count: int, name: str = "walk") -> Path:
        out = tmp_path / name
        out.mkdir()
        for file in sorted((room / "seq-01").glob("*.jpg"))[:count]:
            shutil.copy(file, out)
        return out

    return folder


def test_photos_are_placed_where_they_were_taken(made: Labelling, truth: dict[str, Pose]) -> None:
    scene = made.scene
    assert len(scene) == 34
    assert {part: len(names) for part, names in scene.splits.items()} == {"train": 22, "test": 12}
    moved, turned = errors(scene, truth)
    assert moved < 0.005
    assert turned < 0.3
    assert not made.about["left_out"]
    assert made.scene.provenance["label"]["left_out"] == 0
    assert not made.warnings
    assert scene.unit == "unit"
    again = load_scene(made.scene.folder or "")
    assert again.provenance["label"]["placed"] == 34
    assert again.points is not None
    for i in (0, 20):
        mine = again.points.image_index == i
        world = torch.from_numpy(again.points.xyz[again.points.point_index[mine]])
        pixels, _ = again.camera(i).project(again.poses[i].inverse().apply(world))
        assert np.median(np.abs(pixels.numpy() - again.points.xy[mine])) < 1


def test_photos_that_follow_or_look_alike_are_matched_and_loops_closed() -> None:
    def photo(name: str) -> Photo:
        return Photo(name, Path(name), (64, 48), None, True, Path(name), (0, 0))

    # Two laps of a hundred frames: what is seen comes again a lap later.
    photos = [photo(f"walk/{i:03d}") for i in range(200)] + [photo("other/000")]
    angle = torch.arange(201) * (2 * torch.pi / 100)
    angle[200] = torch.pi  # a photo of another recording, which looks like the 50th frame
    descriptors = torch.stack([angle.cos(), angle.sin()], dim=1)
    pairs = choose_pairs(photos, descriptors)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    found = set(map(tuple, pairs.tolist()))
    assert {(50, 51), (50, 56), (50, 82), (50, 150), (0, 100), (50, 200)} <= found
    assert not {(50, 75), (199, 200)} & found
    assert len(pairs) < 201 * (11 + 20)
    assert len(choose_pairs(photos[:9], None)) == 36


@pytest.mark.parametrize("options", [{"pairing": "neighbours"}, {"mapper": "global"}])
def test_other_pairs_and_the_other_mapper_place_photos_too(
    room: Path, tmp_path: Path, truth: dict[str, Pose], options: dict[str, Any]
) -> None:
    made = label([room / "seq-01"], tmp_path / "out", replace(QUICK, **options))
    assert len(made.scene) == 22
    assert errors(made.scene, truth)[0] < 0.005


def test_the_world_stands_upright_around_its_origin(
    made: Labelling, truth: dict[str, Pose]
) -> None:
    scene = made.scene
    # Up of the rendered room, seen by the same cameras in both worlds.
    one = Pose.stack([truth[name] for name in scene.images])
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    seen = (one.rotation.transpose(-1, -2) @ up).unsqueeze(-1)
    here = (scene.poses.rotation @ seen).squeeze(-1).mean(0)
    assert float(here @ up) > 0.995
    assert scene.points is not None
    assert np.abs(np.median(scene.points.xyz, axis=0)).max() < 1e-9


def test_the_page_and_the_picture_say_how_good_labels_are(made: Labelling) -> None:
    page = save_labels(made).read_text()
    assert "| photos placed | 34 of 34 |" in page
    assert "| scale | not known; " in page
    assert "| split | sequence fold 1 (22 train, 12 test) |" in page
    assert "SIMPLE_RADIAL" in page
    folder = made.scene.folder
    assert folder is not None
    with Image.open(folder / "label.png") as picture:
        assert picture.width > 1000
    assert json.loads((folder / "label.json").read_text())["points"] > 500


def test_a_distance_gives_metres(room: Path, made: Labelling, truth: dict[str, Pose]) -> None:
    folder = made.scene.folder
    assert folder is not None
    a, b = "seq-01/frame-000000.jpg", "seq-01/frame-000011.jpg"
    metres = float((truth[a].position - truth[b].position).norm())
    sources, out = [room / "seq-01", room / "seq-02"], folder.with_name("metric")
    shutil.copytree(
        folder.with_name("place.label"), folder.with_name("metric.label"), symlinks=True
    )
    scene = label(sources, out, QUICK, scale=f"{a},{b}={metres}").scene
    assert scene.unit == "m"
    wanted = Pose.stack([truth[name] for name in scene.images])
    similarity = fitted(scene.poses.position, wanted.position, "test")
    assert similarity.scale == pytest.approx(1, abs=0.02)


def test_known_poses_give_the_frame(
    room: Path, made: Labelling, truth: dict[str, Pose], tmp_path: Path
) -> None:
    folder = made.scene.folder
    assert folder is not None
    known = tmp_path / "known.txt"
    rows: list[str] = []
    for name in list(truth)[::4]:
        inverse = truth[name].inverse()
        values = [*inverse.quaternion.tolist(), *inverse.position.tolist(), 216.0]
        rows.append(f"{name} {' '.join(map(str, values))}\n")
    known.write_text("".join(rows))
    shutil.copytree(folder.with_name("place.label"), tmp_path / "out.label", symlinks=True)
    sources = [room / "seq-01", room / "seq-02"]
    result = label(sources, tmp_path / "out", QUICK, scale=str(known))
    wanted = Pose.stack([truth[name] for name in result.scene.images])
    assert float(position_error(result.scene.poses, wanted).median()) < 0.03
    assert float(rotation_error_deg(result.scene.poses, wanted).median()) < 0.5
    assert result.about["scale"]["images"] == 9
    assert result.about["scale"]["median_residual_m"] < 0.03


@pytest.mark.parametrize("stage", ["finding features", "matching", "placing photos"])
def test_a_stopped_labelling_goes_on(
    photos: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    source, out = photos(8), tmp_path / "out"

    def stop(done: int, total: int, text: str) -> None:
        if text == stage and done >= (1 if stage == "placing photos" else 0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label([source], out, QUICK, progress=stop)
    assert not out.exists()
    if stage == "placing photos":  # features and matches are there, and are not made again
        monkeypatch.setattr(pycolmap, "extract_features", None)
        monkeypatch.setattr(pycolmap, "match_image_pairs", None)
    assert len(label([source], out, QUICK).scene) == 8


def test_a_stopped_mapping_goes_on_from_what_is_placed(
    room: Path, tmp_path: Path, truth: dict[str, Pose], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    mapping: Any = pycolmap.incremental_mapping

    def spied(*args: Any, **kwargs: Any) -> Any:
        begun.append(str(kwargs["input_path"]))
        return mapping(*args, **kwargs)

    def stop(done: int, total: int, text: str) -> None:
        if text == "placing photos" and done > 15:
            raise KeyboardInterrupt

    monkeypatch.setattr(pycolmap, "incremental_mapping", spied)
    with pytest.raises(KeyboardInterrupt):
        label([room / "seq-01"], tmp_path / "out", QUICK, progress=stop)
    (snapshots,) = (tmp_path / "out.label").glob("snapshots-*")
    (snapshots / "half").mkdir()  # as a killed process leaves one
    (tmp_path / "out.label" / "left.partial").mkdir()
    made = label([room / "seq-01"], tmp_path / "out", QUICK)
    assert begun[0] == ""
    assert Path(begun[1]).parent == snapshots
    assert len(made.scene) == 22
    assert errors(made.scene, truth)[0] < 0.005
    assert not snapshots.exists()
    assert not list((tmp_path / "out.label").glob("*.partial"))


def test_another_place_is_another_part(photos: Callable[..., Path], tmp_path: Path) -> None:
    source = photos(12)
    # Another paint, and mirrored: the furniture of all rooms is the same.
    render_room(tmp_path / "other", replace(ROOM, seed=3))
    for file in sorted((tmp_path / "other" / "seq-01").glob("*.jpg"))[:9]:
        with Image.open(file) as image:
            ImageOps.mirror(image).save(source / f"other-{file.name}", quality=95)
    made = label([source], tmp_path / "out", QUICK)
    assert {name.split("/")[1][:5] for name in made.scene.images} == {"frame"}
    others = {name: why for name, why in made.about["left_out"].items() if "other" in name}
    assert len(others) == 9
    assert "parts-apart" in [doubt.code for doubt in made.warnings]
    assert made.about["other_parts"]
    assert "belongs to another part" in "".join(others.values())


def textures(folder: Path, count: int, noise: float) -> Path:
    """Photos of nothing that two of them share."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        coarse = draw.normal(128, noise, (24, 32, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(coarse).resize((320, 240)).save(folder / f"{i}.jpg", quality=95)
    return folder


def test_poses_are_never_made_up(photos: Callable[..., Path], tmp_path: Path) -> None:
    def refused(source: Path, reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            label([source], tmp_path / "out", QUICK)
        assert not (tmp_path / "out").exists()
        shutil.rmtree(tmp_path / "out.label", ignore_errors=True)

    refused(textures(tmp_path / "apart", 4, 60), "they do not overlap")
    refused(textures(tmp_path / "blank", 4, 0), "blurred, or show too little texture")
    copies = photos(1, "copies")
    (file,) = copies.iterdir()
    for i in range(9):
        shutil.copy(file, copies / f"copy-{i}.jpg")
    refused(copies, "without a step aside")
    refused(photos(2, "two"), "2 photos that can be read; 3 are needed")


def test_what_cannot_be_read_is_left_out_with_its_reason(
    photos: Callable[..., Path], tmp_path: Path
) -> None:
    source = photos(8)
    (source / "scan.jpg").write_bytes(b"%PDF-1.4 no photo")
    first = sorted(source.glob("frame*.jpg"))[0]
    (source / "cut.jpg").write_bytes(first.read_bytes()[:2000])
    (source / "phone.HEIC").touch()
    (source / "film.mp4").touch()
    (source / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    made = label([source], tmp_path / "out", QUICK)
    assert len(made.scene) == 8
    assert made.about["photos"] == 13
    more = {"walk/phone.HEIC", "walk/film.mp4", "walk/gone.jpg"}
    assert made.about["left_out"].keys() == {"walk/scan.jpg", "walk/cut.jpg", *more}
    words = ["label", str(source), "--out", str(tmp_path / "again"), "--features", "1500"]
    assert parse(words).run() == 3


def test_photos_of_other_sizes_and_turned_ones_have_cameras_of_their_own(
    photos: Callable[..., Path], tmp_path: Path, truth: dict[str, Pose]
) -> None:
    source = photos(14)
    files = sorted(source.glob("*.jpg"))
    with Image.open(files[3]) as image:
        image.resize((200, 150)).save(files[3], quality=95)
    with Image.open(files[6]) as image:
        exif = Image.Exif()
        exif[0x0112] = 6  # the stored pixels lie on their side
        image.transpose(Image.Transpose.ROTATE_90).save(files[6], quality=95, exif=exif)
    made = label([source], tmp_path / "out", replace(QUICK, camera_model="SIMPLE_PINHOLE"))
    assert len(made.scene) == 14
    sizes = {(c.width, c.height) for c in made.scene.cameras}
    assert sizes == {(240, 180), (200, 150)}
    moved, turned = errors(
        made.scene, {name.replace("seq-01", "walk"): pose for name, pose in truth.items()}
    )
    assert moved < 0.01
    assert turned < 1


def test_a_photo_that_changes_meanwhile_is_noticed(
    photos: Callable[..., Path], tmp_path: Path
) -> None:
    source = photos(6)
    file = sorted(source.iterdir())[0]

    def rewrite(done: int, total: int, text: str) -> None:
        if text == "placing photos":
            file.write_bytes(file.read_bytes() + b" ")

    with pytest.raises(InputError, match="1 files changed while they were labelled: walk/frame"):
        label([source], tmp_path / "out", QUICK, progress=rewrite)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nowhere", "nowhere: there is no such folder or video"),
        ("walk/frame-000000.jpg", "is one photo; give the folder"),
        ("notes.txt", "is neither a folder of photos nor a video"),
        ("empty", "empty: holds no photo"),
    ],
)
def test_sources_that_are_none_are_refused(
    photos: Callable[..., Path], tmp_path: Path, source: str, reason: str
) -> None:
    photos(3)
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=reason):
        label([tmp_path / source], tmp_path / "out", QUICK)
    assert not (tmp_path / "out.label").exists()


def test_two_sources_of_one_name_and_two_at_work_are_refused(
    photos: Callable[..., Path], tmp_path: Path
) -> None:
    source = photos(3)
    with pytest.raises(InputError, match="walk stands there twice"):
        label([source, source], tmp_path / "out", QUICK)
    with pytest.raises(InputError, match="--fold: needs a --split"):
        label([source], tmp_path / "out", QUICK, fold=1)
    (tmp_path / "none.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match=r"none.txt: holds no pose"):
        label([source], tmp_path / "out", QUICK, scale=str(tmp_path / "none.txt"))
    (tmp_path / "out.label").mkdir(exist_ok=True)
    lock: Any = FileLock(tmp_path / "out.label" / ".lock")
    with lock, pytest.raises(InputError, match="another relocal label is at work"):
        label([source], tmp_path / "out", QUICK)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"step": 0.0}, "--step: must be in"),
        ({"frames": 2}, "--frames: must be at least 3"),
        ({"features": 9}, "--features: must be at least 100"),
        ({"camera_model": "EUCM"}, "--camera-model: there is no 'EUCM'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        LabelConfig(**options)
