"""What a COLMAP model is made of, whether its files are binary or text."""

from dataclasses import dataclass

import numpy as np
import torch

from relocal.camera import CAMERA_MODELS, Camera
from relocal.errors import InputError

KEYPOINT = np.dtype([("xy", "<f8", 2), ("point_id", "<u8")])
NO_POINT = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class ImageRecord:
    """An image of a model."""

    id: int
    name: str
    camera_id: int
    cam_from_world: tuple[float, ...]
    """Quaternion w, x, y, z and translation."""
    keypoints: np.ndarray
    """Rows of ``KEYPOINT``; those that see no map point have the id ``NO_POINT``."""


def camera_record(where: str, model: str, width: int, height: int, params: np.ndarray) -> Camera:
    """A camera of a model.

    Raises:
        InputError: If it is none, or not of a supported kind; ``where`` names the file.
    """
    if model not in CAMERA_MODELS:
        raise InputError(
            f"{where}: camera model {model} is not supported; use one of "
            f"{', '.join(CAMERA_MODELS)}."
        )
    try:
        camera = Camera(model, width, height, torch.from_numpy(params.copy()))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return camera.checked(where)
