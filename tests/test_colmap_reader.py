"""The reader of COLMAP projects: models that pycolmap wrote, beside images."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from torch.testing import assert_close

from relocal.datasets import import_scene
from relocal.datasets.colmap import read_colmap_model
from relocal.errors import InputError
from relocal.scene import Scene, load_scene


@pytest.fixture
def project(tiny_scene: Scene, tmp_path: Path) -> Path:
    """The tiny room as a COLMAP project: sparse/0 and images, no scene.json."""
    assert tiny_scene.folder is not None
    root = tmp_path / "project"
    shutil.copytree(tiny_scene.folder / "sparse", root / "sparse")
    (root / "images").symlink_to(tiny_scene.folder / "images")
    return root


@pytest.mark.parametrize("form", ["binary", "text"])
@pytest.mark.parametrize("layout", ["sparse/0", "sparse", "."])
def test_model_is_found_and_read(project: Path, tiny_scene: Scene, form: str, layout: str) -> None:
    model = pycolmap.Reconstruction(project / "sparse/0")
    shutil.rmtree(project / "sparse")
    (project / layout).mkdir(parents=True, exist_ok=True)
    (model.write_text if form == "text" else model.write)(str(project / layout))
    scene = read_colmap_model(project)
    order = [tiny_scene.images.index(name) for name in scene.images]
    assert scene.images == tuple(sorted(tiny_scene.images))
    assert_close(scene.poses.matrix(), tiny_scene.poses[order].matrix(), rtol=0, atol=1e-9)
    assert scene.points is not None
    assert tiny_scene.points is not None
    assert len(scene.points.xy) == len(tiny_scene.points.xy)


def test_images_may_lie_elsewhere_and_some_be_missing(project: Path, tmp_path: Path) -> None:
    whole = read_colmap_model(project)
    photos = tmp_path / "my photos"
    for name in whole.images[::2]:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole.image_root / name, photos / name)
    (project / "images").unlink()
    with pytest.raises(InputError, match="give their folder with --images"):
        read_colmap_model(project)
    out = tmp_path / "scene"
    import_scene("colmap", project, out, images=photos, split="blocks:2/3/0", unit="m")
    scene = load_scene(out)
    assert scene.images == whole.images[::2]
    assert scene.provenance["missing_images"] == list(whole.images[1::2])
    assert scene.points is not None
    assert whole.points is not None
    # What is left of the map projects to its pixels, whatever was renumbered.
    for index in (0, 8):
        mine = scene.points.image_index == index
        theirs = whole.points.image_index == 2 * index
        assert mine.sum() == theirs.sum() > 0
        world = scene.poses.position.new_tensor(scene.points.xyz[scene.points.point_index[mine]])
        pixels, _ = scene.camera(index).project(scene.poses[index].inverse().apply(world))
        assert np.abs(pixels.numpy() - scene.points.xy[mine]).max() < 0.01


def test_model_without_its_images_is_refused(project: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"none: none of the model's 32 images is here"):
        read_colmap_model(project, images=tmp_path / "none")


def again(content: bytes) -> bytes:
    """A binary file whose records stand there twice."""
    (count,) = struct.unpack_from("<Q", content)
    return struct.pack("<Q", 2 * count) + 2 * content[8:]


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("cameras.bin", again, "has 2 cameras of the id 1"),
        ("images.bin", again, "has 2 images of the id 1"),
        ("points3D.bin", again, "has 2 points of the id 1"),
        ("points3D.bin", lambda _: bytes(8), "has not all points"),
    ],
)
def test_model_that_contradicts_itself_is_refused(
    project: Path, file: str, change: Callable[[bytes], bytes], words: str
) -> None:
    path = project / "sparse/0" / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=f"{file}: {words}"):
        read_colmap_model(project)


@pytest.mark.parametrize("file", ["cameras.bin", "images.bin", "points3D.bin"])
def test_model_cut_at_any_byte_is_refused(project: Path, tiny_scene: Scene, file: str) -> None:
    path = project / "sparse/0" / file
    whole = path.read_bytes()
    # Every byte of the beginning, then as many places as a test has time for.
    cuts = sorted({*range(80), *np.linspace(80, len(whole) - 1, 60).astype(int).tolist()})
    for cut in [c for c in cuts if c < len(whole)]:
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=file):
            read_colmap_model(project)
    path.write_bytes(whole)
    assert len(read_colmap_model(project)) == len(tiny_scene)
