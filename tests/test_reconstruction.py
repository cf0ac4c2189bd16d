"""The figure of the reconstruction: what is drawn, and when."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from worlds import HERE, UTM, WORLDS

from relocal.evaluation import Report, evaluate
from relocal.report import save_report
from relocal.report.reconstruction import draw_reconstruction
from relocal.scene import Scene
from relocal.sfm.alignment import Similarity


@pytest.fixture(scope="module")
def report(tiny_map: Path, tiny_scene: Scene) -> Report:
    return evaluate(tiny_map, tiny_scene)


def drawn(report: Report, path: Path) -> np.ndarray:
    draw_reconstruction(report, path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    """How many pixels have a colour."""
    return int((np.abs(pixels - colour).max(-1) < 12).sum())


ORANGE, PURPLE, WHITE = (232, 130, 12), (168, 132, 255), (255, 255, 255)


def test_points_truth_predictions_and_the_origin_are_seen(report: Report, tmp_path: Path) -> None:
    assert report.points is not None
    pixels = drawn(report, tmp_path / "whole.png")
    assert min(near(pixels, colour) for colour in (ORANGE, PURPLE, WHITE)) > 50
    without = drawn(replace(report, points=None), tmp_path / "bare.png")
    assert (np.abs(pixels - without).max(-1) > 30).mean() > 0.002  # the points
    blind = replace(report, methods={n: m for n, m in report.methods.items() if n != "tiny"})
    assert near(drawn(blind, tmp_path / "blind.png"), PURPLE) == 0


def test_a_report_with_points_has_the_figure(report: Report, tmp_path: Path) -> None:
    save_report(report, tmp_path / "one")
    assert (tmp_path / "one/reconstruction.png").is_file()
    assert "reconstruction.png" in (tmp_path / "one/report.md").read_text("utf-8")
    save_report(replace(report, points=None), tmp_path / "other")
    assert not (tmp_path / "other/reconstruction.png").exists()
    assert "reconstruction.png" not in (tmp_path / "other/report.md").read_text("utf-8")


def test_cameras_fill_the_picture_wherever_the_origin_is(report: Report, tmp_path: Path) -> None:
    def of(by: Similarity) -> np.ndarray:
        truth, training = by.poses(report.truth), by.poses(report.training)
        assert report.points is not None
        points = by.points(torch.from_numpy(report.points[0])).numpy(), report.points[1]
        there = replace(report, methods={}, truth=truth, training=training, points=points)
        return drawn(there, tmp_path / "there.png")

    places = np.argwhere(np.abs(of(HERE) - ORANGE).max(-1) < 12)
    for by in (UTM, WORLDS["utm in kilometres"]):
        pixels = of(by)
        there = np.argwhere(np.abs(pixels - ORANGE).max(-1) < 12)
        assert (np.ptp(there, axis=0) > 0.5 * np.ptp(places, axis=0)).all()
        assert near(pixels, ORANGE) > 50
