"""Runs are the same wherever the world's origin lies: targets, losses, answers, exports, resuming.

A world is moved as a whole, its poses and its map points, by exact float64 vectors.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from relocal.errors import InputError
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
from relocal.training import TrainConfig, load_run, loop, train
from relocal.training.data import TrainingData
from relocal.training.run import run_from_json

SHIFTS = {
    "far": (1e7, 1e7, 1e7),
    "utm": (389_212.4, 5_819_731.8, 54.1),
    "ecef": (3_782_971.0, 902_152.5, 5_038_375.3),
}
LOSSES = (
    "default",
    "homoscedastic",
    "reprojection",
    "default+points",
    "logq+bearing",
    "homography",
)


def moved(scene: Scene, by: tuple[float, float, float]) -> Scene:
    """The same scene in a world whose origin lies elsewhere."""
    assert scene.points is not None
    points = replace(scene.points, xyz=scene.points.xyz.astype(np.float64) + np.array(by))
    offset = torch.tensor(by, dtype=torch.float64)
    poses = replace(scene.poses, position=scene.poses.position + offset)
    return replace(scene, poses=poses, points=points)


def vector(name: str) -> Tensor:
    return torch.tensor(SHIFTS[name], dtype=torch.float64)


def spread_of(scene: Scene) -> float:
    centres = scene.poses.position[scene.indices("train")]
    return float((centres - centres.mean(0)).square().sum(-1).mean().sqrt())


@pytest.fixture(params=SHIFTS)
def shift(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def utm_scene(tiny_scene: Scene, tmp_path: Path) -> Scene:
    """The tiny scene in UTM coordinates, on disk."""
    return save_scene(moved(tiny_scene, SHIFTS["utm"]), tmp_path / "utm")


# --- training ----------------------------------------------------------------------------------


def steps_of(
    scene: Scene, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, count: int = 10
) -> tuple[list[Any], list[Tensor], TrainingData]:
    """Targets and losses of the first steps, as the loop draws and sees them."""
    targets, losses, seen = list[Any](), list[Tensor](), list[TrainingData]()
    given = loop.batch_loss

    def watch(loss: Any, prediction: Any, target: Any, progress: float) -> Tensor:
        values = given(loss, prediction, target, progress)
        targets.append(target)
        losses.append(values.detach())
        return values

    with monkeypatch.context() as patch:
        patch.setattr(loop, "batch_loss", watch)
        fabric, model, loss, data = loop.prepare(scene, config, lambda *_: None)
        loop.fit(fabric, model, loss, data, None, lambda *_: None)
        seen.append(data)
    assert len(targets) >= count
    return targets[:count], losses[:count], seen[0]


@pytest.mark.parametrize("name", LOSSES)
def test_targets_and_losses_do_not_see_where_the_origin_lies(
    tiny_scene: Scene,
    tiny_config: TrainConfig,
    shift: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(tiny_config, loss=LossConfig(name=name), epochs=4)
    here = steps_of(tiny_scene, config, monkeypatch)
    there = steps_of(moved(tiny_scene, SHIFTS[shift]), config, monkeypatch)
    spread = spread_of(tiny_scene)
    for one, other in zip(here[0], there[0], strict=True):
        assert one.pose.position.dtype == torch.float32
        assert one.pose.position.norm(dim=-1).max() < 4 * spread
        assert (one.pose.position - other.pose.position).abs().max() <= 1e-6 * spread
        assert torch.equal(one.pose.quaternion, other.pose.quaternion)
        assert (one.points is None) == (name not in LOSSES[2:5])
        if one.points is not None:
            assert (one.points - other.points).abs().max() <= 2e-6 * spread
            assert torch.equal(one.visible, other.visible)
        torch.testing.assert_close(one.depth, other.depth, rtol=1e-6, atol=0)
    for one, other in zip(here[1], there[1], strict=True):
        assert (one - other).abs().max() <= 1e-4 * one.abs().max()
    assert (there[2].origin - here[2].origin - vector(shift)).abs().max() < 1e-6 * spread


def test_targets_are_the_poses_and_points_less_the_origin(
    tiny_scene: Scene, tiny_config: TrainConfig
) -> None:
    config = replace(
        tiny_config,
        loss=LossConfig(name="default+points"),
        view=replace(tiny_config.view, augment="none"),
    )
    scene = moved(tiny_scene, SHIFTS["utm"])
    fabric, model, _, data = loop.prepare(scene, config, lambda *_: None)
    _, target = data.batch(data.train, torch.Generator().manual_seed(0), fabric.device)
    # By hand, in NumPy.
    centres = scene.poses.position.numpy()[data.train.numpy()]
    middle = centres.mean(axis=0)
    np.testing.assert_allclose(data.origin.numpy(), middle, atol=1e-8)
    np.testing.assert_allclose(target.pose.position.numpy(), centres - middle, atol=1e-6)
    assert scene.points is not None
    assert target.points is not None
    known = scene.points.xyz - middle
    for point in target.points[:, :3].reshape(-1, 3).numpy():
        assert np.abs(known - point).max(axis=1).min() < 1e-6
    assert model.position_mean.norm() < 1e-6
    # A training that goes on keeps what it was begun with.
    _, _, _, old = loop.prepare(scene, config, lambda *_: None, origin=(0.0, 0.0, 0.0))
    assert torch.equal(old.poses.position, scene.poses.position)
    assert torch.equal(old.origin, torch.zeros(3, dtype=torch.float64))


# --- answers -----------------------------------------------------------------------------------


def asked(localizer: Any, scene: Scene, by: str | None = None) -> Pose:
    """Answers about the test photos, float64, moved back to the tiny scene's world."""
    rows = scene.indices("test").tolist()
    poses = Pose.stack([localizer.localize(scene.path(i), scene.camera(i)).pose for i in rows])
    assert poses.position.dtype == torch.float64
    return poses if by is None else replace(poses, position=poses.position - vector(by))


