"""Map points of known poses from any local features: matches that the poses allow, triangulated."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relocal.camera import Camera
from relocal.features import Keypoints, restored
from relocal.local_frame import LocalFrame
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.sfm.consistency import Rays, check_matches, sample_pairs, verified
from relocal.sfm.database import Progress, begin_database
from relocal.sfm.triangulation import points_from_poses

LEAST_TRACK = 3  # images that see a point: two agree on a wrong match as on a right one
_CHECKED_PAIRS, _CLEAR = 60, 0.8

_STEP = 1e-4  # of a ray at z = 1, for a derivative

Rows = Int[Tensor, "_ 2"]
"""Matches of two images: the rows of the keypoints in each."""


@dataclass(frozen=True)
class Tracks:
    """Map points, and which keypoints see them."""

    xyz: Float[np.ndarray, "P 3"]
    """Positions in the world."""
    point: Int[np.ndarray, " n"]
    """For each observation, the point; ascending."""
    image: Int[np.ndarray, " n"]
    """For each observation, the image."""
    keypoint: Int[np.ndarray, " n"]
    """For each observation, the keypoint of the image."""


def mutual_matches(
    one: Float[Tensor, "n D"], other: Float[Tensor, "m D"], ratio: float = 1.0
) -> Rows:
    """Pairs of unit descriptors that are each other's nearest.

    Args:
        one: Descriptors of one image.
        other: Descriptors of the other.
        ratio: A match must be this much nearer than the second nearest in the other image (Lowe
            2004); 1 asks for nothing.
    """
    if len(one) < 2 or len(other) < 2:
        return torch.zeros(0, 2, dtype=torch.long)
    alike = one @ other.T
    best, second = alike.topk(2, dim=1).values.unbind(1)
    forth, back = alike.argmax(1), alike.argmax(0)
    rows = torch.arange(len(one))
    # Of unit vectors, the squared distance is 2 - 2 a.b.
    clear = (1 - best).clamp(min=0) <= ratio**2 * (1 - second).clamp(min=0)
    kept = (back[forth] == rows) & clear
    return torch.stack([rows[kept], forth[kept]], dim=1)


def epipolar_error_px(
    pixels: tuple[Float[Tensor, "m 2"], Float[Tensor, "m 2"]],
    cameras: tuple[Camera, Camera],
    poses: tuple[Pose, Pose],
) -> Float[Tensor, " m"]:
    """How far matches are from what two poses allow: Sampson's distance, in pixels."""
    rays = [c.unproject(x.double()) for c, x in zip(cameras, pixels, strict=True)]
    other_from_one = poses[1].inverse() @ poses[0]
    x, y, z = other_from_one.position.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    essential = cross @ other_from_one.rotation
    line, back = rays[0] @ essential.T, rays[1] @ essential
    value = (rays[1] * line).sum(1).abs()
    slope = _steepness(cameras[1], rays[1], line) + _steepness(cameras[0], rays[0], back)
    return value / slope.sqrt().clamp(min=1e-12)


def _steepness(
    camera: Camera, rays: Float[Tensor, "m 3"], line: Float[Tensor, "m 3"]
) -> Float[Tensor, " m"]:
    """How fast a line's equation changes with the pixel, squared: what is 1 px off is that far off.

    A wide lens spreads its border over few pixels, so that rays there move by more for each.
    """
    if not camera.has_distortion:
        return (line[:, :2].norm(dim=1) / camera.focal.mean()).square()
    right, down = (_STEP * torch.eye(3, dtype=rays.dtype)[i] for i in (0, 1))
    columns = [
        (camera.project(rays + step)[0] - camera.project(rays - step)[0]) / (2 * _STEP)
        for step in (right, down)
    ]
    # With J the pixels' change with the ray: the gradient g by the pixel solves Jᵀ g = line.
    (a, c), (b, d) = (column.unbind(1) for column in columns)
    x, y, _ = line.unbind(1)
    gradient = torch.stack([d * x - c * y, a * y - b * x]) / (a * d - b * c)
    return gradient.square().sum(0)


