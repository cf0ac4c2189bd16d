"""COLMAP's camera models: their names, numbers and parameters."""

import difflib

from relocal.errors import InputError

CAMERA_MODELS: dict[str, tuple[str, ...]] = {
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k1"),
    "RADIAL": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "SIMPLE_FISHEYE": ("f", "cx", "cy"),
    "FISHEYE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL_FISHEYE": ("f", "cx", "cy", "k1"),
    "RADIAL_FISHEYE": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV_FISHEYE": ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4"),
    "THIN_PRISM_FISHEYE": (
        *("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"),
    ),
    "FOV": ("fx", "fy", "cx", "cy", "omega"),
    "SIMPLE_DIVISION": ("f", "cx", "cy", "k"),
    "DIVISION": ("fx", "fy", "cx", "cy", "k"),
    "EUCM": ("fx", "fy", "cx", "cy", "alpha", "beta"),
}
"""Names of each supported model's parameters, in COLMAP's order."""

COLMAP_NUMBERS = (
    *("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE"),
    *("FULL_OPENCV", "FOV", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE"),
    *("RAD_TAN_THIN_PRISM_FISHEYE", "SIMPLE_DIVISION", "DIVISION", "SIMPLE_FISHEYE", "FISHEYE"),
    *("EUCM", "EQUIRECTANGULAR"),
)
"""The models in the order in which COLMAP numbers them, from 0 on."""

_REFUSED = {
    "RAD_TAN_THIN_PRISM_FISHEYE": "undistort its photos first (colmap image_undistorter) and use "
    "the pinhole cameras that come with them",
    "EQUIRECTANGULAR": "a picture of all directions is no photo here; cut it into pinhole views "
    "first, as COLMAP's panorama example does",
}
"""What to do about models that COLMAP has and that are not supported."""

TWO_FOCALS = {
    "SIMPLE_PINHOLE": "PINHOLE",
    "SIMPLE_RADIAL": "OPENCV",
    "RADIAL": "OPENCV",
    "SIMPLE_FISHEYE": "FISHEYE",
    "SIMPLE_RADIAL_FISHEYE": "OPENCV_FISHEYE",
    "RADIAL_FISHEYE": "OPENCV_FISHEYE",
    "SIMPLE_DIVISION": "DIVISION",
}
"""For each model with one focal length, the smallest that includes it and has two."""

FITTED_MODELS = tuple(name for name in CAMERA_MODELS if name not in ("FOV", "EUCM"))
"""Models that are a lens without distortion when all but focal length and centre are zero."""


def no_model(what: str, name: str, count: int | None = None) -> InputError:
    """The error for a model that is not supported.

    Args:
        what: The option or file that names it.
        name: The name that was given.
        count: How many parameters it came with, where that is known: a model of another number is
            not offered in its place, since its parameters mean something else.
    """
    if (advice := _REFUSED.get(name)) is not None:
        return InputError(f"{what}: the camera model {name} is not supported; {advice}.")
    near = difflib.get_close_matches(name, CAMERA_MODELS, n=3, cutoff=0.6)
    near = [model for model in near if count is None or len(CAMERA_MODELS[model]) == count]
    near = [model for model in near if "FISH" not in name or "FISH" in model]
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return InputError(f"{what}: there is no {name!r}. {hint}Known: {', '.join(CAMERA_MODELS)}.")
