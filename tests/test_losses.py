"""Laws of the losses: every entry of LOSSES, alone and with every coupled term and twin.

A new entry is tested by existing; it needs a twin in ``BASE_TWINS`` or ``TERM_TWINS``.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.testing import assert_close

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.losses import COUPLED, LOSSES, LossConfig, build_loss, needs_depth
from relocal.pose import Pose, quaternion_multiply
from relocal.types import Prediction, Target

DEPTH = 3.0
# What a loss is at the label, where that is not zero: homoscedastic's s_x + s_q.
LOWEST = {"homoscedastic": -3.0}
# Where its rotation part may begin to fall: the L1 norm does before half a turn, chords do not.
RISES_UNTIL_DEG = {"homoscedastic": 90}
# Losses that see the axes of the world: the L1 norm does.
SEES_WORLD_AXES = {"homoscedastic"}

TERMS = [*COUPLED, *(f"twin:{name}" for name in COUPLED)]
VARIANTS = [(name, None) for name in LOSSES] + [
    (f"{base}+{term}", form) for base in LOSSES for term in TERMS for form in ("norm", "squared")
]


def base_of(name: str) -> str:
    return name.split("+")[0]


def build(name: str, **options: object) -> nn.Module:
    config = LossConfig(name=name, **{k: v for k, v in options.items() if v is not None})  # type: ignore[arg-type]
    return build_loss(config).double()


def build_term(name: str, form: str) -> nn.Module:
    plain = name.removeprefix("twin:")
    return COUPLED[plain](form=form, twin=plain != name)


every_loss = pytest.mark.parametrize(("name", "form"), VARIANTS)
every_form = pytest.mark.parametrize("form", ["norm", "squared"])
every_term = pytest.mark.parametrize("name", TERMS)
every_coupled = pytest.mark.parametrize("name", COUPLED)


def draw_quaternions(n: int) -> Tensor:
    q = torch.randn(n, 4, dtype=torch.float64)
    return q / q.norm(dim=-1, keepdim=True)


def about(axis: Tensor, angle: Tensor | float) -> Tensor:
    """Quaternions of turns by angles about axes, (n, 4)."""
    half = torch.as_tensor(angle, dtype=torch.float64).reshape(-1, 1) / 2
    return torch.cat([half.cos(), half.sin() * axis / axis.norm(dim=-1, keepdim=True)], dim=-1)


def draw_target(n: int) -> Target:
    """Labels of either sign anywhere, seen by cameras that are not alike."""
    params = torch.tensor([200.0, 220.0, 112.0, 100.0]) + 20 * torch.rand(n, 4)
    return Target(
        pose=Pose(2 * torch.randn(n, 3, dtype=torch.float64), draw_quaternions(n)),
        camera=Camera("PINHOLE", 224, 192, params.double()),
        hemisphere=draw_quaternions(1)[0],
        depth=torch.tensor([0.5, DEPTH, 9.0]).double(),
    )


def moved(target: Target, shift: Tensor | float, turn: Tensor) -> Prediction:
    """The label's side, shifted, and then turned by ``turn`` in the world."""
    position = target.pose.position + shift
    return Prediction(position, quaternion_multiply(turn, target.quaternion))


def no_turn(n: int) -> Tensor:
    return torch.tensor([[1.0, 0.0, 0.0, 0.0]]).double().expand(n, 4)


@pytest.fixture
def target() -> Target:
    return draw_target(6)


# Shape, the lowest value, and the way up.


@every_loss
@pytest.mark.parametrize("n", [0, 1, 6])
def test_loss_is_one_value_a_sample(name: str, form: str | None, n: int) -> None:
    target, loss = draw_target(n), build(name, form=form)
    together = loss(moved(target, 0.5, draw_quaternions(n)), target, 0.5)
    assert together.shape == (n,)
    assert together.dtype == torch.float64


@every_loss
def test_loss_is_lowest_at_the_label(name: str, form: str | None) -> None:
    target, loss = draw_target(300), build(name, form=form)
    lowest = loss(moved(target, 0, no_turn(300)), target, 1.0)
    assert_close(lowest, torch.full_like(lowest, LOWEST.get(base_of(name), 0)), atol=1e-12, rtol=0)
    shift = torch.randn(300, 3).double() * torch.logspace(-4, 1, 300)[:, None]
    turn = about(torch.randn(300, 3).double(), torch.logspace(-4, 0, 300) * math.pi)
    for prediction in (moved(target, shift, no_turn(300)), moved(target, 0, turn)):
        assert (loss(prediction, target, 1.0) >= lowest - 1e-12).all()
    assert (loss(moved(target, shift, turn), target, 1.0) > lowest).all()


