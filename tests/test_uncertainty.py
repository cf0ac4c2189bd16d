"""How true stated spreads are: intervals, curves, and what a report says of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from relocal.evaluation import Report, evaluate
from relocal.evaluation.uncertainty import _T, coverages, risk_coverage
from relocal.localizers import Calibration, Structure, load_map
from relocal.metrics import PoseErrors
from relocal.report import report_to_json, report_to_markdown, save_report
from relocal.report.uncertainty import coverage_rows
from relocal.scene import Scene


def test_the_quantiles_are_students() -> None:
    assert list(_T) == pytest.approx(student.ppf(0.975, np.arange(1, len(_T) + 1)), abs=6e-4)


def gaussian(count: int, seed: int, sigma: float = 1.0) -> np.ndarray:
    draw = np.random.default_rng(seed).normal(scale=sigma, size=(count, 3))
    return np.linalg.norm(draw, axis=1)


def test_true_spreads_cover_what_they_say() -> None:
    errors = PoseErrors(gaussian(5000, 0), gaussian(5000, 1))
    found = coverages(errors, np.ones((5000, 2)), np.arange(5000) // 500)
    for every in found.values():
        for one in every:
            assert one.found == pytest.approx(one.share, abs=0.03)
            assert one.interval is not None
            assert one.interval[0] < one.share < one.interval[1]


def test_spreads_that_are_too_small_cover_less() -> None:
    errors = PoseErrors(gaussian(1000, 0, 2.0), gaussian(1000, 1, 0.5))
    found = coverages(errors, np.ones((1000, 2)), np.arange(1000) // 100)
    assert found["position"][0].found < 0.3
    assert found["rotation"][0].found > 0.95


def test_the_interval_is_students_over_blocks() -> None:
    inside = np.array([1.0, 1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 1])
    errors = PoseErrors(np.where(inside == 1, 0.1, 9.0), np.full(12, 0.1))
    block = np.arange(12) // 3
    means = inside.reshape(4, 3).mean(1)
    low, high = student.interval(0.95, 3, means.mean(), means.std(ddof=1) / 2)
    one = coverages(errors, np.ones((12, 2)), block)["position"][0]
    assert one.found == pytest.approx(means.mean())
    assert one.interval == pytest.approx((max(low, 0), min(high, 1)), abs=1e-3)
    alone = coverages(errors, np.ones((12, 2)), np.zeros(12, int))["position"][0]
    assert alone.interval is None


def test_what_is_not_stated_is_not_counted() -> None:
    errors = PoseErrors(np.array([1.0, 9.0, np.inf]), np.array([1.0, 9.0, np.inf]))
    sigmas = np.array([[1.0, 1.0], [np.nan, np.nan], [1.0, 1.0]])
    assert coverages(errors, sigmas, np.zeros(3, int))["position"][0].found == 1
    assert coverages(errors, np.full((3, 2), np.nan), np.zeros(3, int)) == {}


def test_the_surest_are_the_best_where_spreads_are_true() -> None:
    sigma = np.linspace(0.1, 3, 300)
    errors = sigma * gaussian(300, 2)
    kept, medians = risk_coverage(errors, sigma)
    assert kept[-1] == 1
    assert medians[-1] == pytest.approx(np.median(errors))
    assert medians[50] < medians[150] < medians[-1]
    _, shuffled = risk_coverage(errors, np.random.default_rng(0).permutation(sigma))
    assert shuffled[50] > 2 * medians[50]


def test_photos_without_an_answer_come_last() -> None:
    errors = np.array([1.0, np.inf, 2.0, 1.0, 1.0, np.inf, 1.0])
    _, medians = risk_coverage(errors, np.array([1.0, 0.1, 1.0, 1.0, 1.0, 0.1, 1.0]))
    assert medians.tolist() == [1.0, 1.0, 1.0]


@pytest.fixture(scope="module")
def report(tiny_map: Path, tiny_scene: Scene) -> Report:
    map = replace(load_map(tiny_map), calibration=Calibration(2.0, 2.0, 9))
    return evaluate({"map": Structure(map)}, tiny_scene)


def test_a_report_says_how_sure_its_localizers_are(report: Report, tmp_path: Path) -> None:
    head, row = coverage_rows(report)
    assert len(head) == len(row) == 5
    assert row[0] == "map"
    assert "## How sure they are" in report_to_markdown(report)
    content = report_to_json(report)["methods"]
    assert content["map"]["coverage"]["position"][0]["share"] == 0.68
    assert content["retrieval"]["coverage"] == {}
    page = save_report(report, tmp_path / "report").read_text("utf-8")
    assert "Coverage of the stated regions" in page
    assert "of the surest answers" in page


def test_a_report_of_localizers_that_say_nothing_has_no_such_part(report: Report) -> None:
    silent = replace(report.methods["map"], sigmas=None)
    bare = replace(report, methods={**report.methods, "map": silent})
    assert "How sure they are" not in report_to_markdown(bare)
