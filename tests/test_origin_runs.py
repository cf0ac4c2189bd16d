"""Runs are the same wherever the origin lies: targets, losses, going on, and runs of before."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moved_scenes import SHIFTS, moved, near, vector
from safetensors.torch import load_file, save_file
from torch import Tensor

from relocal.errors import InputError
from relocal.localizers import Regressor
from relocal.losses import LossConfig
from relocal.pose import Pose
from relocal.scene import Scene, save_scene
from relocal.training import TrainConfig, load_run, loop, train
from relocal.training.data import TrainingData
from relocal.training.run import run_from_json

LOSSES = (
    "default",
    "homoscedastic",
    "reprojection",
    "default+points",
    "logq+bearing",
    "homography",
)


def spread_of(scene: Scene) -> float:
    centres = scene.poses.position[scene.indices("train")]
    return float((centres - centres.mean(0)).square().sum(-1).mean().sqrt())


@pytest.fixture(params=SHIFTS)
def shift(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def utm_scene(tiny_scene: Scene, tmp_path: Path) -> Scene:
    """The tiny scene in UTM coordinates, on disk."""
    return save_scene(moved(tiny_scene, "utm"), tmp_path / "utm")


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
    there = steps_of(moved(tiny_scene, shift), config, monkeypatch)
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
    scene = moved(tiny_scene, "utm")
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
    rows = tiny_scene.indices("test").tolist()
    one, other = (
        Pose.stack([localizer.localize(tiny_scene.path(i)).pose for i in rows])
        for localizer in (Regressor(old), Regressor(tiny_run))
    )
    assert near(one, other, 1e-5)


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
