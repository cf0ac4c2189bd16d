"""Intrinsics in the words of nerfstudio and instant-ngp: fl_x, cx, k1, ...

Their OPENCV counts k3 and k4 as further powers of r². So its k3 is FULL_OPENCV's, and its k4 is no
number of any model of COLMAP's; neither have they FULL_OPENCV's k4 to k6.
"""

import math
from typing import Any

from relocal.camera.camera import Camera
from relocal.camera.fields import number, size
from relocal.camera.models import CAMERA_MODELS
from relocal.errors import InputError

_BENDS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_PERSPECTIVE = ("k1", "k2", "p1", "p2", "k3")
_TAKEN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"), _PERSPECTIVE
    ),
    "FULL_OPENCV": CAMERA_MODELS["FULL_OPENCV"][4:],
    "OPENCV_FISHEYE": CAMERA_MODELS["OPENCV_FISHEYE"][4:],
}
"""Distortion that each of their models may have."""
_NAMES = {"fx": "fl_x", "fy": "fl_y"}


def nerfstudio_camera(content: dict[str, Any], where: str) -> Camera:
    """The camera of a file or frame, which needs ``w`` and ``h``.

    Returns:
        An OPENCV camera, or FULL_OPENCV or OPENCV_FISHEYE where the numbers ask for it.

    Raises:
        InputError: If it is not supported.
    """
    model = str(content.get("camera_model", "OPENCV")).upper()
    model = "OPENCV_FISHEYE" if content.get("is_fisheye") else model
    if model not in _TAKEN:
        raise InputError(
            f"{where} has camera model {model}, which is not supported; use one of "
            f"{', '.join(_TAKEN)}, or undistort the photos first."
        )
    bends = {name: number(content, name, where, 0) for name in _BENDS}
    if strange := [name for name, value in bends.items() if value and name not in _TAKEN[model]]:
        raise InputError(
            f"{where} has camera model {model} with {', '.join(strange)}, which is not supported; "
            f"its distortion is {', '.join(_TAKEN[model])}. Undistort the photos first."
        )
    found = model
    if _TAKEN[model] is _PERSPECTIVE:
        found = "FULL_OPENCV" if bends["k3"] else "OPENCV"
    width, height = size(content, ("w", "h"), where)
    fx = _focal(content, "x", width, where, found)
    fy = _focal(content, "y", height, where, found) or fx
    if not fx:
        raise InputError(f"{where} has neither fl_x nor camera_angle_x.")
    centre = number(content, "cx", where, width / 2), number(content, "cy", where, height / 2)
    distortion = [bends[name] for name in CAMERA_MODELS[found][4:]]
    return Camera.read(where, found, width, height, [fx, fy, *centre, *distortion])


def _focal(content: dict[str, Any], axis: str, side_px: int, where: str, model: str) -> float:
    """A focal length in pixels, given or from a pinhole's field of view; 0 where neither is."""
    focal, angle = (number(content, f"{key}_{axis}", where, 0) for key in ("fl", "camera_angle"))
    if not focal and angle and model == "OPENCV_FISHEYE":
        raise InputError(f"{where} is a fisheye camera without fl_x; its angle does not tell it.")
    return focal or (side_px / 2 / math.tan(angle / 2) if angle else 0.0)


def nerfstudio_intrinsics(camera: Camera) -> dict[str, Any]:
    """What ``nerfstudio_camera`` reads.

    Raises:
        InputError: If the camera is of a model that nerfstudio has no words for.
    """
    model = "OPENCV" if camera.is_perspective else "OPENCV_FISHEYE"
    values = camera.named_params()
    strange = [name for name in values if name not in ("fx", "fy", "cx", "cy", *_TAKEN[model])]
    if any(values[name] for name in strange) or not (camera.is_perspective or camera.is_fisheye):
        raise InputError(
            f"a camera of the model {camera.model} with {', '.join(strange)} has no place in "
            "nerfstudio's files; export another format, or undistort the photos first."
        )
    taken = [*CAMERA_MODELS[model], *(["k3"] if model == "OPENCV" and values.get("k3") else [])]
    rows = {_NAMES.get(name, name): values.get(name, 0.0) for name in taken}
    return {"camera_model": model, "w": camera.width, "h": camera.height, **rows}
