"""Losses: ``(Prediction, Target, progress) -> (B,)``, one value a sample, reduced in training.

Notation of the docstrings: x, q true centre and quaternion; x̂, q̂ predicted; R(q) world_from_cam;
Δx = x̂ - x; k a viewing ray in the camera frame scaled to z = 1; d the scene's median depth. A base
loss may be followed by coupled terms, ``default+frustum``: they judge position and rotation
together, because moving and turning the camera both change the picture.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relocal.errors import InputError, unknown
from relocal.pose import ROTATIONS, in_hemisphere, rotation_angle, safe_norm
from relocal.types import Prediction, Target

Form = Literal["norm", "squared"]
PerSample = Float[Tensor, " B"]


class Loss(nn.Module):
    """What every loss declares besides its ``forward``."""

    rotations: ClassVar[frozenset[str] | None] = None
    """Entries of ``ROTATIONS`` that it accepts; None accepts all."""
    needs_depth: ClassVar[bool] = False
    """Whether it uses the scene's depth d."""


class Default(Loss):
    """α·mean(Δx²) + β·mean((q̂ - q)²), means over components.

    The source paper's baseline and what PoseNet's released training files optimise. q̂ is the raw
    4-vector for quaternion outputs, the unit quaternion for others.

    Args:
        alpha: Weight of the position, per squared scene unit.
        beta: Weight of the rotation.
        match_sign: Compare with q or -q, whichever is nearer, sample by sample.
    """

    def __init__(self, *, alpha: float = 3.0, beta: float = 24.0, match_sign: bool = False) -> None:
        super().__init__()
        self.alpha, self.beta, self.match_sign = alpha, beta, match_sign

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        raw = prediction.rotation_name == "quaternion"
        estimate = prediction.rotation if raw else prediction.pose().quaternion
        position = (prediction.position - target.pose.position).square().mean(-1)
        label = label_of(estimate, prediction, target, self.match_sign)
        rotation = (estimate - label).square().mean(-1)
        return self.alpha * position + self.beta * rotation


class PoseNet(Loss):
    """‖Δx‖ + β·‖q̂/‖q̂‖ - q‖ (Kendall, Grimes & Cipolla 2015, equation 2).

    Args:
        beta: Scene units that one unit of quaternion distance (two radians) weighs.
        match_sign: Compare with q or -q, whichever is nearer, sample by sample.
    """

    def __init__(self, *, beta: float = 2.5, match_sign: bool = False) -> None:
        super().__init__()
        self.beta, self.match_sign = beta, match_sign

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        estimate = prediction.pose().quaternion
        position = safe_norm(prediction.position - target.pose.position)
        rotation = safe_norm(estimate - label_of(estimate, prediction, target, self.match_sign))
        return position + self.beta * rotation


class Position(Loss):
    """‖Δx‖ alone: blind to rotation, the base for coupled terms that also see it."""

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        return safe_norm(prediction.position - target.pose.position)


class Rotation(Loss):
    """angle(q̂, q) in radians alone: blind to position."""

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        return rotation_angle(prediction.pose().quaternion, target.pose.quaternion)


class Homoscedastic(Loss):
    """exp(-s_x)·‖Δx‖₁ + s_x + exp(-s_q)·‖q̂/‖q̂‖ - q‖₁ + s_q with learned s_x, s_q.

    Kendall & Cipolla 2017, equation 7. The weights are learned with the network, so none has to be
    tuned. The value may be negative: s is a log-variance.

    Args:
        s_x: Where s_x starts.
        s_q: Where s_q starts.
        match_sign: Compare with q or -q, whichever is nearer, sample by sample.
    """

    def __init__(self, *, s_x: float = 0.0, s_q: float = -3.0, match_sign: bool = False) -> None:
        super().__init__()
        self.s_x = nn.Parameter(torch.tensor(s_x))
        self.s_q = nn.Parameter(torch.tensor(s_q))
        self.match_sign = match_sign

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        estimate = prediction.pose().quaternion
        position = (prediction.position - target.pose.position).abs().sum(-1)
        label = label_of(estimate, prediction, target, self.match_sign)
        rotation = (estimate - label).abs().sum(-1)
        return (
            torch.exp(-self.s_x) * position + self.s_x + torch.exp(-self.s_q) * rotation + self.s_q
        )


