"""Statistics of a study: laws, SciPy and slow twins as oracles; refusals.

Whether the intervals keep their promise is simulated in tests/test_coverage.py.
"""

import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from relocal.errors import InputError
from relocal.studies.statistics import (
    BETTER,
    NO_DIFFERENCE,
    WORSE,
    Contrast,
    block_medians,
    compare,
    paired_log_ratio,
)

INF, NAN = math.inf, math.nan
NAMES = ("proposed", "default")

draws = st.integers(0, 2**32 - 1).map(np.random.default_rng)
block_counts = st.integers(10, 30)
seed_counts = st.integers(3, 5)


def draw_medians(draw: np.random.Generator, seeds: int, blocks: int) -> np.ndarray:
    return np.exp(draw.normal(size=(seeds, blocks)))


def contrast_of(a: np.ndarray, b: np.ndarray, **options: Any) -> Contrast:
    return compare(a, b, names=NAMES, quantity="position", **options)


def same_numbers(one: Contrast, other: Contrast) -> None:
    for field in ("mean_log_ratio", "standard_error", "degrees", "interval", "p_value"):
        assert getattr(one, field) == pytest.approx(getattr(other, field), rel=1e-6, abs=1e-12)


# Medians and ratios.


@given(draw=draws, seeds=st.integers(1, 3), images=st.integers(1, 30))
def test_block_medians_are_those_of_a_loop(
    draw: np.random.Generator, seeds: int, images: int
) -> None:
    errors, block = draw.exponential(size=(seeds, images)), draw.integers(-2, 4, size=images)
    errors[draw.random(errors.shape) < 0.2] = INF
    expected = [
        [
            np.median([e for e, b in zip(row, block, strict=True) if b == number])
            for number in sorted(set(block.tolist()))
        ]
        for row in errors
    ]
    np.testing.assert_array_equal(block_medians(errors, block), expected)
    order = draw.permutation(images)  # of the frames, those of a block among them
    np.testing.assert_array_equal(block_medians(errors[:, order], block[order]), expected)


def test_half_failures_make_a_median_infinite_and_nan_is_a_failure() -> None:
    errors = np.array([[1.0, INF, 2.0, 3.0, INF, NAN, NAN, 5.0, 4.0]])
    block = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(block_medians(errors, block), [[INF, 3.0, INF, 4.5]])


@pytest.mark.parametrize(("images", "blocks"), [(0, 0), (3, 2), (0, 2)])
def test_every_image_needs_a_block(images: int, blocks: int) -> None:
    with pytest.raises(InputError, match=f"{images} images with {blocks} block numbers"):
        block_medians(np.ones((2, images)), np.zeros(blocks, dtype=int))


def test_ratio_of_a_failure_is_not_known() -> None:
    a = np.array([[1.0, INF, INF, 2.0, 0.0], [4.0, 1.0, INF, 2.0, 1.0]])
    b = np.array([[1.0, 1.0, INF, INF, 1.0]])
    np.testing.assert_allclose(paired_log_ratio(a, b), [math.log(2), NAN, NAN, NAN, NAN])


def test_other_blocks_cannot_be_paired() -> None:
    with pytest.raises(InputError, match="3 blocks cannot be paired with 4"):
        paired_log_ratio(np.ones((1, 3)), np.ones((1, 4)))


# Contrasts: laws.


@given(draw=draws, seeds=seed_counts, blocks=block_counts, consecutive=st.booleans())
def test_swapping_the_methods_flips_the_sign(
    draw: np.random.Generator, seeds: int, blocks: int, consecutive: bool
) -> None:
    a, b = draw_medians(draw, seeds, blocks), draw_medians(draw, 3, blocks)
    one, other = (
        compare(a, b, names=NAMES, quantity="rotation", consecutive=consecutive),
        compare(b, a, names=(NAMES[1], NAMES[0]), quantity="rotation", consecutive=consecutive),
    )
    assert (one.a, one.b, one.quantity, one.seeds) == (other.b, other.a, "rotation", 3)
    assert one.mean_log_ratio == pytest.approx(-other.mean_log_ratio)
    assert one.standard_error == pytest.approx(other.standard_error)
    assert one.p_value == pytest.approx(other.p_value)
    assert one.interval is not None
    assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]))
    swapped = {BETTER: WORSE, WORSE: BETTER, NO_DIFFERENCE: NO_DIFFERENCE}
    assert other.verdict == swapped[one.verdict]


