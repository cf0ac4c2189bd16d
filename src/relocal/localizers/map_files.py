"""A map on disk: ``map.json`` says what it is made of, ``map.safetensors`` holds its arrays."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from relocal.camera import Camera
from relocal.errors import InputError, unknown
from relocal.localizers.calibration import read_held_out
from relocal.localizers.feature_map import FeatureMap, MapConfig
from relocal.pose import Pose
from relocal.scene.files import new_folder, read_json, write_json
from relocal.scene.scene import UNITS
from relocal.training.run import environment, read_tensors, write_tensors

_NOT_UNIT = 1e-3
FORMAT = 2  # 1 has no origin: it keeps coordinates of the world
JSON, TENSORS = "map.json", "map.safetensors"
# By name, the type and the number of axes that a file must have.
_ARRAYS: dict[str, tuple[torch.dtype, int]] = {
    "xyz": (torch.float32, 2),
    "rgb": (torch.uint8, 2),
    "descriptors": (torch.int8, 2),
    "words": (torch.int8, 2),
    "basis": (torch.float32, 2),
    "word_size": (torch.int32, 1),
    "track": (torch.int16, 1),
    "seen_by": (torch.int16, 1),
}


def save_map(map: FeatureMap, out: Path | str) -> Path:
    """Writes a map into a new folder.

    Raises:
        InputError: If ``out`` exists.
    """
    out = Path(out)
    poses = torch.cat([map.poses.position - map.origin, map.poses.quaternion], dim=1)
    with new_folder(out) as folder:
        write_json(
            folder / JSON,
            {
                "format": FORMAT,
                "scene": map.scene,
                "unit": map.unit,
                "origin": map.origin.tolist(),
                "photo_camera": map.photo_camera.to_json(),
                "map": asdict(map.config),
                "training_images": list(map.training_images),
                "anchors": {name: list(pose) for name, pose in map.anchors.items()},
                "made_by": environment(),
            },
        )
        local = replace(map, xyz=map.xyz - map.origin)
        arrays = {name: getattr(local, name).to(kind) for name, (kind, _) in _ARRAYS.items()}
        write_tensors(folder / TENSORS, {**arrays, "poses": poses.to(torch.float32)})
    return out


def load_map(folder: Path | str) -> FeatureMap:
    """Opens a map.

    Raises:
        InputError: If the folder is no map, or a part of it is missing or damaged.
    """
    folder = Path(folder)
    if not (folder / JSON).is_file():
        raise InputError(f"{folder}: this is no map (it has no {JSON}); make one with map.")
    about = read_json(folder / JSON)
    arrays, held = read_tensors(folder / TENSORS), read_held_out(folder)
    try:
        if about["unit"] not in UNITS:
            raise unknown("unit", str(about["unit"]), UNITS)
        if about["format"] not in range(1, FORMAT + 1):
            raise InputError(
                f"its format is {about['format']!r}, this version reads 1 to {FORMAT}."
            )
        poses = arrays.pop("poses")
        map = FeatureMap(
            config=_config(about["map"]),
            scene=about["scene"],
            unit=about["unit"],
            photo_camera=Camera.from_json(about["photo_camera"], "photo_camera"),
            training_images=tuple(about["training_images"]),
            anchors=_anchors(about["anchors"]),
            origin=_origin(about),
            poses=Pose(poses[:, :3], poses[:, 3:]),
            calibration=None if held is None else held.calibration("structure"),
            **{name: arrays[name] for name in _ARRAYS},
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, InputError) as error:
        reason = str(error) if isinstance(error, InputError) else repr(error)
        raise InputError(f"{folder / JSON}: is not what a map has ({reason}).") from error
    if fault := _fault(map, {**arrays, "poses": poses}):
        raise InputError(f"{folder / TENSORS}: does not fit its {JSON}: {fault}.")
    world = Pose(map.origin + map.poses.position.double(), map.poses.quaternion.double())
    return replace(map, poses=world, xyz=map.origin + map.xyz.double())


def _origin(about: Mapping[str, Any]) -> Float[Tensor, "3"]:
    """What positions are relative to; maps of format 1 have them in the world."""
    origin = [0.0] * 3 if about["format"] == 1 else about["origin"]
    values = torch.tensor([float(value) for value in origin], dtype=torch.float64)
    if tuple(values.shape) != (3,) or not bool(torch.isfinite(values).all()):
        raise InputError(f"its origin is {origin!r}, not three numbers.")
    return values


def _config(options: Mapping[str, Any]) -> MapConfig:
    """The options, all of them and of their types."""
    wanted = asdict(MapConfig())
    if options.keys() != wanted.keys():
        raise InputError(f"its options are {', '.join(options)}.")
    for name, usual in wanted.items():
        if type(options[name]) is not type(usual) and not (
            isinstance(usual, float) and type(options[name]) is int
        ):
            raise InputError(f"{name} is {options[name]!r}.")
    return MapConfig(**options)


def _anchors(rows: Mapping[str, Any]) -> dict[str, list[float]]:
    found = {str(name): [float(value) for value in pose] for name, pose in rows.items()}
    if not found or not all(len(p) == 7 and np.isfinite(p).all() for p in found.values()):
        raise InputError("its anchors are not poses.")
    return found


def _fault(map: FeatureMap, arrays: Mapping[str, Tensor]) -> str:
    """What is wrong with the arrays of a map; nothing where they fit together."""
    for name, (kind, axes) in _ARRAYS.items():
        if arrays[name].dtype != kind or arrays[name].dim() != axes:
            return f"{name} is {arrays[name].dtype} with {arrays[name].dim()} axes"
    poses, points, images = arrays["poses"], len(map.xyz), len(map.training_images)
    if poses.dtype != torch.float32 or tuple(poses.shape) != (images, 7):
        return f"poses are {poses.dtype} of shape {tuple(poses.shape)}, not float32 ({images}, 7)"
    if not bool(((poses[:, 3:].norm(dim=1) - 1).abs() < _NOT_UNIT).all()):
        return "quaternions of its poses are not unit"
    lengths: dict[str, tuple[Any, Any]] = {
        "points": (len(map.descriptors), points),
        "colours": (tuple(map.rgb.shape), (points, 3)),
        "positions": (tuple(map.xyz.shape), (points, 3)),
        "dimensions": (map.descriptors.shape[1], min(map.config.dimensions, map.basis.shape[0])),
        "tracks": (len(map.track), points),
        "words": (int(map.word_size.sum()), points),
        "word sizes": (len(map.word_size), len(map.words)),
        "words' descriptors": (map.words.shape[1], map.descriptors.shape[1]),
        "the basis": (map.basis.shape[1], map.descriptors.shape[1]),
        "observations": (int(map.track.sum()), len(map.seen_by)),
    }
    for name, (found, wanted) in lengths.items():
        if found != wanted:
            return f"{name}: {found} instead of {wanted}"
    if min(int(map.word_size.min()), int(map.track.min())) < 0:
        return "it counts less than nothing"
    if points and not 0 <= int(map.seen_by.min()) <= int(map.seen_by.max()) < images:
        return "it names images that do not exist"
    finite = all(bool(torch.isfinite(arrays[name]).all()) for name in ("xyz", "basis", "poses"))
    return "" if finite else "numbers are not finite"
