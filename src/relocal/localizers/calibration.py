"""Calibration: what a stated spread has to be multiplied by, so that it is the true one."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from relocal.errors import InputError
from relocal.metrics import PoseErrors
from relocal.scene.files import read_json, write_json
from relocal.types import Estimate

CALIBRATION = "calibration.json"
REGIONS = {0.68: 1.872, 0.95: 2.795}
"""By its share, the radius of the central region of an isotropic Gaussian in space, in sigmas."""
_FITTED = 0.68
LEAST_IMAGES = 5


@dataclass(frozen=True)
class Calibration:
    """One factor for the position and one for the rotation."""

    position: float
    """Factor of the stated spread of the position; where a localizer states none, the spread."""
    rotation: float
    """The same of the rotation, whose spread is in degrees."""
    images: int
    """Held-out images that they were fitted to."""

    def of(self, estimate: Estimate) -> Estimate:
        """An estimate with its spread put right; one that states none gets the usual one."""
        sigma, sigma_deg = estimate.sigma_m, estimate.sigma_deg
        return replace(
            estimate,
            sigma_m=self.position * (1.0 if sigma is None else sigma),
            sigma_deg=self.rotation * (1.0 if sigma_deg is None else sigma_deg),
        )


def fit_calibration(errors: PoseErrors, sigmas: Float[np.ndarray, "n 2"]) -> Calibration:
    """The factors that make 68 % of errors lie in the region that is said to hold as many.

    Args:
        errors: Of held-out images; those without an answer do not count.
        sigmas: The stated spread of position and rotation of each, ones where none is stated.

    Raises:
        InputError: If fewer than five images have an answer.
    """
    answered = np.isfinite(errors.position)
    if answered.sum() < LEAST_IMAGES:
        raise InputError(
            f"{int(answered.sum())} held-out images with an answer are too few to calibrate with."
        )
    position, rotation = (
        float(np.quantile(values[answered] / sigmas[answered, k], _FITTED)) / REGIONS[_FITTED]
        for k, values in enumerate((errors.position, errors.rotation_deg))
    )
    return Calibration(position, rotation, int(answered.sum()))


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


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Keeps a calibration with its run or map."""
    write_json(folder / CALIBRATION, asdict(calibration))
    return folder / CALIBRATION


def read_calibration(folder: Path) -> Calibration | None:
    """The calibration of a run or a map, if it has one.

    Raises:
        InputError: If its file is damaged.
    """
    file = folder / CALIBRATION
    if not file.is_file():
        return None
    content: Any = read_json(file)
    try:
        found = Calibration(
            float(content["position"]), float(content["rotation"]), int(content["images"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: is not what calibrate writes ({error!r}).") from error
    if not (0 < found.position < np.inf and 0 < found.rotation < np.inf):
        raise InputError(f"{file}: factors must be positive; calibrate again.")
    return found
