"""All textures in one image, each at every mip level, so that one remap paints a whole frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

_WIDTH_PX = 8192
_BORDER_PX = 1  # what a bilinear sample at the very edge reaches for


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """Textures and their smaller copies, side by side."""

    image: UInt8[np.ndarray, "Y X 3"]
    tiles: Float32[np.ndarray, "4 QL"]
    """Of each texture, and each level of it: where it starts (x, y), its width and height, texels.

    The start counts as cv2.remap does, the centre of the first texel being (0, 0). Textures with
    fewer levels repeat their last one.
    """
    levels: int
    """How many mip levels a texture has."""
    texels: Float64[np.ndarray, " Q"]
    """Texels of each texture at its finest level."""

    def sample(
        self,
        texture: Int32[np.ndarray, "H W"],
        s: Float32[np.ndarray, "H W"],
        t: Float32[np.ndarray, "H W"],
        lod: Float32[np.ndarray, "H W"],
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Trilinear lookup.

        Args:
            texture: Which texture.
            s: Where in it, to the right, 0 to 1.
            t: Where in it, downwards, 0 to 1.
            lod: Which level, 0 the finest; in between, the two nearest are blended.
        """
        lod = np.clip(lod, 0, self.levels - 1.001)
        finer = np.floor(lod)
        blend = lod - finer
        tile = texture * self.levels + finer.astype(np.int32)
        near, far = self._bilinear(tile, s, t), self._bilinear(tile + 1, s, t)
        return cv2.blendLinear(near, far, 1 - blend, blend)

    def _bilinear(
        self,
        tile: Int32[np.ndarray, "H W"],
        s: Float32[np.ndarray, "H W"],
        t: Float32[np.ndarray, "H W"],
    ) -> UInt8[np.ndarray, "H W 3"]:
        x, y, width, height = np.take(self.tiles, tile, axis=1)
        return cv2.remap(self.image, x + s * width, y + t * height, cv2.INTER_LINEAR)


def pack(textures: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> Atlas:
    """Makes the mip levels and lays them out in rows of falling height."""
    pyramids = [_pyramid(texture) for texture in textures]
    levels = max(map(len, pyramids))
    images = [p[min(level, len(p) - 1)] for p in pyramids for level in range(levels)]
    starts, height = _rows([image.shape[:2] for image in images])
    atlas = np.zeros((height, _WIDTH_PX, 3), np.uint8)
    tiles = np.empty((4, len(images)), np.float32)
    b = _BORDER_PX
    for index, (image, (x, y)) in enumerate(zip(images, starts, strict=True)):
        h, w = image.shape[:2]
        padded = cv2.copyMakeBorder(image, b, b, b, b, cv2.BORDER_REPLICATE)
        atlas[y : y + h + 2 * b, x : x + w + 2 * b] = padded
        tiles[:, index] = x + b - 0.5, y + b - 0.5, w, h
    return Atlas(
        image=atlas,
        tiles=tiles,
        levels=levels,
        texels=np.array([p[0].shape[0] * p[0].shape[1] for p in pyramids], np.float64),
    )


def _pyramid(texture: UInt8[np.ndarray, "h w 3"]) -> list[np.ndarray]:
    """The texture, then each time half of it by area averages, down to one texel."""
    pyramid = [texture]
    while max(pyramid[-1].shape[:2]) > 1:
        height, width = (max(1, side // 2) for side in pyramid[-1].shape[:2])
        half = cv2.resize(pyramid[-1], (width, height), interpolation=cv2.INTER_AREA)
        pyramid.append(half)
    return pyramid


def _rows(sizes: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, int]], int]:
    """Where (x, y) each bordered image of a size (height, width) goes, and the height of all."""
    starts = [(0, 0)] * len(sizes)
    x = y = row_height = 0
    for index in sorted(range(len(sizes)), key=lambda i: sizes[i], reverse=True):
        height, width = (side + 2 * _BORDER_PX for side in sizes[index])
        if x + width > _WIDTH_PX:
            x, y, row_height = 0, y + row_height, 0
        starts[index] = (x, y)
        x, row_height = x + width, max(row_height, height)
    return starts, y + row_height
