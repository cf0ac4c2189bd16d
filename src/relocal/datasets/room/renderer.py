"""What a camera sees of a room of flat, textured rectangles.

For a rectangle with corner O and edges U, V the pixel (u, v) of the texture coordinates (s, t) is
``z (u, v, 1) = K [U V O] (s, t, 1)``. So the rows of ``inv(K [U V O])`` give s/z, t/z and 1/z, each
affine in the pixel, and visibility follows from them: a pixel is on the rectangle where
0 <= s/z <= 1/z and 0 <= t/z <= 1/z, and the largest 1/z is the nearest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int32, UInt8

from relocal.datasets.room.atlas import Atlas, pack
from relocal.datasets.room.config import Pinhole, RoomConfig
from relocal.datasets.room.layout import Quad, furnish
from relocal.datasets.room.light import flat_shade, illuminate, light_maps
from relocal.datasets.room.textures import TEXELS_PER_M, Image, Paint, flat

NEAR_M = 0.05
_SUPERSAMPLING = 2
_SEAM = 1e-5  # rectangles grow by this much (in s/z and t/z), so that no ray slips between two


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """Rectangles with their textures, ready to be looked at."""

    quads: tuple[Quad, ...]
    """Where each is."""
    edges: Float64[np.ndarray, "Q 3 3"]
    """The columns are U, V and O of each quad: (s, t, 1) to world, metres."""
    atlas: Atlas
    """The texture of each quad, light and shadow included."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surfaces:
    """What each pixel's centre sees, before colour."""

    quad: Int32[np.ndarray, "H W"]
    """Index of the quad, -1 where there is none."""
    inverse_depth: Float32[np.ndarray, "H W"]
    """1/z in 1/m, 0 where there is nothing."""
    s: Float32[np.ndarray, "H W"]
    """Texture coordinate to the right, 0 to 1."""
    t: Float32[np.ndarray, "H W"]
    """Texture coordinate downwards, 0 to 1."""
    lod: Float32[np.ndarray, "H W"]
    """Logarithm to base 2 of the texels per pixel (the root of the area)."""


def build_room(config: RoomConfig) -> Room:
    """Furnishes, paints and lights the room; takes a second or two."""
    quads = furnish()
    if config.textureless:
        shades = [flat_shade(quad) for quad in quads]
        paints: list[Paint] = [flat] * len(quads)
    else:
        shades = light_maps(quads)
        paints = [quad.paint for quad in quads]
    textures: list[Image] = []
    for index, quad in enumerate(quads):
        width, height = (max(4, round(size * TEXELS_PER_M)) for size in quad.size_m)
        paint = paints[index](config.rng("paint", index), height, width)
        textures.append(illuminate(paint, shades[index]))
    return assemble(quads, textures)


def assemble(quads: Sequence[Quad], textures: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> Room:
    """A room of any rectangles, each with its texture, which is stretched over it."""
    edges = np.stack([np.stack([q.right, q.down, q.corner], axis=1) for q in quads])
    return Room(quads=tuple(quads), edges=edges, atlas=pack(textures))


def render(
    room: Room, world_from_cam: Float[np.ndarray, "4 4"], camera: Pinhole
) -> tuple[UInt8[np.ndarray, "H W 3"], Float32[np.ndarray, "H W"]]:
    """Takes a photo.

    Args:
        room: The room.
        world_from_cam: Pose of the camera, OpenCV axes, metres.
        camera: Its intrinsics; the centre of the top-left pixel is (0.5, 0.5).

    Returns:
        The image, RGB, and the z-depth at the pixels' centres in metres, infinite where there is
        nothing.
    """
    with np.errstate(divide="ignore"):
        depth = 1 / see(room, world_from_cam, camera).inverse_depth
    return photograph(room, world_from_cam, camera), depth


def photograph(
    room: Room, world_from_cam: Float[np.ndarray, "4 4"], camera: Pinhole
) -> UInt8[np.ndarray, "H W 3"]:
    """The image alone, RGB: four samples to the pixel, each from the mip levels that fit it."""
    n = _SUPERSAMPLING
    fine = replace(
        camera,
        width_px=n * camera.width_px,
        height_px=n * camera.height_px,
        fx_px=n * camera.fx_px,
        fy_px=n * camera.fy_px,
        cx_px=n * camera.cx_px,
        cy_px=n * camera.cy_px,
    )
    seen = see(room, world_from_cam, fine)
    image = room.atlas.sample(np.maximum(seen.quad, 0), seen.s, seen.t, seen.lod)
    image[seen.quad < 0] = 0
    return cv2.resize(image, (camera.width_px, camera.height_px), interpolation=cv2.INTER_AREA)


def see(room: Room, world_from_cam: Float[np.ndarray, "4 4"], camera: Pinhole) -> Surfaces:
    """Finds the nearest quad at the centre of every pixel, by a z-buffer."""
    rotation, position = world_from_cam[:3, :3], world_from_cam[:3, 3]
    edges = room.edges.copy()
    edges[:, :, 2] -= position
    edges = rotation.T @ edges  # in the camera's frame
    # A triple product: positive where the camera stands on the side that the quad is seen from.
    facing = np.linalg.det(edges) > 0
    boxes = _pixel_boxes(edges, camera)
    order = np.flatnonzero(facing & (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3]))

    affine = np.zeros_like(edges)
    affine[order] = np.linalg.inv(camera.matrix @ edges[order])
    planes = np.zeros((3, camera.height_px, camera.width_px), np.float32)
    quad = np.full(planes.shape[1:], -1, np.int32)
    for index in order:
        x0, y0, x1, y1 = boxes[index].tolist()
        here = planes[:, y0:y1, x0:x1]
        s, t, w = there = _evaluate(affine[index], x0, y0, x1, y1)
        end = w + _SEAM
        hit = (s >= -_SEAM) & (t >= -_SEAM) & (s <= end) & (t <= end) & (w > here[2])
        np.copyto(here, there, where=hit)
        np.copyto(quad[y0:y1, x0:x1], index, where=hit)
    return _surfaces(room, affine, planes, quad)


