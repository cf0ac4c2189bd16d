"""TUM RGB-D (Sturm et al. 2012): a recording with a trajectory, both with time stamps.

``rgb.txt`` lists images, ``timestamp file``; ``groundtruth.txt`` poses, ``timestamp tx ty tz qx qy
qz qw``, ``world_from_cam`` with w **last**. Most SLAM systems write their trajectories so.

The benchmark says its cameras on a web page; ``cameras.txt`` beside the lists, a camera as COLMAP
writes it, says it here.
"""

from pathlib import Path

import numpy as np
import torch

from relocal.camera import Camera
from relocal.datasets.photos import find_photos, none_left
from relocal.datasets.stamps import MAX_APART_S, Matched, match_stamps
from relocal.errors import InputError, unknown
from relocal.images import fit_camera, upright_size
from relocal.notices import Notice
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.scene.account import LOST, NO_FILE, NO_POSE, Account, Tally
from relocal.scene.colmap_text import text_cameras
from relocal.scene.lost import is_lost, number
from relocal.scene.scene import UNITS

__all__ = ["MAX_APART_S", "NO_SCALE", "read_tum"]

NO_SCALE = "# no known scale"
"""A line of ``groundtruth.txt`` that says that its lengths are no metres."""
# What the benchmark recommends for all its recordings; (0, 0) is the centre of its first pixel.
_DEFAULT = Camera.pinhole(640, 480, 525.0, 525.0, 319.5 + 0.5, 239.5 + 0.5)
_MAX_NORM_ERROR = 1e-3


def read_tum(path: Path, unit: str | None = None) -> Scene:
    """Reads a recording's folder.

    Args:
        path: The folder, with ``rgb.txt``, ``groundtruth.txt`` and the images.
        unit: ``"m"`` or ``"unit"``; by default metres, unless the trajectory says that it has no
            known scale.

    Returns:
        A scene without a split, images in the order of their timestamps. Each takes the pose that
        is nearest in time; those without one within ``MAX_APART_S`` are counted and left out, and
        so are those whose pose is none. Stamps may be in nanoseconds, too, in either file.

    Raises:
        InputError: If a file is missing, a line is not of the form above, or no image is left.
    """
    if unit is not None and unit not in UNITS:
        raise unknown("--unit", unit, UNITS)
    if not path.is_dir():
        raise InputError(f"{path}: there is no such folder.")
    rows = _rows(path / "rgb.txt", 2)
    file = path / "groundtruth.txt"
    poses = _rows(file, 8)
    values = np.array([[_number(where, word) for word in row[1:]] for where, row in poses])
    lost = np.array([_is_lost(where, row) for (where, _), row in zip(poses, values, strict=True)])
    matched = match_stamps(
        [(where, time) for where, (time, _) in rows],
        [(where, row[0]) for where, row in poses],
        lost,
    )
    listed = [rows[i][1][1] for i in matched.order]
    found = find_photos(path, listed, str(path / "rgb.txt"))
    left: dict[str, list[str]] = {NO_POSE: [], LOST: [], NO_FILE: []}
    kept: list[tuple[str, int]] = []
    for name, own, row in zip(listed, found.names, matched.rows, strict=True):
        if row is None:
            left[NO_POSE].append(name)
        elif own is None:
            left[NO_FILE].append(name)
        elif lost[row]:
            left[LOST].append(name)
        else:
            kept.append((own, row))
    if not kept:
        raise _nothing(path, listed, left, matched)
    taken = torch.from_numpy(values[[row for _, row in kept]])
    camera, assumed = _camera(path, path / kept[0][0])
    bare = NO_SCALE in file.read_text("utf-8", errors="replace")
    return Scene(
        name=path.resolve().name,
        unit=unit or ("unit" if bare else "m"),
        image_root=path,
        images=tuple(name for name, _ in kept),
        cameras=(camera,),
        camera_index=torch.zeros(len(kept), dtype=torch.int64),
        poses=Pose.from_quaternion(taken[:, :3], taken[:, [6, 3, 4, 5]]),
        provenance={
            "reader": "tum",
            "labels": "groundtruth.txt",
            "intrinsics": "the camera that TUM RGB-D recommends" if assumed else "cameras.txt",
            "images_without_label": len(left[NO_POSE]),
            "listed_images": len(listed),
            "missing_images": left[NO_FILE],
        },
        account=Account(
            images=Tally.of(len(rows), len(kept), left),
            notices=(*found.notices, *matched.notices, *assumed),
        ),
    )


def _nothing(
    path: Path, listed: list[str], left: dict[str, list[str]], matched: Matched
) -> InputError:
    if len(left[NO_POSE]) < len(listed):
        return none_left(path, len(listed), left)
    return InputError(
        f"{path}: of {len(listed)} images of rgb.txt 0 have a pose within {MAX_APART_S} s. "
        f"{matched.ranges} Do they come from two clocks?"
    )


def _rows(file: Path, count: int) -> list[tuple[str, list[str]]]:
    """Where each line stands, and its words; comments are left out."""
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; is this a TUM RGB-D folder?")
    found: list[tuple[str, list[str]]] = []
    lines = file.read_text("utf-8-sig", errors="replace").splitlines()
    for i, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.strip().split(maxsplit=1) if count == 2 else line.split()
        if len(words) != count:
            raise InputError(f"{file}, line {i}: needs {count} fields, has {len(words)}.")
        found.append((f"{file}, line {i}", words))
    if not found:
        form = "timestamp file" if count == 2 else "timestamp tx ty tz qx qy qz qw"
        raise InputError(f"{file}: has no line; looked for {form}.")
    return found


def _number(where: str, word: str) -> float:
    try:
        return number(word)
    except ValueError as error:
        raise InputError(f"{where}: {error}.") from error


def _is_lost(where: str, pose: np.ndarray) -> bool:
    if is_lost(pose, pose[3:]):
        return True
    if abs(np.linalg.norm(pose[3:]) - 1) > _MAX_NORM_ERROR:
        raise InputError(f"{where}: qx qy qz qw is not a unit quaternion.")
    return False


def _camera(path: Path, photo: Path) -> tuple[Camera, tuple[Notice, ...]]:
    """The recording's camera, and that no file says it."""
    file = path / "cameras.txt"
    if not file.is_file():
        text = (
            f"{file} is missing: the camera that TUM RGB-D recommends is taken (f = 525 px at "
            "640 x 480), which is wrong for another. The file has a line as COLMAP's: 1 PINHOLE "
            "640 480 fx fy cx cy."
        )
        notice = Notice("intrinsics-assumed", text)
        return fit_camera(_DEFAULT, *upright_size(photo), str(photo)), (notice,)
    cameras = dict(text_cameras(file))
    if len(cameras) != 1:
        raise InputError(f"{file}: needs one camera, has {len(cameras)}.")
    return next(iter(cameras.values())), ()
