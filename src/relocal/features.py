"""Local features: points of a photo that other photos of the same thing have, too.

An entry of ``FEATURES`` takes a grey image and gives keypoints with descriptors of unit length, in
256 steps so that a map of them stays small. The map and the photos that are localized in it use
the same entry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from relocal.errors import unknown

_STEPS = 512.0  # of a unit: RootSIFT's values seldom exceed a half
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV and Pillow


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of an image."""

    xy: Float[Tensor, "n 2"]
    """Pixels, the centre of the top-left one at (0.5, 0.5)."""
    size: Float[Tensor, " n"]
    """How far about it a keypoint's descriptor looks, in pixels: coarse ones are less exact."""
    descriptors: UInt8[Tensor, "n D"]
    """Their descriptors, as ``quantised`` made them."""

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


def restored(values: UInt8[Tensor, "n D"]) -> Float[Tensor, "n D"]:
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


FEATURES: dict[str, Extract] = {
    "sift": sift,
}


def extractor(name: str) -> Extract:
    """An entry of ``FEATURES``.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in FEATURES:
        raise unknown("--features", name, FEATURES)
    return FEATURES[name]
