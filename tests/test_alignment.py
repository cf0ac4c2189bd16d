"""The frame of a labelled scene: similarities, what is up, and where metres come from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.pose import Pose, matrix_to_quaternion
from relocal.scene import Points, Scene
from relocal.sfm.alignment import Similarity, fitted, moved, scaled, upright
from relocal.sfm.gps import scaled_by_gps
from relocal.sfm.labelling import scale_doubts
from relocal.sfm.places import gps_place

CAMERA = Camera.pinhole(64, 48, 50.0, 50.0, 32.0, 24.0)
UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
seeds = st.integers(0, 10_000)


def turn(seed: int) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(rng=np.random.default_rng(seed)).as_matrix())


def some_similarity(seed: int) -> Similarity:
    draw = np.random.default_rng(seed)
    shift = torch.from_numpy(draw.normal(size=3))
    return Similarity(float(np.exp(draw.normal())), turn(seed + 1), shift)


def level_scene(seed: int, spread_deg: float = 180.0, root: Path = Path("nowhere")) -> Scene:
    """Cameras that nobody rolls, which look a little up or down."""
    draw = np.random.default_rng(seed)
    count = 12
    yaw, pitch = draw.uniform(-spread_deg, spread_deg, count), draw.uniform(-30, 10, count)
    # Camera axes x right, y down, z forward, on a world with z up.
    level = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    turns = Rotation.from_euler("ZX", np.c_[yaw, pitch], degrees=True).as_matrix() @ level
    matrix = np.tile(np.eye(4), (count, 1, 1))
    matrix[:, :3, :3], matrix[:, :3, 3] = turns, draw.normal(size=(count, 3))
    xyz = draw.normal(size=(50, 3)) + 3
    return Scene(
        name="place",
        unit="unit",
        image_root=root,
        images=tuple(f"walk/{i}.jpg" for i in range(count)),
        cameras=(CAMERA,),
        camera_index=torch.zeros(count, dtype=torch.int64),
        poses=Pose.from_matrix(torch.from_numpy(matrix)),
        points=Points(
            xyz,
            np.zeros((50, 3), np.uint8),
            np.arange(50) % count,
            np.arange(50),
            np.zeros((50, 2)),
        ),
    )


@given(seed=seeds)
def test_what_cameras_see_stays_when_the_world_is_moved(seed: int) -> None:
    scene, by = level_scene(seed), some_similarity(seed)
    made = moved(scene, by)
    assert scene.points is not None
    assert made.points is not None
    for i in (0, 7):
        before = scene.poses[i].inverse().apply(torch.from_numpy(scene.points.xyz))
        after = made.poses[i].inverse().apply(torch.from_numpy(made.points.xyz))
        assert_close(after, by.scale * before)


@given(seed=seeds)
def test_level_cameras_tell_what_is_up(seed: int) -> None:
    scene = moved(level_scene(seed), some_similarity(seed))
    by = upright(scene)
    assert by.scale == 1
    truth = some_similarity(seed).rotation @ UP
    assert float((by.rotation @ truth) @ UP) > 0.999
    assert_close(by.rotation @ by.rotation.T, torch.eye(3).double())
    assert float(torch.linalg.det(by.rotation)) == pytest.approx(1)
    made = moved(scene, by)
    assert made.points is not None
    assert np.abs(np.median(made.points.xyz, axis=0)).max() < 1e-9


def test_cameras_that_look_one_way_still_tell_what_is_up() -> None:
    scene = level_scene(3, spread_deg=1)
    by = upright(moved(scene, Similarity(1.0, turn(5), torch.zeros(3).double())))
    assert float((by.rotation @ turn(5) @ UP) @ UP) > 0.9


def test_a_world_that_stands_upright_or_on_its_head_is_turned_least() -> None:
    scene = level_scene(1)
    assert_close(upright(scene).rotation @ UP, UP, atol=1e-2, rtol=0)
    head = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    by = upright(moved(scene, Similarity(1.0, head, torch.zeros(3).double())))
    assert float((by.rotation @ head @ UP) @ UP) > 0.999


@given(seed=seeds)
def test_the_similarity_that_made_points_is_found(seed: int) -> None:
    source = torch.from_numpy(np.random.default_rng(seed).normal(size=(9, 3)))
    by = some_similarity(seed)
    found = fitted(source, by.points(source), "test")
    assert_close(found.points(source), by.points(source))


def test_too_little_is_refused() -> None:
    source = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 3)))
    with pytest.raises(InputError, match="test: needs 3 images that are placed, has 2"):
        fitted(source[:2], source[:2], "test")
    line = torch.arange(5).double()[:, None] * torch.ones(3).double()
    with pytest.raises(InputError, match="test: the images lie on a line"):
        fitted(line, line, "test")


def gps_photo(file: Path, east: float, north: float, height: float) -> None:
    """A photo whose EXIF says a place near 32° S, 116° E."""
    latitude = -32 + north / 110_873.0  # metres of a degree of latitude there
    longitude = 116 + east / 94_493.0

    def parts(angle: float) -> tuple[float, float, float]:
        minutes, seconds = divmod(abs(angle) * 3600, 60)
        return (*divmod(minutes, 60), round(seconds, 6))

    exif = Image.Exif()
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef], place[ExifTags.GPS.GPSLatitude] = "S", parts(latitude)
    place[ExifTags.GPS.GPSLongitudeRef], place[ExifTags.GPS.GPSLongitude] = "E", parts(longitude)
    place[ExifTags.GPS.GPSAltitudeRef], place[ExifTags.GPS.GPSAltitude] = b"\x00", height
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(file, exif=exif)


def test_gps_places_give_metres_and_say_where_north_is(tmp_path: Path) -> None:
    scene = level_scene(2, root=tmp_path)
    draw = np.random.default_rng(1)
    truth = scene.poses.position.numpy() * 20
    for name, place in zip(scene.images, truth + draw.normal(0, 0.5, truth.shape), strict=True):
        gps_photo(tmp_path / name, place[0], place[1], 50 + place[2])
    where = gps_place(tmp_path / scene.images[0])
    assert where is not None
    assert where == pytest.approx((-32, 116, 50), abs=60)
    assert where[0] < -31.9
    made, about = scaled_by_gps(moved(scene, some_similarity(6)))
    assert made.unit == "m"
    assert about["images"] == 12
    assert 0.1 < about["median_residual_m"] < 2
    apart = torch.pdist(made.poses.position)
    assert_close(apart, torch.pdist(torch.from_numpy(truth)), rtol=0.1, atol=2)
    east = made.poses.position[:, 0] - made.poses.position[:, 0].mean()
    assert_close(east, torch.from_numpy(truth[:, 0] - truth[:, 0].mean()), rtol=0.1, atol=3)


def test_photos_without_a_place_give_no_metres(tmp_path: Path) -> None:
    scene = level_scene(2, root=tmp_path)
    for name in scene.images:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    with pytest.raises(InputError, match="--scale gps: 0 of 12 placed photos have a GPS place"):
        scaled_by_gps(scene)


def flipped(*signs: float) -> torch.Tensor:
    return torch.diag(torch.tensor(signs, dtype=torch.float64))


def posed(position: torch.Tensor, rotation: torch.Tensor) -> Pose:
    return Pose(position, matrix_to_quaternion(rotation))


IMPOSSIBLE: dict[str, Callable[[Pose], Pose]] = {
    "mirrored": lambda p: posed(
        p.position @ flipped(-1, 1, 1), flipped(-1, 1, 1) @ p.rotation @ flipped(-1, 1, 1)
    ),
    "places mirrored": lambda p: Pose(p.position @ flipped(1, 1, -1), p.quaternion),
    "cam_from_world": lambda p: p.inverse(),
    "axes of OpenGL": lambda p: posed(p.position, p.rotation @ flipped(1, -1, -1)),
    "w at the other end": lambda p: Pose(p.position, p.quaternion.roll(-1, 1)),
    "of other photos": lambda p: p[torch.arange(len(p)).roll(5)],
}


def by_poses(scene: Scene, poses: Pose) -> tuple[Scene, dict[str, Any]]:
    return scaled(scene, "poses", {name: poses[i] for i, name in enumerate(scene.images)})


@pytest.mark.parametrize("wrong", list(IMPOSSIBLE))
def test_poses_that_cannot_be_the_photos_give_no_metres(wrong: str) -> None:
    truth = level_scene(4)
    scene = moved(truth, some_similarity(3))
    made, about = by_poses(scene, truth.poses)
    assert made.unit == "m"
    assert scale_doubts(about) == []
    with pytest.raises(InputError, match=r"--scale: .*residuals are .* m, .*°.*mirrored.*axes"):
        by_poses(scene, IMPOSSIBLE[wrong](truth.poses))


@pytest.mark.parametrize(("metres", "degrees"), [(0.1, 0.0), (0.0, 10.0)])
def test_poses_that_fit_badly_are_told(metres: float, degrees: float) -> None:
    truth = level_scene(4)
    draw = np.random.default_rng(0)
    turns = Rotation.from_rotvec(np.radians(degrees) * np.tile([0, 0.6, 0.8], (12, 1))).as_matrix()
    turns[::2] = turns[::2].transpose(0, 2, 1)
    noise = torch.from_numpy(draw.normal(0, metres, (12, 3)))
    known = posed(truth.poses.position + noise, truth.poses.rotation @ torch.from_numpy(turns))
    made, about = by_poses(moved(truth, some_similarity(3)), known)
    assert made.unit == "m"
    (notice,) = scale_doubts(about)
    assert notice.code == "scale-residuals"
    assert f"{about['median_residual_m']:.3g} m" in notice.text


def test_images_in_two_places_are_not_said_to_lie_on_a_line() -> None:
    source = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 3)))
    two = torch.tensor([[0.0, 0, 0], [1, 2, 3]]).double().repeat(3, 1)
    with pytest.raises(InputError, match="test: the images are in two places only"):
        fitted(source, two, "test")
    with pytest.raises(InputError, match="test: the images are in one place only"):
        fitted(source, two[:1].expand(6, 3), "test")
