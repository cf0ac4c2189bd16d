"""Laws of every loss and term; a new entry only needs a slow twin in test_loss_oracles.py."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from loss_cases import (
    BASE_CASES,
    CASES,
    LOG_VAR,
    MATCHING,
    TERM_CASES,
    about,
    base_of,
    build,
    draw_quaternions,
    draw_target,
    make,
    moved,
    taken,
    value_of,
    written,
)
from torch import Tensor, nn
from torch.testing import assert_close

from relocal.losses import LOSSES, build_loss, parse_loss
from relocal.pose import Pose, quaternion_multiply
from relocal.types import Prediction, Target

# What a loss is at the label, where that is not zero.
LOWEST = {
    "homoscedastic": -3.0,  # s_x + s_q
    "logq": -3.0,
    "nll": 3 * math.log(2 * math.pi) + 1.5 * sum(LOG_VAR),
    "nll/noise=laplace": 2 * math.log(math.pi) + 1.5 * sum(LOG_VAR),
}
# What a loss does not see, but for where it is the only one that is wrong.
BLIND_TO = {"position": "turn", "rotation": "shift"}
# How far the rotation part surely rises, in degrees: L1 norms and logarithms of quaternions may
# fall before half a turn, chords do not, and points behind a camera tell nothing.
RISES_UNTIL_DEG = {"homoscedastic": 90, "logq": 30, "reprojection": 10}
L1_RISES_UNTIL_DEG = {"default": 90, "posenet": 90, "chordal": 30}
# How far the position part surely rises, in scene units: until the camera passes a point.
RISES_UNTIL = {"reprojection": 0.1}
# Losses that see the axes of the world: L1 norms of vectors in it do, and the logarithm.
SEE_WORLD_AXES = {"homoscedastic", *(case for case in BASE_CASES if base_of(case) == "logq")}
L1_IS_NOT_OF_THE_WORLD = {"rotation", "reprojection", "homography"}

every_case = pytest.mark.parametrize("case", CASES)


pytestmark = pytest.mark.usefixtures("double")


def lowest(case: str) -> float:
    return LOWEST.get(case, LOWEST.get(base_of(case), 0.0))


# Shape, the lowest value, and the way up.


@every_case
@pytest.mark.parametrize("n", [0, 6])
def test_loss_is_one_value_a_sample(case: str, n: int) -> None:
    target, loss = draw_target(n), make(case)
    prediction = written(moved(target, 0.5, draw_quaternions(n)), loss)
    value = loss(prediction, target, 0.5)
    assert value.shape == (n,)
    for i in range(n):
        one = slice(i, i + 1)
        assert prediction.log_var is not None
        alone = replace(
            prediction,
            position=prediction.position[one],
            rotation=prediction.rotation[one],
            log_var=prediction.log_var[one],
        )
        assert_close(loss(alone, taken(target, one), 0.5), value[one])


@every_case
def test_loss_is_lowest_at_the_label(case: str) -> None:
    target, loss, low = draw_target(300), make(case), lowest(case)
    at_label = value_of(loss, moved(target), target)
    assert_close(at_label, torch.full((300,), low), rtol=0, atol=1e-12)
    shift = torch.logspace(-4, 1, 300)[:, None] * torch.randn(300, 3)
    turn = about(torch.randn(300, 3), math.pi * torch.logspace(-4, 0, 300))
    alone = {"shift": moved(target, shift), "turn": moved(target, turn=turn)}
    for error, prediction in alone.items():
        value = value_of(loss, prediction, target)
        if BLIND_TO.get(base_of(case)) == error:
            assert_close(value, at_label, rtol=0, atol=1e-12)
        else:
            assert (value > low + 1e-11).all()
    assert (value_of(loss, moved(target, shift, turn), target) > low + 1e-11).all()


@every_case
def test_loss_does_not_fall_while_one_error_grows(case: str) -> None:
    label, path = draw_target(8), torch.arange(8).repeat_interleave(40)
    target, base = taken(label, path), base_of(case)
    way, step = torch.randn(8, 3)[path], torch.linspace(0, 1, 40).repeat(8)
    degrees = RISES_UNTIL_DEG.get(base, 180)
    if case.endswith("robust=l1"):
        degrees = L1_RISES_UNTIL_DEG.get(base, degrees)
    shifted = RISES_UNTIL.get(base, 9.0) * step[:, None] * way
    turned = about(way, math.radians(degrees) * step)
    for prediction in (moved(target, shifted), moved(target, turn=turned)):
        value = value_of(make(case), prediction, target)
        assert (value.reshape(8, 40).diff() >= -1e-12).all()


# Signs of quaternions.


@every_case
def test_loss_is_blind_to_the_label_sign(target: Target, case: str) -> None:
    loss, prediction = make(case), moved(target, 0.3, draw_quaternions(6))
    flipped = replace(target, pose=Pose(target.pose.position, -target.pose.quaternion))
    values = (value_of(loss, prediction, label) for label in (flipped, target))
    assert_close(*values, rtol=0, atol=0)


@pytest.mark.parametrize("name", MATCHING)
def test_match_sign_makes_it_blind_to_the_sign_of_the_prediction(target: Target, name: str) -> None:
    prediction = moved(target, 0.3, about(torch.randn(6, 3), 0.8))
    opposite = replace(prediction, rotation=-prediction.rotation)
    matched, fixed = build(name, match_sign=True), build(name)
    # Early in training, where reprojection is posenet.
    assert_close(matched(opposite, target, 0.1), matched(prediction, target, 0.1))
    assert_close(matched(prediction, target, 0.1), fixed(prediction, target, 0.1))
    assert (fixed(opposite, target, 0.1) > fixed(prediction, target, 0.1)).all()


@pytest.mark.parametrize(
    "case", [case for case in (*BASE_CASES, *TERM_CASES) if base_of(case) not in MATCHING]
)
def test_other_losses_are_blind_to_the_sign_of_the_prediction(target: Target, case: str) -> None:
    loss, prediction = make(case), moved(target, 0.3, draw_quaternions(6))
    opposite = replace(prediction, rotation=-prediction.rotation)
    assert_close(value_of(loss, opposite, target), value_of(loss, prediction, target))


# Gradients.


def leaves_of(loss: nn.Module, prediction: Prediction) -> tuple[Tensor, Tensor, Tensor]:
    """The position, rotation and log-variance of a prediction, written as the loss accepts it."""
    start = written(prediction, loss)
    assert start.log_var is not None
    x, q, log_var = (part.detach() for part in (start.position, start.rotation, start.log_var))
    return x.requires_grad_(), q.requires_grad_(), log_var.requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("case", "progress"), [*((case, 1.0) for case in CASES), ("reprojection", 0.1)]
)
def test_gradients_are_finite_at_the_label_and_at_half_a_turn(
    target: Target, case: str, dtype: torch.dtype, progress: float
) -> None:
    exact, loss = cast(target, dtype), make(case)
    for angle in (0.0, math.pi):
        turn = about(torch.eye(3).repeat(2, 1), angle).to(dtype)
        start = written(moved(exact, turn=turn), loss)
        x, q, log_var = leaves = leaves_of(loss, start)
        value = loss(Prediction(x, q, start.rotation_name, log_var), exact, progress)
        value.sum().backward()
        assert value.dtype == dtype
        slopes = [leaf.grad for leaf in (*leaves, *loss.parameters()) if leaf.grad is not None]
        assert slopes
        assert all(slope.isfinite().all() for slope in slopes)


def cast(target: Target, dtype: torch.dtype) -> Target:
    assert target.depth is not None
    assert target.points is not None
    return replace(
        target,
        pose=target.pose.to(dtype),
        hemisphere=target.hemisphere.to(dtype),
        depth=target.depth.to(dtype),
        points=target.points.to(dtype),
    )


@every_case
@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_gradients_are_right(case: str, size: float) -> None:
    target, loss = draw_target(2), make(case)
    turn = 1.3 * about(torch.randn(2, 3), size * torch.tensor([0.7, 2.1]))
    start = written(moved(target, size * torch.tensor([0.5, -0.3, 0.8]), turn), loss)

    def of(x: Tensor, q: Tensor, log_var: Tensor) -> Tensor:
        return loss(Prediction(x, q, start.rotation_name, log_var), target, 1.0)

    # Half-differences of second order need steps well below the errors themselves.
    assert torch.autograd.gradcheck(of, leaves_of(loss, start), eps=1e-7, atol=1e-4, rtol=1e-4)


@every_case
def test_single_precision_is_enough(case: str) -> None:
    target, loss = draw_target(200), make(case)
    prediction = moved(target, 0.05 * torch.randn(200, 3), about(torch.randn(200, 3), 0.03))
    low = lowest(case)
    exact = value_of(loss, prediction, target) - low
    rounded = replace(
        prediction,
        position=prediction.position.float(),
        rotation=prediction.rotation.float(),
        log_var=torch.tensor(LOG_VAR).float().repeat(200, 1),
    )
    value = value_of(loss, rounded, cast(target, torch.float32)).double() - low
    assert_close(value, exact, rtol=2e-3, atol=1e-5)


# Changes of the world.


@every_case
def test_loss_does_not_depend_on_the_world_frame(case: str) -> None:
    target, loss = draw_target(50), make(case)
    here = moved(target, torch.randn(50, 3), 1.7 * draw_quaternions(50))
    world = Pose(torch.tensor([[1.0, -2.0, 3.0]]), draw_quaternions(1))
    side = quaternion_multiply(world.quaternion[0], target.hemisphere)
    assert target.points is not None
    there_target = replace(
        target, pose=world @ target.pose, hemisphere=side, points=world.apply(target.points)
    )
    rotation = quaternion_multiply(world.quaternion, here.rotation)
    there = replace(here, position=world.apply(here.position), rotation=rotation)
    same = torch.allclose(value_of(loss, there, there_target), value_of(loss, here, target))
    assert same == (not sees_world_axes(case))


def sees_world_axes(case: str) -> bool:
    l1 = case.endswith("robust=l1") and base_of(case) not in L1_IS_NOT_OF_THE_WORLD
    return l1 or case in SEE_WORLD_AXES


SCALE = 7.0
# Options in the scene's unit: exponents of the scale that they follow the scene with.
UNITS = {
    "default": {"alpha": -2},
    "posenet": {"beta": 1},
    "geodesic": {"beta": 1},
    "chordal": {"beta": 1},
    "dsac": {"alpha": -1},
}
# The exponent of the scale that the value then grows with; 0 if not named.
POWERS = {"posenet": 1, "position": 1, "geodesic": 1, "chordal": 1}
# Losses of learned or predicted sizes: their logarithms follow, and are part of the value.
LOGARITHMS = {"homoscedastic": 1, "logq": 1, "nll": 3}


def rescaled(target: Target, prediction: Prediction) -> tuple[Prediction, Target]:
    assert target.depth is not None
    assert target.points is not None
    assert prediction.log_var is not None
    pose = Pose(SCALE * target.pose.position, target.pose.quaternion)
    larger = torch.tensor([2 * math.log(SCALE), 0.0])
    return (
        replace(
            prediction,
            position=SCALE * prediction.position,
            log_var=prediction.log_var + larger,
        ),
        replace(target, pose=pose, depth=SCALE * target.depth, points=SCALE * target.points),
    )


@pytest.mark.parametrize("case", BASE_CASES)
def test_base_follows_the_scale_of_the_scene(target: Target, case: str) -> None:
    name, config = base_of(case), parse_loss(case)
    robust = config.robust is not None and config.robust != "l1"
    squares = name == "default" and config.robust is None
    options: dict[str, Any] = {}
    for option, power in UNITS.get(name, {}).items():
        start = getattr(LOSSES[name](), option)
        options[option] = start * SCALE ** (power if squares or name != "default" else -1)
    if robust and name not in ("rotation", "reprojection", "homography"):
        options["robust_x"] = 0.1 * SCALE
    prediction = moved(target, torch.randn(6, 3), draw_quaternions(6))
    small, large = make(case), build_loss(replace(config, **options))
    if name in ("homoscedastic", "logq"):
        with torch.no_grad():
            large.get_parameter("s_x").add_(math.log(SCALE))
    expected = SCALE ** POWERS.get(name, 0) * value_of(small, prediction, target)
    expected = expected + LOGARITHMS.get(name, 0) * math.log(SCALE)
    assert_close(value_of(large, *rescaled(target, prediction)), expected)


@pytest.mark.parametrize("case", TERM_CASES)
def test_term_follows_the_scale_of_the_scene(target: Target, case: str) -> None:
    term, prediction = make(case), moved(target, torch.randn(6, 3), draw_quaternions(6))
    power = 0 if "bearing" in case or "product" in case else 2 if "squared" in case else 1
    large = value_of(term, *rescaled(target, prediction))
    assert_close(large, SCALE**power * value_of(term, prediction, target))