def _evaluate(
    affine: Float64[np.ndarray, "3 3"], x0: int, y0: int, x1: int, y1: int
) -> Float32[np.ndarray, "3 h w"]:
    """The three affine functions at the pixel centres of a box."""
    u, v = np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5
    along_row = np.outer(affine[:, 0], u).astype(np.float32)
    along_column = (np.outer(affine[:, 1], v) + affine[:, 2:]).astype(np.float32)
    return along_column[:, :, None] + along_row[:, None, :]


def _surfaces(
    room: Room,
    affine: Float64[np.ndarray, "Q 3 3"],
    planes: Float32[np.ndarray, "3 H W"],
    quad: Int32[np.ndarray, "H W"],
) -> Surfaces:
    depth = 1 / np.maximum(planes[2], np.float32(1e-6))
    # The Jacobian of (s, t) by the pixel has the determinant det(affine) z^3.
    texels = room.atlas.texels * np.abs(np.linalg.det(affine))
    base = (0.5 * np.log2(np.maximum(texels, 1e-30))).astype(np.float32)
    return Surfaces(
        quad=quad,
        inverse_depth=planes[2],
        s=planes[0] * depth,
        t=planes[1] * depth,
        lod=base[quad] + np.float32(1.5) * np.log2(depth),
    )


def _pixel_boxes(edges: Float64[np.ndarray, "Q 3 3"], camera: Pinhole) -> Int[np.ndarray, "Q 4"]:
    """Pixels x0, y0 to x1, y1 (exclusive) that hold each quad; empty for one that is not in view.

    Corners behind the near plane are replaced by where the edges cross it.
    """
    right, down, corner = (edges[:, :, k] for k in range(3))
    corners = np.stack([corner, corner + right, corner + right + down, corner + down], axis=1)
    z = corners[..., 2]
    following = np.roll(corners, -1, axis=1)
    in_front = z >= NEAR_M
    crosses = in_front != np.roll(in_front, -1, axis=1)
    share = (NEAR_M - z) / np.where(crosses, following[..., 2] - z, 1)
    cuts = corners + share[..., None] * (following - corners)
    outline, drawn = np.concatenate([corners, cuts], 1), np.concatenate([in_front, crosses], 1)

    pixels = outline @ camera.matrix.T
    pixels = pixels[..., :2] / np.where(drawn, pixels[..., 2], 1)[..., None]
    lowest = np.where(drawn[..., None], pixels, np.inf).min(1)
    highest = np.where(drawn[..., None], pixels, -np.inf).max(1)
    size = np.array([camera.width_px, camera.height_px])
    # One pixel of margin: quads grow by _SEAM.
    start, end = np.clip(lowest - 1, 0, size), np.clip(highest + 1, 0, size)
    return np.concatenate([np.floor(start), np.ceil(end)], axis=1).astype(np.int64)
