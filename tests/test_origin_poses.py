"""Any origin, any unit: poses and fits are the same wherever a world lies."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from test_alignment import level_scene, turn
from worlds import HERE, WORLDS, every_world

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.local_frame import LocalFrame
from relocal.localizers.retrieval import blended
from relocal.localizers.sequence import Measured, filter_poses, fit_motion
from relocal.localizers.spread import middle_and_spread
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.session.fitting import fit_poses
from relocal.sfm.absolute_pose import fitted_focal, pose_sigmas, refine_pose, solve_pose
from relocal.sfm.alignment import Similarity, fitted, moved, scaled, upright
from relocal.sfm.pairs import TriangulateConfig, pose_pairs

CAMERA = Camera.pinhole(640, 480, 520.0, 520.0, 320.0, 240.0)
seeds = st.integers(0, 10_000)
any_world = st.sampled_from(sorted(WORLDS))


def same(found: float, wanted: float, least: float = 0.0) -> None:
    """The law: equal to one per cent."""
    assert found == pytest.approx(wanted, rel=0.01, abs=least)


# --- PnP ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """Points with noisy pixels, some of them wrong."""

    pose: Pose
    points: torch.Tensor
    pixels: np.ndarray


def seen(seed: int, count: int = 80) -> Seen:
    draw = np.random.default_rng(seed)
    pixels = torch.from_numpy(draw.uniform([20, 20], [620, 460], size=(count, 2)))
    rays = CAMERA.unproject(pixels) * torch.from_numpy(draw.uniform(1, 5, size=(count, 1)))
    place, quaternion = (torch.from_numpy(draw.normal(size=k)) for k in (3, 4))
    pose = Pose.from_quaternion(place, quaternion)
    noisy = pixels.numpy() + draw.normal(0, 0.5, size=(count, 2))
    noisy[: count // 5] = draw.uniform(0, 480, size=(count // 5, 2))
    return Seen(pose, pose.apply(rays), noisy)


def answers(case: Seen, by: Similarity) -> tuple[list[float], Pose]:
    """Errors and spreads in the unit of the first world, and the refined pose."""
    points, truth = by.points(case.points).numpy(), by.poses(case.pose)
    found = solve_pose(points, case.pixels, CAMERA, 4.0)
    assert found is not None
    right = np.flatnonzero(found.inliers)
    pose = refine_pose(found.pose, points[right], case.pixels[right], CAMERA)
    assert pose is not None
    sigmas = pose_sigmas(pose, points[right], case.pixels[right], CAMERA)
    assert sigmas is not None
    focal = fitted_focal(pose, points[right], case.pixels[right], CAMERA)
    lengths = float(position_error(pose, truth)) / by.scale, sigmas[0] / by.scale
    angle = float(rotation_error_deg(pose, truth))
    return [*lengths, angle, sigmas[1], focal, len(right)], pose


@given(seed=seeds, name=any_world)
@settings(max_examples=40)
def test_a_pose_is_as_exact_in_any_world(seed: int, name: str) -> None:
    case = seen(seed)
    here, there = answers(case, HERE)[0], answers(case, WORLDS[name])[0]
    # One match at the limit, in here and out there, moves a pose by some hundredths of its spread.
    least = (here[1], here[1], here[3], here[3], 0, 0)
    for found, wanted, floor in zip(there, here, least, strict=True):
        same(found, wanted, 0.04 * floor)


@pytest.mark.parametrize("name", ["utm", "large", "ecef in millimetres"])
@given(seed=seeds)
@settings(max_examples=10)
def test_the_refined_pose_is_the_least_of_an_independent_optimiser(name: str, seed: int) -> None:
    case = seen(seed)
    right, by = np.arange(16, 80), WORLDS[name]
    points, pixels = case.points.numpy()[right], case.pixels[right]

    def residuals(x: np.ndarray) -> np.ndarray:
        local = Rotation.from_rotvec(x[:3]).apply(points - x[3:], inverse=True)
        error = 520 * local[:, :2] / local[:, 2:] + (320, 240) - pixels
        return np.linalg.norm(error, axis=1)

    w, *xyz = case.pose.quaternion.tolist()
    start = [*Rotation.from_quat([*xyz, w]).as_rotvec(), *case.pose.position.tolist()]
    least = least_squares(residuals, start, loss="cauchy", xtol=1e-12, ftol=1e-14, gtol=1e-12)
    near = by.poses(Pose(case.pose.position + 0.01, case.pose.quaternion))
    found = refine_pose(near, by.points(torch.from_numpy(points)).numpy(), pixels, CAMERA)
    assert found is not None
    wanted = by.points(torch.from_numpy(least.x[3:]))
    sigmas = pose_sigmas(case.pose, points, pixels, CAMERA)
    assert sigmas is not None
    assert float((found.position - wanted).norm()) / by.scale < 0.02 * sigmas[0]


# --- fits --------------------------------------------------------------------------------------


def umeyama(one: np.ndarray, other: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Umeyama (1991), equations 34 and 39 to 43, written anew."""
    a, b = one - one.mean(0), other - other.mean(0)
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    s = np.ones(3)
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        s[-1] = -1
    scale = float((d * s).sum() / (a**2).sum() * len(a))
    turned = u @ np.diag(s) @ vt
    return scale, turned, other.mean(0) - scale * turned @ one.mean(0)


