"""Answers move with the world: of networks, exports, studies and reports."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moved_scenes import SHIFTS, moved, near, vector

from relocal.evaluation import MEAN, ORACLE, Report, evaluate
from relocal.exporting import ExportConfig, export
from relocal.localizers import Bayesian, Ensemble, Exported, Regressor, calibration
from relocal.localizers.held_out import calibrate
from relocal.losses import LossConfig
from relocal.pose import Pose
from relocal.report import draw_top_view, load_report, save_report
from relocal.report.figures import picture_origin
from relocal.scene import Scene, load_scene, save_scene
from relocal.studies.cells import Cell, run_cell
from relocal.studies.folds import Fold
from relocal.training import TrainConfig, load_run, train


@pytest.fixture
def utm_scene(tiny_scene: Scene, tmp_path: Path) -> Scene:
    """The tiny scene in UTM coordinates, on disk."""
    return save_scene(moved(tiny_scene, "utm"), tmp_path / "utm")


# --- answers -----------------------------------------------------------------------------------


def asked(localizer: Any, scene: Scene, by: str | None = None) -> Pose:
    """Answers about the test photos, float64, moved back to the tiny scene's world."""
    rows = scene.indices("test").tolist()
    poses = Pose.stack([localizer.localize(scene.path(i), scene.camera(i)).pose for i in rows])
    assert poses.position.dtype == torch.float64
    return poses if by is None else replace(poses, position=poses.position - vector(by))


@pytest.fixture
def short(tiny_config: TrainConfig) -> TrainConfig:
    """A training that has not yet made much of rounding."""
    return replace(tiny_config, epochs=3, lr=3e-3)


@pytest.fixture
def both(
    tiny_scene: Scene, utm_scene: Scene, short: TrainConfig, tmp_path: Path
) -> tuple[Path, Path]:
    """The same training here and in UTM."""
    here, there = tmp_path / "here", tmp_path / "there"
    train(tiny_scene, here, short)
    train(utm_scene, there, short)
    return here, there


def test_answers_move_with_the_world(
    both: tuple[Path, Path], tiny_scene: Scene, utm_scene: Scene
) -> None:
    here, there = both
    run = load_run(there)
    assert run.origin == tuple(utm_scene.origin.tolist())
    assert np.abs(np.array(run.origin) - SHIFTS["utm"]).max() < 10
    for kind in (Regressor, Bayesian):
        one = asked(kind(here), tiny_scene)
        assert near(one, asked(kind(there), utm_scene, "utm"), 1e-3)
        # The photos are told apart: no constant passes for an answer.
        assert (one.position - one.position.mean(0)).norm(dim=-1).max() > 2e-3
    ours, theirs = (
        Bayesian(run).localize(scene.path(0), scene.camera(0))
        for run, scene in ((here, tiny_scene), (there, utm_scene))
    )
    assert theirs.sigma_m == pytest.approx(ours.sigma_m, rel=1e-3)


def test_an_ensemble_moves_with_the_world(
    both: tuple[Path, Path],
    tiny_scene: Scene,
    utm_scene: Scene,
    short: TrainConfig,
    tmp_path: Path,
) -> None:
    here, there = both
    other = replace(short, seed=1, lr=1e-3)
    train(tiny_scene, tmp_path / "here1", other)
    train(utm_scene, tmp_path / "there1", other)
    ours, theirs = Ensemble([here, tmp_path / "here1"]), Ensemble([there, tmp_path / "there1"])
    assert near(asked(ours, tiny_scene), asked(theirs, utm_scene, "utm"), 1e-3)
    one, two = (
        each.localize(scene.path(0), scene.camera(0))
        for each, scene in ((ours, tiny_scene), (theirs, utm_scene))
    )
    assert one.sigma_m is not None
    assert two.sigma_m == pytest.approx(one.sigma_m, rel=1e-2)
    assert one.sigma_m < 1


def test_calibration_and_evaluation_move_with_the_world(
    both: tuple[Path, Path],
    tiny_scene: Scene,
    utm_scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration, "LEAST_IMAGES", 3)
    here, there = both
    found = [
        calibrate(run, scene) for run, scene in zip(both, (tiny_scene, utm_scene), strict=True)
    ]
    for kind, one in found[0].items():
        assert found[1][kind].position == pytest.approx(one.position, rel=1e-2)
        assert found[1][kind].rotation == pytest.approx(one.rotation, rel=1e-2)
    first, second = evaluate(here, tiny_scene), evaluate(there, utm_scene)
    for name in (MEAN, ORACLE, "here"):
        other = second.methods["there" if name == "here" else name].errors
        np.testing.assert_allclose(other.position, first.methods[name].errors.position, atol=1e-3)
        np.testing.assert_allclose(
            other.rotation_deg, first.methods[name].errors.rotation_deg, atol=1e-2
        )


