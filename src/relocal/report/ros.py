"""ROS: an answer as the fields of ``geometry_msgs/PoseWithCovarianceStamped``.

No ROS is needed: the fields are plain values, which ``rosidl_runtime_py`` puts into a message.
"""

import math
from typing import Any

from relocal.errors import InputError
from relocal.types import Estimate

_NANOSECONDS = 10**9
_AXES = 6  # x, y, z, and the rotations about them


def estimate_to_ros(
    estimate: Estimate, stamp: tuple[int, int] = (0, 0), frame_id: str = "map"
) -> dict[str, Any]:
    """An answer as the fields of ``geometry_msgs/PoseWithCovarianceStamped``.

    The pose is that of the camera's optical frame (REP 103's ``_optical``: x right, y down, z
    forward) in ``frame_id``, the scene's world. The covariance is 6 x 6, row by row, of x, y, z and
    the rotations about the fixed axes of ``frame_id``, in m² and rad². What a localizer states is
    the same along every axis, so the matrix is diagonal. A localizer that does not say how sure it
    is gets 36 zeros: the message's definition has no word for that, and ``sensor_msgs/Imu`` reads
    them as "covariance unknown". A filter that takes zeros for certainty must not be fed them.

    Args:
        estimate: The answer.
        stamp: When the photo was taken, in seconds and nanoseconds.
        frame_id: What the robot calls the scene's world; ``map`` is REP 105's name.

    Returns:
        ``header`` with ``stamp`` (``sec``, ``nanosec``) and ``frame_id``, and ``pose`` with
        ``pose`` (``position`` x, y, z and ``orientation`` x, y, z, w) and ``covariance``.

    Raises:
        InputError: If the scene has no known scale, or the stamp is none.
    """
    check_metres(estimate, "ROS")
    seconds, nanoseconds = stamp
    if not -(2**31) <= seconds < 2**31 or not 0 <= nanoseconds < _NANOSECONDS:
        raise InputError(f"stamp: {stamp} is not seconds (32 bits) and nanoseconds (below 10⁹).")
    pose = estimate.pose.canonical()
    w, *vector = pose.quaternion.tolist()
    orientation = {**_xyz(vector), "w": w}
    return {
        "header": {"stamp": {"sec": seconds, "nanosec": nanoseconds}, "frame_id": frame_id},
        "pose": {
            "pose": {"position": _xyz(pose.position.tolist()), "orientation": orientation},
            "covariance": _covariance(estimate),
        },
    }


def check_metres(estimate: Estimate, what: str) -> None:
    """Refuses an answer in a unit of its own where a format is in metres.

    Raises:
        InputError: If the scene that was learned from has no known scale.
    """
    if estimate.unit != "m":
        raise InputError(
            f"{what} is in metres, and the scene has no known scale; give it one (label --scale, "
            "import --unit m), or take --format json or tum, which are in the scene's own unit."
        )


def _xyz(values: list[float]) -> dict[str, float]:
    return dict(zip("xyz", values, strict=True))


def _covariance(estimate: Estimate) -> list[float]:
    values = [0.0] * _AXES**2
    if estimate.sigma_m is None or estimate.sigma_deg is None:
        return values
    variances = [estimate.sigma_m**2] * 3 + [math.radians(estimate.sigma_deg) ** 2] * 3
    values[:: _AXES + 1] = variances
    return values
