"""Pose lines: ``name qw qx qy qz tx ty tz``, ``cam_from_world``, as hloc writes estimates.

The pseudo ground truth of 7-Scenes (Brachmann et al. 2021) has a focal length behind each pose.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from relocal.errors import InputError
from relocal.pose import Pose
from relocal.scene.lost import LARGEST, is_lost, number

_POSE = 7  # numbers of a pose
_NOT_UNIT = 1e-3  # of a quaternion's length; files have six digits


def read_label_file(
    file: Path, option: str = "--labels", lost: set[str] | None = None
) -> dict[str, list[float]]:
    """Reads ``name qw qx qy qz tx ty tz f`` lines, by image name without its suffix.

    Raises:
        InputError: If the file is missing or a line is not of that form.
    """
    return read_pose_lines(file, option, focal=True, lost=lost)


def read_pose_lines(
    file: Path, option: str, *, focal: bool = False, lost: set[str] | None = None
) -> dict[str, list[float]]:
    """Reads pose lines, by image name without its suffix.

    Args:
        file: The file; empty lines and those that begin with ``#`` are passed over.
        option: What gave it, for messages.
        focal: Whether a focal length in pixels has to follow. Without it any numbers may: some
            systems write how far off they think they are.
        lost: Takes the names, without suffix, of images whose pose is none (not finite, zeros, or
            beyond measure); such lines are refused without it.

    Raises:
        InputError: If the file is missing or a line is not of that form.
    """
    if not file.is_file():
        wrong = "is no file" if file.exists() else "there is no such file"
        raise InputError(f"{option} {file}: {wrong}.")
    rows: dict[str, list[float]] = {}
    # A byte that is no text becomes a line that is no row, and is refused with its number.
    lines = file.read_text("utf-8-sig", errors="replace").splitlines()
    for i, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, values = _parts(line)
        stem = stem_of(name)
        if stem in rows or (lost and stem in lost):
            raise InputError(f"{option} {file}, line {i}: {name} is listed already.")
        if lost is not None and len(values) == _POSE + focal and _is_none(values):
            lost.add(stem)
            continue
        _check(f"{option} {file}, line {i}", values, focal)
        rows[stem] = values
    return rows


def _is_none(values: list[float]) -> bool:
    return is_lost(np.array(values[:_POSE]), np.array(values[:4]))


def _check(where: str, values: list[float], focal: bool) -> None:
    fits = len(values) == _POSE + 1 if focal else len(values) >= _POSE
    if not fits or not (np.abs(values) < LARGEST).all():
        form = f"{_POSE + focal} finite numbers, qw qx qy qz tx ty tz{' f' if focal else ''}"
        raise InputError(f"{where}: needs a name and {form}.")
    if abs(np.linalg.norm(values[:4]) - 1) > _NOT_UNIT:
        raise InputError(f"{where}: the quaternion is not unit.")
    if focal and values[_POSE] <= 0:
        raise InputError(f"{where}: the focal length is not positive.")


def _parts(line: str) -> tuple[str, list[float]]:
    """A line's name, which may hold spaces, and the numbers that it ends with."""
    words = line.split()
    values: list[float] = []
    while len(words) > 1:
        try:
            values.insert(0, number(words[-1]))
        except ValueError:
            break
        words.pop()
    return " ".join(words), values


def poses_of_lines(rows: Collection[list[float]]) -> Pose:
    """The poses of pose lines, ``world_from_cam``, batch (n,), float64."""
    values = torch.tensor([row[:_POSE] for row in rows], dtype=torch.float64).reshape(-1, _POSE)
    return Pose.from_colmap(values[:, :4], values[:, 4:])


def stem_of(name: str) -> str:
    """An image's name without its suffix, under which lists know it.

    The end of a time stamp (1305031100.170304) is no suffix.
    """
    suffix = Path(name).suffix
    return str(Path(name)) if suffix[1:].isdigit() else str(Path(name).with_suffix(""))
