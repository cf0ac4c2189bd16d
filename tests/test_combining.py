"""Several contrasts at once: Holm's adjustment, the random effect over scenes, means of scenes."""

import math
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
    Contrast,
    adjust,
    combine,
    geometric_mean,
    holm,
    mean_over_scenes,
    oracle_ratio,
)

INF, NAN = math.inf, math.nan

draws = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def known(mean: float, error: float, **fields: Any) -> Contrast:
    """A contrast whose numbers are given."""
    about: dict[str, Any] = {"a": "a", "b": "b", "quantity": "position", "blocks": 20, "seeds": 3}
    about |= {"mean_log_ratio": mean, "standard_error": error, "p_value": 0.5}
    return Contrast(**about | fields)


# Holm.


def slow_holm(p_values: list[float]) -> list[float]:
    """The adjusted p is the least level at which the step-down procedure rejects."""
    ranked = sorted(p_values)
    m = len(ranked)
    return [min(1.0, max((m - i) * q for i, q in enumerate(ranked) if q <= p)) for p in p_values]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_the_slow_one(p_values: list[float]) -> None:
    found = holm(np.array(p_values, dtype=float))
    np.testing.assert_allclose(found, slow_holm(p_values))
    assert (found >= p_values).all()


def test_holm_adjusts_the_rest_and_failures_count() -> None:
    rest = [known(-0.1, 0.05, p_value=0.02), known(NAN, 0.05, p_value=None, reason="undecided")]
    assert rest[0].verdict == BETTER
    adjusted = adjust(rest)
    assert [e.adjusted_p for e in adjusted] == [0.04, None]
    assert [e.verdict for e in adjusted] == [BETTER, "undecided"]
    assert adjust([*rest, rest[0]])[0].verdict == NO_DIFFERENCE
    assert adjust([]) == []


# Scenes.


def slow_random_effect(y: list[float], v: list[float]) -> tuple[float, float, float]:
    """Mean, standard error (Hartung, Knapp, Sidik, Jonkman) and τ² (DerSimonian, Laird).

    The error is at least the one that the scenes' own errors give (Röver, Knapp, Friede 2015).
    """
    k, w = len(y), [1 / x for x in v]
    fixed = sum(wi * yi for wi, yi in zip(w, y, strict=True)) / sum(w)
    q = sum(wi * (yi - fixed) ** 2 for wi, yi in zip(w, y, strict=True))
    tau2 = max(0.0, (q - (k - 1)) / (sum(w) - sum(wi * wi for wi in w) / sum(w)))
    w = [1 / (x + tau2) for x in v]
    mean = sum(wi * yi for wi, yi in zip(w, y, strict=True)) / sum(w)
    q = sum(wi * (yi - mean) ** 2 for wi, yi in zip(w, y, strict=True))
    return mean, math.sqrt(max(q / (k - 1), 1) / sum(w)), tau2


@given(draw=draws, scenes=st.integers(3, 8), spread=st.sampled_from([0.0, 0.02, 0.3]))
def test_combining_is_the_slow_one(draw: np.random.Generator, scenes: int, spread: float) -> None:
    errors = draw.uniform(0.02, 0.2, size=scenes)
    means = (errors * draw.normal(size=scenes) + spread * draw.normal(size=scenes)).tolist()
    variances = (errors**2).tolist()
    found = combine({f"scene {i}": known(means[i], float(errors[i])) for i in range(scenes)})
    mean, error, tau2 = slow_random_effect(means, variances)
    assert (found.a, found.b, found.quantity, found.scenes) == ("a", "b", "position", scenes)
    assert found.mean_log_ratio == pytest.approx(mean)
    assert found.standard_error == pytest.approx(error)
    assert found.scene_std == pytest.approx(math.sqrt(tau2))
    interval = stats.t.interval(0.95, scenes - 1, loc=mean, scale=error)
    assert found.interval == pytest.approx(interval)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(mean) / error, scenes - 1))
    for i in range(scenes):
        without, _, _ = slow_random_effect(
            means[:i] + means[i + 1 :], variances[:i] + variances[i + 1 :]
        )
        assert found.leave_one_out[f"scene {i}"] == pytest.approx(without)


def test_scenes_that_happen_to_agree_are_known_no_better_than_their_errors_allow() -> None:
    found = combine({str(i): known(m, 0.3) for i, m in enumerate((-0.05, -0.0505, -0.0495))})
    assert found.standard_error == pytest.approx(0.3 / math.sqrt(3))
    assert found.verdict == NO_DIFFERENCE


