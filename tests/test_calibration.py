"""Calibration: factors that make stated spreads true, and held-out images that say which."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi

from relocal.cli import main
from relocal.errors import InputError
from relocal.localizers import Bayesian, Ensemble, Regressor, Structure, calibrate, load_map
from relocal.localizers.calibration import (
    REGIONS,
    coverage,
    fit_calibration,
    fitted,
    read_held_out,
)
from relocal.losses import LossConfig
from relocal.metrics import PoseErrors
from relocal.models import PoseNetConfig
from relocal.scene import Scene
from relocal.scene.files import read_json, write_json
from relocal.training import load_run, train
from relocal.training.data import split_validation


def lengths(sigma: np.ndarray, seed: int) -> np.ndarray:
    """Lengths of vectors whose three parts have a standard deviation."""
    draw = np.random.default_rng(seed).normal(size=(len(sigma), 3))
    return sigma * np.linalg.norm(draw, axis=1)


@pytest.mark.parametrize("share", REGIONS)
def test_regions_are_those_of_three_gaussians(share: float) -> None:
    assert REGIONS[share] == pytest.approx(chi(3).ppf(share), abs=2e-3)


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.integers(0, 1000))
def test_factors_are_recovered(position: float, rotation: float, seed: int) -> None:
    stated = np.random.default_rng(seed).uniform(0.1, 2, size=(4000, 2))
    errors = PoseErrors(
        lengths(position * stated[:, 0], seed), lengths(rotation * stated[:, 1], seed + 1)
    )
    found = fit_calibration(errors, stated)
    assert found.position == pytest.approx(position, rel=0.06)
    assert found.rotation == pytest.approx(rotation, rel=0.06)
    # Not only what was fitted is right.
    for share in REGIONS:
        inside = coverage(errors.position, found.position * stated[:, 0], share)
        assert inside.mean() == pytest.approx(share, abs=0.03)


def test_photos_without_an_answer_do_not_count() -> None:
    errors = PoseErrors(np.array([1.0, np.inf] * 6), np.array([2.0, np.inf] * 6))
    found = fit_calibration(errors, np.ones((12, 2)))
    assert found.images == 6
    assert found.position == pytest.approx(1 / REGIONS[0.68])
    with pytest.raises(InputError, match=r"4 held-out images .* too few"):
        fit_calibration(PoseErrors(errors.position[:8], errors.rotation_deg[:8]), np.ones((8, 2)))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny scene has three held-out images."""
    monkeypatch.setattr("relocal.localizers.calibration.LEAST_IMAGES", 2)


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def map_folder(tiny_map: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_map, tmp_path / "map")


@pytest.mark.usefixtures("few")
def test_a_map_is_calibrated_by_a_twin(map_folder: Path, tiny_scene: Scene) -> None:
    i = int(tiny_scene.indices("test")[0])
    photo, camera = tiny_scene.path(i), tiny_scene.camera(i)
    before = Structure(map_folder).localize(photo, camera)
    found = calibrate(map_folder, tiny_scene)["structure"]
    held = read_held_out(map_folder)
    assert held is not None
    assert found == load_map(map_folder).calibration == held.calibration("structure")
    assert held.calibration("regressor") is None
    rows = torch.tensor([tiny_scene.images.index(name) for name in held.images])
    assert torch.allclose(held.truth.position, tiny_scene.poses.position[rows])
    assert 0.3 < found.position < 30
    after = Structure(map_folder).localize(photo, camera)
    assert before is not None
    assert after is not None
    assert before.sigma_m is not None
    assert after.sigma_m == pytest.approx(found.position * before.sigma_m)
    assert (
        calibrate(map_folder, tiny_scene)["structure"] == found
    )  # of the same, not of what it had become


@pytest.mark.usefixtures("few")
def test_a_run_that_says_nothing_gets_its_usual_error(run: Path, tiny_scene: Scene) -> None:
    i = int(tiny_scene.indices("test")[0])
    photo, camera = tiny_scene.path(i), tiny_scene.camera(i)
    assert Regressor(run).localize(photo, camera).sigma_m is None
    found = calibrate(run, tiny_scene)["regressor"]
    assert not found.tells_apart
    estimate = Regressor(run).localize(photo, camera)
    assert estimate.sigma_m == pytest.approx(found.position)
    assert estimate.sigma_deg == pytest.approx(found.rotation)
    assert 0.05 < found.position < 3


