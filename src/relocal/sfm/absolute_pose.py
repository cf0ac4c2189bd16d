"""The pose of one image from points of the world and where it sees them (PnP), by pycolmap."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from relocal.camera import Camera
from relocal.pose import Pose

LEAST_POINTS = 4
_ITERATIONS = (100, 10_000)


@dataclass(frozen=True)
class PnP:
    """A pose and what supports it."""

    pose: Pose
    """``world_from_cam``, batch shape (), float64."""
    inliers: Bool[np.ndarray, " n"]
    """Which points it agrees with."""


def solve_pose(
    points: Float[np.ndarray, "n 3"],
    pixels: Float[np.ndarray, "n 2"],
    camera: Camera,
    error_px: float,
) -> PnP | None:
    """The pose that most points agree with: LO-RANSAC over P3P, refined on its inliers.

    Args:
        points: Points in the world.
        pixels: Where the image sees them; some of them wrong.
        camera: Its camera.
        error_px: Largest reprojection error of an inlier.

    Returns:
        None where no pose has four inliers.
    """
    import pycolmap

    if len(points) < LEAST_POINTS:
        return None
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = error_px
    options.ransac.min_num_trials, options.ransac.max_num_trials = _ITERATIONS
    options.ransac.random_seed = 0
    found = pycolmap.estimate_and_refine_absolute_pose(pixels, points, _colmap(camera), options)
    if found is None or found["num_inliers"] < LEAST_POINTS:
        return None
    return PnP(_pose(found["cam_from_world"]), np.asarray(found["inlier_mask"], bool))


def refine_pose(
    pose: Pose,
    points: Float[np.ndarray, "n 3"],
    pixels: Float[np.ndarray, "n 2"],
    camera: Camera,
) -> Pose | None:
    """The pose with the least robust reprojection error (Cauchy), from one that is near.

    Returns:
        None where it does not converge.
    """
    import pycolmap

    if len(points) < LEAST_POINTS:
        return None
    options = pycolmap.AbsolutePoseRefinementOptions()
    start = pycolmap.Rigid3d(pose.inverse().matrix()[:3].numpy())
    every = np.ones(len(points), bool)
    found = pycolmap.refine_absolute_pose(start, pixels, points, every, _colmap(camera), options)
    return None if found is None else _pose(found["cam_from_world"])


def fitted_focal(
    pose: Pose,
    points: Float[np.ndarray, "n 3"],
    pixels: Float[np.ndarray, "n 2"],
    camera: Camera,
) -> float:
    """The focal length that fits points best, as a factor of the camera's own.

    Args:
        pose: Where the camera about is, ``world_from_cam``.
        points: Points in the world.
        pixels: Where the image sees them.
        camera: The camera.
    """
    import pycolmap

    options = pycolmap.AbsolutePoseRefinementOptions()
    options.refine_focal_length = True
    fitted = _colmap(camera)
    start = pycolmap.Rigid3d(pose.inverse().matrix()[:3].numpy())
    pycolmap.refine_absolute_pose(
        start, pixels, points, np.ones(len(points), bool), fitted, options
    )
    return float(fitted.mean_focal_length() / camera.focal.mean())


def _colmap(camera: Camera) -> Any:
    import pycolmap

    return pycolmap.Camera(
        model=camera.model,
        width=camera.width,
        height=camera.height,
        params=camera.params.double().numpy(),
    )


def _pose(rigid: Any) -> Pose:
    x, y, z, w = rigid.rotation.quat.tolist()
    quaternion = torch.tensor([w, x, y, z], dtype=torch.float64)
    return Pose.from_colmap(
        quaternion, torch.tensor(rigid.translation.tolist()).double()
    ).canonical()
