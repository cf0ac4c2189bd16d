"""nerfstudio and instant-ngp: ``transforms.json`` with one OpenGL pose an image.

OpenGL cameras look along -z with y up; ours look along +z with y down. Turning the camera frame
about its x axis by half a turn (columns 1 and 2 negated) goes from one to the other.

Blender's scenes (NeRF) are three such files: ``transforms_train.json``, ``_val`` and ``_test``.
ScanNet++ has a second list in one, ``test_frames``.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relocal.camera import Camera, nerfstudio_camera
from relocal.datasets.nerfstudio_lists import PARTS, Lists, lists_of, split_of
from relocal.datasets.photos import find_photos, none_left
from relocal.datasets.seven_scenes import pose_matrix
from relocal.datasets.smaller import in_folder, scaled_to_photos, smaller_folder
from relocal.errors import InputError, unknown
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.scene.account import LOST, NO_FILE, Account, Tally
from relocal.scene.files import read_json
from relocal.scene.lost import number
from relocal.scene.order import natural_key
from relocal.scene.scene import UNITS
from relocal.scene.upright import Exif, labelled_size

_OTHER_LENSES = ("ftheta", "latlong", "equirectangular", "orthographic")
"""How the fields of instant-ngp begin that say that no camera of ours took the photos."""
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", "")  # as listed last: it may be a folder's name


@dataclass(frozen=True)
class _Frame:
    """An image that a file lists."""

    file: Path
    listed: str
    """Its name in the file."""
    fields: dict[str, Any]
    """What the file says of it, and of all."""


def read_nerfstudio(path: Path, unit: str = "unit", exif: Exif | None = None) -> Scene:
    """Reads a folder with ``transforms.json``, that file, or the three files of Blender's scenes.

    Intrinsics are shared or given by frame, as ``fl_x, fl_y, cx, cy, w, h`` and ``k1, k2, p1,
    p2, k3`` (k1 to k4 of OPENCV_FISHEYE), or as ``camera_angle_x``. Frames are put in the natural
    order of their file names. Photos may be smaller by a whole number, also those of ``images_2``,
    ``images_4`` or ``images_8`` where there is no ``images``. Images that are missing or whose pose
    is none are left out; the account counts them.

    The file's own lists split the scene. Validation images are the test split where there is no
    list of test images, and in neither split where there is one. Images of no list train where the
    file lists only what it holds out, and else are in neither.

    Args:
        path: The folder or its ``transforms.json``.
        unit: ``"m"`` if the file's scale is metric, which the format does not say.
        exif: Which pixels the labels of photos that EXIF turns by a quarter are of, where
            the file has no w and h.

    Raises:
        InputError: If the file is damaged, a pose is no pose, or no image is left.
    """
    if unit not in UNITS:
        raise unknown("--unit", unit, UNITS)
    frames, lists, place = _read(path)
    root = place.parent
    every = [frame.listed for frame in frames]
    if (folder := smaller_folder(root, every, str(place), _SUFFIXES)) is not None:
        frames = [replace(frame, listed=in_folder(frame.listed, folder)) for frame in frames]
        lists = {part: [in_folder(name, folder) for name in names] for part, names in lists.items()}
    found = find_photos(root, [frame.listed for frame in frames], str(place), _SUFFIXES)
    own = dict(enumerate(found.names))
    order = sorted(own, key=lambda i: natural_key(own[i] or frames[i].listed))
    poses = {i: _world_from_cam(frames[i]) for i in order if own[i] is not None}
    left = {
        NO_FILE: [frames[i].listed for i in order if own[i] is None],
        LOST: [frames[i].listed for i, pose in poses.items() if pose is None],
    }
    matrices = {i: pose for i, pose in poses.items() if pose is not None}
    if not matrices:
        raise none_left(place, len(frames), left)
    names = [own[i] or "" for i in matrices]
    cameras = [_camera(frames[i], root / n, exif) for i, n in zip(matrices, names, strict=True)]
    rows = [(c.model, c.width, c.height, *c.params.tolist()) for c in cameras]
    index = {row: i for i, row in enumerate(dict.fromkeys(rows))}
    named = list(dict.fromkeys(name for part in lists.values() for name in part))
    photos = dict(zip(named, find_photos(root, named, str(place), _SUFFIXES).names, strict=True))
    frame_names = list(zip((frame.listed for frame in frames), found.names, strict=True))
    called = "transforms_{}.json" if "*" in place.name else "{}_filenames"
    splits, notices = split_of(lists, frame_names, photos, str(place), called)
    scene = Scene(
        name=root.resolve().name,
        unit=unit,
        image_root=root,
        images=tuple(names),
        cameras=tuple(dict(zip(rows, cameras, strict=True)).values()),
        camera_index=torch.tensor([index[row] for row in rows]),
        poses=Pose.from_matrix(torch.from_numpy(np.stack(list(matrices.values())))),
        splits={
            split: tuple(own[i] or "" for i in members if i in matrices)
            for split, members in splits.items()
        },
        provenance={
            "reader": "nerfstudio",
            "labels": place.name,
            "intrinsics": place.name,
            "listed_images": len(frames),
            "missing_images": left[NO_FILE],
        },
    )
    scene, smaller = scaled_to_photos(scene)
    tally = Tally.of(len(frames), len(names), left)
    account = Account(images=tally, notices=(*found.notices, *smaller, *notices))
    return replace(scene, account=account)


def _read(path: Path) -> tuple[list[_Frame], Lists, Path]:
    """The frames, the lists that split them, and the file; its name has a * where it is several."""
    file = path / "transforms.json" if path.is_dir() else path
    blender = {part: path / f"transforms_{part}.json" for part in PARTS}
    if file.is_file() or not any(one.is_file() for one in blender.values()):
        content = _read_file(file)
        frames = _frames_of(file, content)
        lists = lists_of(file, content)
        if content.get("test_frames"):
            tested = _frames_of(file, content, "test_frames")
            own = {"train": [frame.listed for frame in frames], "test": list[str]()}
            lists = {**(lists or own)}
            lists["test"] = [*lists.get("test", ()), *(frame.listed for frame in tested)]
            frames = _merged(frames + tested)
        if not frames:
            raise InputError(f"{file}: has no list of frames.")
        return frames, lists, file
    every = {
        part: _frames_of(one, _read_file(one)) for part, one in blender.items() if one.is_file()
    }
    place = path / "transforms_*.json"
    frames = _merged([frame for own in every.values() for frame in own])
    if not frames:
        raise InputError(f"{place}: have no frames.")
    return frames, {p: [frame.listed for frame in own] for p, own in every.items() if own}, place


def _merged(frames: list[_Frame]) -> list[_Frame]:
    """Frames of several lists, those of one name once.

    Raises:
        InputError: If one has two poses.
    """
    found: dict[str, _Frame] = {}
    for frame in frames:
        same = found.setdefault(frame.listed, frame)
        if same.fields["transform_matrix"] != frame.fields["transform_matrix"]:
            raise InputError(
                f"{frame.file}: {frame.listed} has another pose than in {same.file.name}."
            )
    return list(found.values())


def _read_file(file: Path) -> dict[str, Any]:
    if not file.is_file():
        others = ", ".join(f"transforms_{part}.json" for part in PARTS)
        raise InputError(
            f"{file}: there is no such file, nor {others} beside it; is this a nerfstudio folder?"
        )
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: has no list of frames.")
    return content


def _frames_of(file: Path, content: dict[str, Any], key: str = "frames") -> list[_Frame]:
    frames = content.get(key)
    if not isinstance(frames, list):
        raise InputError(f"{file}: has no list of {key}.")
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict) or not {"file_path", "transform_matrix"} <= frame.keys():
            raise InputError(f"{file}: {key[:-1]} {i} has no file_path and transform_matrix.")
    return [_Frame(file, str(f["file_path"]), {**content, **f}) for f in frames]


def _camera(frame: _Frame, photo: Path, exif: Exif | None) -> Camera:
    """The camera of a frame; where the file does not say the size of its photo, that tells it."""
    fields = frame.fields
    strange = [key for key in fields if fields[key] and key.startswith(_OTHER_LENSES)]
    if strange:
        raise InputError(
            f"{frame.file}: {frame.listed} has {', '.join(strange)}, a lens that is not supported; "
            "make the photos those of a pinhole or a fisheye first."
        )
    if not {"w", "h"} <= fields.keys():
        width, height = labelled_size(photo, exif)
        fields = {**fields, "w": width, "h": height}
    return nerfstudio_camera(fields, f"{frame.file}: {frame.listed}")


def _world_from_cam(frame: _Frame) -> np.ndarray | None:
    """The pose with our axes; None where the file says that there is none."""
    where = f"{frame.file}: {frame.listed}"
    try:
        opengl = np.array(_numbers(frame.fields["transform_matrix"] or []), dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{where}: transform_matrix is not 4 x 4 numbers.") from error
    if opengl.shape == (3, 4):
        opengl = np.vstack([opengl, [0, 0, 0, 1]])
    matrix = pose_matrix(opengl, where)
    return None if matrix is None else matrix * np.array([1, -1, -1, 1])


def _numbers(value: Any) -> Any:
    """Numbers that stand there as text, too."""
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return number(value) if isinstance(value, str) else value
