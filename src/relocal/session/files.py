"""Poses of photos from files: TUM's lines, or JSON lines as ``relocal localize`` prints them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relocal.datasets.seven_scenes import checked_pose_matrix
from relocal.errors import InputError, unknown
from relocal.pose import Pose
from relocal.scene.scene import UNITS

_TUM = 8  # stamp tx ty tz qx qy qz qw
_NOT_UNIT = 1e-3  # of a quaternion's length
_MATRIX = "session_from_device"


def read_poses(file: Path | str, what: str = "poses") -> tuple[dict[str, Pose], str | None]:
    """Reads poses by the names of their photos.

    A line is TUM's, ``stamp tx ty tz qx qy qz qw``, or JSON with ``photo`` and either ``position``
    (x, y, z) and ``quaternion`` (w, x, y, z), or ``session_from_device`` (4 rows of 4). A photo is
    known by the number that its name or stamp is, else by its file's name without folder and
    suffix: ``7``, ``7.0`` and ``photos/0007.jpg`` are the same. A frame of a video,
    ``walk.mp4:000007``, is the number behind the colon.

    Args:
        file: The file; empty lines and those that begin with ``#`` are passed over.
        what: What gave it, for messages.

    Returns:
        Poses, float64, as they stand there, and their unit where JSON says it.

    Raises:
        InputError: If the file is missing, a line is of neither form, or a photo comes twice.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{what} {file}: there is no such file.")
    poses: dict[str, Pose] = {}
    units: set[str] = set()
    lines = file.read_text("utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{what} {file}, line {number}"
        row = _json_row(line, where) if line.lstrip().startswith("{") else _tum_row(line, where)
        name = key_of(str(row["photo"]))
        if name in poses:
            raise InputError(f"{where}: photo {name} has a pose already.")
        poses[name] = _pose(row, where)
        units |= {_unit(row["unit"], where)} if "unit" in row else set()
    if len(units) > 1:
        raise InputError(f"{what} {file}: has poses in {' and in '.join(sorted(units))}.")
    return poses, next(iter(units), None)


_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,3})?")


def key_of(name: str) -> str:
    """What a photo is known by: a number as such, else its name without folder and suffix."""
    last = name.replace("\\", "/").rpartition("/")[2]
    last = last.rpartition(":")[2] or last
    for text in (last, Path(last).stem):
        if _NUMBER.fullmatch(text):  # float() would also take 2024_01 and infinity
            return repr(float(text))
    return Path(last).stem


def _json_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: this is not whole JSON ({error}).") from error
    if "photo" not in row or not ({"position", "quaternion"} <= row.keys() or _MATRIX in row):
        raise InputError(
            f"{where}: needs photo, and position with quaternion (w, x, y, z) or {_MATRIX}."
        )
    return row


def _tum_row(line: str, where: str) -> dict[str, Any]:
    words = line.split()
    if len(words) != _TUM:
        raise InputError(
            f"{where}: needs stamp tx ty tz qx qy qz qw or a JSON object, has {len(words)} fields."
        )
    x, y, z, w = words[4:]
    return {"photo": words[0], "position": words[1:4], "quaternion": [w, x, y, z]}


def _unit(unit: Any, where: str) -> str:
    if unit not in UNITS:
        raise unknown(f"{where}: unit", str(unit), UNITS)
    return str(unit)


def _pose(row: dict[str, Any], where: str) -> Pose:
    if "position" not in row:
        matrix = checked_pose_matrix(_numbers(row[_MATRIX], (4, 4), _MATRIX, where), where)
        return Pose.from_matrix(torch.from_numpy(matrix))
    position = _numbers(row["position"], (3,), "position", where)
    quaternion = _numbers(row["quaternion"], (4,), "quaternion", where)
    if abs(np.linalg.norm(quaternion) - 1) > _NOT_UNIT:
        raise InputError(f"{where}: the quaternion is not unit.")
    return Pose.from_quaternion(torch.from_numpy(position), torch.from_numpy(quaternion))


def _numbers(value: Any, shape: tuple[int, ...], name: str, where: str) -> np.ndarray:
    try:
        numbers = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{where}: {name} is not numbers.") from error
    if numbers.shape != shape or not np.isfinite(numbers).all():
        raise InputError(f"{where}: {name} is not {' x '.join(map(str, shape))} finite numbers.")
    return numbers