def test_scenes_known_equally_well_are_a_t_test_of_their_means() -> None:
    means = [-0.2, -0.1, -0.25, 0.05]
    found = combine({str(i): known(m, 0.1) for i, m in enumerate(means)})
    expected: Any = stats.ttest_1samp(means, 0)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_combining_gives_the_published_numbers_of_the_bcg_trials() -> None:
    """Log risk ratios of 13 trials (Colditz et al. 1994), as metafor combines them."""
    table = np.array(
        [
            *[(4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619)],
            *[(33, 5036, 47, 5761), (180, 1361, 372, 1079), (8, 2537, 10, 619)],
            *[(505, 87886, 499, 87892), (29, 7470, 45, 7232), (17, 1699, 65, 1600)],
            *[(186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825)],
        ],
        dtype=float,
    )
    ill, well, ill_without, well_without = table.T
    vaccinated, others = ill + well, ill_without + well_without
    means = np.log(ill / vaccinated) - np.log(ill_without / others)
    errors = np.sqrt(1 / ill - 1 / vaccinated + 1 / ill_without - 1 / others)
    trials = zip(means.tolist(), errors.tolist(), strict=True)
    found = combine({str(i): known(*trial) for i, trial in enumerate(trials)})
    assert found.scene_std is not None
    assert found.mean_log_ratio == pytest.approx(-0.7141, abs=5e-5)
    assert found.scene_std**2 == pytest.approx(0.3088, abs=5e-5)


@pytest.mark.parametrize("scenes", [1, 2])
def test_fewer_than_three_scenes_have_a_value_only(scenes: int) -> None:
    found = combine({str(i): known(-0.1 * (i + 1), 0.1) for i in range(scenes)})
    assert found.mean_log_ratio == pytest.approx(-0.1 if scenes == 1 else -0.15)
    assert found.interval is found.p_value is None
    assert found.verdict == f"no verdict ({scenes} scene{'s' * (scenes > 1)})"
    assert found.leave_one_out == ({} if scenes == 1 else pytest.approx({"0": -0.2, "1": -0.1}))


def test_a_scene_without_verdict_leaves_none_for_all() -> None:
    few = Contrast(
        a="a", b="b", quantity="position", blocks=2, seeds=3,
        mean_log_ratio=0.4, reason="no verdict (2 blocks)",
    )  # fmt: skip
    scenes = {"chess": known(-0.1, 0.1), "fire": known(-0.3, 0.2), "office": known(0.0, 0.1)}
    found = combine({**scenes, "heads": few})
    assert found.mean_log_ratio == pytest.approx(0)
    assert found.interval is None
    assert found.verdict == "no verdict (heads: no verdict (2 blocks))"


@pytest.mark.parametrize("other", [{"a": "c"}, {"b": "c"}, {"quantity": "rotation"}])
def test_different_comparisons_are_not_combined(other: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="same two methods"):
        combine({"chess": known(0.0, 0.1), "fire": known(0.0, 0.1, **other)})


def test_nothing_and_scenes_without_any_noise_are_not_combined() -> None:
    with pytest.raises(InputError, match="one scene or more"):
        combine({})
    same = {"chess": known(0.0, 0.1), "fire": known(0.0, 0.0), "office": known(0.3, 0.1)}
    found = combine(same)
    assert found.verdict == "no verdict (fire: the same difference in all blocks)"
    assert found.interval is None
    assert found.mean_log_ratio == pytest.approx(0.1)


# Numbers across scenes.


def test_ratio_to_the_oracle_has_no_unit() -> None:
    errors, oracle = np.array([1.0, 2.0, INF]), np.array([4.0, 5.0, 3.0])
    assert oracle_ratio(errors, oracle) == oracle_ratio(100 * errors, 100 * oracle) == 0.5
    assert oracle_ratio(np.full(3, INF), oracle) == INF
    assert math.isnan(oracle_ratio(errors, np.zeros(3)))
    assert math.isnan(oracle_ratio(np.empty(0), np.empty(0)))


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8))
def test_geometric_mean_is_scipys(ratios: list[float]) -> None:
    assert geometric_mean(ratios) == pytest.approx(stats.gmean(ratios))


def test_geometric_mean_keeps_failures_and_needs_a_ratio() -> None:
    assert geometric_mean([1.0, INF]) == INF
    assert geometric_mean([1.0, 0.0]) == 0
    with pytest.raises(InputError, match="no ratio"):
        geometric_mean([])


def test_medians_of_one_unit_have_a_mean() -> None:
    assert mean_over_scenes({"a": 1.0, "b": 3.0}, {"a": "m", "b": "m", "c": "unit"}) == 2
    assert mean_over_scenes({"c": 3.0}, {"c": "unit"}) == 3


@pytest.mark.parametrize(
    ("units", "match"),
    [
        ({"a": "m", "b": "unit"}, "2 scenes in m, unit"),
        ({"a": "unit", "b": "unit"}, "2 scenes in unit"),  # each of another scale
        ({}, "0 scenes in no unit"),
    ],
)
def test_medians_of_different_units_have_no_mean(units: dict[str, str], match: str) -> None:
    with pytest.raises(InputError, match=match):
        mean_over_scenes(dict.fromkeys(units, 1.0), units)
