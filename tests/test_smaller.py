"""Photos smaller than their cameras: wherever they lie, in every reader that knows cameras."""

import json
from pathlib import Path

import pytest
from listing import READ, SIZE, colmap, frame, nerfstudio, photo

from relocal.datasets.colmap import read_colmap_model
from relocal.datasets.nerfstudio import read_nerfstudio
from relocal.datasets.smaller import in_folder
from relocal.scene import Scene

HALF = SIZE


def check_scaled(scene: Scene, folder: str) -> None:
    assert {(c.width, c.height) for c in scene.cameras} == {HALF}
    assert [c.focal.tolist() for c in scene.cameras] == [[15, 15]]
    assert scene.account is not None
    assert [n.code for n in scene.account.notices] == ["photos-smaller"]
    assert scene.provenance["intrinsics"].endswith(f"scaled to the photos of {folder}")


@pytest.mark.parametrize("folder", ["images", "images_2", "images_4"])
def test_colmap_photos_may_be_smaller_wherever_they_lie(folder: str, tmp_path: Path) -> None:
    colmap(tmp_path, [READ] * 3)
    (tmp_path / "sparse/1/cameras.txt").write_text("1 PINHOLE 64 48 30 30 32 24\n")
    for k in range(3):
        (tmp_path / f"images/{k}.png").unlink()
        photo(tmp_path / folder / f"{k}.png", HALF)
    if folder != "images":
        (tmp_path / "images").rmdir()
    check_scaled(read_colmap_model(tmp_path), folder)


@pytest.mark.parametrize("prefix", ["", "./", "D:\\cap\\"])
@pytest.mark.parametrize("folder", ["images", "images_2", "images_8"])
def test_nerfstudio_photos_may_be_smaller(folder: str, prefix: str, tmp_path: Path) -> None:
    names = [f"{prefix}images/{k}.png" for k in range(4)]
    content = {
        **dict.fromkeys(("fl_x", "cx"), 32),
        "w": 64,
        "h": 48,
        "cy": 24,
        "frames": [frame(name, k, READ) for k, name in enumerate(names)],
        "train_filenames": names[:3],
        "test_filenames": names[3:],
    }
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    for k in range(4):
        photo(tmp_path / folder / f"{k}.png", HALF)
    scene = read_nerfstudio(tmp_path)
    assert {(c.width, c.height) for c in scene.cameras} == {HALF}
    assert scene.images == tuple(f"{folder}/{k}.png" for k in range(4))
    assert scene.splits["test"] == (f"{folder}/3.png",)
    assert scene.account is not None
    assert "photos-smaller" in [n.code for n in scene.account.notices]


def test_photos_of_their_cameras_size_say_nothing(tmp_path: Path) -> None:
    nerfstudio(tmp_path, [READ] * 3)
    photo(tmp_path / "images_2/0.png", HALF)
    scene = read_nerfstudio(tmp_path)
    assert scene.images[0] == "images/0.png"
    assert scene.account is not None
    assert scene.account.notices == ()


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("images/a.png", "images_2/a.png"),
        ("/home/images/b/images/a.png", "/home/images/b/images_2/a.png"),
        ("x\\images\\a.png", "x\\images_2\\a.png"),
        ("my_images/images.png", "my_images/images.png"),
    ],
)
def test_only_the_folder_is_another(name: str, there: str) -> None:
    assert in_folder(name, "images_2") == there
