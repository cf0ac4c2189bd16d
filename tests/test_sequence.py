"""The filter over frames: laws of motion, of noise and of outliers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relocal.errors import InputError
from relocal.localizers.sequence import (
    LOST,
    Filtered,
    Measured,
    Motion,
    filter_poses,
    fit_motion,
    measured,
)
from relocal.pose import (
    Pose,
    position_error,
    quaternion_exp,
    quaternion_multiply,
    rotation_error_deg,
)

SLOW = Motion(acceleration=0.002, turn_acceleration_deg=0.1)


FINE = 8  # steps of the simulation in a frame


def walk(count: int, seed: int = 0, motion: Motion = SLOW) -> Pose:
    """A camera that moves as the filter thinks: white acceleration, in small steps."""
    draw = np.random.default_rng(seed)
    x, v = draw.normal(size=3), 0.02 * draw.normal(size=3)
    q = torch.from_numpy(draw.normal(size=4))
    q, turning = q / q.norm(), torch.from_numpy(0.02 * draw.normal(size=3))
    push, twist = motion.acceleration, np.deg2rad(motion.turn_acceleration_deg)
    poses: list[Pose] = []
    for step in range(FINE * (count - 1) + 1):
        if step % FINE == 0:
            poses.append(Pose(torch.from_numpy(x.copy()), q))
        x = x + v / FINE
        q = quaternion_multiply(q, quaternion_exp(turning / FINE / 2))
        v = v + push * draw.normal(size=3) / FINE**0.5
        turning = turning + twist * torch.from_numpy(draw.normal(size=3)) / FINE**0.5
    return Pose.stack(poses)


def noisy(truth: Pose, sigma: float, sigma_deg: float, seed: int = 1) -> list[Measured | None]:
    draw = np.random.default_rng(seed)
    found: list[Measured | None] = []
    for i in range(len(truth)):
        shift = torch.from_numpy(draw.normal(scale=sigma, size=3))
        turn = torch.from_numpy(draw.normal(scale=np.deg2rad(sigma_deg), size=3))
        q = quaternion_multiply(truth.quaternion[i], quaternion_exp(turn / 2))
        found.append(Measured(Pose(truth.position[i] + shift, q), sigma, sigma_deg))
    return found


def poses_of(found: list[Filtered | None]) -> Pose:
    return Pose.stack([f.pose for f in found if f is not None])


def test_exact_estimates_stay_as_they_are() -> None:
    truth = walk(50)
    found = filter_poses(noisy(truth, 1e-9, 1e-7), SLOW)
    assert position_error(poses_of(found), truth).max() < 1e-6
    assert rotation_error_deg(poses_of(found), truth).max() < 1e-4
    assert all(f is not None and f.used for f in found)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_filtering_brings_noisy_estimates_nearer(seed: int) -> None:
    truth = walk(120, seed)
    measured = noisy(truth, 0.1, 3.0, seed + 1)
    found = poses_of(filter_poses(measured, SLOW))[20:]
    raw = Pose.stack([m.pose for m in measured if m is not None])[20:]
    for error in (position_error, rotation_error_deg):
        assert error(found, truth[20:]).mean() < 0.75 * error(raw, truth[20:]).mean()


def test_the_stated_spread_is_the_true_one() -> None:
    square, count = np.zeros(2), 0
    for seed in range(25):
        truth = walk(60, seed)
        found = filter_poses(noisy(truth, 0.05, 2.0, seed + 100), SLOW)
        for f, i in zip(found[20:], range(20, 60), strict=True):
            assert f is not None
            moved = float(position_error(f.pose, truth[i])) / f.sigma
            turned = float(rotation_error_deg(f.pose, truth[i])) / f.sigma_deg
            square += moved**2 / 3, turned**2 / 3
            count += 1
    assert square / count == pytest.approx([1.0, 1.0], rel=0.15)


def test_the_world_may_be_any() -> None:
    truth = walk(40)
    measured = noisy(truth, 0.05, 2.0)
    draw = torch.Generator().manual_seed(3)
    world = Pose.from_quaternion(
        torch.randn(3, generator=draw).double(), torch.randn(4, generator=draw).double()
    )
    moved = [
        None if m is None else Measured(world @ m.pose, m.sigma, m.sigma_deg) for m in measured
    ]
    here, there = (poses_of(filter_poses(m, SLOW)) for m in (measured, moved))
    expected = Pose.stack([world @ here[i] for i in range(len(here))])
    assert position_error(expected, there).max() < 1e-9
    assert rotation_error_deg(expected, there).max() < 1e-5


def test_outliers_take_no_part() -> None:
    truth = walk(60)
    measured = noisy(truth, 0.03, 1.0)
    wrong = [20, 21, 35, 50]
    for i in wrong:
        measured[i] = Measured(Pose(truth.position[i] + 3.0, truth.quaternion[i]), 0.03, 1.0)
    found = filter_poses(measured, SLOW)
    assert [i for i, f in enumerate(found) if f is not None and not f.used] == wrong
    assert position_error(poses_of(found), truth).max() < 0.15


def test_gaps_are_bridged_with_growing_doubt() -> None:
    truth = walk(40)
    measured = noisy(truth, 0.02, 0.5)
    measured[20:26] = [None] * 6
    found = filter_poses(measured, SLOW)
    sigmas = [f.sigma for f in found[19:26] if f is not None]
    assert sigmas == sorted(sigmas)
    assert not any(f is not None and f.used for f in found[20:26])
    assert position_error(poses_of(found), truth).max() < 0.2


def test_a_camera_that_is_elsewhere_is_followed_after_a_while() -> None:
    truth, other = walk(30, 0), walk(30, 5)
    measured = [*noisy(truth, 0.02, 0.5), *noisy(other, 0.02, 0.5)]
    found = filter_poses(measured, SLOW)
    used = [f is not None and f.used for f in found[30:]]
    assert used[:LOST] == [False] * LOST
    assert all(used[LOST:])
    last = found[-1]
    assert last is not None
    assert position_error(last.pose, other[29]) < 0.1


def test_nothing_is_known_before_the_first_estimate() -> None:
    measured = [None, None, *noisy(walk(3), 0.1, 1.0)]
    found = filter_poses(measured, SLOW)
    assert found[:2] == [None, None]
    assert all(f is not None for f in found[2:])


def test_frames_may_be_missing_from_a_list() -> None:
    truth = walk(60)
    every = noisy(truth, 1e-9, 1e-7)
    kept = [0, 1, 2, 5, 6, 10, 11, 12, 20]
    found = filter_poses([every[i] for i in kept], SLOW, [float(i) for i in kept])
    assert position_error(poses_of(found), truth[torch.tensor(kept)]).max() < 1e-6
    with pytest.raises(InputError, match="ascend"):
        filter_poses(every[:3], SLOW, [0.0, 2.0, 1.0])
    with pytest.raises(InputError, match="one time an estimate"):
        filter_poses(every[:3], SLOW, [0.0, 1.0])


def test_a_motion_is_fitted_to_recordings() -> None:
    one, other = walk(400, 0), walk(400, 1)
    poses = Pose(
        torch.cat([one.position, other.position]), torch.cat([one.quaternion, other.quaternion])
    )
    found = fit_motion(poses, ["a"] * 400 + ["b"] * 400)
    assert found.acceleration == pytest.approx(SLOW.acceleration, rel=0.15)
    assert found.turn_acceleration_deg == pytest.approx(SLOW.turn_acceleration_deg, rel=0.15)
    with pytest.raises(InputError, match="three frames"):
        fit_motion(one[:4], ["a", "a", "b", "b"])


def test_a_motion_is_the_same_from_every_third_frame() -> None:
    poses = walk(3000, 0)
    rows = torch.arange(0, 3000, 3)
    found = fit_motion(poses[rows], ["a"] * 1000, rows.double().tolist())
    assert found.acceleration == pytest.approx(SLOW.acceleration, rel=0.15)
    assert found.turn_acceleration_deg == pytest.approx(SLOW.turn_acceleration_deg, rel=0.15)


@pytest.mark.parametrize("spread", [0.0, float("nan"), float("inf"), None])
def test_an_estimate_that_nobody_is_sure_of_takes_no_part(spread: float | None) -> None:
    assert measured(Pose.identity(), 0.1, spread) is None
    assert measured(Pose.identity(), spread, 0.1) is None
    if spread is not None:
        with pytest.raises(InputError, match="cannot be filtered"):
            Measured(Pose.identity(), 0.1, spread)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_a_motion_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"--motion\.acceleration"):
        Motion(acceleration=value, turn_acceleration_deg=1.0)