def test_an_export_and_its_script_add_the_origin(
    both: tuple[Path, Path], utm_scene: Scene, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="export is an extra: pip install 'relocal[export]'")
    pytest.importorskip("onnxscript", reason="export is an extra: pip install 'relocal[export]'")
    _, there = both
    run, out = load_run(there), tmp_path / "exported"
    found = export(there, utm_scene, out)
    assert found.worst_position < 1e-4
    assert found.change < 1e-4
    ours, theirs = Regressor(run), Exported(out)
    assert near(asked(ours, utm_scene), asked(theirs, utm_scene))
    assert theirs.run.origin == run.origin
    photo = utm_scene.path(0)
    ran = subprocess.run(
        [sys.executable, str(out / "localize.py"), str(photo)],
        capture_output=True,
        text=True,
        check=True,
    )
    said = np.array(json.loads(ran.stdout)["position"])
    assert np.abs(said - ours.localize(photo).pose.position.numpy()).max() < 1e-3
    # The graph itself is relative, and the card says to what.
    pixels = np.zeros((1, 120, 160, 3), np.uint8)
    position = theirs.runtime(pixels)[0]
    assert position.dtype == np.float32
    assert np.abs(position).max() < 10
    card = (out / "README.md").read_text("utf-8")
    assert ", ".join(map(str, run.origin)) in card
    # Without an origin, as exports were made before, it answers what its graph does.
    for name in ("config.json",):
        content = json.loads((out / name).read_text())
        del content["origin"]
        (out / name).write_text(json.dumps(content))
    old = asked(Exported(out), utm_scene)
    assert torch.allclose(old.position, asked(theirs, utm_scene).position - utm_scene.origin)


def test_a_torch_export_is_compared_in_the_world(
    both: tuple[Path, Path], utm_scene: Scene, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="export is an extra: pip install 'relocal[export]'")
    found = export(both[1], utm_scene, tmp_path / "pt", ExportConfig(format="torch", photos=2))
    assert found.worst_position < 1e-4
    assert found.errors[0] < 10


# --- studies and reports -----------------------------------------------------------------------


def test_a_cell_of_a_study_is_the_same(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    scene = load_scene(blocks_scene)
    there = tmp_path / "there"
    save_scene(moved(scene, "ecef"), there)
    config = replace(base, loss=LossConfig(name="default+points"), lr=1e-5)
    found = [
        run_cell(Cell(scene.name, Fold(folder), "x", config, "seed-0"), tmp_path / str(i))
        for i, folder in enumerate((blocks_scene, there))
    ]
    np.testing.assert_allclose(found[1]["position"], found[0]["position"], atol=1e-3)
    np.testing.assert_allclose(found[1]["rotation_deg"], found[0]["rotation_deg"], atol=1e-2)
    assert found[1]["curve"][0][0] == pytest.approx(found[0]["curve"][0][0], rel=1e-4)


def test_pictures_are_relative_where_the_origin_lies_far_away(
    tiny_scene: Scene, tmp_path: Path
) -> None:
    utm = moved(tiny_scene, "utm")
    assert not picture_origin(tiny_scene.poses).any()
    origin = picture_origin(utm.poses)
    centres = utm.poses.position.numpy()
    assert (np.abs(centres - origin) <= np.ptp(centres, axis=0) + 1).all()
    assert not picture_origin(utm.poses[:1]).any()
    report: Report = evaluate({}, utm)
    save_report(report, tmp_path / "report")
    draw_top_view(report, tmp_path / "top.png")
    page = (tmp_path / "report/report.html").read_text("utf-8")
    assert "to the right of (38921" in page
    assert "1e6" not in page
    # What the viewer reads is exact, too.
    again = load_report(tmp_path / "report")
    assert torch.equal(again.training.position, report.training.position)
    assert utm.points is not None
    assert again.points is not None
    np.testing.assert_array_equal(again.points[0], utm.points.xyz)
