"""Cambridge Landmarks (Kendall, Grimes & Cipolla 2015): streets and buildings, from a phone.

A scene has ``dataset_train.txt`` and ``dataset_test.txt``: three header lines, then an image a
line, ``ImageFile X Y Z W P Q R``. X Y Z is the camera **centre** in metres. W P Q R is a
quaternion, w first, that turns **world** vectors into camera vectors (``cam_from_world``), as in
the NVM files of VisualSFM that they were made from; beside a centre one would expect the other
direction.

The intrinsics stand in ``reconstruction.nvm``: one focal length an image, and one coefficient of
VisualSFM's own distortion model, which is left aside. Where it is missing a focal length is
assumed, with a warning.
"""

import logging
from pathlib import Path

import numpy as np
import torch

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import is_there
from relocal.pose import Pose, quaternion_conjugate
from relocal.scene import Scene
from relocal.scene.scene import some
from relocal.scene.upright import Exif, labelled_size

TYPICAL_FOCAL_PX, TYPICAL_WIDTH_PX = 1670.0, 1920
_HEADER_LINES = 3
_LOG = logging.getLogger(__name__)
_MAX_NORM_ERROR = 1e-3


def read_cambridge(path: Path, exif: Exif | None = None) -> Scene:
    """Reads a scene's folder.

    Args:
        path: The folder, with ``dataset_train.txt``, ``dataset_test.txt`` and the sequences.
        exif: Which pixels the labels of photos that EXIF turns by a quarter are of; no
            file says it.

    Returns:
        A metric scene in its official split, images in the order of their names. Listed images that
        do not exist are counted and named in the provenance, and left out.

    Raises:
        InputError: If a file is missing or a line is not of the form above.
    """
    if not path.is_dir():
        raise InputError(f"{path}: there is no such folder.")
    rows = {split: _rows(path / f"dataset_{split}.txt") for split in ("train", "test")}
    both = set(rows["train"]) & set(rows["test"])
    if both:
        raise InputError(f"{path}: {len(both)} images train and test: {some(sorted(both))}.")
    every = {**rows["train"], **rows["test"]}
    names = [name for name in sorted(every) if is_there(path / name)]
    missing = sorted(every.keys() - set(names))
    if not names:
        raise InputError(f"{path}: none of its {len(every)} images exists: {some(missing)}.")
    values = torch.tensor([every[name] for name in names], dtype=torch.float64)
    focals = _nvm_focals(path / "reconstruction.nvm")
    cameras = [_camera(path / name, focals.get(_stem(name)), exif) for name in names]
    index = {camera: i for i, camera in enumerate(dict.fromkeys(cameras))}
    # The quaternion is cam_from_world, the position is the centre: only the first is inverted.
    turned = Pose.from_quaternion(values[:, :3], values[:, 3:]).quaternion
    known = sum(_stem(name) in focals for name in names)
    if known < len(names):
        lack = f"leaves out {len(names) - known} of {len(names)} images" if focals else "is missing"
        _LOG.warning(
            f"{path / 'reconstruction.nvm'} {lack}: their focal length is taken as "
            f"{TYPICAL_FOCAL_PX:g} px at {TYPICAL_WIDTH_PX} px width, which is wrong for another "
            "camera. The file comes with the dataset's archive."
        )
    return Scene(
        name=path.resolve().name,
        unit="m",
        image_root=path,
        images=tuple(names),
        cameras=tuple(_pinhole(*camera) for camera in index),
        camera_index=torch.tensor([index[camera] for camera in cameras]),
        poses=Pose(values[:, :3], quaternion_conjugate(turned)).canonical(),
        splits={split: tuple(name for name in names if name in rows[split]) for split in rows},
        provenance={
            "reader": "cambridge",
            "labels": "Cambridge Landmarks, VisualSFM",
            "intrinsics": f"reconstruction.nvm for {known} images, for the others f = "
            f"{TYPICAL_FOCAL_PX:g} px at {TYPICAL_WIDTH_PX} px width; no distortion",
            "listed_images": len(every),
            "missing_images": missing,
        },
    )


def _rows(file: Path) -> dict[str, list[float]]:
    """Centre and quaternion by image name."""
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; is this a Cambridge Landmarks folder?")
    rows: dict[str, list[float]] = {}
    lines = file.read_text("utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines[_HEADER_LINES:], start=_HEADER_LINES + 1):
        if not line.strip():
            continue
        # From the right, so that a name may have spaces.
        name, *texts = line.rsplit(maxsplit=7)
        where = f"{file}, line {number}"
        try:
            values = [float(text) for text in texts]
        except ValueError as error:
            raise InputError(f"{where}: {error}.") from error
        if len(values) != 7 or not np.isfinite(values).all():
            raise InputError(f"{where}: needs a name and 7 finite numbers, X Y Z W P Q R.")
        if abs(np.linalg.norm(values[3:]) - 1) > _MAX_NORM_ERROR:
            raise InputError(f"{where}: W P Q R is not a unit quaternion.")
        if name in rows:
            raise InputError(f"{where}: {name} stands there already.")
        rows[name] = values
    if not rows:
        raise InputError(f"{file}: lists no image.")
    return rows


def _nvm_focals(file: Path) -> dict[str, float]:
    """Focal lengths in pixels by image name without its suffix; none where there is no file."""
    if not file.is_file():
        return {}
    lines = iter(file.read_text("utf-8", errors="replace").splitlines())
    try:
        if not next(lines).startswith("NVM_V3"):
            raise InputError(f"{file}: this is not an NVM_V3 file.")
        count = int(next(line for line in lines if line.strip()))
        rows = [next(lines).rsplit(maxsplit=10) for _ in range(count)]
        return {_stem(row[0]): float(row[1]) for row in rows}
    except (StopIteration, ValueError, IndexError) as error:
        raise InputError(f"{file}: this NVM file is cut short or damaged.") from error


def _camera(file: Path, focal_px: float | None, exif: Exif | None) -> tuple[int, int, float]:
    width, height = labelled_size(file, exif)
    longest = max(width, height)
    return width, height, focal_px or TYPICAL_FOCAL_PX * longest / TYPICAL_WIDTH_PX


def _pinhole(width: int, height: int, focal_px: float) -> Camera:
    params = torch.tensor([focal_px, width / 2, height / 2], dtype=torch.float64)
    return Camera.read("reconstruction.nvm", "SIMPLE_PINHOLE", width, height, params)


def _stem(name: str) -> str:
    return name.rpartition(".")[0].replace("\\", "/")
