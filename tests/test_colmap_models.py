"""Which of a project's models is read: the largest, but a model's own folder as it is."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from listing import SIZE, cam_from_world, photo, words

from relocal.datasets.colmap import read_colmap_model
from relocal.errors import InputError
from relocal.scene import Scene


def model(folder: Path, names: Sequence[str], start: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(f"1 PINHOLE {words(SIZE)} 30 30 16 12\n")
    rows = [f"{k} {words(cam_from_world(k))} 1 {n}\n\n" for k, n in enumerate(names, start + 1)]
    (folder / "images.txt").write_text("".join(rows))
    (folder / "points3D.txt").write_text("")


def told(scene: Scene) -> dict[str, str]:
    assert scene.account is not None
    return {notice.code: notice.text for notice in scene.account.notices}


@pytest.mark.parametrize("inner", ["models/1", "models", "model", "sparse", "sparse/0", "other"])
@pytest.mark.parametrize("own", [7, 2])
def test_folder_of_a_model_is_that_model(inner: str, own: int, tmp_path: Path) -> None:
    """As hloc leaves it: the largest model in the folder, smaller ones inside of it."""
    names = [f"{k}.png" for k in range(own)]
    others = ["a.png", "b.png", "c.png"]
    for name in names + others:
        photo(tmp_path / "images" / name)
    model(tmp_path / "sfm", names)
    model(tmp_path / "sfm" / inner, others)
    scene = read_colmap_model(tmp_path / "sfm", images=tmp_path / "images")
    assert scene.images == tuple(names)
    assert scene.account is not None
    assert dict(scene.account.images.left) == {"another model": 3}
    assert (
        f"own is taken, with {own} images; images of the others: {inner} (3)"
        in (told(scene)["several-models"])
    )
    assert (scene.account.images.listed, scene.account.images.read) == (own + 3, own)


def test_damaged_model_inside_of_a_model_is_told(tmp_path: Path) -> None:
    photo(tmp_path / "images/0.png")
    model(tmp_path, ["0.png"])
    model(tmp_path / "models/1", ["1.png"])
    (tmp_path / "models/1/images.txt").write_text("no\n" * 1000)
    scene = read_colmap_model(tmp_path)
    assert scene.images == ("0.png",)
    assert "models/1 is left aside" in told(scene)["model-unread"]


def test_list_of_cameras_alone_is_no_model(tmp_path: Path) -> None:
    photo(tmp_path / "images/0.png")
    model(tmp_path / "sparse/0", ["0.png"])
    (tmp_path / "cameras.txt").write_text(f"1 PINHOLE {words(SIZE)} 30 30 16 12\n")
    assert read_colmap_model(tmp_path).images == ("0.png",)


def test_damaged_model_is_refused_for_itself(tmp_path: Path) -> None:
    model(tmp_path, ["0.png"])
    model(tmp_path / "sparse", ["1.png"])
    (tmp_path / "images.txt").write_text("no\n")
    with pytest.raises(InputError, match=r"images\.txt, line 1: "):
        read_colmap_model(tmp_path)


def test_one_name_of_two_images_is_refused_by_name(tmp_path: Path) -> None:
    model(tmp_path, ["0.png", "1.png", "1.png"])
    photo(tmp_path / "0.png")
    with pytest.raises(InputError, match=r"images\.txt: has 2 images of the name 1\.png"):
        read_colmap_model(tmp_path)


def test_text_may_be_marked_at_its_beginning(tmp_path: Path) -> None:
    model(tmp_path, ["0.png", "1.png"])
    for file in tmp_path.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    for k in range(2):
        photo(tmp_path / f"{k}.png")
    assert read_colmap_model(tmp_path).images == ("0.png", "1.png")
