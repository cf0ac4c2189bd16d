"""The synthetic room: a scene that needs no download, rendered where it is first asked for.

A rendered room is a folder with the frames of ``seq-01`` (training) and ``seq-02`` (test),
``room.json`` (what was made, the camera, every pose) and ``points.npz`` (map points, and which
training frames see them where).
"""

import os
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relocal.camera import Camera
from relocal.datasets.room.config import RoomConfig
from relocal.datasets.seven_scenes import checked_pose_matrix
from relocal.errors import InputError
from relocal.pose import Pose
from relocal.scene import Points, Scene
from relocal.scene.files import Progress, new_folder, read_json, write_json
from relocal.scene.scene import some

_FORMAT = 1
_ROOM, _POINTS = "room.json", "points.npz"
_JPEG_QUALITY = 95


def read_synthetic(
    path: Path,
    config: RoomConfig | None = None,
    progress: Progress = lambda done, total: None,
) -> Scene:
    """Reads a rendered room; renders it first where there is none.

    Args:
        path: The folder of the room.
        config: What to render. A room that is there already must have been made from the same;
            without it any room will do, and the default one is rendered.
        progress: Called with the number of frames rendered and of all.

    Returns:
        A metric scene with map points, split into training and test.

    Raises:
        InputError: If the folder holds something else, another room, or a damaged one.
    """
    file = path / _ROOM
    if not file.exists():
        render_room(path, config or RoomConfig(), progress)
    about = read_json(file)
    try:
        if about["format"] != _FORMAT:
            raise InputError(f"{file}: is of format {about['format']!r}, not {_FORMAT}.")
        _check_same(file, about["config"], config)
        return _scene(path, about)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{file}: is not what a rendered room has ({error!r}).") from error


def render_room(
    out: Path, config: RoomConfig, progress: Progress = lambda done, total: None
) -> None:
    """Renders a room; its folder appears when it is whole.

    Args:
        out: The folder to make.
        config: What to render.
        progress: Called with the number of frames rendered and of all.

    Raises:
        InputError: If there is something in the folder already.
    """
    # Here, because OpenCV is slow to load and only rendering needs it.
    from relocal.datasets.room.recording import Sequence, film

    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = "holds a room" if (out / _ROOM).exists() else "is no rendered room"
        raise InputError(f"{out}: exists already and {what}; give another folder or remove it.")
    train, test, landmarks = film(config)
    jobs = [(sequence, i) for sequence in (train, test) for i in range(len(sequence.poses))]

    with new_folder(out) as folder:

        def shoot(job: tuple[Sequence, int]) -> tuple[np.ndarray, np.ndarray] | None:
            sequence, index = job
            _write_jpeg(folder / _name(sequence.number, index), sequence.frame(index))
            # The map is made from training images only, as it would be for a real place.
            return sequence.sees(index, landmarks) if sequence is train else None

        for sequence in (train, test):
            (folder / _name(sequence.number, 0)).parent.mkdir()
        seen: list[tuple[np.ndarray, np.ndarray]] = []
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for done, observed in enumerate(pool.map(shoot, jobs), start=1):
                seen += [observed] if observed else []
                progress(done, len(jobs))
        _write_points(folder / _POINTS, landmarks.xyz, landmarks.rgb, seen)
        frames = [
            {
                "image": _name(sequence.number, i),
                "split": "train" if sequence is train else "test",
                "world_from_cam": sequence.poses[i].tolist(),
            }
            for sequence, i in jobs
        ]
        about = {
            "format": _FORMAT,
            "config": asdict(config),
            "camera": asdict(config.camera),
            "frames": frames,
        }
        write_json(folder / _ROOM, about)


def _name(sequence: int, index: int) -> str:
    return f"seq-{sequence:02d}/frame-{index:06d}.jpg"


def _write_jpeg(file: Path, rgb: np.ndarray) -> None:
    import cv2

    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), quality)
    file.write_bytes(data.tobytes())


def _write_points(
    file: Path, xyz: np.ndarray, rgb: np.ndarray, seen: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Saves the points that any frame sees; `seen` has their indices and pixels, frame by frame."""
    point_index = np.concatenate([index for index, _ in seen])
    kept, point_index = np.unique(point_index, return_inverse=True)
    np.savez_compressed(
        file,
        xyz=xyz[kept],
        rgb=rgb[kept],
        image_index=np.repeat(np.arange(len(seen)), [len(index) for index, _ in seen]),
        point_index=point_index,
        xy=np.concatenate([xy for _, xy in seen]).astype(np.float32),
    )


def _check_same(file: Path, made: Mapping[str, Any], config: RoomConfig | None) -> None:
    wanted = asdict(config) if config else {}
    differing = [f"{key} {made.get(key)!r}" for key in wanted if made.get(key) != wanted[key]]
    if differing:
        raise InputError(
            f"{file}: this room was made with {some(differing)}, which is not what is asked for; "
            "give another folder or remove it."
        )


def _scene(path: Path, about: Mapping[str, Any]) -> Scene:
    file, frames = path / _ROOM, about["frames"]
    images = tuple(str(frame["image"]) for frame in frames)
    missing = [name for name in images if not (path / name).is_file()]
    if missing:
        raise InputError(f"{path}: {len(missing)} frames are missing: {some(missing)}.")
    matrices = [
        checked_pose_matrix(np.array(frame["world_from_cam"], np.float64), f"{file}, {name}")
        for frame, name in zip(frames, images, strict=True)
    ]
    c = about["camera"]
    camera = Camera.pinhole(
        c["width_px"], c["height_px"], c["fx_px"], c["fy_px"], c["cx_px"], c["cy_px"]
    )
    return Scene(
        name=path.resolve().name,
        unit="m",
        image_root=path,
        images=images,
        cameras=(camera.checked(str(file)),),
        camera_index=torch.zeros(len(images), dtype=torch.int64),
        poses=Pose.from_matrix(torch.from_numpy(np.stack(matrices))),
        splits={
            split: tuple(frame["image"] for frame in frames if frame["split"] == split)
            for split in ("train", "test")
        },
        points=_read_points(path / _POINTS, len(images)),
        provenance={
            "reader": "synthetic",
            "labels": "exact, as rendered",
            "config": dict(about["config"]),
        },
    )


def _read_points(file: Path, images: int) -> Points:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            points = Points(
                xyz=arrays["xyz"],
                rgb=arrays["rgb"],
                image_index=arrays["image_index"],
                point_index=arrays["point_index"],
                xy=arrays["xy"].astype(np.float64),
            )
    except FileNotFoundError:
        raise InputError(
            f"{file}: there is no such file; remove the room and render it again."
        ) from None
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: these map points cannot be read ({error}).") from error
    counts = ((points.image_index, images), (points.point_index, len(points.xyz)))
    if any(len(index) and not 0 <= index.min() <= index.max() < n for index, n in counts):
        raise InputError(f"{file}: names images or points that do not exist.")
    return points
