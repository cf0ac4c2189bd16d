"""Map points on the surfaces of the room, and which of them a frame sees."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, UInt8

from relocal.datasets.room.config import Pinhole
from relocal.datasets.room.renderer import Room, Surfaces


@dataclass(frozen=True, kw_only=True, eq=False)
class Landmarks:
    """Points spread evenly over the surfaces."""

    xyz: Float64[np.ndarray, "P 3"]
    """World, metres."""
    rgb: UInt8[np.ndarray, "P 3"]
    """Colour of the surface there."""
    quad: Int[np.ndarray, " P"]
    """Index of the quad that each lies on."""


def scatter(room: Room, count: int, rng: np.random.Generator) -> Landmarks:
    """Draws points, as many to the square metre everywhere."""
    areas = np.array([np.prod(quad.size_m) for quad in room.quads])
    quad = rng.choice(len(areas), size=count, p=areas / areas.sum()).astype(np.int32)
    s, t = rng.random((2, count))
    xyz = np.einsum("pij,pj->pi", room.edges[quad], np.stack([s, t, np.ones(count)], axis=1))
    # The atlas answers images: this one is a column.
    where = [values.astype(np.float32)[:, None] for values in (s, t, np.zeros(count))]
    rgb = room.atlas.sample(quad[:, None], where[0], where[1], lod=where[2])
    return Landmarks(xyz=xyz, rgb=rgb[:, 0], quad=quad)


def visible(
    landmarks: Landmarks,
    seen: Surfaces,
    world_from_cam: Float[np.ndarray, "4 4"],
    camera: Pinhole,
) -> tuple[Int[np.ndarray, " M"], Float64[np.ndarray, "M 2"]]:
    """The indices of the landmarks that a frame sees, and their pixels.

    A landmark is seen when the pixel it falls into shows the surface that it lies on.

    Args:
        landmarks: All of them.
        seen: What the frame sees, at the size of `camera`.
        world_from_cam: Pose of the frame.
        camera: Its intrinsics.
    """
    in_camera = (landmarks.xyz - world_from_cam[:3, 3]) @ world_from_cam[:3, :3]
    ahead = np.flatnonzero(in_camera[:, 2] > 0)
    xy = in_camera[ahead] @ camera.matrix.T
    xy = xy[:, :2] / xy[:, 2:]
    inside = ((xy >= 0) & (xy < [camera.width_px, camera.height_px])).all(1)
    index, xy = ahead[inside], xy[inside]
    column, row = xy.astype(np.int64).T
    shown = seen.quad[row, column] == landmarks.quad[index]
    return index[shown], xy[shown]
