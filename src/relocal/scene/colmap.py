"""COLMAP models: the cameras, poses and map points of a scene as files that other tools open.

pycolmap writes them. They are read here, because its reader takes what a file that was cut short
does not say from whatever lies in memory: it then returns wrong numbers, or never returns.
"""

import errno
import os
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relocal.camera import CAMERA_MODELS, COLMAP_NUMBERS, Camera
from relocal.errors import InputError
from relocal.pose import Pose
from relocal.scene.colmap_records import KEYPOINT, NO_POINT, ImageRecord, camera_record
from relocal.scene.colmap_text import text_cameras, text_images, text_points
from relocal.scene.scene import Points, Scene

_FILES = ("cameras", "images", "points3D")

Model = tuple[tuple[str, ...], tuple[Camera, ...], Int[Tensor, " N"], Pose, Points | None]
"""Image names, cameras, the camera's index of each image, poses, and map points or None."""


def read_colmap(folder: Path) -> Model:
    """Reads a COLMAP model, binary or text, images in the order of their ids.

    Returns:
        Image names, cameras, the camera's index of each image, poses, and map points or None. A
        pose of zeros is NaN, as one that the file says to be none.

    Raises:
        InputError: If the folder holds no model, or one that is not whole.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder, so no COLMAP model.")
    is_text = not (folder / "cameras.bin").exists() and (folder / "cameras.txt").is_file()
    kind = "txt" if is_text else "bin"
    cameras_file, images_file, points_file = (folder / f"{name}.{kind}" for name in _FILES)
    listed = list(text_cameras(cameras_file) if is_text else _cameras(_Bytes(cameras_file)))
    cameras = dict(listed)
    found = text_images(images_file) if is_text else _images(_Bytes(images_file))
    images = sorted(found, key=lambda image: image.id)
    _check_ids(cameras_file, "cameras", (camera_id for camera_id, _ in listed))
    _check_ids(images_file, "images", (image.id for image in images))
    for name, count in Counter(image.name for image in images).items():
        if count > 1:
            raise InputError(f"{images_file}: has {count} images of the name {name}.")
    if not images:
        raise InputError(f"{folder}: this COLMAP model has no image with a pose.")
    index = {camera_id: i for i, camera_id in enumerate(sorted(cameras))}
    orphans = [image.name for image in images if image.camera_id not in index]
    if orphans:
        raise InputError(f"{images_file}: {orphans[0]} has a camera that {cameras_file} has not.")
    motion = torch.tensor([image.cam_from_world for image in images], dtype=torch.float64)
    motion[~motion[:, :4].any(dim=1)] = torch.nan  # zeros are no turn at all, and no pose
    return (
        tuple(image.name for image in images),
        tuple(cameras[camera_id] for camera_id in index),
        torch.tensor([index[image.camera_id] for image in images]),
        Pose.from_colmap(motion[:, :4], motion[:, 4:]),
        _points(
            points_file,
            sorted(text_points(points_file) if is_text else _point_rows(_Bytes(points_file))),
            images,
        ),
    )


def _check_ids(file: Path, kind: str, ids: Iterable[int]) -> None:
    """Refuses an id that stands for two things."""
    for number, count in Counter(ids).items():
        if count > 1:
            raise InputError(f"{file}: has {count} {kind} of the id {number}.")


class _Bytes:
    """A file's bytes, taken from front to back; a file that ends too early or late is refused."""

    def __init__(self, file: Path) -> None:
        self.file, self._at = file, 0
        try:
            self._data = file.read_bytes()
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror}).") from error

    def take(self, form: str) -> tuple[Any, ...]:
        """The next little-endian fields, in the letters of ``struct``."""
        start = self._skip(struct.calcsize("<" + form))
        return struct.unpack_from("<" + form, self._data, start)

    def array(self, kind: np.dtype, count: int) -> np.ndarray:
        """The next ``count`` rows."""
        start = self._skip(count * kind.itemsize)
        return np.frombuffer(self._data, kind, count, start)

    def text(self) -> str:
        """The next characters up to a zero byte."""
        end = self._data.find(b"\0", self._at)
        start = self._skip((len(self._data) if end < 0 else end) - self._at + 1)
        return self._data[start:end].decode(errors="replace")

    def records(self) -> Iterator[None]:
        """Counts through the file's records; after the last the file must end."""
        (count,) = self.take("Q")
        for _ in range(count):
            yield
        if self._at != len(self._data):
            raise InputError(f"{self.file}: has {len(self._data) - self._at} bytes too many.")

    def _skip(self, size: int) -> int:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise InputError(
                f"{self.file}: this COLMAP file is cut short, at {len(self._data)} bytes."
            )
        return start


def _cameras(content: _Bytes) -> Iterator[tuple[int, Camera]]:
    for _ in content.records():
        camera_id, number, width, height = content.take("IiQQ")
        name = COLMAP_NUMBERS[number] if 0 <= number < len(COLMAP_NUMBERS) else f"number {number}"
        params = content.array(np.dtype("<f8"), len(CAMERA_MODELS.get(name, ())))
        yield camera_id, camera_record(str(content.file), name, width, height, params)


