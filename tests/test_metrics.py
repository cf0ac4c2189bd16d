"""Metrics against slow twins in NumPy and SciPy; failures count and are never filled in."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from relocal.metrics import (
    RECALL_THRESHOLDS_M,
    RECALL_THRESHOLDS_PERCENT,
    PoseErrors,
    cumulative_curve,
    failures,
    mean,
    mean_pose,
    median,
    nearest_pose,
    pose_errors,
    recall,
    running_median,
)
from relocal.pose import Pose

INF, NAN = math.inf, math.nan

# Errors, with failures among them.
values = st.lists(st.floats(0, 100) | st.just(INF), min_size=1, max_size=20)
seeds = st.integers(0, 2**32 - 1)


def random_poses(count: int, seed: int, spread: float = 1.0) -> Pose:
    generator = torch.Generator().manual_seed(seed)
    position = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    turn = spread * torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return Pose.from_quaternion(position, turn + torch.tensor([1.0, 0.0, 0.0, 0.0]))


def each(poses: Pose) -> list[Pose]:
    return [poses[i] for i in range(len(poses))]


def scipy_of(pose: Pose) -> Rotation:
    return Rotation.from_quat(pose.quaternion.numpy(), scalar_first=True)


def errors_of(position: list[float], rotation_deg: list[float]) -> PoseErrors:
    return PoseErrors(np.array(position, dtype=float), np.array(rotation_deg, dtype=float))


# Errors.


@given(seed=seeds, count=st.integers(0, 6), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_errors_are_distance_and_full_angle(seed: int, count: int, dtype: torch.dtype) -> None:
    truth, found = random_poses(count, seed), random_poses(count, seed + 1)
    errors = pose_errors(each(found.to(dtype)), truth)
    assert len(errors) == count
    assert errors.position.dtype == errors.rotation_deg.dtype == np.float64
    for i in range(count):
        distance = np.linalg.norm(found.position[i].numpy() - truth.position[i].numpy())
        angle = np.degrees((scipy_of(found[i]).inv() * scipy_of(truth[i])).magnitude())
        tolerance = 1e-12 if dtype == torch.float64 else 3e-5
        assert errors.position[i] == pytest.approx(distance, abs=tolerance)
        assert errors.rotation_deg[i] == pytest.approx(angle, abs=tolerance)


def test_quarter_turn_is_90_degrees_and_opposite_signs_are_no_error() -> None:
    truth = Pose.identity(3)
    quarter = Pose.from_quaternion(torch.zeros(3).double(), torch.tensor([1.0, 0, 0, 1]).double())
    opposite = Pose(truth[1].position, -truth[1].quaternion)
    errors = pose_errors([quarter, opposite, truth[2]], truth)
    np.testing.assert_allclose(errors.rotation_deg, [90, 0, 0])


@given(seed=seeds, answered=st.lists(st.booleans(), max_size=8))
def test_failure_is_an_infinite_error_in_its_own_place(seed: int, answered: list[bool]) -> None:
    truth, found = random_poses(len(answered), seed), random_poses(len(answered), seed + 1)
    full = pose_errors(each(found), truth)
    some = pose_errors(
        [p if yes else None for p, yes in zip(each(found), answered, strict=True)], truth
    )
    np.testing.assert_array_equal(some.position, np.where(answered, full.position, INF))
    # Not to the last digit, which depends on how many are computed at once.
    expected = np.where(answered, full.rotation_deg, INF)
    np.testing.assert_allclose(some.rotation_deg, expected, rtol=1e-12)
    assert failures(some) == len(answered) - sum(answered)
    assert len(some) == len(answered)


def test_estimates_and_truth_must_be_as_many() -> None:
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"{count} estimates .* 2"):
            pose_errors([None] * count, Pose.identity(2))


def test_nan_counts_as_a_failure() -> None:
    lost = Pose(torch.full((3,), NAN).double(), torch.full((4,), NAN).double())
    errors = pose_errors([lost, Pose.identity()], Pose.identity(2))
    assert failures(errors) == 1
    assert recall(errors, 1e9, 180.0) == 0.5
    assert math.isnan(median(errors.position))


# Numbers that sum up.


@given(values)
def test_median_takes_failures_as_the_worst(x: list[float]) -> None:
    ordered, half = sorted(x), len(x) // 2
    expected = ordered[half] if len(x) % 2 else (ordered[half - 1] + ordered[half]) / 2
    assert median(np.array(x)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([1, 2, INF], 2),
        ([1, INF], INF),
        ([1, INF, INF], INF),
        ([INF, INF], INF),
        ([1, 2, 3, INF], 2.5),
    ],
)
def test_median_of_half_failures_is_infinite(x: list[float], expected: float) -> None:
    assert median(np.array(x, dtype=float)) == expected


@given(values)
def test_mean_with_a_failure_is_infinite(x: list[float]) -> None:
    expected = sum(x) / len(x) if x else NAN
    assert mean(np.array(x, dtype=float)) == pytest.approx(expected, nan_ok=True)


def test_nothing_has_no_median_mean_or_recall() -> None:
    nothing = errors_of([], [])
    assert math.isnan(median(nothing.position))
    assert math.isnan(mean(nothing.position))
    assert math.isnan(recall(nothing, 1.0, 1.0))
    assert failures(nothing) == 0


@given(values, st.floats(0, 100), st.floats(0, 100), seeds)
def test_recall_counts_both_thresholds_over_all_images(
    position: list[float], within: float, within_deg: float, seed: int
) -> None:
    rotation = np.random.default_rng(seed).permutation(position).tolist()
    pairs = list(zip(position, rotation, strict=True))
    expected = sum(p <= within and r <= within_deg for p, r in pairs) / len(pairs)
    assert recall(errors_of(position, rotation), within, within_deg) == pytest.approx(expected)


def test_recall_takes_the_threshold_itself_and_no_failure() -> None:
    errors = errors_of([0.05, 0.05, 0.0, INF], [5.0, 5.1, 0.0, INF])
    assert recall(errors, 0.05, 5.0) == 0.5
    assert recall(errors, INF, 180.0) == 0.75


@pytest.mark.parametrize("thresholds", [RECALL_THRESHOLDS_M, RECALL_THRESHOLDS_PERCENT])
def test_recall_thresholds_grow_in_position(thresholds: tuple[tuple[float, float], ...]) -> None:
    assert list(thresholds) == sorted(thresholds)
    assert all(position > 0 and 0 < degrees < 180 for position, degrees in thresholds)


@given(values)
def test_curve_is_the_share_of_all_images_at_or_below(x: list[float]) -> None:
    errors, share = cumulative_curve(np.array(x))
    assert errors.tolist() == sorted(v for v in x if v < INF)
    for i, error in enumerate(errors):
        # Equal errors rise step by step; the last of them has the share of all of them.
        if i + 1 == len(errors) or errors[i + 1] > error:
            assert share[i] == pytest.approx(sum(v <= error for v in x) / len(x))
    assert (np.diff(share) > 0).all()


@given(seed=seeds, count=st.integers(0, 70))
def test_running_median_is_the_median_of_neighbours(seed: int, count: int) -> None:
    draw = np.random.default_rng(seed)
    x, y = draw.permutation(count).astype(float), draw.uniform(size=count)
    y[y > 0.8] = INF
    along, medians = running_median(x, y)
    width = max(5, count // 5)
    assert len(along) == max(0, count - width + 1)
    for first, (middle, value) in enumerate(zip(along, medians, strict=True)):
        inside = (first <= x) & (x < first + width)
        assert middle == first + (width - 1) / 2
        assert value == np.median(y[inside])


def test_curve_of_failures_stays_below_one() -> None:
    errors, share = cumulative_curve(np.array([3.0, INF, 1.0, INF]))
    assert (errors.tolist(), share.tolist()) == ([1.0, 3.0], [0.25, 0.5])
    assert [len(part) for part in cumulative_curve(np.array([INF]))] == [0, 0]
    assert [len(part) for part in cumulative_curve(np.array([]))] == [0, 0]


# Answers that look at no image.


@given(seed=seeds, count=st.integers(1, 8))
def test_mean_pose_is_scipys(seed: int, count: int) -> None:
    poses = random_poses(count, seed, spread=0.3)
    signs = torch.tensor([(-1.0) ** i for i in range(count)], dtype=torch.float64)
    mean = mean_pose(Pose(poses.position, signs[:, None] * poses.quaternion))
    assert mean.shape == ()
    np.testing.assert_allclose(mean.position, poses.position.numpy().mean(0), atol=1e-14)
    apart = scipy_of(mean).inv() * scipy_of(poses).mean()
    assert apart.magnitude() == pytest.approx(0, abs=1e-12)


@given(
    seed=seeds,
    n=st.integers(0, 5),
    m=st.integers(1, 40),
    radian=st.sampled_from([0.0, 0.3, 1.0, 50.0]),
)
def test_nearest_pose_is_brute_force(seed: int, n: int, m: int, radian: float) -> None:
    truth, candidates = random_poses(n, seed), random_poses(m, seed + 1)
    found = nearest_pose(truth, candidates, radian).tolist()
    for i in range(n):
        distance = np.linalg.norm((truth.position[i] - candidates.position).numpy(), axis=-1)
        angle = (scipy_of(truth[i]).inv() * scipy_of(candidates)).magnitude()
        assert found[i] == np.argmin(distance + radian * angle)
    assert len(found) == n


def test_nearest_pose_weighs_a_radian_as_told() -> None:
    # One candidate stands half a unit aside, the other is turned by one radian.
    q = torch.tensor([[1.0, 0.0, 0.0, 0.0], [math.cos(0.5), 0.0, math.sin(0.5), 0.0]])
    candidates = Pose(torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]), q)
    truth = Pose.identity(1, dtype=torch.float32)
    assert nearest_pose(truth, candidates, radian=0.51).tolist() == [0]
    assert nearest_pose(truth, candidates, radian=0.49).tolist() == [1]


def test_nearest_pose_is_exact_far_from_the_origin_and_over_many_poses() -> None:
    # Steps of a millimetre, a kilometre away: where the expanded square of a distance is noise.
    steps = 0.001 * torch.arange(600, dtype=torch.float64)
    position = torch.tensor([1e3, -2e3, 5e2]).double() + steps[:, None]
    track = Pose(position, Pose.identity(600).quaternion)
    assert nearest_pose(track, track, radian=1.0).tolist() == list(range(600))
    single = track.to(torch.float32)
    moved = Pose(single.position + 1e-4, single.quaternion)
    apart = single.position[nearest_pose(moved, single, radian=1.0)] - single.position
    assert float(apart.abs().max()) < 2e-3
