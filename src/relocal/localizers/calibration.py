"""Calibration: what a stated spread has to be multiplied by, so that it is the true one.

``calibration.json`` in a run or a map holds what it, or its twin, answered about held-out images;
the factors follow from that. An ensemble's follow from what its members answered about the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from relocal.errors import InputError
from relocal.localizers.sequence import Motion
from relocal.metrics import PoseErrors, pose_errors
from relocal.pose import Pose
from relocal.scene.files import read_json, write_json
from relocal.types import Estimate

CALIBRATION = "calibration.json"
REGIONS = {0.68: 1.872, 0.95: 2.795}
"""By its share, the radius of the central region of an isotropic Gaussian in space, in sigmas."""
_FITTED = 0.68
_KEPT = 0.98  # of the held-out answers, by position and by rotation each, that are sure enough
LEAST_IMAGES = 5

Answer = tuple[Pose, float, float]
"""A pose, and the spreads of its position and rotation that were stated; ones where none were."""


@dataclass(frozen=True)
class Calibration:
    """One factor for the position and one for the rotation, and when an answer is too unsure."""

    position: float
    """Factor of the stated spread of the position; where a localizer states none, the spread."""
    rotation: float
    """The same of the rotation, whose spread is in degrees."""
    images: int
    """Held-out images that they were fitted to."""
    most: tuple[float, float] = (np.inf, np.inf)
    """Spreads of position and rotation that few held-out answers (2 % each) exceed."""
    motion: Motion | None = None
    """How the camera moved in the training images, where they are a recording."""

    def of(self, estimate: Estimate) -> Estimate:
        """An estimate with its spread put right; one that states none gets the usual one."""
        sigma, sigma_deg = estimate.sigma_m, estimate.sigma_deg
        return replace(
            estimate,
            sigma_m=self.position * (1.0 if sigma is None else sigma),
            sigma_deg=self.rotation * (1.0 if sigma_deg is None else sigma_deg),
        )

    @property
    def tells_apart(self) -> bool:
        """Whether the spread differs from photo to photo."""
        return self.most != (self.position, self.rotation)

    def doubt(self, estimate: Estimate | None) -> float:
        """How unsure an answer is: above 1 it is more so than nearly all held-out ones were.

        Args:
            estimate: With its spread put right; no answer is infinite doubt.
        """
        if estimate is None or estimate.sigma_m is None or estimate.sigma_deg is None:
            return np.inf
        return max(estimate.sigma_m / self.most[0], estimate.sigma_deg / self.most[1])


@dataclass(frozen=True)
class HeldOut:
    """What a run or a map answered about images that it was not made of."""

    images: tuple[str, ...]
    """Their names."""
    truth: Pose
    """Their poses, (n,)."""
    answers: Mapping[str, Sequence[Answer | None]]
    """By the way of localizing, an answer an image."""
    motion: Motion | None
    """How the camera moved in the training images; None where they are too few to say."""

    def calibration(self, kind: str) -> Calibration | None:
        """The calibration of a way of localizing; None if nothing was asked in that way."""
        if kind not in self.answers:
            return None
        return fitted(self.answers[kind], self.truth, self.motion)


def fitted(answers: Sequence[Answer | None], truth: Pose, motion: Motion | None) -> Calibration:
    """The calibration that follows from answers about images whose poses are known."""
    errors = pose_errors([None if answer is None else answer[0] for answer in answers], truth)
    sigmas = np.array([(1.0, 1.0) if answer is None else answer[1:] for answer in answers])
    return replace(fit_calibration(errors, sigmas), motion=motion)


def fit_calibration(errors: PoseErrors, sigmas: Float[np.ndarray, "n 2"]) -> Calibration:
    """The factors that make 68 % of errors lie in the region that is said to hold as many.

    Args:
        errors: Of held-out images; those without an answer do not count.
        sigmas: The stated spread of position and rotation of each, ones where none is stated.

    Raises:
        InputError: If fewer than five images have an answer, or spreads are not positive.
    """
    answered = np.isfinite(errors.position)
    if answered.sum() < LEAST_IMAGES:
        raise InputError(
            f"{int(answered.sum())} held-out images with an answer are too few to calibrate with, "
            f"{LEAST_IMAGES} are needed: hold out more, of more training images."
        )
    stated = sigmas[answered]
    if not bool((stated > 0).all() and np.isfinite(stated).all()):
        raise InputError("stated spreads of held-out images must be above 0 to be calibrated.")
    values = np.stack([errors.position, errors.rotation_deg], axis=1)[answered]
    factors = np.quantile(values / stated, _FITTED, axis=0) / REGIONS[_FITTED]
    most = factors * np.quantile(stated, _KEPT, axis=0)
    position, rotation = factors.tolist()
    return Calibration(position, rotation, int(answered.sum()), (float(most[0]), float(most[1])))


def coverage(
    errors: Float[np.ndarray, " n"], sigmas: Float[np.ndarray, " n"], share: float
) -> Float[np.ndarray, " n"]:
    """Which errors lie in the region that is said to hold a share of them, as zeros and ones.

    Args:
        errors: Lengths of the errors of a position, or angles.
        sigmas: The stated spread of each, per axis.
        share: A key of ``REGIONS``.
    """
    return (errors <= REGIONS[share] * sigmas).astype(np.float64)


def write_held_out(folder: Path, held: HeldOut) -> Path:
    """Keeps what a run or a map answered about held-out images with it."""
    rows = {
        kind: [None if one is None else [*_row(one[0]), *one[1:]] for one in answers]
        for kind, answers in held.answers.items()
    }
    content = {
        "format": 1,
        "images": list(held.images),
        "truth": [_row(held.truth[i]) for i in range(len(held.images))],
        "answers": rows,
        "motion": None if held.motion is None else asdict(held.motion),
    }
    write_json(folder / CALIBRATION, content)
    return folder / CALIBRATION


def _row(pose: Pose) -> list[float]:
    return [*pose.position.tolist(), *pose.quaternion.tolist()]


def read_held_out(folder: Path) -> HeldOut | None:
    """What a run or a map answered about held-out images, if it was asked.

    Raises:
        InputError: If the file is damaged.
    """
    file = folder / CALIBRATION
    if not file.is_file():
        return None
    content: Any = read_json(file)
    try:
        truth = _poses(content["truth"])
        answers = {
            str(kind): [None if row is None else _answer(row) for row in rows]
            for kind, rows in content["answers"].items()
        }
        motion = None if content["motion"] is None else Motion(**content["motion"])
        images = tuple(map(str, content["images"]))
        if content["format"] != 1:
            raise ValueError(f"format {content['format']}")
        if any(len(rows) != len(images) for rows in (truth, *answers.values())):
            raise ValueError("of different lengths")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, InputError) as error:
        raise InputError(
            f"{file}: is not what calibrate writes ({error!r}); remove it and calibrate again."
        ) from error
    return HeldOut(images, truth, answers, motion)


def _poses(rows: Sequence[Any]) -> Pose:
    values = torch.tensor(rows, dtype=torch.float64)
    if values.dim() != 2 or values.shape[1] != 7 or not bool(torch.isfinite(values).all()):
        raise ValueError("not a pose")
    if bool(((values[:, 3:].norm(dim=1) - 1).abs() > 1e-3).any()):
        raise ValueError("not a unit quaternion")
    return Pose(values[:, :3], values[:, 3:])


def _answer(row: Sequence[Any]) -> Answer:
    *pose, sigma, sigma_deg = map(float, row)
    if not (0 < sigma < np.inf and 0 < sigma_deg < np.inf):
        raise ValueError("not a spread")
    return _poses([pose])[0], sigma, sigma_deg
