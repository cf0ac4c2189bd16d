"""Whether poses and photos belong together: laws of the measure, and what must be refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from relocal.errors import InputError
from relocal.localizers import MapConfig, build_map
from relocal.pose import Pose, matrix_to_quaternion
from relocal.scene import Scene
from relocal.sfm.consistency import (
    LEAST_SHARE,
    arc_angle,
    better_reading,
    check_matches,
    check_points,
    sample_pairs,
    share_that_fits,
    verified,
)
from relocal.sfm.readings import READINGS
from relocal.training import train

seeds = st.integers(0, 10_000)


def some_pose(draw: np.random.Generator, step: float = 1.0) -> Pose:
    turn = Rotation.from_rotvec(draw.normal(scale=0.5, size=3)).as_matrix()
    shift = torch.from_numpy(draw.normal(scale=step, size=3))
    return Pose(shift, matrix_to_quaternion(torch.from_numpy(turn)))


def seen_by_both(draw: np.random.Generator, other_from_one: Pose) -> tuple[torch.Tensor, ...]:
    xyz = torch.from_numpy(draw.normal(size=(40, 3)) + np.array([0, 0, 5.0]))
    return xyz, other_from_one.apply(xyz)


@given(seeds)
def test_what_two_cameras_see_fits_their_poses(seed: int) -> None:
    """Also behind them: rays are directions, of any lens."""
    draw = np.random.default_rng(seed)
    pose = some_pose(draw)
    one, other = seen_by_both(draw, pose)
    assert float(arc_angle(one, other, pose).max()) < 1e-6
    assert float(arc_angle(3 * one, 0.1 * other, pose).max()) < 1e-6


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_the_angle_is_the_least_over_all_depths(seed: int) -> None:
    draw = np.random.default_rng(seed)
    pose = some_pose(draw)
    one, other = (torch.from_numpy(draw.normal(size=(5, 3))) for _ in range(2))
    depths = np.concatenate([[0], np.geomspace(1e-5, 1e5, 20001)])
    for k in range(5):
        ray = (one[k] / one[k].norm()).numpy()
        points = depths[:, None] * (pose.rotation.numpy() @ ray) + pose.position.numpy()
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        cosine = (points @ (other[k] / other[k].norm()).numpy()).max()
        found = float(arc_angle(one[k : k + 1], other[k : k + 1], pose))
        assert found == pytest.approx(np.arccos(np.clip(cosine, -1, 1)), abs=1e-3)


@given(seeds)
def test_a_mere_turn_has_no_arc_but_a_point(seed: int) -> None:
    draw = np.random.default_rng(seed)
    pose = replace(some_pose(draw), position=torch.zeros(3).double())
    one, _ = seen_by_both(draw, pose)
    other = pose.apply(one)
    assert float(arc_angle(one, other, pose).max()) < 1e-6
    assert share_that_fits(one, other, pose) is None  # and it says nothing of the poses


def test_a_step_the_other_way_does_not_fit() -> None:
    """An epipolar line would not tell: things would be behind the cameras."""
    draw = np.random.default_rng(0)
    pose = Pose(torch.tensor([1.0, 0.2, 0]).double(), torch.tensor([1.0, 0, 0, 0]).double())
    one, other = seen_by_both(draw, pose)
    assert share_that_fits(one, other, pose) == 1
    assert share_that_fits(one, other, replace(pose, position=-pose.position)) == 0


def test_verification_needs_no_poses_and_drops_wrong_matches() -> None:
    draw = np.random.default_rng(0)
    one, other = seen_by_both(draw, some_pose(draw, 0.3))
    wrong = torch.from_numpy(draw.permutation(10))
    mixed = torch.cat([other[:10][wrong], other[10:]])
    kept = set(verified(one, mixed).tolist())
    assert len(kept & set(range(10, 40))) > 25
    assert len(kept & {i for i in range(10) if wrong[i] != i}) <= 3
    assert len(verified(one[:5], other[:5])) == 0


def test_pairs_are_some_by_pose_and_some_by_recording() -> None:
    by_pose = np.array([(i, 99 - i) for i in range(49)])
    chosen = sample_pairs(by_pose, 100, 20)
    assert len(chosen) <= 40
    assert len(set(chosen) & set(map(tuple, by_pose.tolist()))) >= 20
    assert sum(b - a in (1, 2, 4, 8) for a, b in chosen) >= 20
    assert sample_pairs(np.zeros((0, 2), int), 2, 20) == [(0, 1)]


def test_few_pairs_are_no_verdict_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    draw = np.random.default_rng(0)
    poses = Pose.stack([some_pose(draw) for _ in range(2)])
    one = torch.from_numpy(draw.normal(size=(40, 3)))
    pairs = [(0, 1, one, one.flip(0))]
    assert check_matches("place", poses, pairs * 4) is None
    assert "place: too few photos" in caplog.text
    with pytest.raises(InputError, match="mirrored world"):
        check_matches("place", poses, pairs * 5)


def of(rotation: np.ndarray, position: np.ndarray) -> Pose:
    turn = torch.from_numpy(np.ascontiguousarray(rotation))
    return Pose(torch.from_numpy(np.ascontiguousarray(position)), matrix_to_quaternion(turn))


def wrong_poses(poses: Pose) -> Iterator[tuple[str, Pose]]:
    """What people's files hold."""
    turn, place, q = poses.rotation.numpy(), poses.position.numpy(), poses.quaternion
    for axis in range(3):
        mirror = np.eye(3)
        mirror[axis, axis] = -1
        upside = np.diag([1.0, -1, 1])
        yield f"a world mirrored along {axis}", of(mirror @ turn @ upside, place @ mirror)
    yield "OpenGL's camera", of(turn @ np.diag([1.0, -1, -1]), place)
    yield "a robot's camera, x ahead", of(turn @ np.eye(3)[:, [2, 0, 1]], place)
    yield "w read as the last", Pose(poses.position, q[:, [1, 2, 3, 0]])
    yield "w read as the first", Pose(poses.position, q[:, [3, 0, 1, 2]])
    inverse = poses.inverse()
    yield "cam_from_world", inverse
    yield "the translation for the centre", Pose(inverse.position, q)
    yield "the rotation the other way", Pose(poses.position, inverse.quaternion)
    for order in ([1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0]):
        yield f"positions in the order {order}", Pose(poses.position[:, order], q)
    yield "other photos", Pose(poses.position.roll(7, 0), q.roll(7, 0))


