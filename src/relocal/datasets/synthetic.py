"""The synthetic room: a scene that needs no download, rendered where it is first asked for.

A rendered room is a folder with the frames of ``seq-01`` (training) and ``seq-02`` (test),
``room.json`` (what was made, the camera, every pose) and ``points.npz`` (map points, and which
training frames see them where).
"""

import zipfile
from collections.abc import Mapping
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
from relocal.scene.account import Account, Tally
from relocal.scene.files import Progress, new_folder, read_json, write_json
from relocal.scene.scene import some

_FORMAT = 1
_ROOM, _POINTS = "room.json", "points.npz"


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
    out: Path | str, config: RoomConfig, progress: Progress = lambda done, total: None
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
    from relocal.datasets.room.recording import record

    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = "holds a room" if (out / _ROOM).exists() else "is no rendered room"
        raise InputError(f"{out}: exists already and {what}; give another folder or remove it.")
    with new_folder(out) as folder:
        made = record(folder, config, progress)
        write_json(folder / _ROOM, {"format": _FORMAT, "config": asdict(config), **made})


def _check_same(file: Path, made: Mapping[str, Any], config: RoomConfig | None) -> None:
    wanted = asdict(config) if config else {}
    differing = [f"{key} {made.get(key)!r}" for key in wanted if made.get(key) != wanted[key]]
    if differing:
        raise InputError(
            f"{file}: this room was made with {some(differing)}, which is not what is asked for; "
            "give another folder or remove it."
        )


def _scene(path: Path, about: Mapping[str, Any]) -> Scene:
    file, frames, camera = path / _ROOM, about["frames"], about["camera"]
    images = tuple(str(frame["image"]) for frame in frames)
    missing = [name for name in images if not (path / name).is_file()]
    if missing:
        raise InputError(f"{path}: {len(missing)} frames are missing: {some(missing)}.")
    matrices = [
        _pose(f"{file}, {name}", frame["world_from_cam"])
        for frame, name in zip(frames, images, strict=True)
    ]
    points = _read_points(path / _POINTS, len(images))
    count = len(points.xyz)
    size = camera["width_px"], camera["height_px"]
    intrinsics = [camera[key] for key in ("fx_px", "fy_px", "cx_px", "cy_px")]
    return Scene(
        name=path.resolve().name,
        unit="m",
        image_root=path,
        images=images,
        cameras=(Camera.read(str(file), "PINHOLE", *size, intrinsics),),
        camera_index=torch.zeros(len(images), dtype=torch.int64),
        poses=Pose.from_matrix(torch.from_numpy(np.stack(matrices))),
        splits={
            split: tuple(frame["image"] for frame in frames if frame["split"] == split)
            for split in ("train", "test")
        },
        points=points,
        provenance={
            "reader": "synthetic",
            "labels": "exact, as rendered",
            "photos": "shareable",
            "config": dict(about["config"]),
        },
        account=Account(
            images=Tally.of(len(frames), len(images), {}), points=Tally.of(count, count, {})
        ),
    )


def _pose(where: str, rows: object) -> np.ndarray:
    try:
        matrix = np.array(rows, np.float64)
    except ValueError as error:
        raise InputError(f"{where}: a pose is a 4 x 4 matrix of numbers ({error}).") from error
    return checked_pose_matrix(matrix, where)


def _read_points(file: Path, images: int) -> Points:
    try:
        # A stream of our own: numpy leaves the file open when it is damaged.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            xyz, rgb, xy = (content[key] for key in ("xyz", "rgb", "xy"))
            image_index, point_index = content["image_index"], content["point_index"]
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file; render the room again.") from None
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: these map points cannot be read ({error}).") from error
    count, seen = xyz.shape[:1], xy.shape[:1]
    shapes = [array.shape for array in (xyz, rgb, image_index, point_index, xy)]
    if shapes != [(*count, 3), (*count, 3), seen, seen, (*seen, 2)]:
        raise InputError(f"{file}: the shapes of these map points do not fit together: {shapes}.")
    for index, bound in ((image_index, images), (point_index, len(xyz))):
        if index.dtype.kind != "i" or not np.isin(index, np.arange(bound)).all():
            raise InputError(f"{file}: names images or points that do not exist.")
    return Points(xyz, rgb, image_index, point_index, xy.astype(np.float64))
