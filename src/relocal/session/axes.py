"""The axes that devices give their cameras.

ARKit's ``ARCamera.transform``, ARCore's ``Camera.getPose`` and WebXR's ``XRView.transform`` have
OpenGL's: x right, y up, looking along -z, in a world of metres with y up. Right and up are those of
the picture as the sensor gives it, which for ARKit and ARCore is landscape.
"""

import math

import torch

from relocal.errors import InputError, unknown
from relocal.pose import Pose

AXES: dict[str, bool] = {"opencv": False, "arkit": True, "arcore": True, "webxr": True}
"""Whether the camera has OpenGL's axes, and its world y up."""
QUARTERS = range(4)


def device_from_cam(axes: str, quarter_turns: int = 0) -> Pose:
    """The frame of our camera in the device's own, batch shape (): a rotation alone.

    Args:
        axes: A key of ``AXES``.
        quarter_turns: By how many quarter turns clockwise the photos were turned from how the
            sensor gave them, 0 to 3: 1 where a phone held upright saved an upright photo.

    Raises:
        InputError: If the axes are unknown, or the turns are not 0 to 3.
    """
    if axes not in AXES:
        raise unknown("--axes", axes, AXES)
    if quarter_turns not in QUARTERS:
        raise InputError(f"--quarter-turns {quarter_turns}: give 0, 1, 2 or 3.")
    half_turn = [0.0, 1.0, 0.0, 0.0] if AXES[axes] else [1.0, 0.0, 0.0, 0.0]  # about x
    # What was along x of a picture that turns clockwise is now along y: backwards about z.
    half = -quarter_turns * math.pi / 4
    turn = [math.cos(half), 0.0, 0.0, math.sin(half)]
    return _rotation(half_turn) @ _rotation(turn)


def _rotation(quaternion: list[float]) -> Pose:
    return Pose(torch.zeros(3).double(), torch.tensor(quaternion, dtype=torch.float64))