@given(draw=draws, scale=st.floats(1e-3, 1e3), consecutive=st.booleans())
def test_the_unit_of_the_errors_does_not_matter(
    draw: np.random.Generator, scale: float, consecutive: bool
) -> None:
    a, b = draw_medians(draw, 3, 12), draw_medians(draw, 3, 12)
    same_numbers(
        contrast_of(scale * a, scale * b, consecutive=consecutive),
        contrast_of(a, b, consecutive=consecutive),
    )


@given(draw=draws, factor=st.floats(0.1, 10), consecutive=st.booleans())
def test_scaling_one_method_shifts_the_mean_only(
    draw: np.random.Generator, factor: float, consecutive: bool
) -> None:
    a, b = draw_medians(draw, 3, 12), draw_medians(draw, 3, 12)
    one, other = (contrast_of(x, b, consecutive=consecutive) for x in (a, factor * a))
    assert other.mean_log_ratio == pytest.approx(one.mean_log_ratio + math.log(factor))
    assert other.standard_error == pytest.approx(one.standard_error)


@given(draw=draws, seeds=seed_counts)
def test_repeating_seeds_changes_no_mean(draw: np.random.Generator, seeds: int) -> None:
    a, b = draw_medians(draw, seeds, 11), draw_medians(draw, 3, 11)
    twice = contrast_of(np.concatenate([a, a]), b)
    assert twice.mean_log_ratio == pytest.approx(contrast_of(a, b).mean_log_ratio)


@given(draw=draws, consecutive=st.booleans())
def test_order_of_the_seeds_does_not_matter(draw: np.random.Generator, consecutive: bool) -> None:
    a, b = draw_medians(draw, 4, 11), draw_medians(draw, 3, 11)
    shuffled = contrast_of(draw.permutation(a), draw.permutation(b), consecutive=consecutive)
    same_numbers(shuffled, contrast_of(a, b, consecutive=consecutive))


@given(draw=draws, blocks=block_counts)
def test_order_of_recordings_does_not_matter_and_the_way_along_one_neither(
    draw: np.random.Generator, blocks: int
) -> None:
    a, b = draw_medians(draw, 3, blocks), draw_medians(draw, 3, blocks)
    order = draw.permutation(blocks)
    shuffled = contrast_of(a[:, order], b[:, order], consecutive=False)
    same_numbers(shuffled, contrast_of(a, b, consecutive=False))
    same_numbers(contrast_of(a[:, ::-1], b[:, ::-1]), contrast_of(a, b))


# Contrasts: oracles.


@given(draw=draws, blocks=block_counts)
def test_without_noise_of_seeds_it_is_the_paired_t_test(
    draw: np.random.Generator, blocks: int
) -> None:
    a, b = (draw_medians(draw, 1, blocks).repeat(3, axis=0) for _ in range(2))
    found = contrast_of(a, b, consecutive=False)
    expected = stats.ttest_rel(np.log(a[0]), np.log(b[0]))
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx((interval.low, interval.high))
    assert found.degrees == pytest.approx(blocks - 1)
    assert found.seed_error == pytest.approx(0, abs=1e-15)
    assert found.verdict == (
        NO_DIFFERENCE if expected.pvalue >= 0.05 else BETTER if expected.statistic < 0 else WORSE
    )


@given(draw=draws)
def test_with_noise_of_seeds_alone_it_is_welchs_t_test(draw: np.random.Generator) -> None:
    # The same luck in every block: between blocks nothing varies.
    a, b = (draw_medians(draw, seeds, 1).repeat(12, axis=1) for seeds in (3, 5))
    expected: Any = stats.ttest_ind(np.log(a[:, 0]), np.log(b[:, 0]), equal_var=False)
    for consecutive in (True, False):
        found = contrast_of(a, b, consecutive=consecutive)
        assert found.p_value == pytest.approx(expected.pvalue)
        assert found.degrees == pytest.approx(expected.df)
        assert found.seed_error == pytest.approx(found.standard_error)


