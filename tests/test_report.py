"""Reports: what is written is what was found, and every line format reads back."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from relocal.errors import InputError
from relocal.evaluation import MEAN, ORACLE, MethodResult, Report
from relocal.metrics import RECALL_THRESHOLDS_M, pose_errors
from relocal.notices import Notice
from relocal.pose import Pose, rotation_error_deg
from relocal.report import (
    draw_top_view,
    estimate_line,
    figures,
    files,
    plain_table,
    report_to_json,
    report_to_markdown,
    save_report,
    table,
)
from relocal.types import Estimate

ORANGE, PURPLE = (0xE8, 0x82, 0x0C), (0x6A, 0x3F, 0xB5)
COUNT = 6


def some_poses(count: int, spread: float = 1.0) -> Pose:
    quaternion = torch.tensor([1.0, 0, 0, 0]).double() + 0.3 * torch.randn(count, 4).double()
    return Pose.from_quaternion(spread * torch.randn(count, 3).double(), quaternion)


@pytest.fixture
def report() -> Report:
    """A report of a localizer that answers five of six photos, with an odd value in it."""
    truth, training = some_poses(COUNT), some_poses(20)
    near = Pose(truth.position + 0.1, truth.quaternion)
    answers: list[Pose | None] = [*(near[i] for i in range(COUNT - 1)), None]
    methods = {
        name: MethodResult(poses, pose_errors(poses, truth), time_ms)
        for name, poses, time_ms in (
            (MEAN, [training[0]] * COUNT, None),
            (ORACLE, [training[i] for i in range(COUNT)], None),
            ("posenet", answers, 4.25),
        )
    }
    return Report(
        scene="room",
        unit="m",
        split="test",
        regime="another recording",
        images=tuple(f"seq-02/frame-{i:06d}.jpg" for i in range(COUNT)),
        truth=truth,
        training=training,
        methods=methods,
        thresholds=RECALL_THRESHOLDS_M,
        extent=4.0,
        made_by={
            "commit": "0123456789ab",
            "date": "2026-01-02T03:04:05+00:00",
            "processor": "an abacus",
            "cores": 2,
            "packages": {"torch": "2.9"},
            "provenance": {"labels": "by hand", "split": "official", "scale": math.nan},
            "runs": {
                "posenet": {
                    "train": {
                        "backbone": {"name": "googlenet"},
                        "loss": {"name": "posenet+frustum"},
                        "epochs": 7,
                        "seed": 3,
                    },
                    "training_images": 20,
                    "training_seconds": 90.0,
                }
            },
        },
    )


BLURRED = Notice("network-alone", "blurred")


@pytest.fixture
def estimate() -> Estimate:
    pose = Pose.from_quaternion(
        torch.tensor([1.0, -2.0, 3.0]).double(), torch.tensor([-0.5, 0.1, 0.7, -0.2]).double()
    )
    return Estimate(pose, unit="m", method="posenet", time_ms=12.3, warnings=(BLURRED,))


def strictly(text: str) -> Any:
    """Reads JSON as the standard has it, without NaN and Infinity."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


# --- a report ----------------------------------------------------------------------------------


def test_report_json_is_strict_and_its_rows_are_the_errors(report: Report, tmp_path: Path) -> None:
    page = save_report(report, tmp_path / "out")
    assert page == tmp_path / "out" / "report.html"
    content = strictly((tmp_path / "out" / "report.json").read_text())
    assert [row["image"] for row in content["rows"]] == list(report.images)
    for name, result in report.methods.items():
        answers = [row["answers"][name] for row in content["rows"]]
        for key, errors in (
            ("position_error", result.errors.position),
            ("rotation_error_deg", result.errors.rotation_deg),
        ):
            found = [math.inf if answer[key] is None else answer[key] for answer in answers]
            assert found == errors.tolist()
    assert content["rows"][-1]["answers"]["posenet"]["pose"] is None
    pose = content["rows"][0]["answers"]["posenet"]["pose"]
    assert pose["position"] == (report.truth.position[0] + 0.1).tolist()
    assert pose["quaternion"][0] >= 0
    assert content["methods"]["posenet"]["failures"] == 1
    assert content["made_by"]["provenance"]["scale"] is None
    assert content["recall_thresholds"] == [list(pair) for pair in RECALL_THRESHOLDS_M]


def test_page_has_the_table_the_remarks_and_where_it_comes_from(
    report: Report, tmp_path: Path
) -> None:
    page = (save_report(report, tmp_path / "out").parent / "report.md").read_text()
    head, line, *rows = table(report).splitlines()
    assert head.count("|") == line.count("|")
    assert len(rows) == 3
    for row in rows:
        assert row in page
        assert row.count("|") == head.count("|")
    mine = [cell.strip() for cell in rows[-1].strip("|").split("|")]
    assert mine[:3] == ["posenet", f"{0.1 * math.sqrt(3):.3f}", "0.00"]
    assert mine[-3:] == ["1", "4.2", "–"]
    for fact in (
        *("room: 6 test images", "another recording", "20 images", "metres", "by hand", "official"),
        *("googlenet", "`posenet+frustum`", "7 epochs, seed 3, 1.5 min", "0123456789ab"),
        *("an abacus", "gave no answer for 1 of 6"),
    ):
        assert fact in page
    for figure in ("top_view.png", "curves.png"):
        assert f"({figure})" in page


