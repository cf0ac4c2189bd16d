"""Laws of every loss and term; a new entry only needs a slow twin in SLOW_BASES or RAYS."""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

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
NO_TURN = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)

# What a loss is at the label, where that is not zero: homoscedastic's s_x + s_q.
LOWEST = {"homoscedastic": -3.0}
# How far its rotation part surely rises: the L1 norm may fall before half a turn, chords do not.
RISES_UNTIL_DEG = {"homoscedastic": 90}
# Losses that see the axes of the world: the L1 norm does.
SEE_WORLD_AXES = {"homoscedastic"}

TERMS = [*COUPLED, *(f"twin:{name}" for name in COUPLED)]
VARIANTS = [(name, None) for name in LOSSES] + [
    (f"{base}+{term}", form) for base in LOSSES for term in TERMS for form in ("norm", "squared")
]
MATCHING = [name for name in LOSSES if "match_sign" in inspect.signature(LOSSES[name]).parameters]

every_loss = pytest.mark.parametrize(("name", "form"), VARIANTS)
every_form = pytest.mark.parametrize("form", ["norm", "squared"])
every_term = pytest.mark.parametrize("name", TERMS)
every_coupled = pytest.mark.parametrize("name", COUPLED)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    """Everything in double precision, but for what a test casts."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def target() -> Target:
    return draw_target(6)


def draw_target(n: int) -> Target:
    """Labels of either sign anywhere, seen by cameras that are not alike."""
    params = torch.tensor([200.0, 220.0, 112.0, 100.0]) + 20 * torch.rand(n, 4)
    return Target(
        pose=Pose(2 * torch.randn(n, 3), draw_quaternions(n)),
        camera=Camera("PINHOLE", 224, 192, params),
        hemisphere=draw_quaternions(1)[0],
        depth=torch.tensor([0.5, DEPTH, 9.0]),
    )


def draw_quaternions(n: int) -> Tensor:
    q = torch.randn(n, 4)
    return q / q.norm(dim=-1, keepdim=True)


def about(axis: Tensor, angle: Tensor | float) -> Tensor:
    """Quaternions of turns by angles about axes."""
    half = torch.as_tensor(angle)[..., None] / 2
    vector = half.sin() * axis / axis.norm(dim=-1, keepdim=True)
    return torch.cat([half.cos().expand_as(vector[..., :1]), vector], dim=-1)


def moved(target: Target, shift: Tensor | float = 0.0, turn: Tensor = NO_TURN) -> Prediction:
    """The labels on the training mean's side, shifted, and turned in the world."""
    rotation = quaternion_multiply(turn, target.quaternion)
    return Prediction(target.pose.position + shift, rotation)


def build(name: str, **options: Any) -> nn.Module:
    return build_loss(LossConfig(name=name, **options))


def build_term(name: str, form: str) -> nn.Module:
    plain = name.removeprefix("twin:")
    return COUPLED[plain](form=form, twin=plain != name)


# Shape, the lowest value, and the way up.


@every_loss
@pytest.mark.parametrize("n", [0, 6])
def test_loss_is_one_value_a_sample(name: str, form: str | None, n: int) -> None:
    target, loss = draw_target(n), build(name, form=form)
    prediction = moved(target, 0.5, draw_quaternions(n))
    value = loss(prediction, target, 0.5)
    assert value.shape == (n,)
    for i in range(n):
        one = replace(target, pose=target.pose[i : i + 1], camera=target.camera[i : i + 1])
        alone = Prediction(prediction.position[i : i + 1], prediction.rotation[i : i + 1])
        assert_close(loss(alone, one, 0.5), value[i : i + 1])


@every_loss
def test_loss_is_lowest_at_the_label(name: str, form: str | None) -> None:
    target, loss = draw_target(300), build(name, form=form)
    lowest = loss(moved(target), target, 1.0)
    expected = torch.full_like(lowest, LOWEST.get(name.split("+")[0], 0.0))
    assert_close(lowest, expected, rtol=0, atol=1e-12)
    shift = torch.logspace(-4, 1, 300)[:, None] * torch.randn(300, 3)
    turn = about(torch.randn(300, 3), math.pi * torch.logspace(-4, 0, 300))
    for prediction in (moved(target, shift), moved(target, turn=turn)):
        assert (loss(prediction, target, 1.0) >= lowest - 1e-12).all()
    assert (loss(moved(target, shift, turn), target, 1.0) > lowest).all()


