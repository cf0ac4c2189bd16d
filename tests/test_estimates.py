"""Estimates of other systems: read, judged, and reported as every localizer's."""

import json
import math
from pathlib import Path

import pytest
import torch

from relocal.cli import main
from relocal.datasets.pose_lines import poses_of_lines, read_pose_lines
from relocal.errors import InputError
from relocal.evaluation import evaluate_estimates
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.report import plain_table, report_to_markdown, save_report

# What tsattler/visloc_pseudo_gt_limitations' own scorer gives: ground truth, scene, method, images,
# median cm, median deg, share within 5 cm and 5 deg.
PUBLISHED = """
sfm chess as 2000 0.43 0.14 99.9
sfm chess hloc 2000 0.78 0.11 100.0
sfm chess dsac_rgb 2000 0.50 0.17 99.9
sfm redkitchen as 5000 0.55 0.16 99.8
sfm redkitchen hloc 5000 1.10 0.14 98.6
sfm redkitchen dsac_rgb 5000 0.74 0.21 97.0
dslam chess as 2000 2.68 0.87 86.4
dslam chess hloc 2000 2.40 0.77 94.2
dslam chess dsac_rgb 2000 1.83 0.59 97.8
dslam redkitchen as 5000 5.37 1.72 45.2
dslam redkitchen hloc 5000 4.03 1.38 61.9
dslam redkitchen dsac_rgb 5000 3.89 1.24 65.5
"""


def some_poses(count: int) -> Pose:
    generator = torch.Generator().manual_seed(count)
    values = torch.randn(count, 7, generator=generator, dtype=torch.float64)
    return Pose(values[:, :3], values[:, 3:] / values[:, 3:].norm(dim=1, keepdim=True))


def write_lines(file: Path, poses: Pose, names: list[str], rest: str = "") -> Path:
    cam_from_world = poses.inverse()
    rows = torch.cat([cam_from_world.quaternion, cam_from_world.position], dim=1).tolist()
    lines = [
        " ".join([name, *(f"{v:.17g}" for v in row)]) + rest
        for name, row in zip(names, rows, strict=True)
    ]
    file.write_text("# name and pose\n" + "\n".join(lines) + "\n", "utf-8")
    return file


@pytest.fixture
def truth() -> Pose:
    return some_poses(4)


@pytest.fixture
def labels(truth: Pose, tmp_path: Path) -> Path:
    names = [f"seq-01/frame-{i:06d}.color.png" for i in range(len(truth))]
    return write_lines(tmp_path / "kitchen_test.txt", truth, names, " 525.0")


def test_pose_lines_round_trip(truth: Pose, labels: Path) -> None:
    rows = read_pose_lines(labels, "--labels")
    assert list(rows) == [f"seq-01/frame-{i:06d}.color" for i in range(len(truth))]
    found = poses_of_lines(rows.values())
    assert position_error(found, truth).max() < 1e-12
    assert rotation_error_deg(found, truth).max() < 1e-6


@pytest.mark.parametrize("line", PUBLISHED.split("\n")[1:-1])
def test_published_estimates_are_scored_as_published(line: str, shared: Path) -> None:
    ground_truth, scene, method, count, cm, deg, share = line.split()
    folder = shared / "data/visloc_pgt"
    report = evaluate_estimates(
        folder / f"pgt/{ground_truth}/7scenes/{scene}_test.txt",
        [folder / f"estimates/{ground_truth}/7scenes/{scene}_{method}.txt"],
    )
    (numbers,) = report.summary().values()
    assert len(report.images) == int(count)
    assert numbers["failures"] == 0
    assert f"{100 * numbers['median_position']:.2f}" == cm
    assert f"{numbers['median_rotation_deg']:.2f}" == deg
    assert f"{100 * numbers['recall'][0]:.1f}" == share
    assert report.thresholds[0] == (0.05, 5.0)


def test_true_poses_have_no_error_in_any_order_and_with_any_suffix(
    truth: Pose, labels: Path, tmp_path: Path
) -> None:
    order = [2, 0, 3, 1]
    names = [f"seq-01/frame-{i:06d}.color.jpg" for i in order]
    # DSAC* writes two numbers more.
    file = write_lines(tmp_path / "mine.txt", truth[torch.tensor(order)], names, " 0.3 0.01")
    report = evaluate_estimates(labels, [file])
    assert report.localizers() == ["mine"]
    assert report.methods["mine"].errors.position.max() < 1e-12
    assert report.summary()["mine"]["recall"] == [1.0] * 5
    assert report.remarks() == []


def test_the_inverse_of_a_pose_is_an_error(truth: Pose, labels: Path, tmp_path: Path) -> None:
    names = [f"seq-01/frame-{i:06d}.color.png" for i in range(len(truth))]
    file = write_lines(tmp_path / "inverted.txt", truth.inverse(), names)
    assert evaluate_estimates(labels, [file]).methods["inverted"].errors.position.min() > 0.1


