"""A place in three dimensions: its map points, its origin, and the cameras in it.

What is drawn stands in a frame of its own (``frame_of``), whatever origin and unit the scene has.
"""

from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.local_frame import LocalFrame
from relocal.pose import Pose
from relocal.report.figures import ground_axes

MOST_POINTS = 100_000
POINT, DOT, CAMERA = 0.005, 0.02, 0.06
"""How large map points, positions and cameras are drawn, in the unit of the frame."""
_BACK, _UP = 1.3, 1.1  # where the eye stands behind and above the cameras, in units
_ROUNDING = 1e-12  # of the distance to the world's origin: nobody moved by less
# The reports' colours, purple and grey light and dark enough for a dark ground.
ORANGE, PURPLE, GREY, WHITE = (232, 130, 12), (168, 132, 255), (98, 104, 112), (255, 255, 255)

_PRINTING = Lock()
"""What is printed is led aside for the whole process: two at once would leave it there."""

Points = tuple[Float[np.ndarray, "P 3"], UInt8[np.ndarray, "P 3"]] | None


def start_viser(host: str, port: int) -> Any:
    """An empty ``viser.ViserServer``, with a dark ground.

    Args:
        host: The address to listen at.
        port: The port to listen at; 0 is any that is free.

    Raises:
        InputError: If viser is not installed, or the port is taken.
    """
    try:
        viser: Any = import_module("viser")
    except ImportError:
        raise InputError("the viewer needs pip install 'relocal[view]'.") from None
    with _PRINTING, redirect_stdout(StringIO()):  # it would print a frame about itself
        server = viser.ViserServer(host=host, port=port, label="relocal", verbose=False)
    if port and server.get_port() != port:  # it goes on with the next one that is free
        stop_viser(server)
        raise InputError(f"--port {port}: is taken; give another.")
    # Sharing would open a tunnel through the servers of viser's makers.
    server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
    return server


def stop_viser(server: Any) -> None:
    """Ends a server without a word."""
    with _PRINTING, redirect_stdout(StringIO()):
        server.stop()


def frame_of(cameras: Pose) -> LocalFrame:
    """The frame that a place is drawn in: about its cameras, its unit half of their box's diagonal.

    The browser draws in single precision, and nothing that is nearer than 0.01 or farther than 1000
    units.
    """
    places = cameras.position.double()
    middle = places.mean(0)
    half = float((places.max(0).values - places.min(0).values).norm()) / 2
    return LocalFrame(middle, half if half > _ROUNDING * float(middle.norm()) else 1.0)


def draw_place(server: Any, points: Points, cameras: Pose) -> LocalFrame:
    """Draws map points and the origin, and puts the eye behind and above the cameras.

    Args:
        server: A ``viser.ViserServer``.
        points: Map points and their colours, where there are some; at most ``MOST_POINTS`` are
            drawn.
        cameras: The cameras that the view is turned by, at least one.

    Returns:
        The frame that it is drawn in; all else belongs into it, too.
    """
    frame = frame_of(cameras)
    _, ahead, up = ground_axes(cameras).T
    server.scene.set_up_direction(up)
    server.initial_camera.position = _UP * up - _BACK * ahead
    server.initial_camera.look_at = 0.3 * ahead
    server.initial_camera.up = up
    if points is not None and len(points[0]):
        step = -(-len(points[0]) // MOST_POINTS)
        xyz, rgb = (part[::step] for part in points)
        server.scene.add_point_cloud(
            "/points",
            points=frame.points(torch.from_numpy(xyz)).float().numpy(),
            colors=rgb,
            point_size=POINT,
            precision="float32",
            point_shape="circle",
            point_shading="flat",
        )
    origin = frame.points(torch.zeros(3)).tolist()
    server.scene.add_icosphere("/origin", radius=DOT, color=WHITE, position=origin)
    return frame


def add_camera(
    scene: Any,
    name: str,
    pose: Pose,
    camera: Camera | None,
    size: float,
    colour: tuple[int, ...],
    photo: UInt8[np.ndarray, "h w 3"] | None = None,
) -> Any:
    """Draws a camera as the pyramid that it sees.

    Args:
        scene: ``viser``'s scene.
        name: Its name in there; one of the same name is replaced.
        pose: In the frame that is drawn in, batch shape ().
        camera: For its field of view; None: a usual one.
        size: How large, in the frame's unit.
        colour: Red, green, blue, to 255.
        photo: What it saw, shown in the pyramid's base.
    """
    fov, aspect = field_of_view(camera)
    return scene.add_camera_frustum(
        name,
        fov=fov,
        aspect=aspect,
        scale=size,
        thickness=1.5,
        thickness_units="screen",
        color=colour,
        image=photo,
        wxyz=pose.quaternion.tolist(),
        position=pose.position.tolist(),
    )


def field_of_view(camera: Camera | None) -> tuple[float, float]:
    """How high a camera sees, in radians, and its width over its height."""
    if camera is None:
        return 0.85, 4 / 3
    focal = float(camera.focal[1])
    return 2 * float(np.arctan(camera.height / 2 / focal)), camera.width / camera.height
