"""``--camera``: fitted to a photo, and doubted where it is unlikely."""

import torch

from relocal.camera import CAMERA_MODELS, Camera
from relocal.images import Source, exif_camera, fit_camera, upright_size
from relocal.notices import Notice

_OFF_CENTRE = 0.1  # of a side: farther from the middle no lens looks


def camera_doubts(camera: Camera, photo: Source) -> list[Notice]:
    """What is unlikely about a camera that was given for a photo.

    Raises:
        InputError: If the photo cannot be read.
    """
    doubts: list[Notice] = []
    size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
    point = camera.principal_point
    if bool(((point - size / 2).abs() > _OFF_CENTRE * size).any()):
        x, y = point.tolist()
        text = (
            f"--camera: the principal point {x:g}, {y:g} is far from the middle of "
            f"{camera.width} x {camera.height} pixels; the order is {camera.model},width,height,"
            f"{','.join(CAMERA_MODELS[camera.model])}."
        )
        doubts.append(Notice("camera-off-centre", text))
    width, height = upright_size(photo)
    if (width, height) != (camera.width, camera.height):
        text = (
            f"--camera: it is of {camera.width} x {camera.height} pixels and scaled to the photo's "
            f"{width} x {height}; that is wrong for a cropped photo."
        )
        doubts.append(Notice("camera-scaled", text))
    return doubts


def known_camera(camera: Camera | None, photo: Source, name: str) -> Camera | None:
    """A photo's camera as far as it is known: the one given, scaled to the photo, else EXIF's.

    Raises:
        InputError: If the photo cannot be read, or has another shape than the camera's.
    """
    return exif_camera(photo) if camera is None else fit_camera(camera, *upright_size(photo), name)
