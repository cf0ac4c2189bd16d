"""How true stated spreads are: coverage of regions, and errors of the surest answers."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from relocal.localizers.calibration import REGIONS, coverage
from relocal.metrics import Errors, PoseErrors

# 97.5 % of Student's t with 1, 2, ... degrees of freedom; beyond, the last is near enough.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
LEAST_KEPT = 5


@dataclass(frozen=True)
class Coverage:
    """The share of errors within the region that is said to hold a share of them."""

    share: float
    """What it should be."""
    found: float
    """What it is, mean over blocks."""
    interval: tuple[float, float] | None
    """95 % interval over blocks; None for fewer than two."""


def coverages(
    errors: PoseErrors, sigmas: Float[np.ndarray, "n 2"], block: Int[np.ndarray, " n"]
) -> dict[str, list[Coverage]]:
    """Coverage of position and of rotation, at each share of ``REGIONS``.

    Args:
        errors: Of the images.
        sigmas: Stated spreads of position and rotation (degrees); not a number where none is.
        block: The block of each image: errors of one block are correlated.

    Returns:
        Nothing where no spread is stated.
    """
    stated = np.isfinite(sigmas).all(1) & np.isfinite(errors.position)
    if not stated.any():
        return {}
    values = {"position": errors.position, "rotation": errors.rotation_deg}
    return {
        what: [
            _over_blocks(coverage(v[stated], sigmas[stated, k], share), block[stated], share)
            for share in REGIONS
        ]
        for k, (what, v) in enumerate(values.items())
    }


def _over_blocks(
    inside: Float[np.ndarray, " n"], block: Int[np.ndarray, " n"], share: float
) -> Coverage:
    means = np.array([inside[block == b].mean() for b in np.unique(block)])
    if len(means) < 2:
        return Coverage(share, float(means.mean()), None)
    reach = _T[min(len(means) - 1, len(_T)) - 1] * means.std(ddof=1) / len(means) ** 0.5
    low, high = np.clip([means.mean() - reach, means.mean() + reach], 0, 1)
    return Coverage(share, float(means.mean()), (float(low), float(high)))


def reliability(
    errors: Errors, sigma: Errors
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The share of errors in regions of every size, against the share that is said to lie there.

    Args:
        errors: Of answers; infinite where there is none, which does not count.
        sigma: The stated spread of each, per axis; not a number where none is stated.

    Returns:
        Shares that are said, ascending, and found: equal where spreads are true.
    """
    stated = np.isfinite(errors) & np.isfinite(sigma)
    radius = np.linspace(0, 4, 41)
    inside = (errors[stated, None] <= radius * sigma[stated, None]).mean(0)
    # The distribution of the length of three standard Gaussians (Maxwell).
    erf = np.array([math.erf(r / math.sqrt(2)) for r in radius])
    said = erf - math.sqrt(2 / math.pi) * radius * np.exp(-(radius**2) / 2)
    return said, inside


def risk_coverage(
    errors: Errors, sigma: Errors
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The median error of the surest answers, against how many of all images they are.

    Args:
        errors: Of the images; infinite where there is no answer.
        sigma: The stated spread of each; answers that state none are the least sure.

    Returns:
        Shares of all images, ascending, and the median error of that many surest answers.
    """
    order = np.argsort(np.where(np.isfinite(errors), sigma, np.inf), kind="stable")
    kept = np.arange(min(LEAST_KEPT, len(order)), len(order) + 1)
    medians = np.array([np.median(errors[order[:k]]) for k in kept])
    return kept / max(len(order), 1), medians
