"""What the tests of losses share: labels, predictions, and every loss in every variant by name."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from relocal.camera import Camera
from relocal.losses import COUPLED, LOSSES, LossConfig, build_loss, parse_loss
from relocal.losses.loss import Robust
from relocal.pose import ROTATIONS, Pose, quaternion_multiply
from relocal.types import Prediction, Target

NEAR, DEPTH, FAR = 0.5, 3.0, 9.0
LOG_VAR = (-0.7, -1.9)
POINTS = 14
NO_TURN = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)


def options_of(factory: Callable[..., nn.Module]) -> set[str]:
    return set(inspect.signature(factory).parameters)


TERMS = [*COUPLED, *(f"twin:{name}" for name in COUPLED)]
ROBUST_BASES = [name for name in LOSSES if options_of(LOSSES[name]) & {"x_distance", "q_distance"}]
# Losses, and terms alone, as parse_loss reads them.
BASE_CASES = [
    *LOSSES,
    *(f"{name}/robust={kind}" for name in ROBUST_BASES for kind in get_args(Robust)),
    *("default/quaternion=unit", "posenet/quaternion=raw", "nll/noise=laplace"),
]
TERM_CASES = [
    *(f"{name}/form={form}" for name in TERMS for form in ("norm", "squared")),
    *("frustum/rays=grid", "twin:se3/depth_of=image", "sightline/depth_of=image"),
]
CASES = [*BASE_CASES, *TERM_CASES, "posenet+frustum+twin:points/form=squared"]
MATCHING = [name for name in LOSSES if "match_sign" in options_of(LOSSES[name])]


def base_of(case: str) -> str:
    return case.partition("/")[0].partition("+")[0]


def build(name: str, **options: Any) -> nn.Module:
    return build_loss(LossConfig(name=name, **options))


def build_term(name: str, form: str = "norm", **options: Any) -> nn.Module:
    plain = name.removeprefix("twin:")
    return COUPLED[plain](form=form, twin=plain != name, **options)


def make(case: str) -> nn.Module:
    """The loss or the term alone that a case names."""
    config = parse_loss(case)
    if config.name not in TERMS:
        return build_loss(config)
    options = {k: getattr(config, k) for k in ("form", "depth_of", "rays") if getattr(config, k)}
    return build_term(config.name, **options)


def draw_quaternions(n: int) -> Tensor:
    q = torch.randn(n, 4)
    return q / q.norm(dim=-1, keepdim=True)


def draw_target(n: int) -> Target:
    """Labels of either sign anywhere, seen by cameras that are not alike; padding is NaN."""
    params = torch.tensor([200.0, 220.0, 112.0, 100.0]) + 20 * torch.rand(n, 4)
    pose, camera = (
        Pose(2 * torch.randn(n, 3), draw_quaternions(n)),
        Camera("PINHOLE", 224, 192, params),
    )
    rays = camera[:, None].unproject(torch.rand(n, POINTS, 2) * torch.tensor([224.0, 192.0]))
    points = pose[:, None].apply((NEAR + (FAR - NEAR) * torch.rand(n, POINTS, 1)) * rays)
    visible = torch.arange(POINTS) < torch.randint(8, POINTS, (n, 1))
    return Target(
        pose=pose,
        camera=camera,
        hemisphere=draw_quaternions(1)[0],
        depth=torch.tensor([NEAR, DEPTH, FAR]),
        points=torch.where(visible[..., None], points, torch.nan),
        visible=visible,
    )


def taken(target: Target, index: Any) -> Target:
    """The labels at an index."""
    assert target.points is not None
    assert target.visible is not None
    return replace(
        target,
        pose=target.pose[index],
        camera=target.camera[index],
        points=target.points[index],
        visible=target.visible[index],
    )


def about(axis: Tensor, angle: Tensor | float) -> Tensor:
    """Quaternions of turns by angles about axes."""
    half = torch.as_tensor(angle)[..., None] / 2
    vector = half.sin() * axis / axis.norm(dim=-1, keepdim=True)
    return torch.cat([half.cos().expand_as(vector[..., :1]), vector], dim=-1)


def moved(target: Target, shift: Tensor | float = 0.0, turn: Tensor = NO_TURN) -> Prediction:
    """The labels on the training mean's side, shifted, and turned in the world."""
    rotation = quaternion_multiply(turn, target.quaternion)
    position = target.pose.position + shift
    return Prediction(
        position, rotation, log_var=position.new_tensor(LOG_VAR).repeat(len(position), 1)
    )


def written(prediction: Prediction, loss: nn.Module) -> Prediction:
    """A prediction in quaternions as a loss accepts it."""
    for part in loss.modules():
        accepted = getattr(part, "rotations", None)
        if accepted is not None and "quaternion" not in accepted:
            name = min(accepted)
            rotation = ROTATIONS[name].encode(prediction.pose().quaternion)
            return replace(prediction, rotation=rotation, rotation_name=name)
    return prediction


def value_of(
    loss: nn.Module, prediction: Prediction, target: Target, progress: float = 1.0
) -> Tensor:
    return loss(written(prediction, loss), target, progress)
