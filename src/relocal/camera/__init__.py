"""Camera: how a point in front of a camera becomes a pixel, in COLMAP's models.

``models`` names them, ``lens`` is what they do to a ray, ``camera`` is the camera itself,
``opencv`` and ``nerfstudio`` translate their numbers, and ``files``, ``calibrations`` and ``text``
read what is given as ``--camera``.
"""

from relocal.camera.camera import Camera
from relocal.camera.doubts import camera_doubts
from relocal.camera.files import read_camera
from relocal.camera.models import CAMERA_MODELS, COLMAP_NUMBERS, FITTED_MODELS, no_model
from relocal.camera.nerfstudio import nerfstudio_camera, nerfstudio_intrinsics
from relocal.camera.text import parse_camera

__all__ = [
    "CAMERA_MODELS",
    "COLMAP_NUMBERS",
    "FITTED_MODELS",
    "Camera",
    "camera_doubts",
    "nerfstudio_camera",
    "nerfstudio_intrinsics",
    "no_model",
    "parse_camera",
    "read_camera",
]
