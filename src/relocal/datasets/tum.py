"""TUM RGB-D (Sturm et al. 2012): a recording with a trajectory, both with timestamps in seconds.

``rgb.txt`` lists images, ``timestamp file``; ``groundtruth.txt`` poses, ``timestamp tx ty tz qx qy
qz qw``, ``world_from_cam`` with w **last**. Most SLAM systems write their trajectories so.

The benchmark says its cameras on a web page; ``cameras.txt`` beside the lists, a camera as COLMAP
writes it, says it here.
"""

import logging
from pathlib import Path

import numpy as np
import torch

from relocal.camera import Camera
from relocal.errors import InputError, unknown
from relocal.images import fit_camera, is_there, upright_size
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.scene.colmap_text import text_cameras
from relocal.scene.scene import UNITS, some

MAX_APART_S = 0.02
"""An image whose pose is farther away in time has none, as in the benchmark's own tools."""
NO_SCALE = "# no known scale"
"""A line of ``groundtruth.txt`` that says that its lengths are no metres."""
# What the benchmark recommends for all its recordings; (0, 0) is the centre of its first pixel.
_DEFAULT = Camera.pinhole(640, 480, 525.0, 525.0, 319.5 + 0.5, 239.5 + 0.5)
_MAX_NORM_ERROR = 1e-3
_LOG = logging.getLogger(__name__)


def read_tum(path: Path, unit: str | None = None) -> Scene:
    """Reads a recording's folder.

    Args:
        path: The folder, with ``rgb.txt``, ``groundtruth.txt`` and the images.
        unit: ``"m"`` or ``"unit"``; by default metres, unless the trajectory says that it has no
            known scale.

    Returns:
        A scene without a split, images in the order of their timestamps. Each takes the pose that
        is nearest in time; those without one within ``MAX_APART_S`` are counted and left out.

    Raises:
        InputError: If a file is missing, a line is not of the form above, or no image is left.
    """
    if unit is not None and unit not in UNITS:
        raise unknown("--unit", unit, UNITS)
    if not path.is_dir():
        raise InputError(f"{path}: there is no such folder.")
    listed = sorted(
        (_number(where, time), name) for where, (time, name) in _rows(path / "rgb.txt", 2)
    )
    rows = _rows(path / "groundtruth.txt", 8)
    poses = np.array([[_number(where, word) for word in row] for where, row in rows])
    poses = poses[poses[:, 0].argsort(kind="stable")]
    for row in poses:
        if abs(np.linalg.norm(row[4:]) - 1) > _MAX_NORM_ERROR:
            raise InputError(
                f"{path / 'groundtruth.txt'}: at {row[0]:f} qx qy qz qw is not a unit quaternion."
            )
    nearest = _nearest(np.array([time for time, _ in listed]), poses[:, 0])
    posed = [(name, i) for (_, name), i in zip(listed, nearest, strict=True) if i >= 0]
    present = [(name, i) for name, i in posed if is_there(path / name)]
    missing = [name for name, _ in posed if not is_there(path / name)]
    if not present:
        raise InputError(
            f"{path}: of {len(listed)} images of rgb.txt {len(posed)} have a pose within "
            f"{MAX_APART_S} s, and none of these is there: {some(missing)}."
        )
    values = torch.from_numpy(poses[[i for _, i in present], 1:])
    camera, known = _camera(path, path / present[0][0])
    bare = NO_SCALE in (path / "groundtruth.txt").read_text("utf-8", errors="replace")
    return Scene(
        name=path.resolve().name,
        unit=unit or ("unit" if bare else "m"),
        image_root=path,
        images=tuple(name for name, _ in present),
        cameras=(camera,),
        camera_index=torch.zeros(len(present), dtype=torch.int64),
        poses=Pose.from_quaternion(values[:, :3], values[:, [6, 3, 4, 5]]),
        provenance={
            "reader": "tum",
            "labels": "groundtruth.txt",
            "intrinsics": "cameras.txt" if known else "the camera that TUM RGB-D recommends",
            "images_without_label": len(listed) - len(posed),
            "listed_images": len(listed),
            "missing_images": missing,
        },
    )


def _rows(file: Path, count: int) -> list[tuple[str, list[str]]]:
    """Where each line stands, and its words; comments are left out."""
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; is this a TUM RGB-D folder?")
    found: list[tuple[str, list[str]]] = []
    lines = file.read_text("utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.strip().split(maxsplit=1) if count == 2 else line.split()
        if len(words) != count:
            raise InputError(f"{file}, line {number}: needs {count} fields, has {len(words)}.")
        found.append((f"{file}, line {number}", words))
    if not found:
        raise InputError(f"{file}: has no line.")
    return found


def _number(where: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError as error:
        raise InputError(f"{where}: {error}.") from error
    if not np.isfinite(value):
        raise InputError(f"{where}: {word} is not a finite number.")
    return value


def _nearest(times: np.ndarray, known: np.ndarray) -> list[int]:
    """The row of ``known`` (sorted) nearest to each time; -1 where it is too far away."""
    after = np.searchsorted(known, times).clip(1, len(known) - 1) if len(known) > 1 else 0
    before = np.maximum(np.asarray(after) - 1, 0)
    first = np.abs(times - known[before]) <= np.abs(known[after] - times)
    best = np.where(first, before, after)
    return np.where(np.abs(known[best] - times) <= MAX_APART_S, best, -1).tolist()


def _camera(path: Path, photo: Path) -> tuple[Camera, bool]:
    """The recording's camera, and whether a file says it."""
    file = path / "cameras.txt"
    if not file.is_file():
        _LOG.warning(
            f"{file} is missing: the camera that TUM RGB-D recommends is taken (f = 525 px at "
            "640 x 480), which is wrong for another. The file has a line as COLMAP's: 1 PINHOLE "
            "640 480 fx fy cx cy."
        )
        return fit_camera(_DEFAULT, *upright_size(photo), str(photo)), False
    cameras = dict(text_cameras(file))
    if len(cameras) != 1:
        raise InputError(f"{file}: needs one camera, has {len(cameras)}.")
    return next(iter(cameras.values())), True
