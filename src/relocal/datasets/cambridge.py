"""Cambridge Landmarks (Kendall, Grimes & Cipolla 2015): streets and buildings, from a phone.

A scene has ``dataset_train.txt`` and ``dataset_test.txt``: three header lines (own lists have
fewer: a line that is a row, or may be one that is damaged, is no header), then an image a line,
``ImageFile X Y Z W P Q R``.
X Y Z is the camera **centre** in metres. W P Q R is a quaternion, w first, that turns **world**
vectors into camera vectors (``cam_from_world``), as in the NVM files of VisualSFM that they were
made from; beside a centre one would expect the other direction.

The intrinsics stand in ``reconstruction.nvm``: one focal length an image, and one coefficient of
VisualSFM's own distortion model, which is left aside. Where it is missing a focal length is
assumed, with a notice.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from relocal.camera import Camera
from relocal.datasets.photos import find_photos, none_left
from relocal.errors import InputError
from relocal.images import is_there
from relocal.notices import Notice
from relocal.pose import Pose, quaternion_conjugate
from relocal.scene import Scene
from relocal.scene.account import LOST, NO_FILE, Account, Tally
from relocal.scene.lost import is_lost, number
from relocal.scene.order import natural_key
from relocal.scene.scene import some
from relocal.scene.upright import Exif, labelled_size

TYPICAL_FOCAL_PX, TYPICAL_WIDTH_PX = 1670.0, 1920
_HEADER_LINES = 3
_MAX_NORM_ERROR = 1e-3
_PHOTO = re.compile(r"\.(jpe?g|png|bmp|tiff?|webp|ppm)\b", re.IGNORECASE)


def read_cambridge(path: Path, exif: Exif | None = None) -> Scene:
    """Reads a scene's folder.

    Args:
        path: The folder, with ``dataset_train.txt``, ``dataset_test.txt`` and the sequences.
        exif: Which pixels the labels of photos that EXIF turns by a quarter are of; no
            file says it.

    Returns:
        A metric scene in its official split, images in the natural order of their names. Listed
        images that do not exist or whose pose is none are left out; the account counts them.

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
    found = find_photos(path, list(every), str(path))
    there = {name: own for name, own in zip(every, found.names, strict=True) if own is not None}
    lost = [name for name in there if is_lost(np.array(every[name]), np.array(every[name][3:]))]
    left = {NO_FILE: sorted(every.keys() - there.keys(), key=natural_key), LOST: lost}
    kept = sorted(there.keys() - set(lost), key=lambda name: natural_key(there[name]))
    if not kept:
        raise none_left(path, len(every), left)
    names = [there[name] for name in kept]
    values = torch.tensor([every[name] for name in kept], dtype=torch.float64)
    focals = _focals(path / "reconstruction.nvm", names)
    cameras = [_camera(path / name, focals.get(_stem(name)), exif) for name in names]
    index = {camera: i for i, camera in enumerate(dict.fromkeys(cameras))}
    # The quaternion is cam_from_world, the position is the centre: only the first is inverted.
    turned = Pose.from_quaternion(values[:, :3], values[:, 3:]).quaternion
    known = sum(_stem(name) in focals for name in names)
    return Scene(
        name=path.resolve().name,
        unit="m",
        image_root=path,
        images=tuple(names),
        cameras=tuple(_pinhole(*camera) for camera in index),
        camera_index=torch.tensor([index[camera] for camera in cameras]),
        poses=Pose(values[:, :3], quaternion_conjugate(turned)).canonical(),
        splits={
            split: tuple(there[name] for name in kept if name in rows[split]) for split in rows
        },
        provenance={
            "reader": "cambridge",
            "labels": "Cambridge Landmarks, VisualSFM",
            "intrinsics": f"reconstruction.nvm for {known} images, for the others f = "
            f"{TYPICAL_FOCAL_PX:g} px at {TYPICAL_WIDTH_PX} px width; no distortion",
            "listed_images": len(every),
            "missing_images": left[NO_FILE],
        },
        account=Account(
            images=Tally.of(sum(map(len, rows.values())), len(kept), left),
            notices=(*found.notices, *_assumed(path, len(names), known)),
        ),
    )


