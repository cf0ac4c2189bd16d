"""Losses: ``(Prediction, Target, progress) -> (B,)``, one value a sample, reduced in training.

Notation of the docstrings: x, q true centre and quaternion; x̂, q̂ predicted; R(q) world_from_cam;
Δx = x̂ - x; k a viewing ray in the camera frame scaled to z = 1; d the scene's median depth. A base
loss may be followed by coupled terms, ``default+frustum``: they judge position and rotation
together, because moving and turning the camera both change the picture. Every loss is least at the
label; its docstring says where else it is as small.
"""

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from relocal.errors import InputError, unknown
from relocal.losses.config import LossConfig, loss_text, parse_loss
from relocal.losses.coupled import COUPLED, Bearing, CoupledSum
from relocal.losses.geometric import Homography, Reprojection
from relocal.losses.loss import Distance, Loss, distance, label_of
from relocal.losses.uncoupled import (
    Chordal,
    Default,
    Dsac,
    Geodesic,
    Homoscedastic,
    LogQ,
    Nll,
    PoseNet,
    Position,
    Rotation,
)

__all__ = [
    "COUPLED",
    "LOSSES",
    "CoupledSum",
    "Distance",
    "Loss",
    "LossConfig",
    "build_loss",
    "check_rotation",
    "check_scene",
    "distance",
    "label_of",
    "loss_text",
    "needs_depth",
    "needs_points",
    "needs_range",
    "parse_loss",
    "takes_points",
]

_OF_THE_SUM = ("name", "gamma", "gamma_schedule", "depth")
# Options that a loss takes under other names.
_READ_AS = {
    "robust": {"x_distance", "q_distance"},
    "robust_x": {"x_distance"},
    "robust_q": {"q_distance"},
    "robust_shape": {"x_distance", "q_distance"},
}


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
    options = {option.name: getattr(config, option.name) for option in fields(config)}
    given = {k: v for k, v in options.items() if k not in _OF_THE_SUM and v is not None}
    arguments = {k: v for k, v in given.items() if k not in _READ_AS} | _distances(config)
    used: set[str] = set()

    def make(factory: Callable[..., nn.Module], **fixed: bool) -> nn.Module:
        names = inspect.signature(factory).parameters
        accepted = {k: v for k, v in arguments.items() if k in names}
        used.update(accepted)
        return factory(**accepted, **fixed)

    base = make(LOSSES[base_name])
    terms = [_make_term(name, make) for name in term_names]
    if unused := sorted(option for option in given if not _READ_AS.get(option, {option}) & used):
        raise InputError(f"--loss.{unused[0]}: {config.name} has no such option.")
    if terms:
        return CoupledSum(base, terms, config.gamma, config.gamma_schedule)
    for option in ("gamma", "gamma_schedule"):
        if options[option] != getattr(LossConfig, option):
            raise InputError(f"--loss.{option}: {config.name} has no coupled term to weigh.")
    return base


def _make_term(name: str, make: Callable[..., nn.Module]) -> nn.Module:
    plain = name.removeprefix("twin:")
    if plain not in COUPLED:
        raise unknown("--loss, coupled term", name, [*COUPLED, *(f"twin:{c}" for c in COUPLED)])
    return make(COUPLED[plain], twin=True) if plain != name else make(COUPLED[plain])


def _distances(config: LossConfig) -> dict[str, Any]:
    """The robust distances of position and rotation, where the options ask for them."""
    if config.robust is None:
        return {}
    shape = -2.0 if config.robust_shape is None else config.robust_shape
    robust = partial(distance, kind=config.robust, shape=shape)
    return {
        "x_distance": partial(robust, bend=config.robust_x or 0.1),
        "q_distance": partial(robust, bend=config.robust_q or 0.05),
    }


def check_rotation(loss: nn.Module, rotation: str) -> None:
    """Refuses an entry of ``ROTATIONS`` that a part of the loss does not accept.

    Raises:
        InputError: If there is such a part.
    """
    for part in loss.modules():
        accepted = getattr(part, "rotations", None)
        if accepted is not None and rotation not in accepted:
            raw = " with --loss.quaternion raw" if getattr(part, "quaternion", "") == "raw" else ""
            raise InputError(
                f"--model.rotation {rotation}: the loss {type(part).__name__}{raw} takes only "
                f"{', '.join(sorted(accepted))}."
            )


def check_log_variance(loss: nn.Module, given: bool) -> None:
    """Refuses a loss that asks how sure the network is, where the network does not say.

    Raises:
        InputError: If there is such a part.
    """
    if not given and any(isinstance(part, Nll) for part in loss.modules()):
        raise InputError(
            "--model.log_variance: the loss nll needs it; give --model.log_variance, or "
            "nll/model.log_variance=true in a study."
        )


def needs_depth(loss: nn.Module) -> bool:
    """Whether any part of a loss uses the scene's median depth."""
    return any(getattr(part, "needs_depth", False) for part in loss.modules())


def needs_range(loss: nn.Module) -> bool:
    """Whether any part of a loss uses the scene's near and far depth."""
    return any(getattr(part, "needs_range", False) for part in loss.modules())


def needs_points(loss: nn.Module) -> bool:
    """Whether any part of a loss uses the map points that each image sees."""
    return any(getattr(part, "needs_points", False) for part in loss.modules())


def takes_points(loss: nn.Module) -> bool:
    """Whether any part of a loss uses map points where the scene has them."""
    return needs_points(loss) or any(isinstance(part, Bearing) for part in loss.modules())


def check_scene(
    loss: nn.Module, name: str, scene: str, depth: Float[Tensor, "3"] | None, has_points: bool
) -> None:
    """Refuses a scene that does not know what a loss uses, before any training.

    Args:
        loss: The loss.
        name: Its name, as in ``LossConfig``.
        scene: The scene's name.
        depth: Near, median and far depth of the scene; near and far NaN where not known.
        has_points: Whether the scene has map points.

    Raises:
        InputError: If something is missing.
    """
    lacks = f"and {scene} has no map points"
    if needs_points(loss) and not has_points:
        raise InputError(
            f"--loss {name} uses map points, {lacks}: make some with relocal triangulate."
        )
    if needs_depth(loss) and depth is None:
        raise InputError(
            f"--loss {name} uses the scene's depth, {lacks}: make some with relocal triangulate, "
            "or give its median depth with --loss.depth."
        )
    if needs_range(loss) and (depth is None or not bool(depth.isfinite().all())):
        raise InputError(
            f"--loss {name} uses the scene's near and far depth, {lacks}: make some with relocal "
            "triangulate."
        )


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "default": Default,
    "posenet": PoseNet,
    "position": Position,
    "rotation": Rotation,
    "homoscedastic": Homoscedastic,
    "logq": LogQ,
    "geodesic": Geodesic,
    "chordal": Chordal,
    "dsac": Dsac,
    "nll": Nll,
    "reprojection": Reprojection,
    "homography": Homography,
}
