"""Lost frames: how recordings write that tracking had no pose for an image.

ScanNet writes -inf, 12-Scenes what C's runtime on Windows prints for a number that is none
(``-1.#IND``), others zeros or the largest number that there is. Such an image has no pose; it is
left out and counted.
"""

import re

import numpy as np
from jaxtyping import Float

LARGEST = 1e12
"""No camera is farther from an origin on the Earth, in millimetres; others have no pose."""
_WINDOWS = re.compile(r"([+-]?)1\.?#(\w+)([+-]\d+)?")  # 1.#INF00, -1.#IND, 1.#QNAN00e+000
_NAN_OF_A_KIND = re.compile(r"[+-]?s?nan\(\w*\)", re.IGNORECASE)  # nan(ind), nan(0x8000)


def number(word: str) -> float:
    """A number of a text file, also one that is none in the words of C's runtimes.

    Raises:
        ValueError: If it is no number.
    """
    try:
        return float(word)
    except ValueError:
        if match := _WINDOWS.fullmatch(word):
            infinite = match[2].upper().startswith("INF")
            return float(f"{match[1]}inf") if infinite else float("nan")
        if _NAN_OF_A_KIND.fullmatch(word):
            return float("nan")
        raise


def is_lost(pose: Float[np.ndarray, "..."], rotation: Float[np.ndarray, "..."]) -> bool:
    """Whether the numbers of a pose say that there is none.

    Args:
        pose: All of them.
        rotation: Those of the rotation, a matrix or a quaternion, which are never all zero.
    """
    return not ((np.abs(pose) < LARGEST).all() and rotation.any())