@every_loss
def test_loss_does_not_fall_while_one_error_grows(name: str, form: str | None) -> None:
    label, path = draw_target(8), torch.arange(8).repeat_interleave(40)
    target = replace(label, pose=label.pose[path], camera=label.camera[path])
    way, step = torch.randn(8, 3)[path], torch.linspace(0, 1, 40).repeat(8)
    limit = math.radians(RISES_UNTIL_DEG.get(name.split("+")[0], 180))
    shifted, turned = 9 * step[:, None] * way, about(way, limit * step)
    for prediction in (moved(target, shifted), moved(target, turn=turned)):
        value = build(name, form=form)(prediction, target, 1.0)
        assert (value.reshape(8, 40).diff() >= -1e-12).all()


# Null sets, and what the decoupled twin takes away.


def rolled(target: Target) -> Prediction:
    roll = about(torch.tensor([0.0, 0.0, 1.0]), torch.linspace(0.1, 3, 6))
    return Prediction(target.pose.position, quaternion_multiply(target.quaternion, roll))


def orbited(target: Target) -> Prediction:
    """Each camera turned about the point that it looks at, at depth d."""
    back = -DEPTH * target.pose.look_direction
    turn = Pose(torch.zeros(6, 3), about(torch.randn(6, 3), 0.8))
    return moved(target, turn.apply(back) - back, turn.quaternion)


@every_form
def test_sightline_is_blind_to_roll_and_orbits(target: Target, form: str) -> None:
    sightline, twin = build_term("sightline", form), build_term("twin:sightline", form)
    for term, prediction in ((sightline, orbited), (sightline, rolled), (twin, rolled)):
        value = term(prediction(target), target, 1.0)
        assert_close(value, torch.zeros(6), rtol=0, atol=1e-12)


@every_form
@pytest.mark.parametrize("name", ["frustum", "twin:frustum"])
def test_frustum_is_blind_to_nothing(target: Target, form: str, name: str) -> None:
    frustum, many = build_term(name, form), draw_target(3000)
    for prediction in (rolled(target), orbited(target)):
        assert (frustum(prediction, target, 1.0) > 1e-3).all()
    shift, angle = DEPTH * torch.randn(3000, 3), torch.randn(3000)
    size = 1e-3 / (shift.norm(dim=-1) + DEPTH * angle.abs())
    small = moved(many, size[:, None] * shift, about(torch.randn(3000, 3), size * angle))
    value = frustum(small, many, 1.0)
    assert ((value if form == "norm" else value.sqrt()) > 1e-4).all()


@every_form
@every_coupled
def test_twin_is_the_term_when_either_error_is_zero(target: Target, name: str, form: str) -> None:
    term, twin = build_term(name, form), build_term(f"twin:{name}", form)
    for alone in (moved(target, torch.randn(6, 3)), moved(target, turn=draw_quaternions(6))):
        assert_close(twin(alone, target, 1.0), term(alone, target, 1.0))


@every_form
@every_coupled
def test_twin_lets_no_errors_cancel(target: Target, name: str, form: str) -> None:
    term, twin, orbit = build_term(name, form), build_term(f"twin:{name}", form), orbited(target)
    together = twin(orbit, target, 1.0)
    assert (together > term(orbit, target, 1.0) + 0.1).all()
    for part in ({"position": target.pose.position}, {"rotation": target.quaternion}):
        assert (together >= twin(replace(orbit, **part), target, 1.0) - 1e-12).all()


# Signs of quaternions.


@every_loss
def test_loss_is_blind_to_the_label_sign(target: Target, name: str, form: str | None) -> None:
    loss, prediction = build(name, form=form), moved(target, 0.3, draw_quaternions(6))
    flipped = replace(target, pose=Pose(target.pose.position, -target.pose.quaternion))
    assert_close(loss(prediction, flipped, 1.0), loss(prediction, target, 1.0), rtol=0, atol=0)


@pytest.mark.parametrize("name", MATCHING)
def test_match_sign_makes_it_blind_to_the_sign_of_the_prediction(target: Target, name: str) -> None:
    prediction = moved(target, 0.3, about(torch.randn(6, 3), 0.8))
    opposite = replace(prediction, rotation=-prediction.rotation)
    matched, fixed = build(name, match_sign=True), build(name)
    assert_close(matched(opposite, target, 1.0), matched(prediction, target, 1.0))
    assert_close(matched(prediction, target, 1.0), fixed(prediction, target, 1.0))
    assert (fixed(opposite, target, 1.0) > fixed(prediction, target, 1.0)).all()