def test_missing_images_are_failures_and_others_are_remarked(
    truth: Pose, labels: Path, tmp_path: Path
) -> None:
    names = ["seq-01/frame-000000.color.png", "seq-09/frame-000000.color.png"]
    report = evaluate_estimates(labels, [write_lines(tmp_path / "few.txt", truth[:2], names)])
    numbers = report.summary()["few"]
    assert numbers["failures"] == 3
    assert math.isinf(numbers["median_position"])
    assert numbers["recall"][-1] == 0.25
    failed, more = report.remarks()
    assert "no answer for 3 of 4 images" in failed
    assert "few has 1 more images" in more
    assert "seq-09/frame-000000.color" in more


def test_a_report_without_training_images_speaks_of_none(
    truth: Pose, labels: Path, tmp_path: Path
) -> None:
    names = [f"seq-01/frame-{i:06d}.color.png" for i in range(len(truth))]
    moved = Pose(truth.position + torch.tensor([0.0043, 0, 0]), truth.quaternion)
    near = write_lines(tmp_path / "near.txt", moved, names)
    report = evaluate_estimates(labels, [near])
    for text in (plain_table(report), report_to_markdown(report)):
        assert "0.0043" in text  # millimetres are seen
        assert "oracle" not in text
        assert "nan" not in text
        assert "Training split" not in text
    page = save_report(report, tmp_path / "report").read_text("utf-8")
    assert "oracle" not in page.split("<main")[-1]
    assert ">nan<" not in page
    content = json.loads((tmp_path / "report/report.json").read_text("utf-8"))
    assert content["methods"]["near"]["position_to_oracle"] is None


def test_files_of_one_name_keep_apart(truth: Pose, labels: Path, tmp_path: Path) -> None:
    names = [f"seq-01/frame-{i:06d}.color.png" for i in range(len(truth))]
    files = [tmp_path / folder / "hloc.txt" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        write_lines(file, truth, names)
    found = evaluate_estimates(labels, files).localizers()
    assert found == ["a/hloc", "b/hloc"]
    with pytest.raises(InputError, match="given twice"):
        evaluate_estimates(labels, [files[0], files[0]])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seq-01/frame-000000.color.png 1 0 0 0 0 0", "line 1: needs a name and 7 finite numbers"),
        ("seq-01/frame-000000.color.png 2 0 0 0 0 0 0", "line 1: the quaternion is not unit"),
        ("seq-01/frame-000000.color.png 1 0 0 0 0 0 inf", "7 finite numbers"),
        ("a 1 0 0 0 0 0 0\na 1 0 0 0 0 0 0", "line 2: a is listed already"),
        ("other/frame.png 1 0 0 0 0 0 0", "none of its 1 images is in the labels"),
        ("seq-01/frame-000000.color.png 1 0 0 0 0 0 1e308", "7 finite numbers"),
        ("seq-01/frame-000000.color.png,1,0,0,0,0,0,0", "needs a name and 7 finite numbers"),
        ("", "none of its 0 images"),
    ],
)
def test_what_is_no_estimate_is_refused(
    text: str, reason: str, labels: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.txt").write_text(text, "utf-8")
    with pytest.raises(InputError, match=reason):
        evaluate_estimates(labels, [tmp_path / "bad.txt"])


def test_what_other_programs_write_is_read(tmp_path: Path) -> None:
    pose = " 1 0 0 0 0.5 0 0"
    stamps = "\ufeff1305031100.170304" + pose + "\n1305031100.203421" + pose + "\n"
    (tmp_path / "stamps.txt").write_text(stamps + "my photo 3.jpg" + pose + " 525.0\n", "utf-8")
    rows = read_pose_lines(tmp_path / "stamps.txt", "--estimates")
    assert list(rows) == ["1305031100.170304", "1305031100.203421", "my photo 3"]
    assert all(row[:7] == [1, 0, 0, 0, 0.5, 0, 0] for row in rows.values())


def test_the_verb_reports_estimates(
    truth: Pose, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"seq-01/frame-{i:06d}.color.png" for i in range(len(truth))]
    file = write_lines(tmp_path / "mine.txt", truth, names)
    words = ["evaluate", "--labels", str(labels), "--estimates", str(file)]
    with pytest.raises(SystemExit) as end:
        main([*words, "--out", str(tmp_path / "report")])
    assert not end.value.code
    assert "mine" in capsys.readouterr().out
    assert (tmp_path / "report/report.html").is_file()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--labels", "a.txt"], "belong together"),
        (["--estimates", "a.txt"], "belong together"),
        (["--labels", "a.txt", "--estimates", "b.txt"], "--labels a.txt: there is no such file"),
        (["run", "scene", "--labels", "a", "--estimates", "b"], "go without RUN"),
        (["run"], "RUN SCENE: give both"),
        ([], "RUN SCENE: give both"),
    ],
)
def test_the_verb_refuses_halves(
    words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *words, "--out", str(tmp_path / "report")])
    assert end.value.code == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