def label_of(
    estimate: Float[Tensor, "B 4"], prediction: Prediction, target: Target, match_sign: bool
) -> Float[Tensor, "B 4"]:
    """The label quaternion with the sign that the estimate is compared to.

    By default the sign is fixed by the training mean rotation, so that one orientation always has
    the same label. With ``match_sign`` it is the estimate's own side, as always where the network
    writes a rotation that has no sign.
    """
    if match_sign or not ROTATIONS[prediction.rotation_name].signed:
        return in_hemisphere(target.quaternion, estimate.detach())
    return target.quaternion


class PointDistance(Loss):
    """Mean distance between points on viewing rays, seen from the estimate and from the truth.

    With r_k = d·(R(q̂) - R(q))k for each ray k, the squared form is mean_k ‖Δx + r_k‖², the norm
    form mean_k ‖Δx + r_k‖. The decoupled twin drops the cross term of position and rotation:
    ‖Δx‖² + ‖r_k‖², or its root. A subclass says which rays.

    Args:
        form: ``norm`` (the root before the mean over rays) or ``squared``.
        twin: Whether this is the decoupled twin.
    """

    needs_depth = True

    def __init__(self, *, form: Form = "norm", twin: bool = False) -> None:
        super().__init__()
        if form not in ("norm", "squared"):
            raise unknown("--loss.form", form, ("norm", "squared"))
        self.form, self.twin = form, twin

    def rays(self, target: Target) -> Float[Tensor, "B K 3"]:
        """The viewing rays k, in the camera frame, scaled to z = 1."""
        raise NotImplementedError

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        if target.depth is None:
            raise InputError(f"{type(self).__name__} uses the scene's depth; give --loss.depth.")
        pose = prediction.pose()
        moved = (pose.position - target.pose.position)[:, None]  # (B, 1, 3)
        turned = target.depth[1] * (pose.rotation - target.pose.rotation)  # (B, 3, 3)
        swept = self.rays(target) @ turned.mT  # (B, K, 3)
        # The twin's vector holds both parts side by side, so that its square has no cross term.
        gap = torch.cat([moved.expand_as(swept), swept], -1) if self.twin else moved + swept
        distance = gap.square().sum(-1) if self.form == "squared" else safe_norm(gap)
        return distance.mean(-1)


class Sightline(PointDistance):
    """Distance between the points looked at, at depth d on the optical axis.

    Zero also for: roll, and any orbit about the point looked at. The twin is zero also for roll.
    """

    def rays(self, target: Target) -> Float[Tensor, "B K 3"]:
        """The optical axis."""
        axis = target.pose.position.new_tensor([0.0, 0.0, 1.0])
        return axis.expand(*target.pose.shape, 1, 3)


class Frustum(PointDistance):
    """The same, mean over the optical axis and the four corner rays of the camera.

    Zero at the label only.
    """

    def rays(self, target: Target) -> Float[Tensor, "B K 3"]:
        """The optical axis and the rays through the image's corners."""
        w, h = float(target.camera.width), float(target.camera.height)
        corners = target.camera.params.new_tensor([[0, 0], [w, 0], [0, h], [w, h]])
        batched = target.camera.params.dim() > 1
        camera = target.camera[:, None] if batched else target.camera
        rays = camera.unproject(corners).to(target.pose.position)
        rays = rays.expand(*target.pose.shape, 4, 3)
        axis = rays.new_tensor([0.0, 0.0, 1.0]).expand(*target.pose.shape, 1, 3)
        return torch.cat([axis, rays], dim=-2)