def walk(kind: str, seed: int) -> np.ndarray:
    """Positions: level ones lie at z = 0, those of a plane in a turned one through the origin."""
    draw = np.random.default_rng(seed)
    k = np.arange(30.0)
    if kind == "level":
        return np.stack([0.1 * k, np.sin(k / 6), 0 * k], axis=1)
    xyz = draw.normal(size=(30, 3))
    if kind == "plane":
        xyz[:, 2] = 0
        xyz -= xyz.mean(0)
    return xyz @ turn(seed + 1).numpy().T if kind == "plane" else xyz


@given(seed=seeds, name=any_world, kind=st.sampled_from(["level", "plane", "space"]))
def test_a_fit_is_that_of_umeyama_in_any_world(seed: int, name: str, kind: str) -> None:
    draw = np.random.default_rng(seed + 2)
    source, by = walk(kind, seed), WORLDS[name]
    noisy = source + draw.normal(0, 0.01, size=source.shape)
    scale, turned, shift = umeyama(source, noisy)
    target = by.points(torch.from_numpy(noisy))
    for one, ratio in ((source, 1.0), (by.scale * source, by.scale)):
        found = fitted(torch.from_numpy(one), target, "test")
        assert found.scale * ratio == pytest.approx(by.scale * scale, rel=1e-6)
        left = found.points(torch.from_numpy(one)) - target
        wanted = scale * source @ turned.T + shift - noisy
        same(float(left.norm()) / by.scale, float(np.linalg.norm(wanted)))
        mirror = torch.linalg.det(found.rotation)
        assert float(mirror) == pytest.approx(1)


