"""The camera of a photo: as it is given, else from EXIF, else the scene's."""

from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor

from relocal.camera import Camera
from relocal.images.given_cameras import GIVEN, given_doubts
from relocal.images.photos import (
    Source,
    equivalent_mm,
    exif_focal_px,
    fit_camera,
    load_view,
    photo_name,
    same_shape,
    upright_size,
)
from relocal.notices import Notice

_OTHER_LENS, _OTHER_SHAPE = 1.25, 1.4
"""Ratios of focal lengths, as shares of the longer side, that are no more one lens's: of photos of
one shape, and of others. EXIF's whole millimetres and its two ways to count (along the diagonal or
the width) differ by 5 %, a 16:9 crop with the EXIF of 4:3 by 9 %; a phone's lenses by 1.8 times."""


@dataclass(frozen=True)
class PhotoCamera:
    """A photo's camera, and how much that can be relied on."""

    camera: Camera
    said_by: str
    """What said it, in the words of a message."""
    notices: tuple[Notice, ...] = ()
    """What is doubtful about it."""


def exif_camera(source: Source) -> Camera | None:
    """The pinhole camera of the focal length that a photo's EXIF states; None where it has none."""
    focal = exif_focal_px(source)
    if focal is None:
        return None
    width, height = upright_size(source)
    return Camera.pinhole(width, height, focal, focal, width / 2, height / 2)


def camera_of_photo(
    source: Source, scene_camera: Camera, given: Camera | None = None
) -> PhotoCamera:
    """The camera of a photo: the one given, else from EXIF, else the scene's.

    EXIF is believed where it contradicts the scene, too: a phone has several lenses. But the
    estimate then says so, since there are apps that write another lens's focal length.

    Args:
        source: A file or its bytes.
        scene_camera: The camera of the scene's photos.
        given: The photo's camera, if the user said it.

    Returns:
        The camera, with notices where it had to be assumed, where EXIF contradicts the scene, and
        where what was given is unlikely.
    """
    if given is not None:
        doubts = given_doubts(given, scene_camera, upright_size(source))
        return PhotoCamera(given, GIVEN, doubts)
    # A focal length says how a pinhole sees, and nothing of a fisheye.
    if scene_camera.is_perspective and (known := exif_camera(source)) is not None:
        return PhotoCamera(known, "EXIF", _contradictions(known, scene_camera))
    camera, notice = _assumed(source, scene_camera)
    return PhotoCamera(camera, "the scene's camera, which is assumed", (notice,))


def _contradictions(known: Camera, scene_camera: Camera) -> tuple[Notice, ...]:
    """What the cameras of the scene say against a focal length of EXIF."""
    longer = max(known.width, known.height) / max(scene_camera.width, scene_camera.height)
    focal, usual = float(known.focal.mean()), float(scene_camera.focal.mean()) * longer
    ratio = focal / usual
    size = sorted((known.width, known.height), reverse=scene_camera.width > scene_camera.height)
    limit = _OTHER_LENS if same_shape(scene_camera, *size) else _OTHER_SHAPE
    if 1 / limit < ratio < limit:
        return ()
    text = (
        f"EXIF says {equivalent_mm(known):.3g} mm, {ratio:.2g} times the focal length of the "
        f"scene's photos ({equivalent_mm(known) / ratio:.3g} mm). EXIF is believed; if an app "
        "wrote that of another lens the pose is wrong: give --camera."
    )
    return (Notice("exif-focal-contradicts", text),)


def _assumed(source: Source, scene_camera: Camera) -> tuple[Camera, Notice]:
    """The scene's lens for a photo of which nothing is known."""
    width, height = upright_size(source)
    why = "no EXIF" if scene_camera.is_perspective else "EXIF does not tell a fisheye's"
    if (width, height) == (scene_camera.width, scene_camera.height):
        same = (
            f"{why}; it has the size of the scene's photos, so the scene's camera is taken "
            "(--camera if it was another)."
        )
        return scene_camera, Notice("camera-assumed", same)
    text = (
        f"the focal length is not known ({why}), so the scene's camera is assumed; give --camera "
        "if it was another one."
    )
    if same_shape(scene_camera, width, height):
        fitted = fit_camera(scene_camera, width, height, photo_name(source))
        return fitted, Notice("focal-unknown", text)
    # A photo of another shape, turned or cropped: the same lens along the longer side.
    scale = max(width, height) / max(scene_camera.width, scene_camera.height)
    focal = float(scene_camera.focal.mean()) * scale
    camera = Camera.pinhole(width, height, focal, focal, width / 2, height / 2)
    text = f"its shape is not that of the scene's photos, and {text}"
    return camera, Notice("shape-unknown", text)


def view_of_photo(
    source: Source, given: Camera | None, scene_camera: Camera, target: Camera
) -> tuple[UInt8[Tensor, "3 h w"], tuple[Notice, ...]]:
    """What the ``target`` camera sees of a photo, and what is doubtful about the photo's camera.

    Args:
        source: A file or its bytes.
        given: The photo's camera, if the user said it.
        scene_camera: The camera of the scene's photos.
        target: The training camera.

    Raises:
        InputError: If the photo cannot be read, or the camera cannot be its; the message says
            where the camera is from.
    """
    known = camera_of_photo(source, scene_camera, given)
    return load_view(source, known.camera, target, known.said_by), known.notices
