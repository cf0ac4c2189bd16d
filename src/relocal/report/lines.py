"""Lines: answers in every format that other programs read."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from relocal.camera import Camera
from relocal.datasets.writing import nerfstudio_transforms
from relocal.errors import InputError
from relocal.pose import Pose
from relocal.report.ros import check_metres, estimate_to_ros
from relocal.types import Estimate

LineFormat = Literal["text", "json", "colmap", "images.txt", "tum", "euroc", "ros"]
Format = Literal[LineFormat, "nerfstudio"]

HEADS: dict[str, str] = {
    "images.txt": "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n"
    "# POINTS2D[] as (X, Y, POINT3D_ID)",
    "euroc": "#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],"
    "q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z []",
}
"""What stands before the first line, of formats that have such a thing."""
_NANOSECONDS = 10**9
_STAMP = re.compile(r"(1\d{18})(\.\w+)?")
"""A photo's name of nanoseconds since 1970, from 2001 to 2033; no frame of a video (x.mp4:3)."""


@dataclass(frozen=True)
class Answer:
    """What was said about one of several photos."""

    estimate: Estimate
    photo: str
    """Its name, as the user wrote it."""
    index: int
    """Its number in the list, from 0."""
    camera: Camera | None = None
    """Its camera, where that is known."""


def answer_texts(answers: Iterable[Answer], form: Format) -> Iterator[str]:
    """Answers as texts to print one below the other, each as soon as it is known.

    ``nerfstudio`` is one text behind the last answer; the others are a line each, below the head
    that the format has.

    Raises:
        InputError: As ``estimate_line``.
    """
    if form == "nerfstudio":
        if known := list(answers):
            yield _transforms(known)
        return
    for number, answer in enumerate(answers):
        line = estimate_line(answer.estimate, answer.photo, answer.index, form)
        yield f"{HEADS[form]}\n{line}" if number == 0 and form in HEADS else line


def estimate_line(estimate: Estimate, photo: str, index: int, form: LineFormat) -> str:
    """One photo's answer as one line.

    Args:
        estimate: The answer.
        photo: The photo's name, as the user wrote it.
        index: Its number in the list, which TUM's format has for a time stamp.
        form: ``text``; ``json``; ``colmap``: name qw qx qy qz tx ty tz, cam_from_world, where the
            name is all before the last seven numbers; ``images.txt``: COLMAP's, image
            ``index`` + 1 of camera 1, with the empty line that belongs to it; ``tum``:
            index tx ty tz qx qy qz qw, world_from_cam; ``euroc``: nanoseconds,
            x, y, z, qw, qx, qy, qz, world_from_cam; ``ros``: the fields of
            geometry_msgs/PoseWithCovarianceStamped as JSON. ROS and EuRoC have the time that a
            photo's name states, as EuRoC's do (1403636579763555584.png), else ``index`` seconds.

    Raises:
        InputError: If the format is in metres and the scene has no known scale, or cannot hold the
            photo's name.
    """
    return _LINES[form](estimate, photo, index)


def _text(estimate: Estimate, photo: str, index: int) -> str:
    pose = estimate.pose.canonical()
    w, x, y, z = pose.quaternion.tolist()
    digits = _decimals(estimate)
    position = " ".join(f"{value:.{digits}f}" for value in pose.position.tolist())
    look = " ".join(f"{value:.3f}" for value in pose.look_direction.tolist())
    sure = ""
    if estimate.sigma_m is not None and estimate.sigma_deg is not None:
        sure = f"spread {estimate.sigma_m:.2g} {estimate.unit}, {estimate.sigma_deg:.2g}°; "
    return (
        f"{photo}: at {position} {estimate.unit}, looking along {look} "
        f"(quaternion w x y z {w:.4f} {x:.4f} {y:.4f} {z:.4f}; {sure}{estimate.time_ms:.0f} ms)"
    )


def _decimals(estimate: Estimate) -> int:
    """Digits behind the point: a metre has three.

    In a unit of which nothing is known, at least three of the largest coordinate, and down to a
    tenth of how sure the answer is.
    """
    if estimate.unit == "m":
        return 3
    sizes = [float(estimate.pose.position.abs().max())]
    sizes += [] if estimate.sigma_m is None else [100 * estimate.sigma_m]
    known = [-math.floor(math.log10(size)) for size in sizes if 0 < size < math.inf]
    return min(3 + max([0, *known]), 15)


def _json(estimate: Estimate, photo: str, index: int) -> str:
    return json.dumps(estimate_to_json(estimate, photo), ensure_ascii=False)


def _colmap(estimate: Estimate, photo: str, index: int) -> str:
    return _joined(photo, *_cam_from_world(estimate.pose))


def _images_txt(estimate: Estimate, photo: str, index: int) -> str:
    if photo.split() != [photo]:
        raise InputError(
            f"{photo}: COLMAP ends a name in images.txt at its first space; rename the photo, or "
            "take --format colmap."
        )
    return f"{_joined(index + 1, *_cam_from_world(estimate.pose), 1, photo)}\n"


def _tum(estimate: Estimate, photo: str, index: int) -> str:
    pose = estimate.pose.canonical()
    w, *vector = pose.quaternion.tolist()
    return _joined(index, *pose.position.tolist(), *vector, w)


def _euroc(estimate: Estimate, photo: str, index: int) -> str:
    check_metres(estimate, "EuRoC")
    pose = estimate.pose.canonical()
    numbers = (*pose.position.tolist(), *pose.quaternion.tolist())
    return _joined(_nanoseconds(photo, index), *numbers, between=",")


def _ros(estimate: Estimate, photo: str, index: int) -> str:
    stamp = divmod(_nanoseconds(photo, index), _NANOSECONDS)
    return json.dumps(estimate_to_ros(estimate, stamp))


def _cam_from_world(pose: Pose) -> list[float]:
    """Quaternion w, x, y, z and translation, as COLMAP has them."""
    cam_from_world = pose.inverse().canonical()
    return [*cam_from_world.quaternion.tolist(), *cam_from_world.position.tolist()]


def _nanoseconds(photo: str, index: int) -> int:
    """When a photo was taken, if its name says so, else its number as seconds."""
    stamp = _STAMP.fullmatch(Path(photo).name)
    return index * _NANOSECONDS if stamp is None else int(stamp[1])


def _joined(*words: object, between: str = " ") -> str:
    """Words of a line; numbers with all their digits."""
    return between.join(map(str, words))


_LINES: dict[LineFormat, Callable[[Estimate, str, int], str]] = {
    "text": _text,
    "json": _json,
    "colmap": _colmap,
    "images.txt": _images_txt,
    "tum": _tum,
    "euroc": _euroc,
    "ros": _ros,
}


def _transforms(answers: list[Answer]) -> str:
    """All answers as one ``transforms.json``."""
    names, cameras = [one.photo for one in answers], [one.camera for one in answers]
    poses = Pose.stack([one.estimate.pose for one in answers])
    content = nerfstudio_transforms(names, poses, cameras)
    return json.dumps(content, ensure_ascii=False, indent=1)


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
        "warnings": [warning.to_json() for warning in estimate.warnings],
    }


def pose_to_json(pose: Pose) -> dict[str, list[float]]:
    """Position and canonical quaternion w, x, y, z of one pose, ``world_from_cam``."""
    pose = pose.canonical()
    return {"position": pose.position.tolist(), "quaternion": pose.quaternion.tolist()}
