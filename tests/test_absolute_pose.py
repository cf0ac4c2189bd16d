"""PnP: the pose of points and pixels, against poses that were chosen."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relocal.camera import CAMERA_MODELS, Camera
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.sfm.absolute_pose import (
    fitted_bend,
    fitted_focal,
    pose_sigmas,
    refine_pose,
    solve_pose,
)

VALUES = {"f": 520.0, "fx": 520.0, "fy": 530.0, "cx": 322.0, "cy": 238.0}
BENDS = (-0.1, 0.03, 0.01, 0.002, 0.001, 0.001)
LENS = {
    **{f"k{i}": value for i, value in enumerate(BENDS, start=1)},
    **dict.fromkeys(("p1", "sx1"), 0.001),
    **dict.fromkeys(("p2", "sy1"), -0.002),
    "omega": 0.8,
    "k": -0.1,
    "alpha": 0.5,
    "beta": 1.1,
}


def camera_of(model: str) -> Camera:
    params = [{**VALUES, **LENS}[name] for name in CAMERA_MODELS[model]]
    return Camera(model, 640, 480, torch.tensor(params, dtype=torch.float64))


def seen(camera: Camera, seed: int, count: int = 60) -> tuple[Pose, np.ndarray, np.ndarray]:
    """A pose, points in front of it, and where it sees them."""
    draw = np.random.default_rng(seed)
    pixels = torch.from_numpy(draw.uniform([20, 20], [620, 460], size=(count, 2)))
    rays = camera.unproject(pixels) * torch.from_numpy(draw.uniform(1, 5, size=(count, 1)))
    pose = Pose.from_quaternion(
        torch.from_numpy(draw.normal(size=3)), torch.from_numpy(draw.normal(size=4))
    )
    return pose, pose.apply(rays).numpy(), pixels.numpy()


@pytest.mark.parametrize("model", CAMERA_MODELS)
@given(seed=st.integers(0, 10_000))
def test_exact_points_give_the_pose(model: str, seed: int) -> None:
    camera = camera_of(model)
    pose, points, pixels = seen(camera, seed)
    found = solve_pose(points, pixels, camera, 2.0)
    assert found is not None
    assert found.inliers.all()
    assert position_error(found.pose, pose) < 1e-5
    assert rotation_error_deg(found.pose, pose) < 1e-3


def test_pixels_that_a_fisheye_sees_beyond_its_side_mislead_nothing() -> None:
    camera = Camera("FISHEYE", 1300, 1300, (260, 260, 650, 650))  # 90° is 408 px from the middle
    pose, points, pixels = seen(camera.cropped(330, 410, 640, 480), 5, 40)
    pixels += [330, 410]
    # Pixels beyond 90°, each with the point that COLMAP's folded ray would pass through.
    beyond = np.stack([np.linspace(1075, 1290, 60), np.full(60, 650.0)], axis=1)
    folded = pose.apply(torch.tensor([[-2.0, 0.0, 1.0]]).double().expand(60, -1)).numpy()
    rows = np.r_[points, folded + np.linspace(0, 1, 60)[:, None]], np.r_[pixels, beyond]
    found = solve_pose(*rows, camera, 2.0)
    assert found is not None
    assert found.inliers.tolist() == [True] * 40 + [False] * 60
    assert position_error(found.pose, pose) < 1e-5
    assert solve_pose(rows[0][40:], rows[1][40:], camera, 2.0) is None


def test_half_of_the_points_may_be_wrong() -> None:
    camera = camera_of("RADIAL")
    pose, points, pixels = seen(camera, 1, 200)
    wrong = np.arange(200) % 2 == 0
    pixels[wrong] = np.random.default_rng(2).uniform(0, 480, size=(100, 2))
    found = solve_pose(points, pixels, camera, 3.0)
    assert found is not None
    assert position_error(found.pose, pose) < 0.01
    assert found.inliers[~wrong].all()
    assert found.inliers[wrong].mean() < 0.1


def test_the_same_points_give_the_same_pose() -> None:
    camera = camera_of("PINHOLE")
    _, points, pixels = seen(camera, 3)
    pixels += np.random.default_rng(4).normal(size=pixels.shape)
    one, other = (solve_pose(points, pixels, camera, 4.0) for _ in range(2))
    assert one is not None
    assert other is not None
    assert torch.equal(one.pose.position, other.pose.position)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_points_give_no_pose(count: int) -> None:
    camera = camera_of("PINHOLE")
    pose, points, pixels = seen(camera, 5)
    assert solve_pose(points[:count], pixels[:count], camera, 2.0) is None
    assert refine_pose(pose, points[:count], pixels[:count], camera) is None


def test_refinement_goes_to_the_pose_past_outliers() -> None:
    camera = camera_of("OPENCV")
    pose, points, pixels = seen(camera, 6, 100)
    pixels[:5] += 40
    near = Pose(pose.position + 0.03, pose.quaternion)
    found = refine_pose(near, points, pixels, camera)
    assert found is not None
    assert position_error(found, pose) < 0.002


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.1])
def test_the_focal_length_is_fitted(factor: float) -> None:
    camera = camera_of("SIMPLE_RADIAL")
    pose, points, pixels = seen(camera, 7, 100)
    params = camera.params.clone()
    params[0] /= factor  # what the user says
    told = Camera(camera.model, 640, 480, params)
    assert fitted_focal(pose, points, pixels, told) == pytest.approx(factor, rel=1e-3)


@pytest.mark.parametrize("noise_px", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("model", "count"), [("PINHOLE", 80), ("OPENCV", 80), ("PINHOLE", 25)])
def test_the_stated_spread_is_that_of_many_noisy_photos(
    model: str, count: int, noise_px: float
) -> None:
    camera = camera_of(model)
    pose, points, pixels = seen(camera, 8, count)
    draw = np.random.default_rng(9)
    found: list[Pose] = []
    stated: list[tuple[float, float]] = []
    for _ in range(200):
        noisy = pixels + draw.normal(scale=noise_px, size=pixels.shape)
        better = refine_pose(pose, points, noisy, camera)
        assert better is not None
        sigmas = pose_sigmas(better, points, noisy, camera)
        assert sigmas is not None
        found.append(better)
        stated.append(sigmas)
    poses = Pose.stack(found)
    spread = ((poses.position - pose.position).square().mean()).sqrt()
    turned = rotation_error_deg(poses, Pose.stack([pose] * len(poses)))
    turned = (turned.square().mean() / 3).sqrt()
    median_m, median_deg = np.median(stated, axis=0)
    assert median_m == pytest.approx(float(spread), rel=0.2)
    assert median_deg == pytest.approx(float(turned), rel=0.2)


def test_points_on_a_line_of_sight_say_nothing_of_the_spread() -> None:
    camera = camera_of("PINHOLE")
    pose, points, pixels = seen(camera, 10, 40)
    same = np.repeat(points[:1], 40, axis=0), np.repeat(pixels[:1], 40, axis=0)
    assert pose_sigmas(pose, *same, camera) is None
    assert pose_sigmas(pose, points[:3], pixels[:3], camera) is None


def test_a_bent_lens_explains_what_a_pinhole_does_not() -> None:
    bent = Camera("SIMPLE_RADIAL", 640, 480, (520, 322, 238, -0.15))
    noise = np.random.default_rng(0).normal(scale=0.5, size=(200, 2))
    for camera, doubtful in ((bent, True), (bent.undistorted(), False)):
        pose, points, pixels = seen(camera, 7, 200)
        pixels += noise
        straight = camera.undistorted()
        found = refine_pose(pose, points, pixels, straight)
        assert found is not None
        bend_px, explained = fitted_bend(found, points, pixels, straight)
        assert (bend_px > 5 and explained > 0.5) == doubtful
        assert (bend_px < 1 and explained < 0.1) != doubtful
