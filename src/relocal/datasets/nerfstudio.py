"""nerfstudio and instant-ngp: ``transforms.json`` with one OpenGL pose an image.

OpenGL cameras look along -z with y up; ours look along +z with y down. Turning the camera frame
about its x axis by half a turn (columns 1 and 2 negated) goes from one to the other.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relocal.camera import Camera
from relocal.datasets.seven_scenes import checked_pose_matrix
from relocal.errors import InputError
from relocal.images import upright_size
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.scene.scene import some

_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp")
_UNSUPPORTED = ("k3", "k4", "k5", "k6")
_CAMERA_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")


def read_nerfstudio(path: Path, unit: str = "unit") -> Scene:
    """Reads a folder with ``transforms.json``, or that file.

    Intrinsics are shared or given by frame, as ``fl_x, fl_y, cx, cy, w, h`` and ``k1, k2, p1,
    p2``, or as ``camera_angle_x``. Frames are put in the order of their file names. Images that
    are listed but missing are counted and named in the provenance.

    Args:
        path: The folder or its ``transforms.json``.
        unit: ``"m"`` if the file's scale is metric, which the format does not say.

    Raises:
        InputError: If the file is damaged, a pose is no pose, or no image exists at all.
    """
    file = path / "transforms.json" if path.is_dir() else path
    content = _read(file)
    frames = sorted(content["frames"], key=lambda frame: str(frame["file_path"]))
    present = [(name, frame) for frame in frames if (name := _image_name(file, frame))]
    missing = [str(frame["file_path"]) for frame in frames if not _image_name(file, frame)]
    if not present:
        raise InputError(f"{file}: none of its {len(frames)} images exists: {some(missing)}.")
    rows = [_camera_row(file, {**content, **frame}, name) for name, frame in present]
    distinct = list(dict.fromkeys(rows))
    poses = np.stack([_world_from_cam(file, frame) for _, frame in present])
    return Scene(
        name=file.resolve().parent.name,
        unit="m" if unit == "m" else "unit",
        image_root=file.parent,
        images=tuple(name for name, _ in present),
        cameras=tuple(
            Camera("OPENCV", w, h, torch.tensor(p, dtype=torch.float64)).checked(str(file))
            for w, h, p in distinct
        ),
        camera_index=torch.tensor([distinct.index(row) for row in rows]),
        poses=Pose.from_matrix(torch.from_numpy(poses)),
        provenance={
            "reader": "nerfstudio",
            "labels": file.name,
            "listed_images": len(frames),
            "missing_images": missing,
        },
    )


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; is this a nerfstudio folder?")
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file}: this is not whole JSON ({error}).") from error
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{file}: has no list of frames.")
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict) or not {"file_path", "transform_matrix"} <= frame.keys():
            raise InputError(f"{file}: frame {i} has no file_path and transform_matrix.")
    return content


def _image_name(file: Path, frame: dict[str, Any]) -> str | None:
    """The image's path below the folder; instant-ngp leaves the suffix out."""
    root = file.parent.resolve()
    for suffix in _SUFFIXES:
        image = (file.parent / f"{frame['file_path']}{suffix}").absolute()
        if image.is_file():
            relative = Path(str(frame["file_path"]) + suffix)
            if relative.is_absolute() or ".." in relative.parts:
                raise InputError(f"{file}: {frame['file_path']} lies outside {root}.")
            return str(relative)
    return None


def _camera_row(
    file: Path, frame: dict[str, Any], name: str
) -> tuple[int, int, tuple[float, ...]]:
    """Width, height and OPENCV parameters of a frame."""
    model = frame.get("camera_model", "OPENCV")
    strange = [key for key in _UNSUPPORTED if float(frame.get(key, 0)) != 0]
    if model not in _CAMERA_MODELS or strange:
        raise InputError(
            f"{file}: {name} has camera model {model} {' '.join(strange)}, which is not supported; "
            f"use one of {', '.join(_CAMERA_MODELS)} with k1, k2, p1, p2."
        )
    if "w" in frame and "h" in frame:
        width, height = int(frame["w"]), int(frame["h"])
    else:
        width, height = upright_size(file.parent / name)
    fx = _focal(file, frame, name, "x", width)
    fy = _focal(file, frame, name, "y", height, default=fx)
    centre = float(frame.get("cx", width / 2)), float(frame.get("cy", height / 2))
    distortion = (float(frame.get(key, 0)) for key in ("k1", "k2", "p1", "p2"))
    return width, height, (fx, fy, *centre, *distortion)


def _focal(
    file: Path,
    frame: dict[str, Any],
    name: str,
    axis: str,
    side_px: int,
    default: float | None = None,
) -> float:
    if f"fl_{axis}" in frame:
        return float(frame[f"fl_{axis}"])
    if f"camera_angle_{axis}" in frame:
        return side_px / 2 / math.tan(float(frame[f"camera_angle_{axis}"]) / 2)
    if default is None:
        raise InputError(f"{file}: {name} has neither fl_{axis} nor camera_angle_{axis}.")
    return default


def _world_from_cam(file: Path, frame: dict[str, Any]) -> np.ndarray:
    where = f"{file}: {frame['file_path']}"
    try:
        opengl = np.array(frame["transform_matrix"], dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: transform_matrix is not 4 x 4 numbers.") from error
    if opengl.shape == (3, 4):
        opengl = np.vstack([opengl, [0, 0, 0, 1]])
    return checked_pose_matrix(opengl, where) * np.array([1, -1, -1, 1])
