"""Held-out images: what a localizer's errors are on images that it has not learned from."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from relocal.errors import InputError
from relocal.localizers.calibration import Calibration, fit_calibration, write_calibration
from relocal.localizers.feature_map import build_map
from relocal.localizers.registry import open_localizer
from relocal.localizers.regressor import Regressor
from relocal.localizers.structure import Structure
from relocal.metrics import PoseErrors, pose_errors
from relocal.pose import Pose
from relocal.scene import Scene, load_scene
from relocal.training import train
from relocal.training.data import split_validation
from relocal.types import Estimate

Progress = Callable[[int, int, str], None]


def calibrate(
    folder: Path | str,
    scene: Scene | Path | str,
    progress: Progress = lambda done, total, text: None,
) -> Calibration:
    """Fits how sure a run or a map is to its errors on held-out training images.

    Those of a run that was trained with ``validate`` are its validation blocks. Otherwise a twin is
    made with the same options, of all training images but such blocks (15 %), asked about them,
    and thrown away; its errors stand for those of the run or map itself.

    Args:
        folder: The run or the map; the calibration is kept in it.
        scene: The scene that it was made of.
        progress: Called with steps done, steps in all, and what is being done.

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
    held = [i for i in every.tolist() if scene.images[i] not in source.training_images]
    with tempfile.TemporaryDirectory() as temporary:
        if not held:
            kept, rest = split_validation(scene, every, validate=True)
            held = rest.tolist()
            train = {"train": tuple(scene.images[i] for i in kept.tolist())}
            part = scene.with_splits(train, "all but validation blocks")
            localizer = _twin(localizer, part, Path(temporary) / "twin", progress)
        calibration = fit_calibration(*_asked(localizer, scene, held, progress))
    write_calibration(folder, calibration)
    return calibration


def _twin(
    localizer: Regressor | Structure, scene: Scene, work: Path, progress: Progress
) -> Regressor | Structure:
    """The same made of other training images."""
    if isinstance(localizer, Structure):
        return Structure(build_map(scene, localizer.map.config, progress))
    return Regressor(train(scene, work, localizer.run.config, report=progress))


def _asked(
    localizer: Regressor | Structure, scene: Scene, rows: Sequence[int], progress: Progress
) -> tuple[PoseErrors, Float[np.ndarray, "n 2"]]:
    """Errors on some images, and the spreads that are stated of them before any calibration."""
    if isinstance(localizer, Structure):
        localizer = Structure(replace(localizer.map, calibration=None))
    else:
        localizer.calibration = None
    poses: list[Pose | None] = []
    sigmas: list[tuple[float, float]] = []
    for done, i in enumerate(rows, start=1):
        estimate = localizer.localize(scene.path(i), scene.camera(i))
        poses.append(None if estimate is None else estimate.pose)
        sigmas.append(_stated(estimate))
        progress(done, len(rows), "asking about held-out images")
    return pose_errors(poses, scene.poses[torch.tensor(rows)]), np.array(sigmas)


def _stated(estimate: Estimate | None) -> tuple[float, float]:
    """The spreads that an estimate states; ones where it states none."""
    if estimate is None or estimate.sigma_m is None or estimate.sigma_deg is None:
        return 1.0, 1.0
    return estimate.sigma_m, estimate.sigma_deg
