"""``--camera``: fitted to a photo."""

from relocal.camera import Camera
from relocal.images import Source, exif_camera, fit_camera, upright_size


def known_camera(camera: Camera | None, photo: Source, name: str) -> Camera | None:
    """A photo's camera as far as it is known: the one given, scaled to the photo, else EXIF's.

    Raises:
        InputError: If the photo cannot be read, or has another shape than the camera's.
    """
    return exif_camera(photo) if camera is None else fit_camera(camera, *upright_size(photo), name)
