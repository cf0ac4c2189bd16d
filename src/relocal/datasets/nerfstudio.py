"""nerfstudio and instant-ngp: ``transforms.json`` with one OpenGL pose an image.

OpenGL cameras look along -z with y up; ours look along +z with y down. Turning the camera frame
about its x axis by half a turn (columns 1 and 2 negated) goes from one to the other.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relocal.camera import Camera, nerfstudio_camera
from relocal.datasets.seven_scenes import checked_pose_matrix
from relocal.errors import InputError, unknown
from relocal.images import is_there
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.scene.files import read_json
from relocal.scene.scene import UNITS, some
from relocal.scene.upright import Exif, labelled_size

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", "")  # as listed last: it may be a folder's name


def read_nerfstudio(path: Path, unit: str = "unit", exif: Exif | None = None) -> Scene:
    """Reads a folder with ``transforms.json``, or that file.

    Intrinsics are shared or given by frame, as ``fl_x, fl_y, cx, cy, w, h`` and ``k1, k2, p1,
    p2, k3`` (k1 to k4 of OPENCV_FISHEYE), or as ``camera_angle_x``. Frames are put in the order of
    their file names. Images that are listed but missing are counted and named in the provenance.

    Args:
        path: The folder or its ``transforms.json``.
        unit: ``"m"`` if the file's scale is metric, which the format does not say.
        exif: Which pixels the labels of photos that EXIF turns by a quarter are of, where
            the file has no w and h.

    Raises:
        InputError: If the file is damaged, a pose is no pose, or no image exists at all.
    """
    if unit not in UNITS:
        raise unknown("--unit", unit, UNITS)
    file = path / "transforms.json" if path.is_dir() else path
    content = _read(file)
    frames = sorted(content["frames"], key=_recording_order)
    names = [_image_name(file, str(frame["file_path"])) for frame in frames]
    present = [(name, frame) for name, frame in zip(names, frames, strict=True) if name]
    missing = [str(f["file_path"]) for name, f in zip(names, frames, strict=True) if not name]
    if not present:
        raise InputError(f"{file}: none of its {len(frames)} images exists: {some(missing)}.")
    own = [_camera(file, {**content, **frame}, name, exif) for name, frame in present]
    rows = [(c.model, c.width, c.height, *c.params.tolist()) for c in own]
    cameras = dict(zip(rows, own, strict=True))
    index = {row: i for i, row in enumerate(cameras)}
    poses = np.stack([_world_from_cam(file, frame) for _, frame in present])
    return Scene(
        name=file.resolve().parent.name,
        unit=unit,
        image_root=file.parent,
        images=tuple(name for name, _ in present),
        cameras=tuple(cameras.values()),
        camera_index=torch.tensor([index[row] for row in rows]),
        poses=Pose.from_matrix(torch.from_numpy(poses)),
        splits=_splits(file, content, {name for name, _ in present}),
        provenance={
            "reader": "nerfstudio",
            "labels": file.name,
            "intrinsics": file.name,
            "listed_images": len(frames),
            "missing_images": missing,
        },
    )


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; is this a nerfstudio folder?")
    content = read_json(file)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{file}: has no list of frames.")
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict) or not {"file_path", "transform_matrix"} <= frame.keys():
            raise InputError(f"{file}: frame {i} has no file_path and transform_matrix.")
    return content


def _splits(file: Path, content: dict[str, Any], present: set[str]) -> dict[str, tuple[str, ...]]:
    """The file's own lists of training and test images, if it has both."""
    lists = {split: content.get(f"{split}_filenames") for split in ("train", "test")}
    if not all(lists.values()):
        return {}
    if not all(isinstance(names, list) for names in lists.values()):
        raise InputError(f"{file}: train_filenames and test_filenames must be lists.")
    found = {split: [_image_name(file, str(n)) for n in lists[split] or ()] for split in lists}
    return {split: tuple(n for n in names if n in present) for split, names in found.items()}


def _recording_order(frame: dict[str, Any]) -> list[str | int]:
    """Sorts by file name, with r_10 after r_9."""
    parts = re.split(r"(\d+)", str(frame["file_path"]))
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _image_name(file: Path, listed: str) -> str | None:
    """The image's path below the folder, None when there is none; the suffix may be left out."""
    root = file.parent.absolute()
    relative = os.path.relpath(root / listed, root)
    if Path(relative).parts[:1] == ("..",):
        raise InputError(f"{file}: {listed} lies outside {root}.")
    names = (relative + suffix for suffix in _SUFFIXES)
    return next((Path(n).as_posix() for n in names if is_there(file.parent / n)), None)


def _camera(file: Path, frame: dict[str, Any], name: str, exif: Exif | None) -> Camera:
    """The camera of a frame; where the file does not say the size of its photo, that tells it."""
    if not {"w", "h"} <= frame.keys():
        width, height = labelled_size(file.parent / name, exif)
        frame = {**frame, "w": width, "h": height}
    return nerfstudio_camera(frame, f"{file}: {name}")


def _world_from_cam(file: Path, frame: dict[str, Any]) -> np.ndarray:
    where = f"{file}: {frame['file_path']}"
    try:
        opengl = np.array(frame["transform_matrix"], dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{where}: transform_matrix is not 4 x 4 numbers.") from error
    if opengl.shape == (3, 4):
        opengl = np.vstack([opengl, [0, 0, 0, 1]])
    return checked_pose_matrix(opengl, where) * np.array([1, -1, -1, 1])
