"""Photos that are smaller than their cameras say, as datasets have them beside the full ones."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from relocal.camera import Camera
from relocal.datasets.photos import has_photo
from relocal.images import open_photo, photo_sizes
from relocal.notices import Notice
from relocal.scene import Scene

SMALLER_FOLDERS = ("images_2", "images_4", "images_8")
"""As mip-NeRF 360 and nerfstudio name them."""
_MOST_SMALLER = 16
_FOLDER = re.compile(r"(^|[\\/])images(?=[\\/])")


def smaller_folder(
    root: Path, listed: Sequence[str], where: str, suffixes: Sequence[str]
) -> str | None:
    """The folder of smaller photos that stands in for ``images``; None where that is there.

    Args:
        root: The folder of both.
        listed: Names of photos as a file lists them.
        where: That file.
        suffixes: What names may lack at their ends.
    """
    if (root / "images").exists():
        return None
    for folder in SMALLER_FOLDERS:
        names = [in_folder(name, folder) for name in listed]
        if (root / folder).is_dir() and has_photo(root, names, where, suffixes):
            return folder
    return None


def in_folder(name: str, folder: str) -> str:
    """A photo's name, its last folder ``images`` put for another."""
    ends = [match.end() for match in _FOLDER.finditer(name)]
    return f"{name[: ends[-1] - len('images')]}{folder}{name[ends[-1] :]}" if ends else name


def scaled_to_photos(scene: Scene) -> tuple[Scene, tuple[Notice, ...]]:
    """The scene with cameras scaled to photos that are smaller by a whole number.

    Sizes are rounded when photos are made smaller: 4946 x 3286 pixels by four are 1237 x 822.
    Photos that are as large as their camera, or of another shape, stay as they are.

    Args:
        scene: A scene, its photos anywhere.
    """
    full = [_size(camera) for camera in scene.cameras]
    number = scene.camera_index.tolist()
    pairs = [(k, _size_of(scene.path(i), full[k])) for i, k in enumerate(number)]
    smaller = [size != full[k] for k, size in pairs]
    if not any(smaller):
        return scene, ()
    index = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
    points = scene.points
    if points is not None:
        ratio = np.array([np.divide(size, full[k]) for k, size in pairs])
        points = replace(points, xy=points.xy * ratio[points.image_index])
    folder = scene.image_root
    k, (width, height) = pairs[smaller.index(True)]
    text = (
        f"{folder}: {sum(smaller)} of {len(scene)} photos are smaller than their cameras, "
        f"{width} x {height} for {full[k][0]} x {full[k][1]} pixels; the cameras are scaled."
    )
    scaled = replace(
        scene,
        cameras=tuple(scene.cameras[k].resized(*size) for k, size in index),
        camera_index=torch.tensor([index[pair] for pair in pairs]),
        points=points,
        provenance={
            **scene.provenance,
            "intrinsics": f"{scene.provenance['intrinsics']}, scaled to the photos of "
            f"{folder.name}",
        },
    )
    return scaled, (Notice("photos-smaller", text),)


def _size(camera: Camera) -> tuple[int, int]:
    return camera.width, camera.height


def _size_of(file: Path, full: tuple[int, int]) -> tuple[int, int]:
    """The size of a photo that is its camera's size over a whole number; else the camera's own."""
    with open_photo(file) as image:
        sizes = photo_sizes(image, str(file))
    if full in sizes:
        return full
    factors = range(2, _MOST_SMALLER + 1)
    fitting = (size for size in sizes if any(_is_over(size, full, times) for times in factors))
    return next(fitting, full)


def _is_over(size: tuple[int, int], full: tuple[int, int], times: int) -> bool:
    """Whether one size is the other over a number, rounded up or down."""
    return all(abs(side - whole / times) < 1 for side, whole in zip(size, full, strict=True))
