"""How bright each surface is: lamps and a window, with soft shadows, worked out once."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from relocal.datasets.room.layout import LAMPS_M, WINDOW_M, Quad, Vector
from relocal.datasets.room.textures import Image, to_image

_AMBIENT, _LAMP_POWER, _SKY_POWER = 0.52, 1.15, 1.6
_CELL_M = 0.12
_CLEARANCE_M = 0.004  # a surface must not shadow itself


def light_maps(quads: Sequence[Quad]) -> list[Float32[np.ndarray, "h w"]]:
    """The brightness of each quad, on cells of about 12 cm; 1 leaves the paint as it is."""
    grids = [_grid(quad) for quad in quads]
    counts = [grid.shape[0] * grid.shape[1] for grid in grids]
    normals = np.repeat([quad.normal for quad in quads], counts, axis=0)
    points = np.concatenate([grid.reshape(-1, 3) for grid in grids]) + _CLEARANCE_M * normals
    brightness = np.full(len(points), _AMBIENT)
    for source, power in _sources():
        towards = source - points
        distance = np.linalg.norm(towards, axis=1)
        cosine = np.maximum((towards * normals).sum(1) / distance, 0)
        brightness += ~_shadowed(points, source, quads) * power * cosine / (1 + distance**2)
    brightness[np.repeat([quad.shines for quad in quads], counts)] = 1
    maps = np.split(brightness.astype(np.float32), np.cumsum(counts)[:-1])
    return [piece.reshape(grid.shape[:2]) for piece, grid in zip(maps, grids, strict=True)]


def flat_shade(quad: Quad) -> Float32[np.ndarray, "1 1"]:
    """One brightness for a whole quad: Lambert's law for light from above, without shadows."""
    towards_light = np.array([0.35, -0.25, 0.9])
    cosine = quad.normal @ towards_light / np.linalg.norm(towards_light)
    return np.full((1, 1), 0.78 + 0.22 * cosine, np.float32)


def illuminate(paint: Image, brightness: Float32[np.ndarray, "h w"]) -> Image:
    """The paint under a light map, which is stretched over it."""
    height, width = paint.shape[:2]
    smooth = cv2.resize(brightness, (width, height), interpolation=cv2.INTER_LINEAR)
    return to_image(paint * smooth[..., None])


def _sources() -> list[tuple[Vector, float]]:
    """Point lights and their power: several a lamp and window, so that shadows are soft."""
    spots = [np.array([x, y, 0]) for x in (-0.15, 0.15) for y in (-0.15, 0.15)]
    lamps = [(np.array(lamp) + spot, _LAMP_POWER / 4) for lamp in LAMPS_M for spot in spots]
    lower, upper = np.array(WINDOW_M)
    panes = [np.array([0, y, z]) for y in (0.2, 0.5, 0.8) for z in (0.25, 0.75)]
    return [*lamps, *((lower + pane * (upper - lower), _SKY_POWER / 6) for pane in panes)]


def _grid(quad: Quad) -> Float64[np.ndarray, "h w 3"]:
    """The middles of equal cells of a quad."""
    width, height = (max(1, round(size / _CELL_M)) for size in quad.size_m)
    s, t = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return quad.corner + s[..., None] * quad.right + t[..., None] * quad.down


def _shadowed(
    points: Float64[np.ndarray, "N 3"], source: Vector, quads: Sequence[Quad]
) -> Bool[np.ndarray, " N"]:
    """Whether anything stands between each point and the light."""
    shadowed = np.zeros(len(points), bool)
    for quad in quads:
        # In coordinates along its edges and normal a quad is the unit square at height 0.
        to_quad = np.linalg.inv(np.stack([quad.right, quad.down, quad.normal], axis=1))
        start, step = (points - quad.corner) @ to_quad.T, (source - points) @ to_quad.T
        with np.errstate(divide="ignore", invalid="ignore"):
            share = -start[:, 2] / step[:, 2]
            s, t = start[:, 0] + share * step[:, 0], start[:, 1] + share * step[:, 1]
        shadowed |= (share > 0) & (share < 1) & (s > 0) & (s < 1) & (t > 0) & (t < 1)
    return shadowed
