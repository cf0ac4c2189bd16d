"""Map points from known poses, against the surfaces of the rendered room."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
import torch
from jaxtyping import Float64
from PIL import Image

from relocal.datasets.room.layout import furnish
from relocal.errors import InputError
from relocal.pose import Pose
from relocal.scene import Scene, load_scene
from relocal.scene.files import save_points
from relocal.sfm import TriangulateConfig, pose_pairs, triangulate


@pytest.fixture
def bare(tiny_scene: Scene, tmp_path: Path) -> Path:
    """The tiny room's scene without map points, in a folder with a space and an umlaut."""
    assert tiny_scene.folder is not None
    folder = Path(shutil.copytree(tiny_scene.folder, tmp_path / "mein Büro"))
    names = [*tiny_scene.images, "a photo with spaces.jpg"]
    (folder / "images" / names[0]).rename(folder / "images" / names[-1])
    model = pycolmap.Reconstruction(folder / "sparse/0")
    model.image(1).name = names[-1]
    for point in list(model.points3D):
        model.delete_point3D(point)
    model.write(folder / "sparse/0")
    about = (folder / "scene.json").read_text().replace(names[0], names[-1])
    (folder / "scene.json").write_text(about)
    assert load_scene(folder).points is None
    return folder


def to_surfaces(points: Float64[np.ndarray, "P 3"]) -> Float64[np.ndarray, " P"]:
    """Distances to the nearest rectangle of the room, metres."""
    nearest = np.full(len(points), np.inf)
    for quad in furnish():
        edges = np.stack([quad.right, quad.down], axis=1)
        where = np.linalg.lstsq(edges, (points - quad.corner).T, rcond=None)[0].clip(0, 1)
        gap = points - (quad.corner + (edges @ where).T)
        nearest = np.minimum(nearest, np.linalg.norm(gap, axis=1))
    return nearest


def test_map_points_lie_on_the_surfaces_of_the_room(tiny_scene: Scene, bare: Path) -> None:
    scene = triangulate(bare)
    assert scene.points is not None
    assert len(scene.points.xyz) > 100
    assert np.median(to_surfaces(scene.points.xyz)) < 0.02
    train = set(scene.indices("train").tolist())
    assert set(scene.points.image_index.tolist()) <= train
    # What is on disk is what was returned, and pycolmap opens it.
    loaded, model = load_scene(bare), pycolmap.Reconstruction(bare / "sparse/0")
    assert loaded.points is not None
    np.testing.assert_allclose(loaded.points.xyz, scene.points.xyz)
    about = loaded.provenance["points"]
    assert about["count"] == len(scene.points.xyz) == model.num_points3D()
    assert 0 < about["mean_reprojection_error_px"] < 1
    assert about["mean_track_length"] >= 3
    assert loaded.splits == scene.splits
    depths = [place.depth_range() for place in (loaded, tiny_scene)]
    assert float(depths[0][1] / depths[1][1]) == pytest.approx(1, abs=0.25)  # pyright: ignore
    for i in train:
        mine = loaded.points.image_index == i
        world = torch.from_numpy(loaded.points.xyz[loaded.points.point_index[mine]])
        pixels, _ = loaded.camera(i).project(loaded.poses[i].inverse().apply(world))
        assert np.abs(pixels.numpy() - loaded.points.xy[mine]).max(initial=0) < 3


def test_interrupted_triangulation_goes_on(bare: Path) -> None:
    def stop(done: int, total: int, text: str) -> None:
        if text == "triangulating":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        triangulate(bare, progress=stop)
    assert load_scene(bare).points is None
    (database,) = bare.glob("cache/sfm-*/database.db")
    with pycolmap.Database.open(database) as content:
        keypoints, pairs = content.num_keypoints(), content.num_verified_image_pairs()
    assert keypoints > 0
    assert pairs > 0
    before = database.stat().st_size
    scene = triangulate(bare)
    assert scene.points is not None
    assert list(bare.glob("cache/sfm-*/database.db")) == [database]
    with pycolmap.Database.open(database) as content:
        assert content.num_keypoints() == keypoints
    assert database.stat().st_size == before


def test_points_are_replaced_only_when_asked(tiny_scene: Scene, bare: Path) -> None:
    triangulate(bare)
    with pytest.raises(InputError, match=r"mein Büro: has \d+ map points already; --replace"):
        triangulate(bare)
    config = TriangulateConfig(neighbours=4)
    again = triangulate(bare, config, replace_points=True)
    assert again.provenance["points"]["neighbours"] == 4
    with pytest.raises(InputError, match="save the scene first"):
        triangulate(replace(tiny_scene, folder=None))
    few = replace(load_scene(bare), splits={"train": tiny_scene.images[1:3]}, points=None)
    with pytest.raises(InputError, match="3 training images"):
        triangulate(few)


def test_photos_that_do_not_match_are_refused(bare: Path) -> None:
    draw = np.random.default_rng(0)
    for photo in (bare / "images").rglob("*.jpg"):
        photo.unlink()  # a hard link to the room's own
        Image.fromarray(draw.integers(0, 256, (120, 160, 3), np.uint8)).save(photo)
    with pytest.raises(InputError, match="no map point could be triangulated"):
        triangulate(bare)
    assert load_scene(bare).points is None


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_kill_while_points_are_saved_leaves_a_scene_that_opens(
    steps: int, tiny_scene: Scene, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_scene.points is not None
    scene = save_points(load_scene(bare), tiny_scene.points, {"points": "old"})
    done, real = 0, Path.replace

    def killed(self: Path, target: Any) -> Path:
        nonlocal done
        if done == steps:
            raise KeyboardInterrupt
        done += 1
        return real(self, target)

    fewer = tiny_scene.points.seen_by(range(len(tiny_scene)))
    assert fewer is not None
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_points(scene, replace(fewer, xyz=fewer.xyz + 1), {"points": "new"})
    monkeypatch.undo()
    left = load_scene(bare)
    assert left.images == scene.images
    if steps in (0, 3):  # between, pycolmap misses the images that see the points
        pycolmap.Reconstruction(bare / "sparse/0")


def ring(count: int) -> Pose:
    """Cameras on a circle that look outwards."""
    angle = torch.linspace(0, 2 * torch.pi, count + 1, dtype=torch.float64)[:-1]
    zero = torch.zeros_like(angle)
    position = torch.stack([angle.sin(), zero, angle.cos()], dim=-1)
    quaternion = torch.stack([(angle / 2).cos(), zero, (angle / 2).sin(), zero], dim=-1)
    return Pose(position, quaternion)


@pytest.mark.parametrize("count", [5, 60, 700])
def test_pairs_look_the_same_way_and_stand_once(count: int) -> None:
    config = TriangulateConfig(neighbours=6, turn_deg=40.0)
    pairs = pose_pairs(ring(count), config)
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)
    if len(pairs):
        assert (pairs[:, 0] < pairs[:, 1]).all()
        apart = (pairs[:, 1] - pairs[:, 0]) * 360 / count
        assert np.minimum(apart, 360 - apart).max() <= 40 + 1e-6
        steps = np.minimum(pairs[:, 1] - pairs[:, 0], count - (pairs[:, 1] - pairs[:, 0]))
        assert 1 in steps  # the nearest
        assert count < 60 or steps.max() > 3  # and some with a baseline
    else:
        assert count == 5


@pytest.mark.parametrize(
    ("option", "value"), [("neighbours", 1), ("turn_deg", 0.0), ("features", 5), ("error_px", 0.0)]
)
def test_senseless_option_is_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')}"):
        TriangulateConfig(**{option: value})  # pyright: ignore[reportArgumentType]