@every_world
def test_images_on_a_line_are_refused_in_any_world_and_a_path_of_a_metre_is_not(name: str) -> None:
    by = WORLDS[name]
    line = by.points(torch.linspace(0, 1, 9)[:, None].double() * torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(InputError, match="on a line"):
        fitted(line, line, "test")
    wide = torch.from_numpy(walk("level", 0)[:9])
    assert fitted(wide, by.points(wide), "test").scale == pytest.approx(by.scale, rel=1e-5)


@every_world
def test_a_labelled_scene_is_put_into_any_world(name: str) -> None:
    scene, by = level_scene(4), WORLDS[name]
    draw = np.random.default_rng(0)
    known = {
        image: Pose(
            by.points(scene.poses.position[i] + torch.from_numpy(draw.normal(0, 0.01, 3))),
            by.poses(scene.poses).quaternion[i],
        )
        for i, image in enumerate(scene.images)
    }
    wanted = {image: Pose(*parts) for image, parts in zip(known, here(known, by), strict=True)}
    at, told = scaled(scene, "poses", known)
    _, usual = scaled(scene, "poses", wanted)
    same(told["median_residual_m"] / by.scale, usual["median_residual_m"])
    same(told["median_residual_deg"], usual["median_residual_deg"], 1e-6)
    assert at.points is not None
    assert scene.points is not None
    ends = by.points(torch.from_numpy(scene.points.xyz)).numpy()
    assert np.abs(at.points.xyz - ends).max() < 0.2 * by.scale
    # What is up does not depend on where the world is: heights and distances stay.
    one, other = (moved(s, upright(s)) for s in (scene, moved(scene, by)))
    low, high = one.poses.position, other.poses.position / by.scale
    assert torch.allclose(low[:, 2] - low[0, 2], high[:, 2] - high[0, 2], atol=1e-5)
    assert torch.allclose(torch.pdist(low), torch.pdist(high), rtol=1e-5)


def here(poses: dict[str, Pose], by: Similarity) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Poses of another world in the first one."""
    back = Similarity(1 / by.scale, by.rotation.T, torch.zeros(3).double())
    return [
        (
            back.points(p.position - by.shift),
            back.poses(Pose(0 * p.position, p.quaternion)).quaternion,
        )
        for p in poses.values()
    ]


@every_world
@pytest.mark.parametrize("free", [False, True])
def test_a_session_is_aligned_in_any_world(name: str, free: bool) -> None:
    draw = np.random.default_rng(1)
    position, quaternion = (torch.from_numpy(draw.normal(size=(30, k))) for k in (3, 4))
    tracked = Pose.from_quaternion(position, quaternion)
    off = torch.from_numpy(draw.normal(0, 0.02, size=(30, 3)))
    off[3] += 5.0  # a wrong answer
    estimated, by = Pose(position + off, tracked.quaternion), WORLDS[name]
    usual = fit_poses(tracked, estimated, scaled=free)
    # Without a free scale both are in one unit.
    device = tracked if free else Pose(by.scale * position, tracked.quaternion)
    found = fit_poses(device, by.poses(estimated), scaled=free)
    ratio = by.scale if free else 1.0
    same(found.sigma / by.scale, usual.sigma)
    same(found.free_scale / ratio, usual.free_scale)
    same(found.scale_error / ratio, usual.scale_error)
    assert torch.equal(found.kept, usual.kept)
    assert not found.kept[3]
    ends, wanted = found.by.points(device.position), by.points(usual.by.points(position))
    assert float((ends - wanted).norm(dim=1).max()) < 1e-5 * by.scale


@every_world
def test_images_are_paired_alike_in_any_world(name: str) -> None:
    draw = np.random.default_rng(2)
    position, quaternion = (torch.from_numpy(draw.normal(size=(80, k))) for k in (3, 4))
    poses, config = Pose.from_quaternion(position, quaternion), TriangulateConfig()
    pairs = pose_pairs(WORLDS[name].poses(poses), config)
    assert np.array_equal(pairs, pose_pairs(poses, config))


@every_world
def test_a_filter_and_means_of_poses_are_the_same_in_any_world(name: str) -> None:
    draw, by = np.random.default_rng(3), WORLDS[name]
    steps = torch.from_numpy(draw.normal(0, 0.02, size=(40, 3))).cumsum(0).cumsum(0)
    turns = torch.tensor([1.0, 0, 0, 0]).double() + torch.from_numpy(
        0.01 * draw.normal(size=(40, 4))
    )
    path = Pose.from_quaternion(steps, turns)
    noisy = Pose(steps + torch.from_numpy(draw.normal(0, 0.05, size=(40, 3))), path.quaternion)

    def errors(by: Similarity) -> list[float]:
        true, seen = by.poses(path), by.poses(noisy)
        motion = fit_motion(true, ["one"] * 40)
        given = [Measured(seen[i], 0.05 * by.scale, 1.0) for i in range(40)]
        last = filter_poses(given, motion)[-1]
        assert last is not None
        off = [float(position_error(last.pose, true[39])), last.sigma, motion.acceleration]
        middle, spread, _ = middle_and_spread(seen[:9])
        blend = blended(seen[:5], torch.linspace(1, 0.95, 5).double())
        off += [spread, *(float(position_error(p, true[4])) for p in (middle, blend))]
        return [value / by.scale for value in off]

    for found, wanted in zip(errors(by), errors(HERE), strict=True):
        same(found, wanted)


# --- the frame -------------------------------------------------------------------------------


@given(seed=seeds, name=any_world)
def test_a_local_frame_gives_the_world_back(seed: int, name: str) -> None:
    xyz = torch.from_numpy(np.random.default_rng(seed).normal(size=(9, 3)))
    there = WORLDS[name].points(xyz)
    frame = LocalFrame.about(there)
    local = frame.points(there)
    assert float(local.norm(dim=1).median()) == pytest.approx(1, rel=1e-4)
    assert torch.allclose(frame.world_points(local), there, rtol=1e-15, atol=1e-12)


@pytest.mark.parametrize("places", [[[5e6, 1.0, 2.0]], [[5e6, 1.0, 2.0]] * 4])
def test_a_local_frame_of_one_place_has_the_worlds_unit(places: list[list[float]]) -> None:
    assert LocalFrame.about(torch.tensor(places)).length == 1.0


def test_a_local_frame_of_places_most_of_which_are_one_reaches_the_others() -> None:
    places = torch.zeros(9, 3)
    places[7:, 0] = torch.tensor([8.0, -8.0])
    assert LocalFrame.about(places).length == pytest.approx(8)