def _assumed(path: Path, images: int, known: int) -> tuple[Notice, ...]:
    if known == images:
        return ()
    lack = f"leaves out {images - known} of {images} images" if known else "is missing"
    file = path / "reconstruction.nvm"
    if not known and file.is_file():
        lack = "names none of these images"
    text = (
        f"{file} {lack}: their focal length is taken as {TYPICAL_FOCAL_PX:g} px at "
        f"{TYPICAL_WIDTH_PX} px width, which is wrong for another camera. The file comes with the "
        "dataset's archive."
    )
    return (Notice("intrinsics-assumed", text),)


def _rows(file: Path) -> dict[str, list[float]]:
    """Centre and quaternion by image name."""
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; is this a Cambridge Landmarks folder?")
    rows: dict[str, list[float]] = {}
    lines = file.read_text("utf-8-sig", errors="replace").splitlines()
    first = _header_lines(file.parent, lines)
    for i, line in enumerate(lines[first:], start=first + 1):
        if not line.strip() or _is_comment(file.parent, line):
            continue
        name, values = _row(f"{file}, line {i}", line)
        if name in rows:
            raise InputError(f"{file}, line {i}: {name} stands there already.")
        rows[name] = values
    if not rows:
        raise InputError(f"{file}: lists no image (lines ImageFile X Y Z W P Q R).")
    return rows


def _is_comment(root: Path, line: str) -> bool:
    """Whether a line begins with # and not with the name of a photo that does."""
    names = line.rsplit(maxsplit=7)[:1] + line.split(maxsplit=1)[:1]
    return line.startswith("#") and not any(is_there(root / name) for name in names)


def _header_lines(root: Path, lines: Sequence[str]) -> int:
    """How many lines stand before the first row: comments, and a few that look like no row."""
    headers = 0
    for i, line in enumerate(lines):
        if not line.strip() or _is_comment(root, line):
            continue
        if _looks_like_row(root, line) or headers == _HEADER_LINES:
            return i
        headers += 1
    return len(lines)


def _looks_like_row(root: Path, line: str) -> bool:
    """Whether a line is a row, or may be one that is damaged.

    It names a photo, begins with a path, has many numbers, or two and no other words.
    """
    first, *words = line.split()
    numbers = sum(map(_is_number, words))
    is_path = "/" in first or "\\" in first or is_there(root / first)
    return is_path or _PHOTO.search(line) is not None or numbers > 3 or len(words) == numbers > 1


def _is_number(word: str) -> bool:
    try:
        number(word)
    except ValueError:
        return False
    return True


def _row(where: str, line: str) -> tuple[str, list[float]]:
    # From the right, so that a name may have spaces.
    name, *texts = line.strip().rsplit(maxsplit=7)
    try:
        values = [number(text) for text in texts]
    except ValueError as error:
        raise InputError(f"{where}: {error}.") from error
    if len(values) != 7:
        raise InputError(f"{where}: needs a name and 7 numbers, X Y Z W P Q R.")
    lost = is_lost(np.array(values), np.array(values[3:]))
    if not lost and abs(np.linalg.norm(values[3:]) - 1) > _MAX_NORM_ERROR:
        raise InputError(f"{where}: W P Q R is not a unit quaternion.")
    return name, values


def _focals(file: Path, names: Sequence[str]) -> dict[str, float]:
    """Focal lengths in pixels by image name without its suffix, of those that the file names."""
    wanted, found = {_stem(name) for name in names}, dict[str, float]()
    for stem, focal in _nvm_focals(file).items():
        # Paths of another computer are known by their ends.
        parts = stem.split("/")
        absolute = parts[0] == "" or parts[0].endswith(":")
        ends = ("/".join(parts[k:]) for k in range(len(parts) if absolute else 1))
        found.setdefault(next((end for end in ends if end in wanted), stem), focal)
    return found


def _nvm_focals(file: Path) -> dict[str, float]:
    """Focal lengths in pixels by image name without its suffix; none where there is no file."""
    if not file.is_file():
        return {}
    lines = iter(file.read_text("utf-8-sig", errors="replace").splitlines())
    try:
        if not next(lines).startswith("NVM_V3"):
            raise InputError(f"{file}: this is not an NVM_V3 file.")
        full = (line for line in lines if line.strip())
        count = int(next(full))
        rows = [next(full).rsplit(maxsplit=10) for _ in range(count)]
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
