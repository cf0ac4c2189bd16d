"""Held-out images: what a localizer's errors are on images that it has not learned from."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from relocal.errors import InputError
from relocal.localizers.bayesian import Bayesian
from relocal.localizers.calibration import (
    Answer,
    Calibration,
    HeldOut,
    fitted,
    write_held_out,
)
from relocal.localizers.feature_map import build_map
from relocal.localizers.registry import Localizer, open_localizer
from relocal.localizers.regressor import Regressor
from relocal.localizers.sequence import Motion, fit_motion
from relocal.localizers.structure import Structure
from relocal.scene import Scene, load_scene
from relocal.training import train
from relocal.training.data import split_validation

Progress = Callable[[int, int, str], None]


def calibrate(
    folder: Path | str,
    scene: Scene | Path | str,
    progress: Progress = lambda done, total, text: None,
) -> dict[str, Calibration]:
    """Fits how sure a run or a map is to its errors on held-out training images.

    Those of a run that was trained with ``validate`` are its validation blocks. Otherwise a twin is
    made with the same options, of all training images but such blocks (15 %), asked about them,
    and thrown away; its errors stand for those of the run or map itself. The answers are kept, so
    that an ensemble of runs that were calibrated is calibrated, too.

    Args:
        folder: The run or the map; the answers are kept in it.
        scene: The scene that it was made of.
        progress: Called with steps done, steps in all, and what is being done.

    Returns:
        By the way of localizing: ``regressor``, and ``bayesian`` of a run with dropout, or
        ``structure``.

    Raises:
        InputError: If they do not belong together, or too few images have an answer.
    """
    folder = Path(folder)
    scene = scene if isinstance(scene, Scene) else load_scene(scene)
    localizer = open_localizer(folder)
    source = localizer.map if isinstance(localizer, Structure) else localizer.run
    every = scene.indices("train")
    names = {scene.images[i] for i in every.tolist()}
    if source.scene != scene.name or not names.issuperset(source.training_images):
        raise InputError(f"{folder}: was not made of the training images of {scene.name!r}.")
    if source.unit != scene.unit or not scene.has_anchors(source.anchors):
        raise InputError(f"{folder}: was made of other poses of {scene.name!r}.")
    held = _held_out(scene, every, source.training_images)
    with tempfile.TemporaryDirectory() as temporary:
        if not held:
            kept, rest = split_validation(scene, every, validate=True)
            held = rest.tolist()
            train = {"train": tuple(scene.images[i] for i in kept.tolist())}
            part = scene.with_splits(train, "all but validation blocks")
            localizer = _twin(localizer, part, Path(temporary) / "twin", progress)
        answers = {
            kind: _asked(kind, one, scene, held, progress)
            for kind, one in _uncalibrated(localizer).items()
        }
    about = HeldOut(
        tuple(scene.images[i] for i in held),
        scene.poses[torch.tensor(held)],
        answers,
        _motion(scene, every.tolist()),
    )
    found = {kind: fitted(one, about.truth, about.motion) for kind, one in answers.items()}
    write_held_out(folder, about)
    return found


def _held_out(scene: Scene, every: Int[Tensor, " n"], learned: Sequence[str]) -> list[int]:
    """The images that were not learned from, without the gap between them and those that were."""
    known = set(learned)
    held = {i for i in every.tolist() if scene.images[i] not in known}
    if not held:
        return []
    blocks = set(split_validation(scene, every, validate=True)[1].tolist())
    # Neighbours of training images would make the answers look better than they are.
    return sorted(held & blocks if blocks <= held else held)


def _motion(scene: Scene, rows: Sequence[int]) -> Motion | None:
    recordings = [scene.sequence(i) for i in rows]
    try:
        return fit_motion(scene.poses[torch.tensor(rows)], recordings, list(map(float, rows)))
    except InputError:  # photos, no recordings
        return None


def _twin(
    localizer: Regressor | Structure, scene: Scene, work: Path, progress: Progress
) -> Regressor | Structure:
    """The same made of other training images."""
    if isinstance(localizer, Structure):
        return Structure(build_map(scene, localizer.map.config, progress))
    return Regressor(train(scene, work, localizer.run.config, report=progress))


def _uncalibrated(localizer: Regressor | Structure) -> dict[str, Localizer]:
    """The ways to ask a run or a map, as they are before any calibration."""
    if isinstance(localizer, Structure):
        return {"structure": Structure(replace(localizer.map, calibration=None))}
    localizer.calibration = None
    ways: dict[str, Localizer] = {"regressor": localizer}
    if localizer.run.config.model.dropout > 0:
        ways["bayesian"] = bayesian = Bayesian(localizer.run)
        bayesian.calibration = None
    return ways


def _asked(
    kind: str, localizer: Localizer, scene: Scene, rows: Sequence[int], progress: Progress
) -> list[Answer | None]:
    """Answers about some images."""
    answers: list[Answer | None] = []
    for done, i in enumerate(rows, start=1):
        estimate = localizer.localize(scene.path(i), scene.camera(i))
        sigmas = (None, None) if estimate is None else (estimate.sigma_m, estimate.sigma_deg)
        sigma, sigma_deg = (1.0 if one is None else one for one in sigmas)
        answers.append(None if estimate is None else (estimate.pose, sigma, sigma_deg))
        progress(done, len(rows), f"asking {kind} about held-out images")
    return answers
