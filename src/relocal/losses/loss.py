"""What every loss is made of: its declarations, and one distance of a residual in several kinds."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relocal.errors import InputError, unknown
from relocal.pose import ROTATIONS, in_hemisphere, rotation_angle, safe_norm
from relocal.types import Prediction, Target

Robust = Literal["l1", "huber", "cauchy", "barron"]
Kind = Literal["squared", "norm", "mean_l1", Robust]
Distance = Callable[[Tensor], Tensor]
PerSample = Float[Tensor, " B"]


class Loss(nn.Module):
    """What every loss declares besides its ``forward``; options may change it for an instance."""

    rotations: frozenset[str] | None = None
    """Entries of ``ROTATIONS`` that it accepts; None accepts all."""
    needs_depth: bool = False
    """Whether it uses the scene's depth d."""
    needs_range: bool = False
    """Whether it uses the scene's near and far depth."""
    needs_points: bool = False
    """Whether it uses the map points that each image sees."""


def distance(
    residual: Float[Tensor, "*batch k"], kind: Kind, bend: float = 1.0, shape: float = -2.0
) -> Float[Tensor, "*batch"]:
    """How long a residual is, in one of several kinds; r is its Euclidean norm, c the bend.

    All but ``squared`` are in the unit of the residual, so that they can take each other's place
    without new weights. Those that bend are r²/(2c) near zero.

    Args:
        residual: Differences, component by component.
        kind: ``squared``, the mean of the squared components; ``norm``, r; ``l1``, the sum of the
            absolute components, and ``mean_l1``, their mean: these two see the axes; ``huber``,
            r - c/2 from r = c on; ``barron``, c·ρ(r/c) with Barron's ρ (2019, equation 8): with
            shape 1 it ends with slope 1, with less it flattens, below 0 it has a bound; ``cauchy``,
            c·log(1 + (r/c)²/2), which is ``barron`` with shape 0.
        bend: Length c from which ``huber``, ``cauchy`` and ``barron`` weigh a residual less.
        shape: Barron's α, at most 2, where it is r²/(2c) throughout.
    """
    if kind == "squared":
        return residual.square().mean(-1)
    if kind == "norm":
        return safe_norm(residual)
    if kind == "l1":
        return residual.abs().sum(-1)
    if kind == "mean_l1":
        return residual.abs().mean(-1)
    if kind == "huber":
        r = safe_norm(residual)
        return torch.where(r <= bend, r.square() / (2 * bend), r - bend / 2)
    if kind in ("cauchy", "barron"):
        shape = 0.0 if kind == "cauchy" else shape
        return bend * _barron((residual / bend).square().sum(-1), shape)
    raise unknown("--loss.robust", kind, get_args(Robust))


def _barron(squared: Tensor, shape: float) -> Tensor:
    """Barron's ρ of squared residuals in units of the bend; no cancellation at any shape."""
    if shape == 2:
        return squared / 2
    rest = 2 - shape
    growth = torch.log1p(squared / rest)
    return rest * (growth / 2 if shape == 0 else torch.expm1(shape / 2 * growth) / shape)


SQUARED: Distance = partial(distance, kind="squared")
NORM: Distance = partial(distance, kind="norm")
L1: Distance = partial(distance, kind="l1")
MEAN_L1: Distance = partial(distance, kind="mean_l1")


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


def shift(prediction: Prediction, target: Target) -> Float[Tensor, "B 3"]:
    """Δx = x̂ - x, in scene units."""
    return prediction.position - target.pose.position


def turn(prediction: Prediction, target: Target) -> Float[Tensor, "B 1"]:
    """The angle between q̂ and q in radians, as a residual of one component."""
    return rotation_angle(prediction.pose().quaternion, target.pose.quaternion)[:, None]


def scene_depth(target: Target, who: nn.Module) -> Float[Tensor, "3"]:
    """Near, median and far depth of the scene; ``who`` needs it.

    Raises:
        InputError: If it is not known.
    """
    if target.depth is None:
        raise InputError(f"{type(who).__name__} uses the scene's depth; give --loss.depth.")
    return target.depth


def seen_points(
    target: Target, who: nn.Module
) -> tuple[Float[Tensor, "B P 3"], Float[Tensor, "B P"]]:
    """The map points that each image sees, from its true centre, and their weights in a mean.

    Padding is at the centre and weighs nothing; an image that sees no point has only zeros.

    Raises:
        InputError: If the scene has no map points; ``who`` needs them.
    """
    if target.points is None or target.visible is None:
        raise InputError(
            f"{type(who).__name__} uses map points; make some with relocal triangulate SCENE."
        )
    offset = target.points - target.pose.position[:, None]
    offset = torch.where(target.visible[..., None], offset, 0.0)
    weight = target.visible.to(offset)
    return offset, weight / weight.sum(-1, keepdim=True).clamp(min=1)


def check_word(option: str, value: str, words: Any) -> None:
    """Refuses the value of an option that is none of the words of a Literal type."""
    if value not in get_args(words):
        raise unknown(f"--loss.{option}", str(value), get_args(words))
