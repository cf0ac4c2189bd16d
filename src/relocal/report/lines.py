"""Lines: one photo's answer, in every format that other programs read."""

import json
from typing import Any, Literal

from relocal.pose import Pose
from relocal.types import Estimate

Format = Literal["text", "json", "colmap", "tum"]


def estimate_line(estimate: Estimate, photo: str, index: int, form: Format) -> str:
    """One photo's answer as one line.

    Args:
        estimate: The answer.
        photo: The photo's name, as the user wrote it.
        index: Its number in the list, which TUM's format has for a time stamp.
        form: ``text``; ``json``; ``colmap``: name qw qx qy qz tx ty tz, cam_from_world, where the
            name is all before the last seven numbers; ``tum``:
            index tx ty tz qx qy qz qw, world_from_cam.
    """
    pose = estimate.pose.canonical()
    if form == "json":
        return json.dumps(estimate_to_json(estimate, photo), ensure_ascii=False)
    if form == "colmap":
        cam_from_world = pose.inverse().canonical()
        values = [*cam_from_world.quaternion.tolist(), *cam_from_world.position.tolist()]
        return " ".join([photo, *(f"{value:.9g}" for value in values)])
    w, x, y, z = pose.quaternion.tolist()
    if form == "tum":
        return " ".join([str(index), *(f"{v:.9g}" for v in (*pose.position.tolist(), x, y, z, w))])
    position = " ".join(f"{value:.3f}" for value in pose.position.tolist())
    look = " ".join(f"{value:.3f}" for value in pose.look_direction.tolist())
    sure = ""
    if estimate.sigma_m is not None and estimate.sigma_deg is not None:
        sure = f"spread {estimate.sigma_m:.2g} {estimate.unit}, {estimate.sigma_deg:.2g}°; "
    return (
        f"{photo}: at {position} {estimate.unit}, looking along {look} "
        f"(quaternion w x y z {w:.4f} {x:.4f} {y:.4f} {z:.4f}; {sure}{estimate.time_ms:.0f} ms)"
    )


def estimate_to_json(estimate: Estimate, photo: str) -> dict[str, Any]:
    """An answer as plain values, with the pose in both directions."""
    return {
        "photo": photo,
        **pose_to_json(estimate.pose),
        "world_from_cam": estimate.pose.matrix().tolist(),
        "cam_from_world": estimate.pose.inverse().matrix().tolist(),
        "unit": estimate.unit,
        "sigma_m": estimate.sigma_m,
        "sigma_deg": estimate.sigma_deg,
        "inliers": estimate.inliers,
        "method": estimate.method,
        "time_ms": estimate.time_ms,
        "warnings": list(estimate.warnings),
    }


def pose_to_json(pose: Pose) -> dict[str, list[float]]:
    """Position and canonical quaternion w, x, y, z of one pose, ``world_from_cam``."""
    pose = pose.canonical()
    return {"position": pose.position.tolist(), "quaternion": pose.quaternion.tolist()}