@pytest.mark.parametrize("number", range(15))
def test_a_map_of_wrong_poses_is_refused(tiny_scene: Scene, number: int) -> None:
    _, poses = list(wrong_poses(tiny_scene.poses))[number]
    scene = replace(tiny_scene, poses=poses, folder=None)
    with pytest.raises(InputError, match=r"verified matches fit the poses.*(wrong|photos fit)"):
        build_map(scene, MapConfig(limit=500))


def test_points_fit_their_scene_and_no_other_poses(tiny_scene: Scene) -> None:
    assert tiny_scene.points is not None
    train = tiny_scene.indices("train").tolist()
    assert check_points(tiny_scene, tiny_scene.points, train, "tiny") == pytest.approx(1, abs=0.02)
    for _, poses in wrong_poses(tiny_scene.poses):
        with pytest.raises(InputError, match="observations of map points"):
            check_points(replace(tiny_scene, poses=poses), tiny_scene.points, train, "tiny")


@pytest.mark.parametrize("number", [1, 5, 7, 10])
def test_a_training_with_map_points_of_other_poses_is_refused(
    tiny_scene: Scene, tmp_path: Path, number: int
) -> None:
    _, poses = list(wrong_poses(tiny_scene.poses))[number]
    with pytest.raises(InputError, match="observations of map points fit the poses"):
        train(replace(tiny_scene, poses=poses.canonical()), tmp_path / "run")