# Gradients, and changes of the world.


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_the_label_and_at_half_a_turn(
    target: Target, name: str, form: str | None, dtype: torch.dtype
) -> None:
    assert target.depth is not None
    loss, hemisphere, depth = build(name, form=form), target.hemisphere, target.depth
    exact = Target(target.pose.to(dtype), target.camera, hemisphere.to(dtype), depth.to(dtype))
    for angle in (0.0, math.pi):
        prediction = moved(exact, turn=about(torch.eye(3).repeat(2, 1), angle))
        leaves = [prediction.position.requires_grad_(), prediction.rotation.to(dtype)]
        value = loss(Prediction(leaves[0], leaves[1].requires_grad_()), exact, 1.0)
        value.sum().backward()
        assert value.dtype == dtype
        slopes = [leaf.grad for leaf in (*leaves, *loss.parameters()) if leaf.grad is not None]
        assert slopes
        assert all(slope.isfinite().all() for slope in slopes)


@every_loss
def test_gradients_are_right(name: str, form: str | None) -> None:
    target, loss = draw_target(2), build(name, form=form)
    start = moved(target, torch.tensor([0.5, -0.3, 0.8]), 1.3 * draw_quaternions(2))
    leaves = (start.position.requires_grad_(), start.rotation.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, q: loss(Prediction(x, q), target, 1.0), leaves)


@every_loss
def test_loss_does_not_depend_on_the_world_frame(name: str, form: str | None) -> None:
    target, loss = draw_target(50), build(name, form=form)
    here = moved(target, torch.randn(50, 3), 1.7 * draw_quaternions(50))
    world = Pose(torch.tensor([[1.0, -2.0, 3.0]]), draw_quaternions(1))
    side = quaternion_multiply(world.quaternion[0], target.hemisphere)
    there_target = replace(target, pose=world @ target.pose, hemisphere=side)
    rotation = quaternion_multiply(world.quaternion, here.rotation)
    there = Prediction(world.apply(here.position), rotation)
    same = torch.allclose(loss(there, there_target, 1.0), loss(here, target, 1.0))
    assert same == (name.split("+")[0] not in SEE_WORLD_AXES)


@every_form
@every_term
def test_terms_scale_with_the_scene(target: Target, name: str, form: str) -> None:
    assert target.depth is not None
    term, prediction = build_term(name, form), moved(target, torch.randn(6, 3), draw_quaternions(6))
    pose = Pose(7 * target.pose.position, target.pose.quaternion)
    large_target = replace(target, pose=pose, depth=7 * target.depth)
    large = term(replace(prediction, position=7 * prediction.position), large_target, 1.0)
    assert_close(large, (7 if form == "norm" else 49) * term(prediction, target, 1.0))


# Slow twins in NumPy and SciPy, sample by sample.


def norm(x: np.ndarray, order: int = 2) -> float:
    return float(np.linalg.norm(x, order))


def scipy_of(q: np.ndarray) -> Rotation:
    return Rotation.from_quat(q, scalar_first=True)


# From Δx, the raw q̂ as p, and the label q with its sign.
SLOW_BASES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "default": lambda dx, p, q: 2 * norm(dx) ** 2 / 3 + 5 * norm(p - q) ** 2 / 4,
    "posenet": lambda dx, p, q: norm(dx) + 5 * norm(p / norm(p) - q),
    "position": lambda dx, p, q: norm(dx),
    "rotation": lambda dx, p, q: float((scipy_of(p).inv() * scipy_of(q)).magnitude()),
    "homoscedastic": lambda dx, p, q: norm(dx, 1) + math.exp(3) * norm(p / norm(p) - q, 1) - 3,
}
OPTIONS = {"default": {"alpha": 2.0, "beta": 5.0}, "posenet": {"beta": 5.0}}
CORNERS = ((0, 0), (224, 0), (0, 192), (224, 192))
RAYS: dict[str, Callable[[list[float]], list[list[float]]]] = {
    "sightline": lambda camera: [[0, 0, 1]],
    "frustum": lambda camera: [
        [0, 0, 1],
        *([(u - camera[2]) / camera[0], (v - camera[3]) / camera[1], 1] for u, v in CORNERS),
    ],
}


@pytest.mark.parametrize("name", LOSSES)
def test_base_equals_its_slow_twin(target: Target, name: str) -> None:
    prediction = moved(target, torch.randn(6, 3), 0.7 * draw_quaternions(6))
    value = build(name, **OPTIONS.get(name, {}))(prediction, target, 1.0).tolist()
    for i in range(6):
        dx = (prediction.position - target.pose.position)[i].numpy()
        q = target.pose.quaternion[i].numpy()
        q = q if q @ target.hemisphere.numpy() > 0 else -q
        expected = SLOW_BASES[name](dx, prediction.rotation[i].numpy(), q)
        assert value[i] == pytest.approx(expected, abs=1e-12)


