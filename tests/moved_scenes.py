"""Scenes in worlds whose origin lies elsewhere, moved as a whole by exact float64 vectors."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from relocal.pose import Pose
from relocal.scene import Scene

SHIFTS = {
    "far": (1e7, 1e7, 1e7),
    "utm": (389_212.4, 5_819_731.8, 54.1),
    "ecef": (3_782_971.0, 902_152.5, 5_038_375.3),
}


def vector(name: str) -> Tensor:
    return torch.tensor(SHIFTS[name], dtype=torch.float64)


def moved(scene: Scene, name: str) -> Scene:
    """The same scene in another world, its poses and its map points."""
    assert scene.points is not None
    points = replace(scene.points, xyz=scene.points.xyz.astype(np.float64) + np.array(SHIFTS[name]))
    poses = Pose(scene.poses.position + vector(name), scene.poses.quaternion)
    return replace(scene, poses=poses, points=points)


def near(one: Pose, other: Pose, length: float = 1e-4) -> bool:
    """Whether poses are the same to a length, and to as much in their quaternions."""
    apart = (one.position - other.position).norm(dim=-1).max()
    turned = (one.quaternion - other.quaternion).norm(dim=-1).max()
    return bool(apart < length and turned < length)