@every_loss
def test_loss_does_not_fall_while_the_position_error_grows(name: str, form: str | None) -> None:
    for direction in torch.randn(10, 3).double():
        target, loss = one_label(60), build(name, form=form)
        shift = torch.linspace(0, 8, 60)[:, None] * direction
        value = loss(moved(target, shift, no_turn(60)), target, 1.0)
        assert (value.diff() >= -1e-12).all()


@every_loss
def test_loss_does_not_fall_while_the_rotation_error_grows(name: str, form: str | None) -> None:
    for axis in torch.randn(10, 3).double():
        target, loss = one_label(60), build(name, form=form)
        limit = math.radians(RISES_UNTIL_DEG.get(base_of(name), 180))
        turn = about(axis, torch.linspace(0, limit, 60))
        value = loss(moved(target, 0, turn), target, 1.0)
        assert (value.diff() >= -1e-12).all()


def one_label(n: int) -> Target:
    """The same label n times."""
    target, first = draw_target(n), torch.zeros(n, dtype=torch.long)
    return replace(target, pose=target.pose[first], camera=target.camera[first])


# Null sets, and what the decoupled twin takes away.


def rolled(target: Target) -> Prediction:
    roll = about(torch.tensor([0.0, 0.0, 1.0]).double(), torch.linspace(0.1, 3, 6))
    return Prediction(target.pose.position, quaternion_multiply(target.quaternion, roll))


def orbited(target: Target) -> Prediction:
    """Each camera turned about the point that it looks at, at depth d."""
    centre = target.pose.position + DEPTH * target.pose.look_direction
    swing = Pose(torch.zeros(6, 3).double(), about(torch.randn(6, 3).double(), 0.8))
    position = centre + swing.apply(target.pose.position - centre)
    return Prediction(position, quaternion_multiply(swing.quaternion, target.quaternion))


@every_form
def test_sightline_is_blind_to_roll_and_orbits(target: Target, form: str) -> None:
    nothing = torch.zeros(6).double()
    sightline, twin = build_term("sightline", form), build_term("twin:sightline", form)
    for prediction in (rolled(target), orbited(target)):
        assert_close(sightline(prediction, target, 1.0), nothing, rtol=0, atol=1e-12)
    assert_close(twin(rolled(target), target, 1.0), nothing, rtol=0, atol=1e-12)


@every_form
@pytest.mark.parametrize("name", ["frustum", "twin:frustum"])
def test_frustum_is_blind_to_nothing(target: Target, form: str, name: str) -> None:
    frustum = build_term(name, form)
    for prediction in (rolled(target), orbited(target)):
        assert (frustum(prediction, target, 1.0) > 1e-3).all()
    many = draw_target(3000)
    shift, angle = DEPTH * torch.randn(3000, 3).double(), torch.randn(3000).double()
    size = 1e-3 / (shift.norm(dim=-1) + DEPTH * angle.abs())
    turn = about(torch.randn(3000, 3).double(), size * angle)
    value = frustum(moved(many, size[:, None] * shift, turn), many, 1.0)
    assert ((value if form == "norm" else value.sqrt()) > 1e-4).all()


@every_form
@every_coupled
def test_twin_is_the_coupled_term_when_either_error_is_zero(
    target: Target, name: str, form: str
) -> None:
    coupled, twin = build_term(name, form), build_term(f"twin:{name}", form)
    shift = torch.randn(6, 3).double()
    for prediction in (moved(target, shift, no_turn(6)), moved(target, 0, draw_quaternions(6))):
        assert_close(twin(prediction, target, 1.0), coupled(prediction, target, 1.0))


@every_form
@every_coupled
def test_twin_lets_no_errors_cancel(target: Target, name: str, form: str) -> None:
    coupled, twin = build_term(name, form), build_term(f"twin:{name}", form)
    orbit = orbited(target)
    apart = [
        replace(orbit, position=target.pose.position),
        replace(orbit, rotation=target.quaternion),
    ]
    together = twin(orbit, target, 1.0)
    assert (together > coupled(orbit, target, 1.0) + 0.1).all()
    assert all((together >= twin(alone, target, 1.0) - 1e-12).all() for alone in apart)


