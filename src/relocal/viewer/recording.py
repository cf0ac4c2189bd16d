"""Recording: a place with one answer in it, as a file that the viewer's page plays by itself.

A server that is looked at live shows everybody the same; a recording is its asker's own.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from relocal.camera import Camera
from relocal.pose import Pose
from relocal.viewer.place import (
    CAMERA,
    DOT,
    GREY,
    PURPLE,
    Points,
    add_camera,
    draw_place,
    start_viser,
    stop_viser,
)

_SIZE = 3.0  # of the camera, in those of a scene's cameras
_REGION = 1.87  # 68 % of a Gaussian in three dimensions lies within so many standard deviations


def viewer_page() -> Path | None:
    """The page that plays recordings (``?playbackPath=ADDRESS``); None if viser is missing."""
    found = find_spec("viser")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "client" / "build" / "index.html"


def record(
    cameras: Pose,
    points: Points = None,
    camera: Camera | None = None,
    answer: Pose | None = None,
    sigma: float | None = None,
) -> bytes:
    """Draws a place and, where there is one, an answer, without a browser.

    Args:
        cameras: Where it was recorded, at least one pose.
        points: Its map points and their colours, where there are some.
        camera: Of the photo, for the field of view.
        answer: ``world_from_cam`` of a photo, batch shape ().
        sigma: The answer's standard deviation per axis, in the scene's unit: a sphere shows where
            68 % of such answers lie.

    Returns:
        What ``viewer_page`` plays.

    Raises:
        InputError: If viser is not installed.
    """
    server = start_viser("127.0.0.1", 0)
    try:
        frame = draw_place(server, points, cameras)
        server.scene.add_point_cloud(
            "/training",
            points=frame.points(cameras.position).float().numpy(),
            colors=GREY,
            point_size=DOT / 3,
            point_shape="circle",
            precision="float32",
        )
        if answer is not None:
            answer = frame.poses(answer)
            add_camera(server.scene, "/answer", answer, camera, _SIZE * CAMERA, PURPLE)
            _draw_position(server.scene, answer, None if sigma is None else sigma / frame.length)
        return server.get_scene_serializer().serialize()
    finally:
        stop_viser(server)


def _draw_position(scene: Any, answer: Pose, sigma: float | None) -> None:
    place = answer.position.tolist()
    scene.add_icosphere("/position", radius=DOT, color=PURPLE, position=place)
    if sigma is not None:
        region = {"radius": _REGION * sigma, "opacity": 0.25}
        scene.add_icosphere("/region", color=PURPLE, position=place, **region)