def check_keypoints(
    place: Path | str, scene: Scene, keypoints: Sequence[Keypoints], pairs: Int[np.ndarray, "p 2"]
) -> float | None:
    """Refuses poses that contradict what the images show; arguments as ``match_known_poses``.

    A hundred pairs say it, matched and verified without the poses: a second or three.

    Returns:
        The median share of verified matches that fit; None where too few pairs can tell.

    Raises:
        InputError: If it is below ``consistency.LEAST_SHARE``.
    """

    def seen() -> Iterator[tuple[int, int, Rays, Rays]]:
        for a, b in sample_pairs(pairs, len(scene), _CHECKED_PAIRS):
            rows = mutual_matches(
                restored(keypoints[a].descriptors), restored(keypoints[b].descriptors), _CLEAR
            )
            one, other = (
                scene.camera(i).unproject(keypoints[i].xy[row].double())
                for i, row in ((a, rows[:, 0]), (b, rows[:, 1]))
            )
            kept = verified(one, other)
            yield a, b, one[kept], other[kept]

    return check_matches(place, scene.poses, seen())


def match_known_poses(
    scene: Scene,
    keypoints: Sequence[Keypoints],
    pairs: Int[np.ndarray, "pairs 2"],
    *,
    ratio: float,
    error_px: float,
    progress: Progress,
) -> dict[tuple[int, int], Rows]:
    """Matches of pairs of images that agree with the poses of these.

    Args:
        scene: The images with their poses and cameras.
        keypoints: Of each image.
        pairs: Images to match.
        ratio: As ``mutual_matches`` takes it.
        error_px: Largest distance from what the poses allow.
        progress: Called with pairs done, pairs in all, and what is being done.
    """
    descriptors = [restored(k.descriptors) for k in keypoints]
    local = LocalFrame.about(scene.poses.position).poses(scene.poses)
    found: dict[tuple[int, int], Rows] = {}
    for done, (a, b) in enumerate(pairs.tolist()):
        rows = mutual_matches(descriptors[a], descriptors[b], ratio)
        pixels = keypoints[a].xy[rows[:, 0]], keypoints[b].xy[rows[:, 1]]
        cameras, poses = (scene.camera(a), scene.camera(b)), (local[a], local[b])
        found[a, b] = rows[epipolar_error_px(pixels, cameras, poses) <= error_px]
        progress(done + 1, len(pairs), "matching")
    return found


def tracks_from_poses(
    scene: Scene,
    keypoints: Sequence[Keypoints],
    matches: Mapping[tuple[int, int], Rows],
    error_px: float,
    work: Path,
) -> Tracks:
    """Triangulates matches with the poses as they are, by COLMAP.

    Args:
        scene: Images under names that are numbers, with their poses and cameras.
        keypoints: Of each image.
        matches: By pair of images.
        error_px: Largest reprojection error of an observation that is kept.
        work: Where to write what COLMAP reads.
    """
    import pycolmap

    pycolmap.logging.minloglevel = 2  # it tells of every image
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        own, made = Path(temporary) / "own.db", Path(temporary) / "made"
        made.mkdir()
        begin_database(scene, own)
        with pycolmap.Database.open(own) as content:
            for i, found in enumerate(keypoints):
                content.write_keypoints(i + 1, found.xy.numpy().astype(np.float32))
            for (a, b), rows in matches.items():
                geometry = pycolmap.TwoViewGeometry()
                geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
                geometry.inlier_matches = rows.numpy().astype(np.uint32)
                content.write_two_view_geometry(a + 1, b + 1, geometry)
        frame = LocalFrame.about(scene.poses.position)
        model = points_from_poses(scene, frame, own, made, error_px)
    return _tracks(model, frame)


def _tracks(model: Any, frame: LocalFrame) -> Tracks:
    trusted = [p for p, point in model.points3D.items() if point.track.length() >= LEAST_TRACK]
    number = {p: i for i, p in enumerate(sorted(trusted))}
    points = [model.points3D[p] for p in number]
    rows = [
        (number[p], element.image_id - 1, element.point2D_idx)
        for p, point in zip(number, points, strict=True)
        for element in point.track.elements
    ]
    observed = np.array(sorted(rows), dtype=np.int64).reshape(-1, 3)
    xyz = torch.from_numpy(np.array([point.xyz for point in points]).reshape(-1, 3))
    return Tracks(frame.world_points(xyz).numpy(), *observed.T)
