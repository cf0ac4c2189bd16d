"""Base losses that judge a pose by what it does to the picture."""

import torch
from jaxtyping import Float
from torch import Tensor

from relocal.losses.loss import (
    L1,
    SQUARED,
    Distance,
    Loss,
    PerSample,
    scene_depth,
    seen_points,
    shift,
)
from relocal.losses.uncoupled import PoseNet
from relocal.pose import safe_norm
from relocal.types import Prediction, Target

WARM_UP = 0.2  # share of the training in which map points would be behind most cameras
NEAREST = 0.1  # of the scene's depth: points are not taken nearer, lest they fly out of the picture
FARTHEST = 1.0  # what a coordinate can add: half a picture 90 degrees wide


class Reprojection(Loss):
    """Mean over the points that an image sees of ‖clamp(π(P; x̂, q̂) - π(P; x, q))‖₁.

    Kendall & Cipolla 2017, section 3.4, in normalised coordinates (a unit is the focal length): π
    divides by the depth, but by 0.1·d at least; clamp(r) is tanh(r), component by component. Before
    0.2 of the training it is ``posenet``, since a wild pose has all points behind it.

    Zero also for: poses that see fewer than four points in the same places, and any pose where the
    image sees no point. Nearly blind to poses that have the points behind them.

    Args:
        beta: Weight of the rotation while it is ``posenet``.
        match_sign: As in ``posenet``.
        q_distance: What takes the place of the L1 norm; nothing else bends.
    """

    needs_depth = True
    needs_points = True

    def __init__(
        self, *, beta: float = 2.5, match_sign: bool = False, q_distance: Distance = L1
    ) -> None:
        super().__init__()
        self.start = PoseNet(beta=beta, match_sign=match_sign)
        self.q_distance = q_distance

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        if progress < WARM_UP:
            return self.start(prediction, target, progress)
        nearest = NEAREST * scene_depth(target, self)[1]
        offset, weight = seen_points(target, self)
        # Row vectors: v @ R is Rᵀv, from the world to the camera.
        there = (offset - shift(prediction, target)[:, None]) @ prediction.pose().rotation
        here = offset @ target.pose.rotation
        gap = _project(there, nearest) - _project(here, nearest)
        value = self.q_distance(FARTHEST * torch.tanh(gap / FARTHEST))
        return (weight * value).sum(-1)


def _project(points: Float[Tensor, "B P 3"], nearest: Tensor) -> Float[Tensor, "B P 2"]:
    return points[..., :2] / torch.maximum(points[..., 2:], nearest)


class Homography(Loss):
    """Mean over the depths s from near to far of ‖I - H(s)‖_F², H(s) = R + t·e_zᵀ/s.

    Boittiaux et al. 2022: H(s) is what the true camera's picture of the plane z = s becomes in the
    predicted camera, with R = R(q̂)ᵀR(q) and t = R(q̂)ᵀ(x - x̂). In closed form, with a and b the
    near and far depth and m = log(b/a)/(b - a) the mean of 1/s,
    ‖I - R‖_F² - 2m·tᵀ(I - R)e_z + ‖t‖²/(ab). No unit. Zero also for: nothing else.

    Args:
        q_distance: Distance of the value's root; by default its square, the value.
    """

    needs_depth = True
    needs_range = True

    def __init__(self, *, q_distance: Distance = SQUARED) -> None:
        super().__init__()
        self.q_distance = q_distance

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        near, _, far = scene_depth(target, self)
        mean = torch.log(far / near) / (far - near)
        spread = (1 / (near * far) - mean.square()).clamp(min=0).sqrt()
        pose = prediction.pose()
        t = -(shift(prediction, target)[:, None] @ pose.rotation)[:, 0]
        gap = torch.eye(3).to(t) - pose.rotation.mT @ target.pose.rotation
        # The same as a sum of squares, which rounding cannot make negative.
        parts = [gap[..., :2].flatten(1), gap[..., 2] - mean * t, spread * t]
        return self.q_distance(safe_norm(torch.cat(parts, dim=-1))[:, None])
