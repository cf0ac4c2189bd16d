"""Slow twins of every loss, kernel and term in NumPy and SciPy, sample by sample."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pytest
import torch
from loss_cases import (
    BASE_CASES,
    DEPTH,
    FAR,
    LOG_VAR,
    NEAR,
    TERM_CASES,
    base_of,
    draw_quaternions,
    draw_target,
    make,
    moved,
    written,
)
from scipy.integrate import quad
from scipy.linalg import logm
from scipy.spatial.transform import Rotation
from scipy.stats import norm as gauss
from torch.testing import assert_close

from relocal.losses import LossConfig, distance, parse_loss
from relocal.losses.loss import Kind
from relocal.pose import quaternion_exp, quaternion_log
from relocal.types import Prediction, Target

Vector = np.ndarray
Slow = Callable[[Vector], float]


pytestmark = pytest.mark.usefixtures("double")


def norm(x: Vector) -> float:
    return float(np.linalg.norm(x))


def unit(x: Vector) -> Vector:
    return x / norm(x)


# Kernels of a residual. Barron's formula is written as in his paper, with its cases apart.


def barron(x: float, shape: float) -> float:
    if shape == 2:
        return x**2 / 2
    if shape == 0:
        return math.log(x**2 / 2 + 1)
    rest = abs(shape - 2)
    return rest / shape * ((x**2 / rest + 1) ** (shape / 2) - 1)


def slow_distance(kind: str, c: float = 1.0, shape: float = -2.0) -> Slow:
    return {
        "squared": lambda r: float(np.mean(r**2)),
        "norm": norm,
        "l1": lambda r: float(np.abs(r).sum()),
        "mean_l1": lambda r: float(np.abs(r).mean()),
        "huber": lambda r: norm(r) ** 2 / (2 * c) if norm(r) < c else norm(r) - c / 2,
        "cauchy": lambda r: c * barron(norm(r) / c, 0),
        "barron": lambda r: c * barron(norm(r) / c, shape),
    }[kind]


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("shape", [-5.0, -2.0, 0.0, 0.5, 1.0, 2.0])
def test_distance_equals_its_slow_twin(kind: Kind, shape: float) -> None:
    residual = torch.logspace(-4, 3, 30)[:, None] * torch.randn(30, 4)
    value = distance(residual, kind, 0.3, shape)
    for r, found in zip(residual.numpy(), value.tolist(), strict=True):
        assert found == pytest.approx(slow_distance(kind, 0.3, shape)(r), rel=1e-7)


@pytest.mark.parametrize("shape", [1e-9, -1e-9, 2 - 1e-9])
def test_barron_has_no_gap_beside_its_special_shapes(shape: float) -> None:
    residual = torch.linspace(0, 9, 40)[:, None]
    beside = distance(residual, "barron", 0.3, float(round(shape)))
    assert_close(distance(residual, "barron", 0.3, shape), beside, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["norm", "l1", "huber", "cauchy", "barron"])
def test_kernels_are_lengths(kind: Kind) -> None:
    residual, scale = torch.randn(50, 3), 7.0
    larger = distance(scale * residual, kind, scale * 0.3)
    assert_close(larger, scale * distance(residual, kind, 0.3))
    small = 1e-4 * residual
    if kind not in ("norm", "l1"):
        near_zero = small.square().sum(-1) / (2 * 0.3)
        assert_close(distance(small, kind, 0.3), near_zero, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("kind", "shape"), [("huber", 0.0), ("barron", 1.0), ("norm", 0.0)])
def test_kernels_that_grow_linearly_end_with_slope_one(kind: Kind, shape: float) -> None:
    far = torch.tensor([[1e4, 0.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(distance(far, kind, 0.3, shape).sum(), far)
    assert_close(slope, torch.tensor([[1.0, 0.0]]), rtol=1e-6, atol=1e-9)


def test_signed_logarithm_is_undone_by_the_exponential() -> None:
    q = draw_quaternions(200)
    assert_close(quaternion_exp(quaternion_log(q, signed=True)), q)
    assert_close(quaternion_log(q), torch.from_numpy(scipy_of(q.numpy()).as_rotvec()) / 2)


# One sample, for losses and terms alike.


def scipy_of(q: Vector) -> Rotation:
    return Rotation.from_quat(q, scalar_first=True)


@dataclass
class Sample:
    x: Vector
    q: Vector  # with the label's sign
    x_hat: Vector
    p: Vector  # the raw quaternion
    points: Vector
    camera: Vector
    d: float = DEPTH

    def __post_init__(self) -> None:
        self.q_hat = unit(self.p)
        self.dx = self.x_hat - self.x
        self.R, self.R_hat = (scipy_of(q).as_matrix() for q in (self.q, self.q_hat))
        self.phi = (scipy_of(self.q).inv() * scipy_of(self.q_hat)).as_rotvec()
        self.angle = np.array([norm(self.phi)])

    def inside(self, point: Vector) -> tuple[Vector, Vector]:
        """A point of the world in the predicted camera, and in the true one."""
        return self.R_hat.T @ (point - self.x_hat), self.R.T @ (point - self.x)


def samples(prediction: Prediction, target: Target) -> Iterator[Sample]:
    assert target.points is not None
    assert target.visible is not None
    for i in range(len(target.pose)):
        q = target.pose.quaternion[i].numpy()
        yield Sample(
            x=target.pose.position[i].numpy(),
            q=q if q @ target.hemisphere.numpy() > 0 else -q,
            x_hat=prediction.position[i].numpy(),
            p=prediction.rotation[i].numpy(),
            points=target.points[i, target.visible[i]].numpy(),
            camera=target.camera.params[i].numpy(),
        )


# Base losses: from the sample and the distances of position and rotation.


def log_of(q: Vector) -> Vector:
    return unit(q[1:]) * math.acos(q[0])


def reprojection(s: Sample, x: Slow, q: Slow) -> float:
    values: list[float] = []
    for there, here in (s.inside(point) for point in s.points):
        a, b = (v[:2] / max(v[2], 0.1 * s.d) for v in (there, here))
        values.append(q(np.tanh(a - b)))
    return float(np.mean(values))


def homography(s: Sample, x: Slow, q: Slow) -> float:
    """The integral over depth, of what maps the picture of a plane into the predicted camera."""

    def gap(depth: float) -> float:
        # Three points of the plane, and where the predicted camera has them.
        plane = depth * np.array([[0, 0, 1.0], [1, 0, 1], [0, 1, 1]])
        there = np.array([s.inside(s.R @ p + s.x)[0] for p in plane])
        mapped = np.linalg.solve(plane, there).T
        return norm(np.eye(3) - mapped) ** 2

    mean = quad(gap, NEAR, FAR, epsabs=1e-12, epsrel=1e-12)[0] / (FAR - NEAR)
    return q(np.array([math.sqrt(mean)]))


def nll(s: Sample, x: Slow, q: Slow) -> float:
    parts = zip((s.dx, s.phi), LOG_VAR, strict=True)
    return -sum(float(gauss.logpdf(e, scale=math.exp(v / 2)).sum()) for e, v in parts)


def laplace(s: Sample, x: Slow, q: Slow) -> float:
    return -sum(
        math.log(laplace_density(norm(e), v)) for e, v in zip((s.dx, s.phi), LOG_VAR, strict=True)
    )


def laplace_density(e: float, log_var: float) -> float:
    b = math.exp(log_var / 2) / 2
    return math.exp(-e / b) / (8 * math.pi * b**3)


def raw_or_unit(s: Sample, config: LossConfig, otherwise: str) -> Vector:
    return (s.p if (config.quaternion or otherwise) == "raw" else s.q_hat) - s.q


def slow_base(case: str) -> Callable[[Sample, Slow, Slow], float]:
    config = parse_loss(case)
    if config.noise == "laplace":
        return laplace
    return {
        "default": lambda s, x, q: 3 * x(s.dx) + 24 * q(raw_or_unit(s, config, "raw")),
        "posenet": lambda s, x, q: x(s.dx) + 2.5 * q(raw_or_unit(s, config, "unit")),
        "position": lambda s, x, q: x(s.dx),
        "rotation": lambda s, x, q: q(s.angle),
        "homoscedastic": lambda s, x, q: x(s.dx) + math.exp(3) * q(s.q_hat - s.q) - 3,
        "logq": lambda s, x, q: x(s.dx) + math.exp(3) * q(log_of(s.q_hat) - log_of(s.q)) - 3,
        "geodesic": lambda s, x, q: x(s.dx) + 1.25 * q(s.angle),
        "chordal": lambda s, x, q: x(s.dx) + 0.9 * q((s.R_hat - s.R).ravel()),
        "dsac": lambda s, x, q: max(100 * x(s.dx), 180 / math.pi * q(s.angle)),
        "nll": nll,
        "reprojection": reprojection,
        "homography": homography,
    }[config.name]


# The distances of position and rotation of each loss; a new one is in SLOW_BASES, too.
OWN = {
    "default": "squared",
    "homoscedastic": "l1",
    "logq": "mean_l1",
    "reprojection": "l1",
    "homography": "squared",
}


@pytest.mark.parametrize("case", BASE_CASES)
def test_base_equals_its_slow_twin(target: Target, case: str) -> None:
    prediction, loss = moved(target, torch.randn(6, 3), 0.7 * draw_quaternions(6)), make(case)
    kind = parse_loss(case).robust or OWN.get(base_of(case), "norm")
    value = loss(written(prediction, loss), target, 1.0).tolist()
    slow, x, q = slow_base(case), slow_distance(kind, 0.1), slow_distance(kind, 0.05)
    for s, found in zip(samples(prediction, target), value, strict=True):
        assert found == pytest.approx(slow(s, x, q), rel=1e-9, abs=1e-10)


def test_reprojection_starts_as_posenet(target: Target) -> None:
    prediction = moved(target, torch.randn(6, 3), draw_quaternions(6))
    start, posenet = make("reprojection/beta=3"), make("posenet/beta=3")
    assert_close(start(prediction, target, 0.19), posenet(prediction, target, 0.19))
    assert (start(prediction, target, 0.2) != posenet(prediction, target, 0.2)).all()


def test_laplace_noise_has_the_variance_that_it_is_given() -> None:
    def moment(power: int) -> float:
        weight = 4 * math.pi
        return weight * quad(lambda e: e ** (2 + power) * laplace_density(e, 0.6), 0, np.inf)[0]

    assert moment(0) == pytest.approx(1)
    assert moment(2) == pytest.approx(3 * math.exp(0.6))


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_nll_is_least_where_the_variance_is_that_of_the_errors(noise: str) -> None:
    # Errors whose mean square (gaussian) and mean length (laplace) belong to a variance of one.
    target, loss = draw_target(1), make(f"nll/noise={noise}")
    length = math.sqrt(3) if noise == "gaussian" else 1.5
    prediction = moved(target, torch.tensor([[length, 0.0, 0.0]]))
    log_var = torch.tensor([[0.0, 0.0]], requires_grad=True)
    value = loss(Prediction(prediction.position, prediction.rotation, log_var=log_var), target, 1.0)
    (slope,) = torch.autograd.grad(value.sum(), log_var)
    assert slope[0, 0].item() == pytest.approx(0, abs=1e-12)


# Coupled terms: from the sample the parts of each gap, and the weight-free mean over them.


def ray_gaps(s: Sample, rays: list[list[float]], d: float) -> list[tuple[Vector, ...]]:
    return [(s.dx, d * (s.R_hat - s.R) @ np.array(ray)) for ray in rays]


def pixel_rays(s: Sample, side: int) -> list[list[float]]:
    fx, fy, cx, cy = s.camera
    spread = [(u, v) for u in np.linspace(0, 224, side) for v in np.linspace(0, 192, side)]
    return [[(u - cx) / fx, (v - cy) / fy, 1] for u, v in spread]


def point_gaps(s: Sample, twin: bool, turn: Callable[[Vector], Vector]) -> list[tuple[Vector, ...]]:
    """What each point does in the camera; for the twin what the turn and the move alone do."""
    gaps: list[tuple[Vector, ...]] = []
    for point in s.points:
        there, here = (turn(v) for v in s.inside(point))
        turned = turn(s.R_hat.T @ (point - s.x)) - here
        moved_on = turn(s.R.T @ (point - s.x_hat)) - here
        gaps.append((turned, moved_on) if twin else (there - here,))
    return gaps


def se3_gap(s: Sample, twin: bool, d: float) -> tuple[Vector, ...]:
    if twin:
        return s.dx, d * s.phi
    truth, estimate = np.eye(4), np.eye(4)
    truth[:3, :3], truth[:3, 3] = s.R, s.x
    estimate[:3, :3], estimate[:3, 3] = s.R_hat, s.x_hat
    log = np.real(logm(np.linalg.inv(truth) @ estimate))
    turn = np.array([log[2, 1], log[0, 2], log[1, 0]])
    return (np.concatenate([log[:3, 3], d * turn]),)


def slow_term(case: str, s: Sample) -> float:
    config = parse_loss(case)
    twin, plain = config.name.startswith("twin:"), config.name.removeprefix("twin:")
    d, power = s.d, 2 if config.form == "squared" else 1
    if config.depth_of == "image":
        inside = np.sort([s.inside(point)[1][2] for point in s.points])
        d = float(inside[(len(inside) - 1) // 2])
    if plain == "product":
        a, b = (norm(s.dx) / d) ** power, s.angle[0] ** power
        return float(a + b if twin else (1 + a) * (1 + b) - 1)
    gaps = {
        "sightline": lambda: ray_gaps(s, [[0, 0, 1]], d),
        "frustum": lambda: ray_gaps(
            s, pixel_rays(s, 5) if config.rays == "grid" else [[0, 0, 1], *pixel_rays(s, 2)], d
        ),
        "points": lambda: point_gaps(s, twin, lambda v: v),
        "bearing": lambda: point_gaps(s, twin, unit),
        "se3": lambda: [se3_gap(s, twin, d)],
    }[plain]()
    # The parts are added in a term, and squared one by one in its twin.
    lengths = [
        math.sqrt(sum(norm(part) ** 2 for part in (gap if twin else (np.sum(gap, axis=0),))))
        for gap in gaps
    ]
    return float(np.mean([length**power for length in lengths]))


@pytest.mark.parametrize("case", TERM_CASES)
def test_term_equals_its_slow_twin(target: Target, case: str) -> None:
    prediction = moved(target, torch.randn(6, 3), 0.7 * draw_quaternions(6))
    value = make(case)(prediction, target, 1.0).tolist()
    for s, found in zip(samples(prediction, target), value, strict=True):
        assert found == pytest.approx(slow_term(case, s), rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("angle", [1e-9, 1e-4, 0.09, 0.11, 1.0, math.pi - 1e-6])
def test_se3_is_the_logarithm_at_every_angle(target: Target, angle: float) -> None:
    axis = torch.randn(6, 3)
    turn = quaternion_exp(angle / 2 * axis / axis.norm(dim=-1, keepdim=True))
    prediction = moved(target, torch.randn(6, 3), turn)
    value = make("se3")(prediction, target, 1.0).tolist()
    for s, found in zip(samples(prediction, target), value, strict=True):
        assert found == pytest.approx(slow_term("se3/form=norm", s), rel=1e-7)
