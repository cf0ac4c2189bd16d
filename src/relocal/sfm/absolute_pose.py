"""The pose of one image from points of the world and where it sees them (PnP), by pycolmap.

All of it is done in a frame about the points, whose unit is of the size of what is seen: pycolmap
stops where the gradient falls below a number of square pixels per unit of length, so that in a
world in millimetres it would stop early, and far from a world's origin digits would be lost.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relocal.camera import Camera
from relocal.local_frame import LocalFrame
from relocal.pose import (
    Pose,
    quaternion_conjugate,
    quaternion_exp,
    quaternion_multiply,
    quaternion_rotate,
)

LEAST_POINTS = 4
_ITERATIONS = (100, 10_000)
_STEP = 1e-5  # of the median depth, and of a radian
_AXES = torch.eye(6, dtype=torch.float64)
_SINGULAR = 1e-10  # ratio of eigenvalues below which a direction is not determined


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

    # COLMAP folds the rays of a fisheye lens beyond 90° to the front, so that they mislead it.
    reached = camera.unproject(torch.from_numpy(pixels)).isfinite().all(-1).numpy()
    if reached.sum() < LEAST_POINTS:
        return None
    if not reached.all():
        found = solve_pose(points[reached], pixels[reached], camera, error_px)
        return None if found is None else PnP(found.pose, _scattered(found.inliers, reached))
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = error_px
    options.ransac.min_num_trials, options.ransac.max_num_trials = _ITERATIONS
    options.ransac.random_seed = 0
    world = torch.from_numpy(points)
    frame = LocalFrame.about(world)
    found = pycolmap.estimate_and_refine_absolute_pose(
        pixels, frame.points(world).numpy(), _colmap(camera), options
    )
    if found is None or found["num_inliers"] < LEAST_POINTS:
        return None
    pose = frame.world_poses(_pose(found["cam_from_world"]))
    return PnP(pose, np.asarray(found["inlier_mask"], bool))


def _scattered(kept: Bool[np.ndarray, " m"], among: Bool[np.ndarray, " n"]) -> np.ndarray:
    """Answers about the rows of a selection, as answers about all rows."""
    every = np.zeros(len(among), bool)
    every[among] = kept
    return every


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
    frame, start, local = _before(pose, points)
    every = np.ones(len(points), bool)
    found = pycolmap.refine_absolute_pose(
        _rigid(start), pixels, local.numpy(), every, _colmap(camera), options
    )
    return None if found is None else frame.world_poses(_pose(found["cam_from_world"]))


def pose_sigmas(
    pose: Pose,
    points: Float[np.ndarray, "n 3"],
    pixels: Float[np.ndarray, "n 2"],
    camera: Camera,
) -> tuple[float, float] | None:
    """How sure a refined pose is, from how its residuals scatter and what moving it would do.

    The covariance is A⁻¹ B A⁻¹ with A = Σ w² JᵀJ and B = Σ w² Jᵀr rᵀJ over points (Huber 1967): J
    is how a point's pixel changes with position and rotation vector, r its residual and w Cauchy's
    weight (scale 1 pixel), whose influence w r has the mean slope w² over all directions of r. It
    knows nothing of errors that points share: a lower bound.

    Args:
        pose: The pose, ``world_from_cam``, batch shape ().
        points: Points in the world.
        pixels: Where the image sees them.
        camera: The camera.

    Returns:
        Standard deviation per axis of the position, in the unit of the points, and of the rotation
        vector, in degrees; None where the points do not determine the pose.
    """
    frame, pose, world = _before(pose, points)
    forth, back = (_moved(pose, step, world, camera) for step in (_STEP * _AXES, -_STEP * _AXES))
    jacobian = ((forth - back) / (2 * _STEP)).permute(1, 2, 0)  # (n, 2, 6)
    residual = camera.project(pose.inverse().apply(world))[0] - torch.from_numpy(pixels)
    weight = 1 / (1 + residual.square().sum(-1))
    information = torch.einsum("nij,n,nik->jk", jacobian, weight.square(), jacobian)
    sizes = torch.linalg.eigvalsh(information)
    free = 2 * len(world) - 6
    if free <= 0 or not bool(sizes[0] > _SINGULAR * sizes[-1]):
        return None
    inverse = torch.linalg.inv(information)
    pulls = torch.einsum("nij,n,ni->nj", jacobian, weight, residual)
    covariance = inverse @ (pulls.T @ pulls) @ inverse * (2 * len(world) / free)
    spread = covariance.diagonal().clamp(min=0)
    position, rotation = spread[:3].mean().sqrt(), spread[3:].mean().sqrt()
    return frame.length * float(position), float(torch.rad2deg(rotation))


def _before(
    pose: Pose, points: Float[np.ndarray, "n 3"]
) -> tuple[LocalFrame, Pose, Float[Tensor, "n 3"]]:
    """The frame about a camera in which the median depth of points is one, and both in it."""
    world, pose = torch.from_numpy(points), pose.to(torch.float64)
    back = quaternion_conjugate(pose.quaternion)
    depth = float(quaternion_rotate(back, world - pose.position)[:, 2].abs().median())
    frame = LocalFrame(pose.position, depth if depth > 0 else 1.0)
    return frame, frame.poses(pose), frame.points(world)


def _moved(
    pose: Pose, steps: Float[Tensor, "k 6"], world: Float[Tensor, "n 3"], camera: Camera
) -> Float[Tensor, "k n 2"]:
    """Where points are seen from poses moved in the world, and turned about their own axes."""
    turned = quaternion_multiply(pose.quaternion, quaternion_exp(steps[:, 3:] / 2))
    moved = Pose(pose.position + steps[:, :3], turned).inverse()
    local = Pose(moved.position[:, None], moved.quaternion[:, None]).apply(world)
    return camera.project(local)[0]


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
    _, start, local = _before(pose, points)
    every = np.ones(len(points), bool)
    pycolmap.refine_absolute_pose(_rigid(start), pixels, local.numpy(), every, fitted, options)
    return float(fitted.mean_focal_length() / camera.focal.mean())


def fitted_bend(
    pose: Pose,
    points: Float[np.ndarray, "n 3"],
    pixels: Float[np.ndarray, "n 2"],
    camera: Camera,
) -> tuple[float, float]:
    """What a radial distortion would explain of where a pinhole camera sees points.

    Pose, focal length and distortion are fitted together, with Cauchy's loss of scale 1 px.

    Args:
        pose: The pose, refined by the camera as it is.
        points: Points in the world.
        pixels: Where the image sees them.
        camera: A pinhole camera.

    Returns:
        By how many pixels the fitted lens bends nine tenths of the pixels at most, and the share of
        the loss that it takes away.
    """
    import pycolmap

    options = pycolmap.AbsolutePoseRefinementOptions()
    options.refine_focal_length = options.refine_extra_params = True
    params = [float(camera.focal.mean()), *camera.principal_point.tolist(), 0.0, 0.0]
    bent = Camera("RADIAL", camera.width, camera.height, params)
    fitted = _colmap(bent)
    _, start, near = _before(pose, points)
    local, every = near.numpy(), np.ones(len(points), bool)
    found = pycolmap.refine_absolute_pose(_rigid(start), pixels, local, every, fitted, options)
    if found is None or not (np.isfinite(fitted.params).all() and fitted.params[0] > 0):
        return 0.0, 0.0
    before = _loss(start, local, pixels, camera)
    bent = Camera("RADIAL", camera.width, camera.height, fitted.params)
    after = _loss(_pose(found["cam_from_world"]), local, pixels, bent)
    rays = camera.unproject(torch.from_numpy(pixels))
    moved = bent.project(rays)[0] - bent.undistorted().project(rays)[0]
    return float(moved.norm(dim=1).quantile(0.9)), 1 - after / max(before, 1e-12)


def _loss(
    pose: Pose, points: Float[np.ndarray, "n 3"], pixels: Float[np.ndarray, "n 2"], camera: Camera
) -> float:
    off = camera.project(pose.inverse().apply(torch.from_numpy(points)))[0]
    return float((off - torch.from_numpy(pixels)).square().sum(-1).log1p().sum())


def _colmap(camera: Camera) -> Any:
    import pycolmap

    return pycolmap.Camera(
        model=camera.model,
        width=camera.width,
        height=camera.height,
        params=camera.params.double().numpy(),
    )


def _rigid(pose: Pose) -> Any:
    import pycolmap

    return pycolmap.Rigid3d(pose.inverse().matrix()[:3].numpy())


def _pose(rigid: Any) -> Pose:
    x, y, z, w = rigid.rotation.quat.tolist()
    quaternion = torch.tensor([w, x, y, z], dtype=torch.float64)
    translation = torch.tensor(rigid.translation.tolist(), dtype=torch.float64)
    return Pose.from_colmap(quaternion, translation).canonical()
