"""Map points from known poses, against the surfaces of the rendered room."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

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
from relocal.sfm import TriangulateConfig, pose_pairs, triangulate, triangulated
from relocal.sfm.database import numbered, sweep, work_folder


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


@pytest.fixture(scope="module")
def cache(tiny_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features and matches of the tiny room, of all its images and more pairs than one asks for."""
    folder = tmp_path_factory.mktemp("cache")
    triangulated(every(tiny_scene), TriangulateConfig(neighbours=12), folder)
    return folder


def every(scene: Scene) -> Scene:
    return replace(scene, points=None, splits={"train": scene.images})


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
    assert 12 < about["images_that_see_points"] <= about["images"] == 24
    assert 0.3 < about["matches_kept"] < 1
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
    (database,) = bare.glob("cache/sfm-*/*.db")
    with pycolmap.Database.open(database) as content:
        keypoints, pairs = content.num_keypoints(), content.num_verified_image_pairs()
    assert keypoints > 0
    assert pairs > 0
    before = database.stat().st_size
    scene = triangulate(bare)
    assert scene.points is not None
    assert list(bare.glob("cache/sfm-*/*.db")) == [database]
    with pycolmap.Database.open(database) as content:
        assert content.num_keypoints() == keypoints
    assert database.stat().st_size == before
    left = {item.name for item in database.parent.iterdir()}
    assert left == {".lock", "images", database.name}


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


def test_points_are_the_same_whatever_else_the_cache_holds(
    tiny_scene: Scene, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = replace(tiny_scene, points=None, folder=None)
    scene = scene.with_splits({"train": scene.splits["train"][3:17]}, "a fold")
    config = TriangulateConfig(neighbours=4)
    alone = triangulated(scene, config, tmp_path)
    # What the shared cache has is not made again: features of all images, then these pairs.
    monkeypatch.setattr(pycolmap, "extract_features", refuse)
    shared = triangulated(scene, config, cache)
    monkeypatch.setattr(pycolmap, "match_image_pairs", refuse)
    again = triangulated(scene, config, cache)
    assert alone.points is not None
    for other in (shared, again):
        assert other.provenance == alone.provenance
        for name, value in vars(alone.points).items():
            np.testing.assert_array_equal(value, getattr(other.points, name), err_msg=name)
    assert set(alone.points.image_index.tolist()) <= set(scene.indices("train").tolist())
    (database,) = cache.glob("sfm-*/*.db")
    with pycolmap.Database.open(database) as content:
        assert content.num_images() == len(scene)
        pairs = pose_pairs(scene.poses[scene.indices("train")], config)
        assert content.num_matched_image_pairs() > len(pairs)


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError


@pytest.mark.parametrize("wrong", ["inverted", "opengl", "shuffled"])
def test_wrong_poses_are_refused_and_leave_the_old_points(
    wrong: str, tiny_scene: Scene, bare: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tiny_scene.points is not None
    save_points(load_scene(bare), tiny_scene.points, {"points": "old"})
    before = (bare / "sparse/0/points3D.bin").read_bytes()
    poses, count = tiny_scene.poses, len(tiny_scene)
    around_x = torch.tensor([[0.0, 1.0, 0.0, 0.0]]).double().expand(count, 4)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    poses = {
        "inverted": poses.inverse(),
        "opengl": poses @ Pose(torch.zeros(count, 3).double(), around_x),
        "shuffled": poses[order],
    }[wrong]
    scene = replace(tiny_scene, poses=poses.canonical(), folder=bare)
    with pytest.raises(
        InputError, match=r"poses or cameras are (wrong|right)|photos fit if|look the same"
    ):
        triangulate(scene, replace_points=True, cache=cache)
    assert (bare / "sparse/0/points3D.bin").read_bytes() == before
    assert load_scene(bare).provenance == {"points": "old"}
    assert capfd.readouterr() == ("", "")  # nothing of COLMAP's log


@pytest.mark.parametrize("made_already", [False, True])
def test_full_disk_is_told_before_colmap_dies_of_it(
    made_already: bool,
    tiny_scene: Scene,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    for name in ("extract_features", "match_image_pairs", "triangulate_points"):
        monkeypatch.setattr(pycolmap, name, refuse)
    with pytest.raises(InputError, match=r"needs [\d.]+ GB, [\d.]+ GB are free"):
        triangulated(tiny_scene, TriangulateConfig(), cache if made_already else tmp_path)


def test_two_at_once_and_failures_of_colmap_are_told(
    tiny_scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TriangulateConfig()
    with (
        work_folder(tiny_scene, tmp_path) as work,
        pytest.raises(InputError, match="another triangulate is at work"),
    ):
        triangulated(tiny_scene, config, tmp_path)

    def fail(*_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("database is locked")

    monkeypatch.setattr(pycolmap, "extract_features", fail)
    with pytest.raises(InputError, match=r"tiny: COLMAP failed \(database is locked\).* remove"):
        triangulated(tiny_scene, config, tmp_path)
    monkeypatch.undo()
    (database,) = work.glob("*.db")
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match=r"tiny: COLMAP failed"):
        triangulated(tiny_scene, config, tmp_path)


@pytest.mark.parametrize("moved", [True, False])
def test_moved_or_copied_scene_reads_its_own_photos(bare: Path, moved: bool) -> None:
    index, there = torch.tensor([0, 2]), bare.with_name("there")
    work = bare / "work"
    work.mkdir()
    numbered(load_scene(bare), index, work)
    if moved:
        bare.rename(there)
    else:
        shutil.copytree(bare, there, symlinks=True)
    scene = load_scene(there)
    names = numbered(scene, index, there / "work").images
    for i in index.tolist():
        link = there / "work/images" / names[i]
        assert link.readlink() == scene.path(i).resolve()
        assert link.is_file()
    assert len(list((there / "work/images").iterdir())) == 2


def test_databases_of_other_photos_or_options_are_removed(tmp_path: Path) -> None:
    for name in (
        ".lock",
        "a.db",
        "a.db-wal",
        "b.db",
        "b.db-shm",
        "pairs.txt",
        "images/1.jpg",
        "t/x",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    sweep(tmp_path, tmp_path / "a.db")
    assert {item.name for item in tmp_path.iterdir()} == {".lock", "a.db", "a.db-wal", "images"}


def test_saved_points_leave_the_poses_as_they_were(tiny_scene: Scene, bare: Path) -> None:
    assert tiny_scene.points is not None
    before = load_scene(bare)
    saved = save_points(save_points(before, tiny_scene.points, {}), tiny_scene.points, {})
    for scene in (saved, load_scene(bare)):
        assert torch.equal(scene.poses.position, before.poses.position)
        assert torch.equal(scene.poses.quaternion, before.poses.quaternion)
    assert pycolmap.Reconstruction(bare / "sparse/0").num_points3D() == len(tiny_scene.points.xyz)


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