class CoupledSum(Loss):
    """A base loss plus γ times the sum of coupled terms.

    Args:
        base: The base loss.
        terms: Coupled terms.
        gamma: γ.
    """

    def __init__(self, base: nn.Module, terms: list[nn.Module], gamma: float) -> None:
        super().__init__()
        self.base = base
        self.terms = nn.ModuleList(terms)
        self.gamma = gamma

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        value = self.base(prediction, target, progress)
        for term in self.terms:
            value = value + self.gamma * term(prediction, target, progress)
        return value


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Which loss, and its numbers; what is left out is the loss's own default."""

    name: str = "posenet"
    """A base loss and coupled terms: default, posenet+frustum, position+twin:sightline, ..."""
    alpha: float | None = None
    """Weight of the position (default)."""
    beta: float | None = None
    """Weight of the rotation (default, posenet)."""
    gamma: float = 1.0
    """Weight of the coupled terms."""
    form: Form | None = None
    """Whether coupled terms are a norm or squared."""
    depth: float | None = None
    """Median depth of the scene in its unit; needed when the scene has no map points."""
    match_sign: bool | None = None
    """Compare quaternions sign by sign instead of on the training mean's side."""

    def __post_init__(self) -> None:
        for option in ("alpha", "beta", "gamma", "depth"):
            value = getattr(self, option)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"--loss.{option}: must be a number of at least 0, not {value}.")
        if self.depth == 0:
            raise InputError("--loss.depth: must be above 0.")


def build_loss(config: LossConfig) -> nn.Module:
    """Builds a loss from its name.

    Raises:
        InputError: If a part of the name is not known, or an option is given that no part takes.
    """
    base_name, *term_names = (name.strip() for name in config.name.split("+"))
    if base_name.removeprefix("twin:") in COUPLED:
        raise InputError(
            f"--loss {config.name}: {base_name} is a coupled term, added to a base loss: "
            f"position+{config.name}."
        )
    if base_name not in LOSSES:
        raise unknown("--loss", base_name, LOSSES)
    if len(set(term_names)) < len(term_names):
        raise InputError(f"--loss {config.name}: a term stands there twice; --loss.gamma weighs.")
    skip = ("name", "gamma", "depth")
    options = {k: v for k, v in asdict(config).items() if k not in skip and v is not None}
    used: set[str] = set()

    def make(factory: Callable[..., nn.Module], **fixed: bool) -> nn.Module:
        accepted = {k: v for k, v in options.items() if k in inspect.signature(factory).parameters}
        used.update(accepted)
        return factory(**accepted, **fixed)

    base = make(LOSSES[base_name])
    terms = [_make_term(name, make) for name in term_names]
    if unused := sorted(options.keys() - used):
        raise InputError(f"--loss.{unused[0]}: {config.name} has no such option.")
    if not terms and config.gamma != LossConfig.gamma:
        raise InputError(f"--loss.gamma: {config.name} has no coupled term to weigh.")
    return CoupledSum(base, terms, config.gamma) if terms else base


def _make_term(name: str, make: Callable[..., nn.Module]) -> nn.Module:
    plain = name.removeprefix("twin:")
    if plain not in COUPLED:
        raise unknown("--loss, coupled term", name, [*COUPLED, *(f"twin:{c}" for c in COUPLED)])
    return make(COUPLED[plain], twin=True) if plain != name else make(COUPLED[plain])


def check_rotation(loss: nn.Module, rotation: str) -> None:
    """Refuses an entry of ``ROTATIONS`` that a part of the loss does not accept.

    Raises:
        InputError: If there is such a part.
    """
    for part in loss.modules():
        accepted = getattr(part, "rotations", None)
        if accepted is not None and rotation not in accepted:
            raise InputError(
                f"--model.rotation {rotation}: the loss {type(part).__name__} takes only "
                f"{', '.join(sorted(accepted))}."
            )


def needs_depth(loss: nn.Module) -> bool:
    """Whether any part of a loss uses the scene's depth."""
    return any(getattr(part, "needs_depth", False) for part in loss.modules())


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "default": Default,
    "posenet": PoseNet,
    "position": Position,
    "rotation": Rotation,
    "homoscedastic": Homoscedastic,
}

COUPLED: dict[str, Callable[..., nn.Module]] = {
    "sightline": Sightline,
    "frustum": Frustum,
}
