"""Metrics: position and rotation errors, recall, coverage: pure functions over arrays.

A failure (a localizer that could not tell) is an infinite error: it counts, and is never filled
in. Positions are in the scene's unit, angles in degrees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from relocal.pose import (
    Pose,
    mean_quaternion,
    position_error,
    rotation_angle,
    rotation_error_deg,
)

# (position, degrees): metres for metric scenes.
RECALL_THRESHOLDS_M = ((0.05, 5.0), (0.10, 5.0), (0.25, 2.0), (0.50, 5.0), (5.0, 10.0))
# (per cent of the path's extent, degrees): for scenes without a known scale.
RECALL_THRESHOLDS_PERCENT = ((1.0, 5.0), (2.0, 5.0), (5.0, 2.0), (10.0, 5.0), (20.0, 10.0))

Errors = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class PoseErrors:
    """Errors of one localizer on the same images as the others."""

    position: Errors
    """Distance of the camera centres; infinite where there was no answer."""
    rotation_deg: Errors
    """Geodesic angle; infinite where there was no answer."""

    def __len__(self) -> int:
        """The number of images."""
        return len(self.position)

    def answered(self) -> "PoseErrors":
        """Those of the images that have an answer."""
        known = np.isfinite(self.position)
        return PoseErrors(self.position[known], self.rotation_deg[known])


def pose_errors(estimates: Sequence[Pose | None], truth: Pose) -> PoseErrors:
    """Errors of estimates against true poses, in double precision.

    Args:
        estimates: One pose of batch shape () an image, or None where there was no answer.
        truth: True poses, (n,).
    """
    if len(estimates) != len(truth):
        raise ValueError(f"{len(estimates)} estimates cannot be compared to {len(truth)} poses.")
    position = np.full(len(estimates), np.inf)
    rotation = np.full(len(estimates), np.inf)
    answered = [i for i, pose in enumerate(estimates) if pose is not None]
    if answered:
        found = Pose.stack([pose for pose in estimates if pose is not None]).to(torch.float64)
        true = truth[answered].to(torch.float64)
        position[answered] = position_error(found, true).numpy()
        rotation[answered] = rotation_error_deg(found, true).numpy()
    return PoseErrors(position, rotation)


def median(values: Errors) -> float:
    """The median; infinite values take part. NaN for no values."""
    return float(np.median(values)) if len(values) else float("nan")


def mean(values: Errors) -> float:
    """The mean; infinite as soon as one value is. NaN for no values."""
    return float(values.mean()) if len(values) else float("nan")


def recall(errors: PoseErrors, position: float, rotation_deg: float) -> float:
    """Share of images within both thresholds, failures counted as outside."""
    within = (errors.position <= position) & (errors.rotation_deg <= rotation_deg)
    return float(within.mean()) if len(within) else float("nan")


def failures(errors: PoseErrors) -> int:
    """The number of images without an answer."""
    return int((~np.isfinite(errors.position)).sum())


def cumulative_curve(
    values: Errors,
) -> tuple[Float[np.ndarray, " answers"], Float[np.ndarray, " answers"]]:
    """Sorted finite errors, and the share of all images at or below each."""
    finite = np.sort(values[np.isfinite(values)])
    return finite, np.arange(1, len(finite) + 1) / max(len(values), 1)


def running_median(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " windows"], Float[np.ndarray, " windows"]]:
    """Medians of ``x`` and of ``y`` in windows that slide along ``x``, each a fifth of the values.

    A window holds five values at least, so that fewer give none. Infinite ``y`` take part.
    """
    width = max(5, len(x) // 5)
    if len(x) < width:
        return np.empty(0), np.empty(0)
    order = np.argsort(x, kind="stable")
    along, medians = (
        np.median(np.lib.stride_tricks.sliding_window_view(values[order], width), axis=1)
        for values in (x, y)
    )
    return along, medians


def mean_pose(poses: Pose) -> Pose:
    """The mean position and mean rotation: the answer that looks at no image, batch shape ()."""
    return Pose(poses.position.mean(0), mean_quaternion(poses.quaternion))


def nearest_pose(truth: Pose, candidates: Pose, radian: float) -> Int[torch.Tensor, " n"]:
    """For each true pose, the index of the candidate with the least ‖Δx‖ + θ·``radian``.

    Args:
        truth: Poses, (n,).
        candidates: Poses, (m,).
        radian: What one radian weighs, in the scene's unit: 1 m in metric scenes, half of the
            scene's depth in others.
    """
    rows: list[torch.Tensor] = []
    for chunk in torch.arange(len(truth)).split(256):  # bounds the table to 256 x m
        distance = torch.cdist(
            truth.position[chunk],
            candidates.position,
            compute_mode="donot_use_mm_for_euclid_dist",  # inexact far from the origin
        )
        angle = rotation_angle(
            truth.quaternion[chunk][:, None].expand(-1, len(candidates), 4),
            candidates.quaternion[None].expand(len(chunk), -1, 4),
        )
        rows.append((distance + radian * angle).argmin(1))
    return torch.cat(rows)
