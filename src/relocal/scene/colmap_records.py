"""What a COLMAP model is made of, whether its files are binary or text."""

from dataclasses import dataclass

import numpy as np

from relocal.camera import CAMERA_MODELS, Camera, no_model

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
        raise no_model(where, model, len(params) or None)
    return Camera.read(where, model, width, height, params)