def _images(content: _Bytes) -> Iterator[ImageRecord]:
    for _ in content.records():
        image_id, *motion, camera_id = content.take("I7dI")
        name = content.text()
        keypoints = content.array(KEYPOINT, *content.take("Q"))
        yield ImageRecord(image_id, name, camera_id, tuple(motion), keypoints)


def _point_rows(content: _Bytes) -> Iterator[tuple[Any, ...]]:
    """Id, x, y, z, red, green and blue of each point."""
    for _ in content.records():
        *row, _error, length = content.take("Q3d3BdQ")
        content.array(np.dtype("<u4"), 2 * length)  # the track, which the images say as well
        yield tuple(row)


def _points(file: Path, rows: list[tuple[Any, ...]], images: list[ImageRecord]) -> Points | None:
    seen = [image.keypoints["point_id"] != NO_POINT for image in images]
    keypoints = np.concatenate([image.keypoints[s] for image, s in zip(images, seen, strict=True)])
    ids = np.array([row[0] for row in rows], dtype=np.uint64)
    _check_ids(file, "points", ids.tolist())
    if not np.isin(keypoints["point_id"], ids).all():
        raise InputError(f"{file}: has not all points that the images see.")
    if not rows:
        return None
    xyz = np.array([row[1:4] for row in rows], dtype=np.float64)
    if not (np.isfinite(xyz).all() and np.isfinite(keypoints["xy"]).all()):
        raise InputError(f"{file}: map points, or the pixels that see them, are not finite.")
    return Points(
        xyz=xyz,
        rgb=np.array([row[4:7] for row in rows], dtype=np.uint8),
        image_index=np.repeat(np.arange(len(images)), [int(s.sum()) for s in seen]),
        point_index=np.searchsorted(ids, keypoints["point_id"]),
        xy=keypoints["xy"].copy(),
    )


def write_colmap(scene: Scene, folder: Path) -> None:
    """Writes the scene's cameras, poses and points as a COLMAP model into a folder that exists."""
    import pycolmap

    model = pycolmap.Reconstruction()
    for i, camera in enumerate(scene.cameras):
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(
                camera_id=i + 1,
                model=camera.model,
                width=camera.width,
                height=camera.height,
                params=camera.params.double().numpy(),
            )
        )
    cam_from_world = scene.poses.inverse()
    quaternions = cam_from_world.quaternion.double().numpy()[:, [1, 2, 3, 0]]  # COLMAP: xyzw
    translations = cam_from_world.position.double().numpy()
    seen = _observations_by_image(scene)
    for i, name in enumerate(scene.images):
        image = pycolmap.Image(
            name=name,
            keypoints=seen[i][1],
            camera_id=int(scene.camera_index[i]) + 1,
            image_id=i + 1,
        )
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(quaternions[i]), translations[i])
        model.add_image_with_trivial_frame(image, pose)
    if scene.points is not None:
        _write_points(scene.points, model, [point_index for point_index, _ in seen])
    model.write(str(folder))
    try:
        read_colmap(folder)
    except InputError as error:  # pycolmap does not say when the disk is full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error


def keep_poses(old: Path, new: Path, but: Collection[str] = ()) -> None:
    """Puts the poses of one ``images.bin`` into another, bit for bit and by the image's name.

    Images that the old one does not have, and those of ``but``, keep theirs. A pose that is read,
    turned round, turned back and written again is another in its last digits.
    """
    motion = {i.name: i.cam_from_world for i in _images(_Bytes(old)) if i.name not in but}
    images = list(_images(_Bytes(new)))
    with new.open("wb") as file:
        file.write(struct.pack("<Q", len(images)))
        for image in images:
            pose = motion.get(image.name, image.cam_from_world)
            file.write(struct.pack("<I7dI", image.id, *pose, image.camera_id))
            file.write(image.name.encode() + b"\0" + struct.pack("<Q", len(image.keypoints)))
            file.write(image.keypoints.tobytes())


def _observations_by_image(
    scene: Scene,
) -> list[tuple[Int[np.ndarray, " m"], Float[np.ndarray, "m 2"]]]:
    """For each image, the indices of the points it sees and their pixels."""
    points = scene.points
    if points is None:
        return [(np.zeros(0, np.int64), np.zeros((0, 2)))] * len(scene)
    order = np.argsort(points.image_index, kind="stable")
    cuts = np.searchsorted(points.image_index[order], np.arange(1, len(scene)))
    rows = np.split(order, cuts)
    return [(points.point_index[r], points.xy[r].astype(np.float64)) for r in rows]


def _write_points(points: Points, model: Any, seen: list[np.ndarray]) -> None:
    import pycolmap

    tracks: list[list[Any]] = [[] for _ in points.xyz]
    for i, point_index in enumerate(seen):
        for k, point in enumerate(point_index.tolist()):
            tracks[point].append(pycolmap.TrackElement(i + 1, k))
    for xyz, rgb, track in zip(points.xyz, points.rgb, tracks, strict=True):
        model.add_point3D(xyz, pycolmap.Track(track), rgb)