def near(one: Pose, other: Pose, length: float = 1e-4) -> bool:
    apart = (one.position - other.position).norm(dim=-1).max()
    turned = (one.quaternion - other.quaternion).norm(dim=-1).max()
    return bool(apart < length and turned < length)


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


# --- runs of before, and going on ---------------------------------------------------------------


def without_origin(run: Path, out: Path) -> Path:
    """A run as they were made before there were origins: the weights hold absolute positions."""
    shutil.copytree(run, out)
    content = json.loads((out / "config.json").read_text())
    origin = torch.tensor(content.pop("origin"))
    (out / "config.json").write_text(json.dumps(content))
    weights = load_file(out / "weights.safetensors")
    weights["model.position_mean"] += origin
    save_file(weights, out / "weights.safetensors")
    return out


def test_a_run_of_before_answers_the_same(
    tiny_run: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    old = without_origin(tiny_run, tmp_path / "old")
    run = load_run(old)
    assert run.origin == (0.0, 0.0, 0.0)
    assert np.linalg.norm(load_run(tiny_run).origin) > 1
    assert near(asked(Regressor(old), tiny_scene), asked(Regressor(tiny_run), tiny_scene), 1e-5)


class StoppedError(Exception):
    """Ends a training after an epoch."""


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a training that is killed after its first epoch."""

    def run(scene: Scene, out: Path, config: TrainConfig) -> None:
        save = loop.save_checkpoint

        def once(*arguments: Any) -> None:
            save(*arguments)
            raise StoppedError

        with monkeypatch.context() as patch:
            patch.setattr(loop, "save_checkpoint", once)
            with pytest.raises(StoppedError):
                train(scene, out, config)

    return run


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(run / "weights.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_training_goes_on_bit_for_bit(
    utm_scene: Scene, tiny_config: TrainConfig, tmp_path: Path, stopping: Any
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(utm_scene, whole, tiny_config)
    stopping(utm_scene, parts, tiny_config)
    again = train(utm_scene, parts, resume=True)
    assert again.origin == load_run(whole).origin
    assert same_weights(whole, parts)


def test_a_training_of_before_goes_on_as_it_was_begun(
    tiny_scene: Scene,
    tiny_config: TrainConfig,
    tmp_path: Path,
    stopping: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with monkeypatch.context() as patch:  # as if there were no origins
        patch.setattr(Scene, "origin", torch.zeros(3, dtype=torch.float64))
        scene = replace(tiny_scene)
        train(scene, whole, tiny_config)
        stopping(scene, parts, tiny_config)
    content = json.loads((parts / "config.json").read_text())
    assert content.pop("origin") == [0, 0, 0]
    (parts / "config.json").write_text(json.dumps(content))
    again = train(tiny_scene, parts, resume=True)
    assert again.origin == load_run(parts).origin == (0.0, 0.0, 0.0)
    assert same_weights(whole, parts)


@pytest.mark.parametrize("origin", [[0, 0], [0, 0, "east"], [0, 0, float("nan")], 3, None])
def test_a_strange_origin_is_refused(tiny_run: Path, origin: Any) -> None:
    content = json.loads((tiny_run / "config.json").read_text())
    with pytest.raises(InputError, match=r"config\.json: is not what a run has"):
        run_from_json(tiny_run, {**content, "origin": origin})


# --- studies and reports -----------------------------------------------------------------------


def test_a_cell_of_a_study_is_the_same(
    blocks_scene: Path, base: TrainConfig, tmp_path: Path
) -> None:
    scene = load_scene(blocks_scene)
    there = tmp_path / "there"
    save_scene(moved(scene, SHIFTS["ecef"]), there)
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
    utm = moved(tiny_scene, SHIFTS["utm"])
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