@every_coupled
def test_squared_twin_is_the_mean_over_opposite_shifts(target: Target, name: str) -> None:
    coupled, twin = build_term(name, "squared"), build_term(f"twin:{name}", "squared")
    shift, turn = torch.randn(6, 3).double(), draw_quaternions(6)
    there, back = (coupled(moved(target, s, turn), target, 1.0) for s in (shift, -shift))
    assert_close(twin(moved(target, shift, turn), target, 1.0), (there + back) / 2)


# Signs of quaternions.


@every_loss
def test_loss_is_blind_to_the_sign_of_the_label(
    target: Target, name: str, form: str | None
) -> None:
    loss = build(name, form=form)
    prediction = moved(target, 0.3, draw_quaternions(6))
    flipped = replace(target, pose=Pose(target.pose.position, -target.pose.quaternion))
    assert_close(loss(prediction, flipped, 1.0), loss(prediction, target, 1.0), rtol=0, atol=0)


MATCHING = [name for name in LOSSES if "match_sign" in inspect.signature(LOSSES[name]).parameters]


@pytest.mark.parametrize("name", MATCHING)
def test_match_sign_makes_it_blind_to_the_sign_of_the_prediction(target: Target, name: str) -> None:
    prediction = moved(target, 0.3, about(torch.randn(6, 3).double(), 0.8))
    opposite = replace(prediction, rotation=-prediction.rotation)
    matched, fixed = build(name, match_sign=True), build(name)
    assert_close(matched(opposite, target, 1.0), matched(prediction, target, 1.0))
    assert_close(matched(prediction, target, 1.0), fixed(prediction, target, 1.0))
    assert (fixed(opposite, target, 1.0) > fixed(prediction, target, 1.0)).all()


@every_term
def test_terms_are_blind_to_the_sign_of_the_prediction(target: Target, name: str) -> None:
    term, prediction = build_term(name, "norm"), moved(target, 0.3, draw_quaternions(6))
    opposite = replace(prediction, rotation=-prediction.rotation)
    assert_close(term(opposite, target, 1.0), term(prediction, target, 1.0))


def test_labels_are_on_the_side_of_the_training_mean() -> None:
    target = draw_target(100)
    assert ((target.quaternion * target.hemisphere).sum(-1) > 0).all()
    assert (target.quaternion[:, 0] < 0).any()


# Gradients.


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, math.pi])
def test_gradients_are_finite_at_the_label_and_at_half_a_turn(
    name: str, form: str | None, dtype: torch.dtype, angle: float
) -> None:
    target, loss = draw_target(6), build(name, form=form)
    axes = torch.eye(3).double().repeat(2, 1)
    prediction = moved(target, 0, about(axes, angle))
    single = replace(
        target,
        pose=target.pose.to(dtype),
        hemisphere=target.hemisphere.to(dtype),
        depth=torch.tensor([0.5, DEPTH, 9.0], dtype=dtype),
    )
    position = prediction.position.to(dtype).requires_grad_()
    rotation = prediction.rotation.to(dtype).requires_grad_()
    loss(Prediction(position, rotation), single, 1.0).sum().backward()
    leaves = [position, rotation, *loss.parameters()]
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves)
    assert position.grad is not None or rotation.grad is not None


@every_loss
def test_gradients_are_right(name: str, form: str | None) -> None:
    target, loss = draw_target(2), build(name, form=form)
    prediction = moved(target, torch.tensor([0.5, -0.3, 0.8]).double(), draw_quaternions(2))

    def value(position: Tensor, rotation: Tensor) -> Tensor:
        return loss(Prediction(position, 1.3 * rotation), target, 1.0)

    leaves = (prediction.position.requires_grad_(), prediction.rotation.requires_grad_())
    assert torch.autograd.gradcheck(value, leaves)


# Changes of the world.


@every_loss
def test_loss_does_not_depend_on_the_world_frame(name: str, form: str | None) -> None:
    target, loss = draw_target(50), build(name, form=form)
    world = Pose(torch.tensor([[1.0, -2.0, 3.0]]).double(), draw_quaternions(1))
    prediction = moved(target, torch.randn(50, 3).double(), 1.7 * draw_quaternions(50))
    moved_target = replace(
        target,
        pose=world @ target.pose,
        hemisphere=quaternion_multiply(world.quaternion[0], target.hemisphere),
    )
    moved_prediction = Prediction(
        world.apply(prediction.position), quaternion_multiply(world.quaternion, prediction.rotation)
    )
    before, after = loss(prediction, target, 1.0), loss(moved_prediction, moved_target, 1.0)
    assert torch.allclose(after, before) == (base_of(name) not in SEES_WORLD_AXES)


