"""Losses that judge position and rotation one by one, and add them."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relocal.errors import InputError
from relocal.losses.loss import (
    L1,
    MEAN_L1,
    NORM,
    SQUARED,
    Distance,
    Loss,
    PerSample,
    check_word,
    label_of,
    shift,
    turn,
)
from relocal.pose import ROTATIONS, in_hemisphere, quaternion_log
from relocal.types import Prediction, Target

Quaternion = Literal["raw", "unit"]
Noise = Literal["gaussian", "laplace"]
RAW_ONLY = frozenset({"quaternion"})
MAX_LOG_VAR = 16.0  # standard deviations of e^-8 to e^8: float32 holds all that follows


class Default(Loss):
    """α·mean(Δx²) + β·mean((q̂ - q)²), means over components.

    The source paper's baseline and what PoseNet's released training files optimise. Zero also for:
    nothing else.

    Args:
        alpha: Weight of the position, per squared scene unit.
        beta: Weight of the rotation.
        quaternion: Whether q̂ is the network's raw 4-vector, as in those files, or has unit length;
            raw by default where the network writes quaternions, else unit.
        match_sign: Compare with q or -q, whichever is nearer, sample by sample.
        x_distance: What takes the place of mean(Δx²).
        q_distance: What takes the place of mean((q̂ - q)²).
    """

    def __init__(
        self,
        *,
        alpha: float = 3.0,
        beta: float = 24.0,
        quaternion: Quaternion | None = None,
        match_sign: bool = False,
        x_distance: Distance = SQUARED,
        q_distance: Distance = SQUARED,
    ) -> None:
        super().__init__()
        if quaternion is not None:
            check_word("quaternion", quaternion, Quaternion)
        self.alpha, self.beta = alpha, beta
        self.quaternion, self.match_sign = quaternion, match_sign
        self.rotations = RAW_ONLY if quaternion == "raw" else None
        self.x_distance, self.q_distance = x_distance, q_distance

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        raw = self.quaternion != "unit" and prediction.rotation_name == "quaternion"
        position = self.x_distance(shift(prediction, target))
        rotation = self.q_distance(quaternion_gap(prediction, target, self.match_sign, raw))
        return self.alpha * position + self.beta * rotation


class PoseNet(Loss):
    """‖Δx‖ + β·‖q̂/‖q̂‖ - q‖ (Kendall, Grimes & Cipolla 2015, equation 2).

    Zero also for: nothing else.

    Args:
        beta: Scene units that one unit of quaternion distance (two radians) weighs.
        quaternion: Whether q̂ has unit length, or is the network's raw 4-vector.
        match_sign: Compare with q or -q, whichever is nearer, sample by sample.
        x_distance: What takes the place of ‖Δx‖.
        q_distance: What takes the place of the norm of the quaternions' difference.
    """

    def __init__(
        self,
        *,
        beta: float = 2.5,
        quaternion: Quaternion = "unit",
        match_sign: bool = False,
        x_distance: Distance = NORM,
        q_distance: Distance = NORM,
    ) -> None:
        super().__init__()
        check_word("quaternion", quaternion, Quaternion)
        self.beta, self.quaternion, self.match_sign = beta, quaternion, match_sign
        self.rotations = RAW_ONLY if quaternion == "raw" else None
        self.x_distance, self.q_distance = x_distance, q_distance

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        raw = self.quaternion == "raw"
        position = self.x_distance(shift(prediction, target))
        rotation = self.q_distance(quaternion_gap(prediction, target, self.match_sign, raw))
        return position + self.beta * rotation


class Position(Loss):
    """‖Δx‖ alone, in scene units: the base for coupled terms that also see the rotation.

    Zero also for: any rotation, to which it is blind.

    Args:
        x_distance: What takes the place of ‖Δx‖.
    """

    def __init__(self, *, x_distance: Distance = NORM) -> None:
        super().__init__()
        self.x_distance = x_distance

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        return self.x_distance(shift(prediction, target))


class Rotation(Loss):
    """angle(q̂, q) alone, in radians.

    Zero also for: any position, to which it is blind.

    Args:
        q_distance: What takes the place of the angle.
    """

    def __init__(self, *, q_distance: Distance = NORM) -> None:
        super().__init__()
        self.q_distance = q_distance

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        return self.q_distance(turn(prediction, target))


class Homoscedastic(Loss):
    """exp(-s_x)·‖Δx‖₁ + s_x + exp(-s_q)·‖q̂/‖q̂‖ - q‖₁ + s_q with learned s_x, s_q.

    Kendall & Cipolla 2017, equation 7. The weights are learned with the network, so none has to be
    tuned. It may be negative, since s is the logarithm of an error's size: it is s_x + s_q at the
    label, and nowhere less. The L1 norm sees the axes of the world.

    Args:
        s_x: Where s_x starts.
        s_q: Where s_q starts.
        match_sign: Compare with q or -q, whichever is nearer, sample by sample.
        x_distance: What takes the place of ‖Δx‖₁.
        q_distance: What takes the place of the L1 norm of the quaternions' difference.
    """

    def __init__(
        self,
        *,
        s_x: float = 0.0,
        s_q: float = -3.0,
        match_sign: bool = False,
        x_distance: Distance = L1,
        q_distance: Distance = L1,
    ) -> None:
        super().__init__()
        self.s_x, self.s_q = nn.Parameter(torch.tensor(s_x)), nn.Parameter(torch.tensor(s_q))
        self.match_sign = match_sign
        self.x_distance, self.q_distance = x_distance, q_distance

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        position = self.x_distance(shift(prediction, target))
        rotation = self.q_distance(quaternion_gap(prediction, target, self.match_sign))
        return learned_sum(position, self.s_x, rotation, self.s_q)


class LogQ(Loss):
    """exp(-s_x)·mean|Δx| + s_x + exp(-s_q)·mean|log q̂ - log q| + s_q with learned s_x, s_q.

    MapNet (Brahmbhatt et al. 2018, section 3.2), means over components. log q is the axis times
    half the angle; labels lie on the side of the training mean, and an estimate keeps its sign, so
    half angles reach π, where log q jumps: only at the -1 of quaternions, far from every label.
    It may be negative, as ``homoscedastic``: s_x + s_q at the label, and nowhere less. It sees the
    axes of the world and its origin of rotation.

    Args:
        s_x: Where s_x starts.
        s_q: Where s_q starts.
        match_sign: Compare with q or -q, whichever is nearer, sample by sample.
        x_distance: What takes the place of mean|Δx|.
        q_distance: What takes the place of mean|log q̂ - log q|.
    """

    def __init__(
        self,
        *,
        s_x: float = 0.0,
        s_q: float = -3.0,
        match_sign: bool = False,
        x_distance: Distance = MEAN_L1,
        q_distance: Distance = MEAN_L1,
    ) -> None:
        super().__init__()
        self.s_x, self.s_q = nn.Parameter(torch.tensor(s_x)), nn.Parameter(torch.tensor(s_q))
        self.match_sign = match_sign
        self.x_distance, self.q_distance = x_distance, q_distance

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        estimate = prediction.pose().quaternion
        if self.match_sign or not ROTATIONS[prediction.rotation_name].signed:
            # The estimate turns to the label's side: logarithms on the other side are others.
            estimate = in_hemisphere(estimate, target.quaternion)
        label = quaternion_log(target.quaternion, signed=True)
        position = self.x_distance(shift(prediction, target))
        rotation = self.q_distance(quaternion_log(estimate, signed=True) - label)
        return learned_sum(position, self.s_x, rotation, self.s_q)


class Geodesic(Loss):
    """‖Δx‖ + β·angle(q̂, q); the angle is blind to signs. Zero also for: nothing else.

    Args:
        beta: Scene units that a radian weighs; by default as much as in ``posenet``.
        x_distance: What takes the place of ‖Δx‖.
        q_distance: What takes the place of the angle.
    """

    def __init__(
        self, *, beta: float = 1.25, x_distance: Distance = NORM, q_distance: Distance = NORM
    ) -> None:
        super().__init__()
        self.beta, self.x_distance, self.q_distance = beta, x_distance, q_distance

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        position = self.x_distance(shift(prediction, target))
        return position + self.beta * self.q_distance(turn(prediction, target))


class Chordal(Loss):
    """‖Δx‖ + β·‖R(q̂) - R(q)‖_F, which is 2√2·sin(angle/2). Zero also for: nothing else.

    For the rotations that are continuous everywhere, and have no sign (Zhou et al. 2019; Levinson
    et al. 2020).

    Args:
        beta: Scene units that one unit of the Frobenius norm (0.71 radians) weighs; by default as
            much as in ``posenet``.
        x_distance: What takes the place of ‖Δx‖.
        q_distance: What takes the place of the Frobenius norm.
    """

    rotations = frozenset({"6d", "9d"})

    def __init__(
        self, *, beta: float = 0.9, x_distance: Distance = NORM, q_distance: Distance = NORM
    ) -> None:
        super().__init__()
        self.beta, self.x_distance, self.q_distance = beta, x_distance, q_distance

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        gap = (prediction.pose().rotation - target.pose.rotation).flatten(1)
        return self.x_distance(shift(prediction, target)) + self.beta * self.q_distance(gap)


class Dsac(Loss):
    """max(α·‖Δx‖, β·angle(q̂, q)), of which only the worse error has a gradient.

    DSAC's loss (Brachmann et al. 2017): with the default weights it is in centimetres and degrees
    where the scene is in metres. Zero also for: nothing else.

    Args:
        alpha: Weight of a scene unit.
        beta: Weight of a radian.
        x_distance: What takes the place of ‖Δx‖.
        q_distance: What takes the place of the angle.
    """

    def __init__(
        self,
        *,
        alpha: float = 100.0,
        beta: float = 180 / math.pi,
        x_distance: Distance = NORM,
        q_distance: Distance = NORM,
    ) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.x_distance, self.q_distance = x_distance, q_distance

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        position = self.x_distance(shift(prediction, target))
        rotation = self.q_distance(turn(prediction, target))
        return torch.maximum(self.alpha * position, self.beta * rotation)


class Nll(Loss):
    """Negative log-likelihood of the true pose under what the model says of its own errors.

    With s = ``log_var``, the log-variance per axis: of the position in scene units² and of the
    rotation vector in rad², and e its length (‖Δx‖ and the angle), each of the two adds
    e²·exp(-s)/2 + 3s/2 + 3·log(2π)/2 for ``gaussian`` noise, and 2e·exp(-s/2) + 3s/2 + log(π) for
    ``laplace``, the density that falls as exp(-e/b) alike in all directions (b = exp(s/2)/2).
    It may be negative. At a given s it is least at the label. s is held to ±16, beyond which it has
    no gradient. There is no robust kernel: the noise is the kernel.

    Args:
        noise: ``gaussian`` or ``laplace``.
    """

    def __init__(self, *, noise: Noise = "gaussian") -> None:
        super().__init__()
        check_word("noise", noise, Noise)
        self.noise = noise

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        if prediction.log_var is None:
            raise InputError(
                "--loss nll: this model does not say how sure it is: give --model.log-variance, "
                "or another loss."
            )
        error = torch.cat([NORM(shift(prediction, target))[:, None], turn(prediction, target)], -1)
        s = prediction.log_var.clamp(-MAX_LOG_VAR, MAX_LOG_VAR)
        if self.noise == "gaussian":
            value = error.square() * torch.exp(-s) / 2 + 1.5 * math.log(2 * math.pi)
        else:
            value = 2 * error * torch.exp(-s / 2) + math.log(math.pi)
        return (value + 1.5 * s).sum(-1)


def quaternion_gap(
    prediction: Prediction, target: Target, match_sign: bool, raw: bool = False
) -> Float[Tensor, "B 4"]:
    """q̂ - q, with the network's raw 4-vector or the unit quaternion."""
    estimate = prediction.rotation if raw else prediction.pose().quaternion
    return estimate - label_of(estimate, prediction, target, match_sign)


def learned_sum(position: PerSample, s_x: Tensor, rotation: PerSample, s_q: Tensor) -> PerSample:
    """Two errors with learned weights exp(-s), and what keeps these from going to zero."""
    return torch.exp(-s_x) * position + s_x + torch.exp(-s_q) * rotation + s_q
