"""Rejection: are photos of other places told from those of the scene?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Rejection:
    """What a localizer would refuse to answer."""

    photos: int
    """Photos of other places."""
    rejected: float
    """Share of these that are refused."""
    falsely: float
    """Share of the scene's own photos that are refused, too."""
    auroc: float
    """How often a photo of another place leaves more doubt than one of the scene; ties are half."""


def rejection(own: Float[np.ndarray, " n"], others: Float[np.ndarray, " k"]) -> Rejection:
    """How well doubts tell photos of other places from the scene's own.

    Args:
        own: Doubts of the scene's photos: above 1 a photo is refused.
        others: Doubts of photos of other places.
    """
    ranks = np.searchsorted(np.sort(own), others, "left")
    ties = np.searchsorted(np.sort(own), others, "right") - ranks
    auroc = float((ranks + ties / 2).mean() / len(own))
    return Rejection(len(others), float((others > 1).mean()), float((own > 1).mean()), auroc)