def test_length_without_scale_is_not_called_metres(report: Report) -> None:
    page = report_to_markdown(replace(report, unit="unit"))
    assert "metres" not in page
    assert "the scene's own unit" in page
    assert "median, unit" in page


def test_figures_are_pictures_with_true_and_predicted_positions(
    report: Report, tmp_path: Path
) -> None:
    save_report(report, tmp_path / "out")
    for name in ("top_view.png", "curves.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.format == "PNG"
            assert min(image.size) >= 500
            pixels = np.asarray(image.convert("RGB"))
        if name == "top_view.png":
            for colour in (ORANGE, PURPLE):
                assert (pixels == colour).all(-1).sum() > 100


def test_top_view_looks_down_on_upright_cameras(report: Report) -> None:
    # Cameras in the xy plane of a world whose z is up, all looking along +y.
    upright = Rotation.from_matrix([[1, 0, 0], [0, 0, 1], [0, -1, 0]]).as_quat()[[3, 0, 1, 2]]
    poses = Pose(torch.randn(9, 3).double(), torch.tensor(upright).expand(9, 4))
    axes = figures.ground_axes(poses)
    np.testing.assert_allclose(axes.T, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], atol=1e-9)


def test_views_are_drawn_without_answers_and_without_a_localizer(
    report: Report, tmp_path: Path
) -> None:
    nothing: list[Pose | None] = [None] * COUNT
    never = MethodResult(nothing, pose_errors(nothing, report.truth))
    for methods in (
        {**report.methods, "posenet": never},
        {ORACLE: report.methods[ORACLE], MEAN: report.methods[MEAN]},
    ):
        other = replace(report, methods=methods)
        save_report(other, tmp_path / str(len(methods)))
        strictly((tmp_path / str(len(methods)) / "report.json").read_text())


def test_nothing_is_written_where_something_is(report: Report, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="exists already"):
        save_report(report, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_failure_on_the_way_leaves_nothing(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(files, "draw_top_view", full)
    with pytest.raises(OSError, match="full"):
        save_report(report, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_plain_table_has_a_row_a_method_and_the_remarks(report: Report) -> None:
    about, head, *rest = plain_table(report).splitlines()
    assert about == "room: 6 test images, another recording"
    assert "median, m" in head
    assert [row.split("  ")[0] for row in rest[:3]] == [MEAN, ORACLE, "posenet"]
    assert rest[3:] == report.remarks()
    assert len({len(row) for row in (head, *rest[:3])}) == 1  # the columns stand under each other


def test_top_view_of_another_method_may_be_asked_for(report: Report, tmp_path: Path) -> None:
    draw_top_view(report, tmp_path / "oracle.png", ORACLE)
    draw_top_view(report, tmp_path / "posenet.png")
    first, second = ((tmp_path / f"{name}.png").read_bytes() for name in ("oracle", "posenet"))
    assert first != second
    assert report_to_json(report)["images"] == COUNT


# --- lines -------------------------------------------------------------------------------------


def test_json_line_has_both_directions(estimate: Estimate) -> None:
    line = estimate_line(estimate, "döner.jpg", 3, "json")
    assert "\n" not in line
    content = strictly(line)
    there, back = (np.array(content[key]) for key in ("world_from_cam", "cam_from_world"))
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(there[:3, 3], [1, -2, 3])
    assert content["position"] == [1, -2, 3]
    assert content["quaternion"][0] > 0
    assert (content["photo"], content["unit"], content["warnings"]) == (
        "döner.jpg",
        "m",
        [{"code": "network-alone", "text": "blurred"}],
    )


def test_colmap_line_is_what_colmap_reads(estimate: Estimate) -> None:
    name, *texts = estimate_line(estimate, "a.jpg", 3, "colmap").split()
    w, x, y, z, *translation = map(float, texts)
    assert name == "a.jpg"
    assert len(translation) == 3
    cam_from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([x, y, z, w])), translation)
    world_from_cam = cam_from_world.inverse()
    np.testing.assert_allclose(world_from_cam.translation, [1, -2, 3], atol=1e-7)
    own = Pose.from_colmap(torch.tensor([w, x, y, z]).double(), torch.tensor(translation).double())
    assert rotation_error_deg(own, estimate.pose) < 1e-5


def test_tum_line_has_number_position_and_quaternion_with_w_last(estimate: Estimate) -> None:
    number, *texts = estimate_line(estimate, "a.jpg", 3, "tum").split()
    values = [float(text) for text in texts]
    assert number == "3"
    assert values[:3] == [1, -2, 3]
    w, x, y, z = estimate.pose.canonical().quaternion.tolist()
    np.testing.assert_allclose(values[3:], [x, y, z, w], atol=1e-8)
    assert values[-1] > 0


def test_text_line_says_where_and_whither_with_its_unit(estimate: Estimate) -> None:
    line = estimate_line(estimate, "a.jpg", 3, "text")
    look = " ".join(f"{v:.3f}" for v in estimate.pose.look_direction.tolist())
    assert line.startswith(f"a.jpg: at 1.000 -2.000 3.000 m, looking along {look}")
    assert "12 ms" in line
