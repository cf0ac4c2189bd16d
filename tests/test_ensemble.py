"""Several answers about one photo: ensembles of runs and samples of one run."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from relocal.errors import InputError
from relocal.localizers import Bayesian, Ensemble, Regressor, open_localizers
from relocal.localizers.spread import middle_and_spread
from relocal.pose import (
    Pose,
    position_error,
    quaternion_exp,
    quaternion_multiply,
    rotation_error_deg,
)
from relocal.scene import Scene
from relocal.training import load_run, train
from relocal.training.run import read_tensors, write_tensors


def test_middle_and_spread_are_those_of_the_noise() -> None:
    draw = np.random.default_rng(0)
    truth = Pose.from_quaternion(
        torch.from_numpy(draw.normal(size=3)), torch.from_numpy(draw.normal(size=4))
    )
    shift = torch.from_numpy(draw.normal(scale=0.2, size=(4000, 3)))
    turn = torch.from_numpy(draw.normal(scale=np.deg2rad(3.0), size=(4000, 3)))
    sign = torch.from_numpy(draw.choice([-1.0, 1.0], size=(4000, 1)))
    quaternion = quaternion_multiply(truth.quaternion.expand(4000, 4), quaternion_exp(turn / 2))
    middle, sigma, sigma_deg = middle_and_spread(Pose(truth.position + shift, sign * quaternion))
    assert position_error(middle, truth) < 0.02
    assert rotation_error_deg(middle, truth) < 0.3
    assert sigma == pytest.approx(0.2, rel=0.03)
    assert sigma_deg == pytest.approx(3.0, rel=0.03)


def test_the_same_answer_twice_has_no_spread() -> None:
    pose = Pose.identity(3)
    middle, sigma, sigma_deg = middle_and_spread(pose)
    assert position_error(middle, pose[0]) == 0
    assert sigma == 0
    assert sigma_deg < 1e-6


@pytest.fixture(scope="module")
def other(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with other weights in its last layer."""
    folder = shutil.copytree(tiny_run, tmp_path_factory.mktemp("runs") / "other")
    tensors = read_tensors(folder / "weights.safetensors")
    tensors["model.head.position.bias"] = tensors["model.head.position.bias"] + 0.3
    write_tensors(folder / "weights.safetensors", tensors)
    return folder


def test_an_ensemble_answers_with_the_mean_of_its_members(
    tiny_run: Path, other: Path, tiny_scene: Scene
) -> None:
    i = int(tiny_scene.indices("test")[0])
    photo, camera = tiny_scene.path(i), tiny_scene.camera(i)
    one, two = (Regressor(run).localize(photo, camera).pose for run in (tiny_run, other))
    found = Ensemble([tiny_run, other]).localize(photo, camera)
    assert torch.allclose(found.pose.position, (one.position + two.position) / 2)
    assert found.sigma_m is not None
    assert found.sigma_m == pytest.approx(float(position_error(one, two)) / 6**0.5)


def test_an_ensemble_is_of_one_scene_and_of_several_runs(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    with pytest.raises(InputError, match="two runs or more"):
        Ensemble([run])
    with pytest.raises(InputError, match="not trained on the images"):
        Ensemble([run, replace(run, training_images=run.training_images[1:])])


@pytest.fixture(scope="module")
def dropped(tiny_run: Path, tiny_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with dropout."""
    config = load_run(tiny_run).config
    config = replace(config, epochs=3, model=replace(config.model, dropout=0.3))
    out = tmp_path_factory.mktemp("runs") / "dropped"
    train(tiny_scene, out, config)
    return out


def test_samples_scatter_about_the_network_and_repeat(dropped: Path, tiny_scene: Scene) -> None:
    i = int(tiny_scene.indices("test")[0])
    photo, camera = tiny_scene.path(i), tiny_scene.camera(i)
    localizer = Bayesian(dropped, samples=256)
    state = torch.random.get_rng_state()
    found = localizer.localize(photo, camera)
    assert torch.equal(torch.random.get_rng_state(), state)
    again = localizer.localize(photo, camera)
    assert torch.equal(found.pose.position, again.pose.position)
    assert found.sigma_m is not None
    assert found.sigma_m > 0
    sure = Regressor(dropped).localize(photo, camera)
    assert position_error(found.pose, sure.pose) < 3 * found.sigma_m


def test_a_network_without_dropout_has_no_samples(tiny_run: Path) -> None:
    with pytest.raises(InputError, match="without dropout"):
        Bayesian(tiny_run)


def test_kinds_of_several_answers_are_opened(dropped: Path, tiny_run: Path, other: Path) -> None:
    found = open_localizers([dropped, tiny_run, other], ["bayesian", "ensemble"])
    assert list(found) == ["bayesian", "ensemble of 3"]