@pytest.mark.usefixtures("few")
def test_a_run_with_validation_blocks_needs_no_twin(
    tiny_run: Path, tiny_scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(
        load_run(tiny_run).config,
        epochs=3,
        validate=True,
        loss=LossConfig(name="nll"),
        model=PoseNetConfig(pool="average", dropout=0.0, width=64, log_variance=True),
    )
    folder = tmp_path / "sure"
    train(tiny_scene, folder, config)
    monkeypatch.setattr("relocal.localizers.held_out.train", None)
    i = int(tiny_scene.indices("test")[0])
    before = Regressor(folder).localize(tiny_scene.path(i), tiny_scene.camera(i))
    found = calibrate(folder, tiny_scene)["regressor"]
    assert found.tells_apart
    # Images of the gap are neighbours of those that were learned from.
    held = read_held_out(folder)
    assert held is not None
    blocks = split_validation(tiny_scene, tiny_scene.indices("train"), validate=True)[1]
    assert held.images == tuple(tiny_scene.images[i] for i in blocks.tolist())
    learned = load_run(folder).training_images
    assert len(held.images) + len(learned) < len(tiny_scene.indices("train"))
    after = Regressor(folder).localize(tiny_scene.path(i), tiny_scene.camera(i))
    assert before.sigma_deg is not None
    assert after.sigma_deg == pytest.approx(found.rotation * before.sigma_deg)


def test_what_does_not_belong_together_is_refused(map_folder: Path, tiny_scene: Scene) -> None:
    with pytest.raises(InputError, match="not made of the training images"):
        calibrate(map_folder, replace(tiny_scene, name="elsewhere"))
    moved = replace(
        tiny_scene, poses=replace(tiny_scene.poses, position=tiny_scene.poses.position + 1)
    )
    with pytest.raises(InputError, match="other poses"):
        calibrate(map_folder, moved)


@pytest.mark.parametrize(
    "changes",
    [
        {"truth": [[0, 0, 0, 1, 0, 0]]},
        {"truth": [[0, 0, 0, 1, 0, 0, 0]]},
        {"answers": {"structure": [None]}},
        {"answers": {"structure": [[0, 0, 0, 1, 0, 0, 0, -1, 1]] * 3}},
        {"answers": {"structure": [[0, 0, float("nan"), 1, 0, 0, 0, 1, 1]] * 3}},
        {"answers": []},
        {"motion": {"acceleration": -1, "turn_acceleration_deg": 1}},
        {"motion": {"speed": 1}},
        {"images": 3},
    ],
)
@pytest.mark.usefixtures("few")
def test_a_damaged_calibration_is_refused(map_folder: Path, changes: dict[str, Any]) -> None:
    pose = [0, 0, 0, 1, 0, 0, 0]
    content = {
        "format": 1,
        "images": ["a", "b", "c"],
        "truth": [pose] * 3,
        "answers": {"structure": [[*pose, 1, 1], None, [1, *pose[1:], 1, 1]]},
        "motion": None,
    }
    write_json(map_folder / "calibration.json", content)
    assert load_map(map_folder).calibration is not None
    write_json(map_folder / "calibration.json", {**content, **changes})
    with pytest.raises(InputError, match=r"calibration\.json: is not what calibrate writes"):
        load_map(map_folder)


@pytest.mark.usefixtures("few")
def test_the_verb_keeps_what_it_finds(
    map_folder: Path, tiny_scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["calibrate", str(map_folder), str(tiny_scene.folder)])
    assert not end.value.code
    assert "held-out images" in capsys.readouterr().out
    assert read_json(map_folder / "calibration.json")["answers"].keys() == {"structure"}


def test_an_ensemble_of_one_network_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "again")
    with pytest.raises(InputError, match="the same weights"):
        Ensemble([tiny_run, tmp_path / "again"])


def test_spreads_of_nothing_are_no_calibration() -> None:
    errors = PoseErrors(np.ones(9), np.ones(9))
    for wrong in (0.0, np.nan, np.inf):
        with pytest.raises(InputError, match="above 0"):
            fit_calibration(errors, np.full((9, 2), wrong))


@pytest.mark.usefixtures("few")
def test_an_ensemble_is_calibrated_by_its_members(
    tiny_run: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    config = load_run(tiny_run).config
    model = replace(config.model, dropout=0.2)
    config = replace(config, epochs=3, validate=True, model=model)
    runs = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(runs):
        train(tiny_scene, folder, replace(config, seed=seed))
    assert Ensemble(runs).calibration is None
    found = calibrate(runs[0], tiny_scene)
    assert found.keys() == {"regressor", "bayesian"}
    assert Ensemble(runs).calibration is None
    calibrate(runs[1], tiny_scene)
    ensemble, bayesian = Ensemble(runs), Bayesian(runs[0])
    assert bayesian.calibration == found["bayesian"]
    assert ensemble.calibration is not None
    # It is what asking the ensemble itself about the held-out images says.
    held = read_held_out(runs[0])
    assert held is not None
    rows = [tiny_scene.images.index(name) for name in held.images]
    calibration, ensemble.calibration = ensemble.calibration, None
    asked = [ensemble.localize(tiny_scene.path(i), tiny_scene.camera(i)) for i in rows]
    answers = [(e.pose, e.sigma_m or 0.0, e.sigma_deg or 0.0) for e in asked]
    again = fitted(answers, held.truth, held.motion)
    assert again.position == pytest.approx(calibration.position, rel=1e-3)
    assert again.rotation == pytest.approx(calibration.rotation, rel=1e-3)
    assert again.most == pytest.approx(calibration.most, rel=1e-3)
    # Answers about others are not mixed.
    content = read_json(runs[1] / "calibration.json")
    write_json(runs[1] / "calibration.json", {**content, "images": list(held.images)[::-1]})
    assert Ensemble(runs).calibration is None