def orbit(images: int = 14) -> tuple[Pose, list[tuple[int, int, torch.Tensor, torch.Tensor]]]:
    """A camera that goes round some things and looks at their middle, and its pairs of images.

    Rays have the noise of half a pixel, at a focal length of 500.
    """
    draw = np.random.default_rng(0)
    angle = np.linspace(0, 2.4, images)
    place = np.stack([4 * np.cos(angle), 4 * np.sin(angle), 1.5 + 0.5 * np.sin(3 * angle)], axis=1)
    ahead = -place / np.linalg.norm(place, axis=1, keepdims=True)
    right = np.cross(ahead, [0, 0, 1.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    turn = np.stack([right, np.cross(ahead, right), ahead], axis=2)
    poses = of(turn, place)
    xyz = draw.uniform(-1, 1, size=(60, 3))
    seen = (xyz[None] - place[:, None]) @ turn
    rays = seen[..., :2] / seen[..., 2:] + draw.normal(scale=0.5 / 500, size=(images, 60, 2))
    whole = torch.from_numpy(np.concatenate([rays, np.ones_like(rays[..., :1])], axis=2))
    pairs = [(i, i + k) for k in (1, 2, 4) for i in range(images - k)]
    return poses, [(a, b, whole[a], whole[b]) for a, b in pairs]


def test_an_orbit_of_right_poses_fits_and_has_no_better_reading() -> None:
    poses, pairs = orbit()
    assert check_matches("orbit", poses, pairs) == pytest.approx(1, abs=0.02)
    assert better_reading(poses, pairs) is None
    moved = Pose(3 * poses.position + 100, poses.quaternion)
    assert better_reading(moved, pairs) is None


def test_a_camera_turned_about_its_axis_is_refused_though_its_matches_fit() -> None:
    """What is near moves as what is far should: on an orbit the share of matches cannot tell."""
    poses, pairs = orbit()
    turned = of(poses.rotation.numpy() @ np.diag([-1.0, -1, 1]), poses.position.numpy())
    near = [pair for pair in pairs if pair[1] - pair[0] == 1]
    shares = [share_that_fits(r, s, turned[b].inverse() @ turned[a]) for a, b, r, s in near]
    assert np.median([share for share in shares if share is not None]) > 0.9
    with pytest.raises(InputError, match=r"The photos fit if .* x left, y up, z ahead"):
        check_matches("orbit", turned, near)


def misread(poses: Pose) -> dict[str, Pose]:
    """For each reading, by words of its name: right poses as one who does not know it has them."""
    turn, place, q = poses.rotation.numpy(), poses.position.numpy(), poses.quaternion
    # Columns: where the axes of the file's camera point, in the frame of OpenCV's.
    cameras = {
        "x right, y up, z back": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
        "x left, y up, z ahead": [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
        "x left, y down, z back": [[-1, 0, 0], [0, 1, 0], [0, 0, -1]],
        "x ahead, y left, z up": [[0, 0, 1], [-1, 0, 0], [0, -1, 0]],
        "x ahead, y right, z down": [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
        "x down, y left, z ahead": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
        "x up, y right, z ahead": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    }
    found = {name: of(turn @ np.array(axes, float).T, place) for name, axes in cameras.items()}
    for name, axis in (
        ("x axis points left", 0),
        ("y axis points up", 1),
        ("z axis points back", 2),
    ):
        camera, world = np.eye(3), np.diag([1.0, -1, 1])
        camera[axis, axis] = -1
        found[name] = of(world @ turn @ camera, place @ world)
    inverse = poses.inverse()
    found["positions point the other way"] = Pose(-poses.position, q)
    found["poses are cam_from_world"] = inverse
    found["rotations are cam_from_world"] = Pose(poses.position, inverse.quaternion)
    found["translations of cam_from_world"] = Pose(inverse.position, q)
    found["have w last"] = Pose(poses.position, q[:, [1, 2, 3, 0]])
    found["have w first"] = Pose(poses.position, q[:, [3, 0, 1, 2]])
    for name, order in (("x and y", [1, 0, 2]), ("x and z", [2, 1, 0]), ("y and z", [0, 2, 1])):
        found[f"{name} exchanged"] = Pose(poses.position[:, order], q)
    return found


NAMES = sorted(misread(orbit()[0]))


@pytest.mark.parametrize("name", NAMES)
def test_what_the_poses_were_meant_to_be_is_named(name: str) -> None:
    poses, pairs = orbit()
    with pytest.raises(InputError, match=f"The photos fit if .*{name}"):
        check_matches("orbit", misread(poses)[name], pairs)


def test_each_reading_has_one_name_and_a_test() -> None:
    assert [sum(name in reading for name in NAMES) for reading in READINGS] == [1] * len(NAMES)


def test_the_limit_lies_between_right_and_wrong() -> None:
    assert 0.43 + 0.1 < LEAST_SHARE < 0.79 - 0.1
