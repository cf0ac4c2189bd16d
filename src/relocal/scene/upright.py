"""Photos that EXIF turns: their pixels, cameras, poses and map points turn together.

A label (camera, pose, keypoints) is either of the pixels as they are stored or of the upright
picture that EXIF asks for. The size of its camera tells which, unless the turn keeps the size.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import SIDEWAYS, exif_orientation, open_photo, photo_sizes
from relocal.pose import Pose
from relocal.scene.scene import Scene

Exif = Literal["stored", "upright"]
"""Which pixels a label is of."""

QUARTER_TURNS = {6: 1, 3: 2, 8: 3}
"""Clockwise turns that make a photo upright, by EXIF orientation; the others also mirror it."""


def exif_reading(image: Image.Image, name: str, camera: Camera, exif: Exif | None) -> Exif | None:
    """Which pixels of a photo its label is of; None where EXIF turns nothing.

    Args:
        image: The photo, opened.
        name: What to call it.
        camera: The camera of its label.
        exif: The answer where the size of the camera leaves it open.

    Raises:
        InputError: If the camera has another size, the answer is not known, or the stored pixels
            are a mirror image, which no camera of ours takes.
    """
    orientation = exif_orientation(image, name)
    stored, upright = photo_sizes(image, name)
    known: dict[Exif, tuple[int, int]] = {"stored": stored, "upright": upright}
    fitting: list[Exif] = [
        kind for kind, size in known.items() if size == (camera.width, camera.height)
    ]
    if orientation == 1 and fitting:
        return None
    if exif is not None and exif not in fitting:
        fitting = []
    if not fitting:
        width, height = known[exif or "upright"]
        how = "" if exif is None else f" (--exif {exif})"
        raise InputError(
            f"{name}: has {width} x {height} pixels{how}, its camera "
            f"{camera.width} x {camera.height}."
        )
    if exif is None and len(fitting) > 1:
        raise InputError(
            f"{name}: by its EXIF it must be turned, and its camera fits before and after. Say "
            "which pixels the labels are of with --exif stored or --exif upright, or turn the "
            "photo's pixels and remove the tag."
        )
    reading = exif or fitting[0]
    if reading == "stored" and orientation not in QUARTER_TURNS:
        raise InputError(
            f"{name}: by its EXIF (orientation {orientation}) its stored pixels are a mirror "
            "image, and its label is of these: no pose is that of a mirrored camera. Mirror its "
            "pixels, label it again and remove the tag."
        )
    return reading


def labelled_size(file: Path, exif: Exif | None) -> tuple[int, int]:
    """Width and height of the pixels that a photo's label is of, where no file says the size.

    Args:
        file: The photo.
        exif: Which pixels those are; needed for a photo that EXIF turns by a quarter.

    Raises:
        InputError: If it is needed and not known.
    """
    with open_photo(file) as image:
        stored, upright = photo_sizes(image, str(file))
        if exif is None and exif_orientation(image, str(file)) in SIDEWAYS:
            raise InputError(
                f"{file}: by its EXIF it must be turned by a quarter, and no file says the size of "
                "its camera. Say which pixels the labels are of with --exif stored or --exif "
                "upright, or turn the photo's pixels and remove the tag."
            )
        return stored if exif == "stored" else upright


def turned(scene: Scene, quarter_turns: Sequence[int]) -> Scene:
    """The scene whose images were turned clockwise about their centre.

    Args:
        scene: Labels of the images as they were.
        quarter_turns: One number an image, 0 to 3.

    Returns:
        The same places seen by cameras that were turned about their optical axis: cameras, poses
        and the pixels of map points follow.
    """
    if not any(quarter_turns):
        return scene
    pairs = list(zip(scene.camera_index.tolist(), quarter_turns, strict=True))
    index = {pair: i for i, pair in enumerate(sorted(set(pairs)))}
    turns = np.array(quarter_turns)
    points = scene.points
    if points is not None:
        points = replace(points, xy=_turned_pixels(scene, turns, points.image_index, points.xy))
    # A camera that turns clockwise with its image is turned about z by the same angle, backwards
    # in its own frame: what was along x is now along y.
    half = torch.tensor(quarter_turns, dtype=torch.float64) * (-torch.pi / 4)
    zero = torch.zeros_like(half)
    quaternion = torch.stack([half.cos(), zero, zero, half.sin()], dim=-1)
    return replace(
        scene,
        cameras=tuple(scene.cameras[camera].turned(turn) for camera, turn in index),
        camera_index=torch.tensor([index[pair] for pair in pairs]),
        poses=(scene.poses @ Pose(torch.zeros(len(scene), 3).double(), quaternion)).canonical(),
        points=points,
    )


def _turned_pixels(
    scene: Scene,
    turns: Int[np.ndarray, " N"],
    image_index: Int[np.ndarray, " M"],
    xy: Float[np.ndarray, "M 2"],
) -> Float[np.ndarray, "M 2"]:
    size = np.array([(camera.width, camera.height) for camera in scene.cameras])
    width, height = size[scene.camera_index.numpy()[image_index]].T
    x, y = xy.T
    where = [(x, y), (height - y, x), (width - x, height - y), (y, width - x)]
    return np.stack([np.stack(pixels, axis=-1) for pixels in where])[
        turns[image_index], np.arange(len(xy))
    ]
