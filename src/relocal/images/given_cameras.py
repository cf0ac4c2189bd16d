"""What is doubtful about a camera that was given for a photo."""

from collections.abc import Iterator

from relocal.camera import CAMERA_MODELS, Camera, camera_doubts
from relocal.camera.doubts import off_centre
from relocal.notices import Notice

GIVEN = "the camera given"
"""What says a photo's camera if the user does, in the words of a message."""
OTHER_LENS = 1.4
"""Ratio of focal lengths, as shares of the longer side, from which on a lens is another."""
_OFF_CENTRE = 0.1  # of a side: farther from the middle no lens looks


def given_doubts(camera: Camera, scene_camera: Camera, size: tuple[int, int]) -> tuple[Notice, ...]:
    """What is doubtful about a camera that was given.

    Args:
        camera: The camera.
        scene_camera: The camera of the scene's photos.
        size: Width and height of the photo.
    """
    if camera is scene_camera:
        return ()
    return tuple(Notice(code, text) for code, text in _doubts(camera, scene_camera, size))


def _doubts(
    camera: Camera, scene_camera: Camera, size: tuple[int, int]
) -> Iterator[tuple[str, str]]:
    order = f"The order is {camera.model},width,height,{','.join(CAMERA_MODELS[camera.model])}."
    centred = True
    for code, text in camera_doubts(camera):
        centred = centred and not code.startswith("centre")
        yield code, f"{GIVEN}: {text} {order}"
    x, y = camera.principal_point.tolist()
    if centred and off_centre(camera, x, y) > _OFF_CENTRE:
        yield (
            "camera-off-centre",
            f"{GIVEN}: the principal point {x:g}, {y:g} is far from the middle of "
            f"{camera.width} x {camera.height} pixels. {order}",
        )
    its, usual = (float(c.focal.mean()) / max(c.width, c.height) for c in (camera, scene_camera))
    if not 1 / OTHER_LENS < its / usual < OTHER_LENS:
        yield (
            "other-lens",
            f"{GIVEN} has {its / usual:.2g} times the focal length of the scene's photos; if that "
            "is wrong the pose is, too.",
        )
    if size != (camera.width, camera.height):
        yield (
            "camera-scaled",
            f"{GIVEN} is of {camera.width} x {camera.height} pixels and scaled to the photo's "
            f"{size[0]} x {size[1]}; that is wrong for a cropped photo.",
        )
