"""Which images are matched: options, and pairs from known poses."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relocal.errors import InputError
from relocal.pose import Pose

_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class TriangulateConfig:
    """How map points are made from known poses."""

    neighbours: int = 16
    """Images that each image is matched with: the nearest poses, and some farther ones."""
    turn_deg: float = 45.0
    """Images whose look directions differ by more are not matched."""
    features: int = 4096
    """Most SIFT features an image."""
    error_px: float = 2.0
    """Largest reprojection error of an observation that is kept."""

    def __post_init__(self) -> None:
        if self.neighbours < 2:
            raise InputError(f"--neighbours: must be at least 2, not {self.neighbours}.")
        if not 0 < self.turn_deg <= 180:
            raise InputError(f"--turn-deg: must be in (0, 180], not {self.turn_deg}.")
        if self.features < 100:
            raise InputError(f"--features: must be at least 100, not {self.features}.")
        if not 0 < self.error_px < float("inf"):
            raise InputError(f"--error-px: must be above 0, not {self.error_px}.")


def pose_pairs(poses: Pose, config: TriangulateConfig) -> Int[np.ndarray, "pairs 2"]:
    """Pairs of images that should see the same things, nearest poses first.

    The distance of two poses is that of their centres, with one radian between their look
    directions weighing as much as the median distance of two cameras. Of the poses in reach each
    image takes half of its neighbours from the very nearest, and the others at growing steps,
    because neighbouring frames of a video hardly differ in position, and points need a baseline.

    Returns:
        Each pair once, the smaller index first.
    """
    position, look = poses.position.double(), poses.look_direction.double()
    count = len(poses)
    scale = float(_apart(position[:_BLOCK], position).median())
    ranks = _ranks(config.neighbours)
    found: set[tuple[int, int]] = set()
    for start in range(0, count, _BLOCK):
        rows = slice(start, start + _BLOCK)
        angle = (look[rows] @ look.T).clamp(-1, 1).arccos()
        distance = _apart(position[rows], position) + scale * angle
        distance[angle > torch.deg2rad(torch.tensor(config.turn_deg))] = torch.inf
        near, order = distance.sort(dim=1)
        for i, (values, others) in enumerate(zip(near, order, strict=True), start=start):
            reach = others[torch.isfinite(values)].tolist()
            reach.remove(i)
            found |= {(min(i, reach[r]), max(i, reach[r])) for r in ranks if r < len(reach)}
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)


def _apart(some: Float[Tensor, "k 3"], all: Float[Tensor, "n 3"]) -> Float[Tensor, "k n"]:
    """Distances from differences; from products they are off by metres far from the origin."""
    return torch.cdist(some, all, compute_mode="donot_use_mm_for_euclid_dist")


def _ranks(neighbours: int) -> list[int]:
    """Half of them 0, 1, 2, ...; then steps that grow by a fourth."""
    ranks, step = list(range(neighbours // 2)), 1.0
    while len(ranks) < neighbours:
        step *= 1.25
        ranks.append(ranks[-1] + max(1, round(step)))
    return ranks
