"""COLMAP's text models: ``cameras.txt``, ``images.txt`` and ``points3D.txt``."""

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.scene.colmap_records import KEYPOINT, NO_POINT, ImageRecord, camera_record
from relocal.scene.lost import number

_STATED = re.compile(r"^# Number of \w+: (\d{1,18})\b", re.MULTILINE)


def text_cameras(file: Path) -> Iterator[tuple[int, Camera]]:
    """Cameras by their ids."""
    for where, line, _ in _Lines(file):
        with _row(where, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS..."):
            number, model, width, height, *params = line.split()
            size, values = (int(width), int(height)), np.array(params, dtype=np.float64)
            camera_id = int(number)
        yield camera_id, camera_record(where, model, *size, values)


def text_images(file: Path) -> Iterator[ImageRecord]:
    """Images with what they see; a name may have spaces."""
    lines = _Lines(file)
    for where, line, following in lines:
        with _row(where, "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"):
            image_id, *motion, camera_id, name = line.split(maxsplit=9)
            if len(motion) != 7:
                raise ValueError
            head = int(image_id), name.strip(), int(camera_id), tuple(number(v) for v in motion)
        yield ImageRecord(*head, keypoints=_keypoints(*lines.take(following)))


def _keypoints(where: str, line: str) -> np.ndarray:
    with _row(where, "X Y POINT3D_ID, over and over"):
        fields = line.split()
        if len(fields) % 3:
            raise ValueError
        keypoints = np.empty(len(fields) // 3, KEYPOINT)
        keypoints["xy"] = np.array([fields[0::3], fields[1::3]], dtype=np.float64).T
        ids = [int(field) for field in fields[2::3]]
        keypoints["point_id"] = [NO_POINT if i == -1 else np.uint64(i) for i in ids]
        return keypoints


def text_points(file: Path) -> Iterator[tuple[Any, ...]]:
    """Id, x, y, z, red, green and blue of each point."""
    for where, line, _ in _Lines(file):
        with _row(where, "POINT3D_ID X Y Z R G B ERROR TRACK..."):
            point_id, *values, _error = line.split()[:8]
            colour = tuple(int(v) for v in values[3:])
            if len(colour) != 3 or not all(0 <= v < 256 for v in colour) or int(point_id) < 0:
                raise ValueError
            row = (int(np.uint64(int(point_id))), *(float(v) for v in values[:3]), *colour)
        yield row


class _Lines:
    """The lines of a file that are records; a file that ends too early is refused.

    A file that COLMAP wrote says how many records it has, and ends with the end of a line.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._taken = file, -1
        try:
            text = file.read_text("utf-8-sig", errors="replace")
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror}).") from error
        stated = _STATED.search(text)
        self._stated = int(stated[1]) if stated else 0
        if stated and not text.endswith("\n"):
            raise self._cut()
        self._lines = text.removesuffix("\n").split("\n")

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """Where a record stands, its line, and the index of the following line."""
        found = 0
        for i, line in enumerate(self._lines):
            if i <= self._taken or not line.strip() or line.startswith("#"):
                continue
            found += 1
            yield f"{self._file}, line {i + 1}", line, i + 1
        if found < self._stated:
            raise self._cut()

    def take(self, index: int) -> tuple[str, str]:
        """A line that belongs to the record before it, even when it is empty."""
        self._taken = index
        if index < len(self._lines):
            return f"{self._file}, line {index + 1}", self._lines[index]
        if self._stated:
            raise self._cut()
        return str(self._file), ""

    def _cut(self) -> InputError:
        return InputError(f"{self._file}: this COLMAP file is cut short.")


@contextmanager
def _row(where: str, form: str) -> Generator[None]:
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: is not of the form {form}.") from error