@given(draw=draws, blocks=block_counts)
def test_slow_waves_measure_the_variance_as_a_loop_does(
    draw: np.random.Generator, blocks: int
) -> None:
    a, b = (draw_medians(draw, 1, blocks).repeat(3, axis=0) for _ in range(2))
    ratios, waves = np.log(a[0] / b[0]).tolist(), blocks // 3
    power = 0.0
    for k in range(1, waves + 1):
        wave = [math.cos(math.pi * k * (i + 0.5) / blocks) for i in range(blocks)]
        norm = math.sqrt(sum(w * w for w in wave))
        power += (sum(w * r for w, r in zip(wave, ratios, strict=True)) / norm) ** 2 / waves
    found, error = contrast_of(a, b), math.sqrt(power / blocks)
    assert found.standard_error == pytest.approx(error)
    interval = stats.t.interval(0.95, waves, loc=np.mean(ratios), scale=error)
    assert found.interval == pytest.approx(interval)


def test_correlation_of_neighbours_is_that_of_a_loop() -> None:
    b = np.ones((3, 12))
    ratios = np.sin(np.arange(12.0)) + 0.3
    centred = ratios - ratios.mean()
    expected = sum(centred[i] * centred[i + 1] for i in range(11)) / sum(centred**2)
    found = contrast_of(np.exp(ratios)[None].repeat(3, axis=0), b)
    assert found.lag1_correlation == pytest.approx(expected)


@pytest.mark.parametrize(
    ("log_ratio", "verdict", "percent"),
    [(-0.3, BETTER, -25.9), (0.3, WORSE, 35.0), (-0.02, NO_DIFFERENCE, -2.0)],
)
@pytest.mark.parametrize("consecutive", [True, False])
def test_verdict_goes_by_the_whole_interval(
    log_ratio: float, verdict: str, percent: float, consecutive: bool
) -> None:
    noise = np.random.default_rng(0).normal(scale=0.1, size=(2, 3, 20))
    noise -= noise.mean((1, 2), keepdims=True)
    a, b = np.exp(noise + np.array([log_ratio, 0.0])[:, None, None])
    found = contrast_of(a, b, consecutive=consecutive)
    assert found.verdict == verdict
    assert found.percent_change == pytest.approx(percent, abs=0.1)
    assert found.interval is not None
    assert found.percent_interval is not None
    low, high = found.interval
    assert (low < 0 < high) == (verdict == NO_DIFFERENCE)
    assert found.percent_interval == pytest.approx(
        (100 * np.exp(low) - 100, 100 * np.exp(high) - 100)
    )


def test_same_answers_show_no_difference_and_a_constant_factor_does() -> None:
    same = contrast_of(np.ones((3, 12)), np.ones((3, 12)))
    assert (same.interval, same.p_value, same.verdict) == ((0, 0), 1, NO_DIFFERENCE)
    assert same.lag1_correlation is None
    half = contrast_of(np.ones((3, 12)), np.full((3, 12), 2.0))
    assert (half.p_value, half.verdict) == (0, BETTER)
    assert half.percent_change == pytest.approx(-50)


# Contrasts: no verdict.


@pytest.mark.parametrize(
    ("seeds", "blocks", "reason"),
    [
        ((3, 3), 9, "no verdict (9 blocks)"),
        ((3, 3), 1, "no verdict (1 block)"),
        ((3, 2), 10, "no verdict (2 seeds)"),
        ((1, 3), 10, "no verdict (1 seed)"),
    ],
)
def test_few_blocks_or_seeds_give_a_value_and_no_verdict(
    seeds: tuple[int, int], blocks: int, reason: str
) -> None:
    found = contrast_of(np.full((seeds[0], blocks), 2.0), np.ones((seeds[1], blocks)))
    assert found.mean_log_ratio == pytest.approx(math.log(2))
    assert found.verdict == reason
    assert found.interval is found.p_value is found.standard_error is found.percent_interval is None


def test_failed_blocks_leave_a_contrast_undecided() -> None:
    a, b = np.ones((3, 12)), np.ones((3, 12))
    a[0, 3] = INF
    assert contrast_of(a, b).verdict == "undecided: 1 block without a finite ratio of medians"
    b[:, 4] = INF
    found = contrast_of(a, b)
    assert found.verdict == "undecided: 2 blocks without a finite ratio of medians"
    assert math.isnan(found.mean_log_ratio)
    assert found.interval is found.p_value is None


def test_missing_scipy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(InputError, match=r"pip install 'relocal\[study\]'"):
        contrast_of(np.ones((3, 12)), np.ones((3, 12)))