@every_form
@every_term
def test_terms_scale_with_the_scene(target: Target, name: str, form: str) -> None:
    term, scale = build_term(name, form), 7.0
    prediction = moved(target, torch.randn(6, 3).double(), draw_quaternions(6))
    assert target.depth is not None
    pose = Pose(scale * target.pose.position, target.pose.quaternion)
    larger = replace(target, pose=pose, depth=scale * target.depth)
    value = term(replace(prediction, position=scale * prediction.position), larger, 1.0)
    power = scale if form == "norm" else scale**2
    assert_close(value, power * term(prediction, target, 1.0))


# Twins in NumPy and SciPy, sample by sample.

Vector = np.ndarray
BaseTwin = Callable[[Vector, Vector, Vector], float]


def unit(q: Vector) -> Vector:
    return q / np.linalg.norm(q)


BASE_TWINS: dict[str, BaseTwin] = {
    # Δx, the raw q̂, the label q with its sign.
    "default": lambda dx, raw, q: 2.0 * np.mean(dx**2) + 5.0 * np.mean((raw - q) ** 2),
    "posenet": lambda dx, raw, q: np.linalg.norm(dx) + 5.0 * np.linalg.norm(unit(raw) - q),
    "position": lambda dx, raw, q: float(np.linalg.norm(dx)),
    "rotation": lambda dx, raw, q: (turn_of(raw).inv() * turn_of(q)).magnitude(),
    "homoscedastic": lambda dx, raw, q: (
        np.abs(dx).sum() + math.exp(3) * np.abs(unit(raw) - q).sum() - 3
    ),
}
OPTIONS = {"default": {"alpha": 2.0, "beta": 5.0}, "posenet": {"beta": 5.0}}


def turn_of(q: Vector) -> Rotation:
    return Rotation.from_quat(q, scalar_first=True)


@pytest.mark.parametrize("name", LOSSES)
def test_base_equals_its_slow_twin(target: Target, name: str) -> None:
    raw = moved(target, torch.randn(6, 3).double(), 0.7 * draw_quaternions(6))
    value = build(name, **OPTIONS.get(name, {}))(raw, target, 1.0)
    for i in range(6):
        q = target.pose.quaternion[i].numpy()
        q = q if q @ target.hemisphere.numpy() >= 0 else -q
        dx = (raw.position - target.pose.position)[i].numpy()
        expected = BASE_TWINS[name](dx, raw.rotation[i].numpy(), q)
        assert float(value[i]) == pytest.approx(expected, abs=1e-12)


def corner_rays(camera: Vector) -> list[list[float]]:
    fx, fy, cx, cy = camera
    corners = [(0, 0), (224, 0), (0, 192), (224, 192)]
    return [[0, 0, 1], *([(x - cx) / fx, (y - cy) / fy, 1.0] for x, y in corners)]


TERM_RAYS: dict[str, Callable[[Vector], list[list[float]]]] = {
    "sightline": lambda camera: [[0, 0, 1]],
    "frustum": corner_rays,
}


@every_form
@every_term
def test_term_equals_its_slow_twin(target: Target, name: str, form: str) -> None:
    prediction = moved(target, torch.randn(6, 3).double(), 0.7 * draw_quaternions(6))
    value = build_term(name, form)(prediction, target, 1.0)
    for i in range(6):
        expected = slow_term(name, form, prediction, target, i)
        assert float(value[i]) == pytest.approx(expected, abs=1e-12)


def slow_term(name: str, form: str, prediction: Prediction, target: Target, i: int) -> float:
    dx = (prediction.position - target.pose.position)[i].numpy()
    there, here = (turn_of(q[i].numpy()) for q in (prediction.rotation, target.pose.quaternion))
    gaps: list[float] = []
    for ray in TERM_RAYS[name.removeprefix("twin:")](target.camera.params[i].numpy()):
        r = DEPTH * (there.apply(ray) - here.apply(ray))
        square = dx @ dx + r @ r if name.startswith("twin:") else (dx + r) @ (dx + r)
        gaps.append(square if form == "squared" else math.sqrt(square))
    return float(np.mean(gaps))
