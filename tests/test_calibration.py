"""Calibration: factors that make stated spreads true, and held-out images that say which."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi

from relocal.cli import main
from relocal.errors import InputError
from relocal.localizers import Calibration, Regressor, Structure, calibrate, load_map
from relocal.localizers.calibration import REGIONS, coverage, fit_calibration, read_calibration
from relocal.losses import LossConfig
from relocal.metrics import PoseErrors
from relocal.models import PoseNetConfig
from relocal.scene import Scene
from relocal.scene.files import read_json, write_json
from relocal.training import load_run, train


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
    found = calibrate(map_folder, tiny_scene)
    assert found == load_map(map_folder).calibration == read_calibration(map_folder)
    assert 0.3 < found.position < 30
    after = Structure(map_folder).localize(photo, camera)
    assert before is not None
    assert after is not None
    assert before.sigma_m is not None
    assert after.sigma_m == pytest.approx(found.position * before.sigma_m)
    assert calibrate(map_folder, tiny_scene) == found  # of the same, not of what it had become


@pytest.mark.usefixtures("few")
def test_a_run_that_says_nothing_gets_its_usual_error(run: Path, tiny_scene: Scene) -> None:
    i = int(tiny_scene.indices("test")[0])
    photo, camera = tiny_scene.path(i), tiny_scene.camera(i)
    assert Regressor(run).localize(photo, camera).sigma_m is None
    found = calibrate(run, tiny_scene)
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
    found = calibrate(folder, tiny_scene)
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
    "content", [{}, {"position": 1, "rotation": 0, "images": 9}, {"position": "x"}, []]
)
def test_a_damaged_calibration_is_refused(map_folder: Path, content: object) -> None:
    write_json(map_folder / "calibration.json", content)
    with pytest.raises(InputError, match=r"calibration\.json"):
        load_map(map_folder)


@pytest.mark.usefixtures("few")
def test_the_verb_keeps_what_it_finds(
    map_folder: Path, tiny_scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["calibrate", str(map_folder), str(tiny_scene.folder)])
    assert not end.value.code
    assert "held-out images" in capsys.readouterr().out
    assert Calibration(**read_json(map_folder / "calibration.json")).images == 3