@every_form
@every_term
def test_term_equals_its_slow_twin(target: Target, name: str, form: str) -> None:
    prediction = moved(target, torch.randn(6, 3), 0.7 * draw_quaternions(6))
    value = build_term(name, form)(prediction, target, 1.0).tolist()
    for i in range(6):
        dx = (prediction.position - target.pose.position)[i].numpy()
        there, here = (scipy_of(q[i].numpy()) for q in (prediction.rotation, target.quaternion))
        gaps: list[float] = []
        for ray in RAYS[name.removeprefix("twin:")](target.camera.params[i].tolist()):
            r = DEPTH * (there.apply(ray) - here.apply(ray))
            square = norm(dx) ** 2 + norm(r) ** 2 if "twin" in name else norm(dx + r) ** 2
            gaps.append(square if form == "squared" else math.sqrt(square))
        assert value[i] == pytest.approx(np.mean(gaps), abs=1e-12)


# Names and options.


def test_sum_is_the_base_and_gamma_times_the_terms(target: Target) -> None:
    at = (moved(target, torch.randn(6, 3), draw_quaternions(6)), target, 1.0)
    frustum, twin = build_term("frustum", "squared"), build_term("twin:sightline", "squared")
    value = build("posenet+frustum+twin:sightline", gamma=0.3, beta=2.0, form="squared")(*at)
    assert_close(value, build("posenet", beta=2.0)(*at) + 0.3 * (frustum(*at) + twin(*at)))


def test_frustum_takes_one_distorted_camera_for_all(target: Target) -> None:
    params = torch.tensor([200.0, 220.0, 112.0, 100.0, -0.1, 0.01, 1e-3, 1e-3])
    one, prediction = Camera("OPENCV", 224, 192, params), moved(target, 0.5, draw_quaternions(6))
    each = replace(one, params=params.expand(6, 8))
    values = [
        build_term("frustum", "norm")(prediction, replace(target, camera=camera), 1.0)
        for camera in (one, each, one.undistorted())
    ]
    assert_close(values[0], values[1])
    assert ((values[0] - values[2]).abs() > 1e-4).all()


@every_loss
def test_only_coupled_terms_need_a_depth(target: Target, name: str, form: str | None) -> None:
    loss, flat = build(name, form=form), replace(target, depth=None)
    assert needs_depth(loss) == ("+" in name)
    if not needs_depth(loss):
        assert loss(moved(target), flat, 1.0).isfinite().all()
        return
    with pytest.raises(InputError, match=r"--loss\.depth"):
        loss(moved(target), flat, 1.0)


REFUSED = [
    ("defalt", {}, "^--loss: .*'defalt'.* Did you mean default"),
    ("default+frustrum", {}, "coupled term: .*'frustrum'. Did you mean frustum"),
    ("default+twin:sightlin", {}, "term: .*'twin:sightlin'. Did you mean twin:sightline"),
    ("default+", {}, "coupled term: .*''. Known: frustum, sightline"),
    ("twin:frustum", {}, r"added to a base loss: position\+twin:frustum"),
    ("default+frustum+frustum", {}, "twice"),
    ("position", {"beta": 2.0}, r"^--loss\.beta: position"),
    ("rotation+frustum", {"match_sign": True}, r"^--loss\.match_sign: rotation\+frustum"),
    ("posenet", {"alpha": 1.0}, r"^--loss\.alpha: posenet"),
    ("default", {"form": "squared"}, r"^--loss\.form: default"),
    ("default", {"gamma": 2.0}, r"^--loss\.gamma: default"),
    ("default", {"depth": 0.0}, r"^--loss\.depth: must be above 0"),
    *(
        ("default+frustum", {option: value}, rf"^--loss\.{option}: .* not {value}")
        for option in ("alpha", "beta", "gamma", "depth")
        for value in (math.nan, math.inf, -1.0)
    ),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_wrong_names_and_unused_options_are_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build(name, **options)


class Mine(nn.Module):
    def __init__(self, *, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, prediction: Prediction, target: Target, progress: float) -> Tensor:
        return self.beta * (prediction.position - target.pose.position).abs().amax(-1)


def test_loss_from_outside_is_built(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "mine", Mine)
    prediction = moved(target, torch.tensor([0.1, -0.5, 0.2]))
    assert_close(build("mine", beta=2.0)(prediction, target, 0.0), torch.ones(6))
    loss = build("mine+sightline", gamma=2.0)
    assert_close(loss(prediction, target, 0.0), torch.full((6,), 0.5 + 2 * math.sqrt(0.3)))
