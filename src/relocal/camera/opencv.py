"""OpenCV's calibration in COLMAP's words: a camera matrix, and coefficients of a lens."""

import math
from typing import Any, Literal

from relocal.camera.models import CAMERA_MODELS
from relocal.errors import InputError

Pixels = Literal["opencv", "colmap"]
"""Where the centre of the top-left pixel is: at (0, 0) in OpenCV, at (0.5, 0.5) in COLMAP."""
Kind = Literal["perspective", "fisheye"]

_COUNTS = {"perspective": (0, 4, 5, 8, 12, 14), "fisheye": (0, 4)}
_KNOWN = 8  # further coefficients are of thin prisms and a tilted sensor


def opencv_model(
    matrix: list[Any], dist: list[float], kind: Kind, pixels: Pixels = "opencv"
) -> tuple[str, list[float]]:
    """The smallest model that holds a calibration of OpenCV, and its parameters.

    Args:
        matrix: Three rows of three numbers.
        dist: As ``cv2.calibrateCamera`` gives it, or ``cv2.fisheye.calibrate``.
        kind: Which of both.
        pixels: How the matrix counts pixels.

    Raises:
        InputError: If the numbers are not those of such a camera.
    """
    fx, fy, cx, cy = _pinhole(matrix)
    if len(dist) not in _COUNTS[kind]:
        *most, last = map(str, _COUNTS[kind])
        raise InputError(
            f"dist: a {kind} lens has {', '.join(most)} or {last} coefficients, not {len(dist)}."
        )
    if not all(map(math.isfinite, dist)):
        raise InputError(f"dist: coefficients must be finite, got {dist}.")
    if any(dist[_KNOWN:]):
        raise InputError(
            "dist: thin prism and tilt coefficients (s1, ..., ty) are not supported; calibrate "
            "without them, or undistort the photos first."
        )
    shift = {"opencv": 0.5, "colmap": 0.0}[pixels]
    front = [fx, fy, cx + shift, cy + shift]
    if kind == "fisheye":
        return "OPENCV_FISHEYE", [*front, *(dist or [0.0] * 4)]
    bends = [*dist[:_KNOWN], *[0.0] * (_KNOWN - len(dist))]
    model = "FULL_OPENCV" if any(bends[4:]) else "OPENCV" if any(bends) else "PINHOLE"
    return model, [*front, *bends][: len(CAMERA_MODELS[model])]


def _pinhole(matrix: list[Any]) -> tuple[float, float, float, float]:
    if len(matrix) == 9:  # row by row, as a ROS message has them
        matrix = [matrix[row : row + 3] for row in (0, 3, 6)]
    match matrix:
        case [[fx, skew, cx], [zero, fy, cy], [0 | 0.0, 0 | 0.0, 1 | 1.0]]:
            pass
        case _:
            raise InputError(
                "camera matrix: must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], or its nine numbers."
            )
    if abs(skew) > 1e-6 * abs(fx) or zero:
        raise InputError(f"camera matrix: skew ({skew:g}) is not supported; calibrate without it.")
    return fx, fy, cx, cy
