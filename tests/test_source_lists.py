"""Lists as people have them: headers, splits, paths of other computers, several models."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listing import (
    LOST,
    OTHER_MODEL,
    READ,
    blender,
    cam_from_world,
    cambridge,
    colmap,
    frame,
    nerfstudio,
    photo,
    pose,
    seven_scenes,
    tum,
    words,
)
from PIL import Image

from relocal.datasets import DATASETS, import_scene
from relocal.datasets.cambridge import read_cambridge
from relocal.datasets.colmap import read_colmap_model
from relocal.datasets.nerfstudio import read_nerfstudio
from relocal.errors import InputError
from relocal.scene import Scene
from relocal.sfm import LabelConfig
from relocal.sfm.sources import gather


def codes(scene: Scene) -> list[str]:
    assert scene.account is not None
    return [notice.code for notice in scene.account.notices]


# --- header lines of Cambridge's lists ----------------------------------------------------------

OFFICIAL = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"
HEADERS = (
    *("", OFFICIAL, "ImageFile, Camera Position [X Y Z W P Q R]\n", "\n\n", "my place 2019\n"),
    *("# by hand\n# X Y Z W P Q R\n# in metres\n# of 2019\n\n", "\ufeff", "a\nb\nc\n\n"),
)


@pytest.mark.parametrize("header", HEADERS)
def test_rows_are_read_under_any_header(header: str, tmp_path: Path) -> None:
    cambridge(tmp_path, [READ] * 9)
    whole = read_cambridge(tmp_path)
    for part, head in (("train", header), ("test", OFFICIAL)):
        file = tmp_path / f"dataset_{part}.txt"
        file.write_text(head + file.read_text().split("\n\n", 1)[1])
    scene = read_cambridge(tmp_path)
    assert (scene.images, scene.splits) == (whole.images, whole.splits)
    assert len(scene) == 9


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seq1/1.png 1 0 x 1 0 0 0\n", 1),
        ("seq1/1.png 1 0 0 1 0 0\n", 1),
        ("seq1/1.png\n", 1),
        ("0001 1 0 0 1 0 0 oh\n", 1),
        ("title\n\nseq1/1.png 1 0 0 1 0 0 0\nseq1/2.png 1 0 0 1 0 zero 0\n", 4),
        ("one\ntwo\nthree\nfour\nseq1/1.png 1 0 0 1 0 0 0\n", 4),
    ],
)
def test_damaged_row_is_no_header(text: str, line: int, tmp_path: Path) -> None:
    cambridge(tmp_path, [READ] * 6)
    (tmp_path / "dataset_train.txt").write_text(text)
    with pytest.raises(InputError, match=rf"dataset_train\.txt, line {line}: "):
        read_cambridge(tmp_path)


def test_nvm_of_another_computer_gives_its_focal_lengths(tmp_path: Path) -> None:
    cambridge(tmp_path, [READ] * 3)
    names = [r"C:\data\place\seq1\0.jpg", "/home/me/place/seq1/1.jpg", "seq1/2.jpg"]
    rows = [f"{name}\t{30 + k} 1 0 0 0 0 0 0 0 0" for k, name in enumerate(names)]
    (tmp_path / "reconstruction.nvm").write_text("\n".join(["NVM_V3", "3", "", *rows]))
    scene = read_cambridge(tmp_path)
    assert [float(scene.camera(i).focal[0]) for i in range(3)] == [30, 31, 32]
    assert codes(scene) == []


# --- lists of nerfstudio's files ----------------------------------------------------------------

FRAMES = [f"images/{k}.png" for k in range(6)]


def with_lists(root: Path, **lists: Sequence[int | str]) -> Path:
    nerfstudio(root, [READ] * 6)
    file = root / "transforms.json"
    content = json.loads(file.read_text())
    for part, members in lists.items():
        content[f"{part}_filenames"] = [
            FRAMES[name] if isinstance(name, int) else name for name in members
        ]
    file.write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("lists", "train", "test", "told"),
    [
        ({}, range(6), (), []),
        ({"train": (), "test": ()}, range(6), (), []),
        ({"train": (0, 1, 2, 3), "test": (4, 5)}, range(4), (4, 5), []),
        ({"train": (0, 1, 2, 3), "val": (4, 5)}, range(4), (4, 5), ["validation-is-test"]),
        ({"train": (0, 1), "val": (2, 3), "test": (4, 5)}, (0, 1), (4, 5), ["lists-leave-out"]),
        ({"train": (0, 1, 2)}, range(3), (), ["lists-leave-out"]),
        ({"train": (0, 1, 2), "test": ()}, range(3), (), ["lists-leave-out"]),
        ({"test": (5,)}, range(5), (5,), ["lists-leave-out"]),
        ({"val": (5,)}, range(5), (5,), ["validation-is-test", "lists-leave-out"]),
        ({"val": (4,), "test": (5,)}, range(4), (5,), ["lists-leave-out"] * 2),
        ({"train": ("./images/0.png", r"images\1.png"), "val": (5,)}, (0, 1), (5,), 2 * [""]),
    ],
)
def test_lists_in_any_combination_are_the_split(
    lists: dict[str, Any],
    train: Sequence[int],
    test: Sequence[int],
    told: list[str],
    tmp_path: Path,
) -> None:
    scene = import_scene("nerfstudio", with_lists(tmp_path / "in", **lists), tmp_path / "out")
    assert len(scene) == 6  # those in neither part stay in the scene
    assert scene.splits["train"] == tuple(FRAMES[k] for k in train)
    assert scene.splits["test"] == tuple(FRAMES[k] for k in test)
    assert codes(scene) == told or len(codes(scene)) == len(told) == told.count("")


@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        ({"train": (0,), "test": (0, 1)}, r"images/0\.png stands in train_filenames and again in"),
        ({"train": (0, 1), "val": (1,)}, r"images/1\.png stands in .*val_filenames"),
        ({"train": (0, 0)}, r"images/0\.png stands in"),
        ({"val": ("images/9.png",)}, r"val_filenames has 1 images that are no frames: images/9"),
    ],
)
def test_lists_that_contradict_are_refused(
    lists: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        read_nerfstudio(with_lists(tmp_path, **lists))


@pytest.mark.parametrize("gone", [[], ["val"], ["test"], ["val", "test"]])
def test_blenders_files_are_one_scene(gone: list[str], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    blender(tmp_path / "in", [READ] * 8)
    for file in (tmp_path / "in").rglob("*.png"):  # with transparency, as Blender writes them
        Image.open(file).convert("RGBA").save(file)
    for part in gone:
        (tmp_path / f"in/transforms_{part}.json").unlink()
    scene = import_scene("nerfstudio", tmp_path / "in", tmp_path / "out")
    kept = [k for k in range(8) if {2: "val", 3: "test"}.get(k % 4) not in gone]
    assert len(scene) == len(kept)
    assert scene.splits["train"] == tuple(f"train/r_{k}.png" for k in (0, 1, 4, 5))
    part = next((part for part in ("test", "val") if part not in gone), None)
    assert {Path(name).parts[0] for name in scene.splits["test"]} == ({part} if part else set())
    # Half the width is seen under half the angle.
    assert float(scene.camera(0).focal[0]) == pytest.approx(16 / np.tan(0.35))
    for i, name in enumerate(scene.images):
        k = int(Path(name).stem.removeprefix("r_"))
        np.testing.assert_allclose(scene.poses.matrix()[i].numpy(), pose(k), atol=1e-9)


# --- paths of other computers -------------------------------------------------------------------

ELSEWHERE: list[Callable[[str], str]] = [
    lambda name: f"C:\\Users\\me\\my place\\{name}".replace("/", "\\"),
    lambda name: f"/home/me/data/{name}",
    lambda name: f"D:/data/{name}",
    lambda name: f"\\\\server\\share\\{name}".replace("/", "\\"),
    lambda name: name.replace("/", "\\"),
]


def renamed(root: Path, path_of: Callable[[str], str]) -> None:
    """Writes other paths for all photos into the lists of a source."""
    for file in [*root.rglob("*.txt"), *root.rglob("*.json")]:
        text = file.read_text()
        for name in sorted({p.relative_to(root).as_posix() for p in root.rglob("*.png")}):
            new = path_of(name)
            text = text.replace(name, json.dumps(new)[1:-1] if file.suffix == ".json" else new)
        file.write_text(text)


@pytest.mark.parametrize("path_of", ELSEWHERE)
@pytest.mark.parametrize("build", [nerfstudio, cambridge, tum])
def test_photos_are_found_by_the_ends_of_their_paths(
    build: Callable[..., Any], path_of: Callable[[str], str], tmp_path: Path
) -> None:
    build(tmp_path, [READ] * 4)
    plain = DATASETS[build.__name__](tmp_path)
    renamed(tmp_path, path_of)
    scene = DATASETS[build.__name__](tmp_path)
    assert scene.images == plain.images
    np.testing.assert_array_equal(scene.poses.matrix().numpy(), plain.poses.matrix().numpy())
    assert dict(scene.splits) == dict(plain.splits)
    assert "paths-elsewhere" in codes(scene)
    assert scene.account is not None
    assert scene.account.images.left == {}


@pytest.mark.parametrize("path_of", ELSEWHERE)
def test_colmap_names_of_another_computer(path_of: Callable[[str], str], tmp_path: Path) -> None:
    colmap(tmp_path, [READ] * 4)
    (tmp_path / "images/cam").mkdir()
    file = tmp_path / "sparse/1/images.txt"
    text = file.read_text()
    for k in range(4):
        shutil.move(tmp_path / f"images/{k}.png", tmp_path / f"images/cam/{k}.png")
        text = text.replace(f"{k}.png", path_of(f"cam/{k}.png"))
    file.write_text(text)
    scene = read_colmap_model(tmp_path)
    assert scene.images == tuple(f"cam/{k}.png" for k in range(4))
    assert codes(scene) == ["paths-elsewhere"]


def test_the_longest_end_counts_and_what_is_gone_is_left_aside(tmp_path: Path) -> None:
    listed = ["/data/a/images/1.png", "/data/b/images/1.png", "/data/b/images/2.png"]
    for name in ("a/images/1.png", "images/1.png"):
        photo(tmp_path / name)
    frames = [frame(name, k, READ) for k, name in enumerate(listed)]
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 30.0, "frames": frames}))
    scene = read_nerfstudio(tmp_path)
    assert sorted(scene.images) == ["a/images/1.png", "images/1.png"]
    assert scene.account is not None
    assert scene.account.images.examples == {"no file": (listed[2],)}


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (
            ["/x/cam0/1.png", "/x/cam1/1.png"],
            r"cam0/1\.png and /x/cam1/1\.png would both be 1\.png",
        ),
        (["1.png", r"C:\x\1.png"], r"would both be 1\.png"),
        (["/etc/hostname"], "/etc/hostname lies outside"),
        (["1.png", r"..\2.png"], r"\.\.\\2\.png lies outside"),
        (["1.png", r"a\..\..\2.png"], "lies outside"),
    ],
)
def test_path_that_is_not_one_photo_is_refused(
    listed: list[str], reason: str, tmp_path: Path
) -> None:
    root = tmp_path / "place"
    photo(root / "1.png")
    photo(tmp_path / "2.png")
    frames = [frame(name, k, READ) for k, name in enumerate(listed)]
    (root / "transforms.json").write_text(json.dumps({"fl_x": 30.0, "frames": frames}))
    with pytest.raises(InputError, match=reason):
        read_nerfstudio(root)


# --- several COLMAP models ----------------------------------------------------------------------


def moved(root: Path, to: str) -> Path:
    """A project whose two models stand in other folders."""
    colmap(root, [OTHER_MODEL, READ, READ, OTHER_MODEL, READ])
    (root / "sparse").rename(root / "made")
    for k in (0, 1):
        target = root / to.format(k)
        target.parent.mkdir(parents=True, exist_ok=True)
        (root / f"made/{k}").rename(target)
    (root / "made").rmdir()
    return root


@pytest.mark.parametrize("to", ["sparse/{}", "models/{}", "colmap/sparse/{}", "sparse/part {}"])
def test_largest_of_several_models_is_taken(to: str, tmp_path: Path) -> None:
    scene = read_colmap_model(moved(tmp_path, to))
    assert scene.images == ("1.png", "2.png", "4.png")
    assert scene.account is not None
    assert scene.account.images.examples == {OTHER_MODEL: ("0.png", "3.png")}
    assert codes(scene) == ["several-models"]
    text = scene.account.notices[0].text
    assert f"{to.format(1)} with 3 images" in text
    assert f"{to.format(0)} (2)" in text


def test_model_that_is_given_is_taken_as_it_is(tmp_path: Path) -> None:
    moved(tmp_path, "sparse/{}")
    scene = read_colmap_model(tmp_path / "sparse/0")
    assert scene.images == ("0.png", "3.png")
    assert codes(scene) == []
    assert len(read_colmap_model(tmp_path / "sparse")) == 3  # the folder of the models


def test_damaged_model_is_told_where_it_is_the_smaller(tmp_path: Path) -> None:
    moved(tmp_path, "sparse/{}")
    small, large = (tmp_path / f"sparse/{k}/images.txt" for k in (0, 1))
    small.write_text("1 1 0 0")
    scene = read_colmap_model(tmp_path)
    assert len(scene) == 3
    assert codes(scene) == ["model-unread"]
    large.write_text("x " * 1000)
    small.write_text(f"1 {words(cam_from_world(0))} 1 0.png\n\n")
    with pytest.raises(InputError, match=r"sparse/1/images\.txt.*may be the largest of 2 models"):
        read_colmap_model(tmp_path)


# --- photos made smaller ------------------------------------------------------------------------

FULL = (4946, 3286)  # as in mip-NeRF 360
SMALLER = {"images_2": (2473, 1643), "images_4": (1237, 822), "images_8": (618, 411)}


def smaller(root: Path, folder: str, size: tuple[int, int]) -> Path:
    colmap(root, [READ] * 3)
    for k in range(3):
        photo(root / folder / f"{k}.png", size)
    (root / "sparse/1/cameras.txt").write_text(f"1 PINHOLE {words(FULL)} 4000 4010 2473 1640\n")
    return root


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("folder", SMALLER)
def test_camera_is_scaled_to_smaller_photos(folder: str, given: bool, tmp_path: Path) -> None:
    size = SMALLER[folder]
    root = smaller(tmp_path / "in", folder, size)
    if not given:
        shutil.rmtree(root / "images")
    photos = root / folder if given else None
    scene = import_scene("colmap", root, tmp_path / "out", images=photos)
    camera = scene.camera(0)
    ratio = np.divide(size, FULL)
    assert (camera.width, camera.height) == size
    np.testing.assert_allclose(
        camera.params.numpy(), np.multiply([4000, 4010, 2473, 1640], [*ratio, *ratio])
    )
    assert scene.points is not None
    np.testing.assert_allclose(scene.points.xy, [np.multiply([3, 4], ratio)] * 3)
    assert codes(scene) == ["photos-smaller"]
    assert folder in scene.provenance["intrinsics"]


@pytest.mark.parametrize("size", [(1237, 820), (1200, 822), (822, 1237), (40, 30)])
def test_photos_of_another_shape_are_refused(size: tuple[int, int], tmp_path: Path) -> None:
    root = smaller(tmp_path / "in", "images_4", size)
    with pytest.raises(InputError, match=rf"{size[0]} x {size[1]} pixels.* 4946 x 3286"):
        import_scene("colmap", root, tmp_path / "out", images=root / "images_4")


# --- folders without images ---------------------------------------------------------------------

LOOKED_FOR = {
    "7scenes": r"seq-01/frame-000000\.color\.png",
    "cambridge": r"dataset_train\.txt",
    "colmap": r"cameras\.bin or cameras\.txt.*sparse",
    "nerfstudio": r"transforms\.json.*transforms_train\.json",
    "published": r"checksums\.sha256",
    "tum": r"rgb\.txt",
}


def test_readers_say_what_they_looked_for(tmp_path: Path) -> None:
    assert LOOKED_FOR.keys() | {"synthetic"} == DATASETS.keys()  # which renders into such a folder
    for reader, words_ in LOOKED_FOR.items():
        with pytest.raises(InputError, match=words_):
            import_scene(reader, tmp_path, tmp_path / "out")


def test_label_says_what_it_looked_for(tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    folder.mkdir()
    (folder / "IMG_1.HEIC").touch()
    with pytest.raises(InputError, match=r"holds no photo \(\.jpg.*IMG_1\.HEIC is HEIC.*JPEG"):
        gather([folder], tmp_path / "work", LabelConfig(), lambda done, total, text: None)


def test_lost_label_lines_and_lists_go_together(tmp_path: Path) -> None:
    """A sequence of which nothing is left is no sequence without images."""
    seven_scenes(tmp_path / "in", [READ, READ])
    shutil.copytree(tmp_path / "in/seq-01", tmp_path / "in/seq-02")
    shutil.copytree(tmp_path / "in/seq-01", tmp_path / "in/seq-10")
    for file in (tmp_path / "in/seq-02").glob("*.pose.txt"):
        file.write_text("-inf -inf -inf -inf\n" * 4)
    (tmp_path / "in/TrainSplit.txt").write_text("sequence2\nsequence10\n")
    (tmp_path / "in/TestSplit.txt").write_text("sequence1\n")
    scene = import_scene("7scenes", tmp_path / "in", tmp_path / "out")
    assert scene.splits["train"] == tuple(f"seq-10/frame-00000{k}.color.png" for k in (0, 1))
    assert scene.account is not None
    assert scene.account.images.left == {LOST: 2}
