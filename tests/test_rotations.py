"""Every way to write a rotation as network outputs, under the same laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from test_pose import HALF_TURNS, IDENTITY, assert_same, given, gradient, poses, scipy_of
from torch import Tensor
from torch.testing import assert_close

from relocal.pose import (
    ROTATIONS,
    Pose,
    nearest_rotation,
    quaternion_exp,
    quaternion_log,
    quaternion_to_matrix,
    rotation_angle,
)

every_rotation = pytest.mark.parametrize("rotation", ROTATIONS)


@every_rotation
@given(a=poses())
def test_decode_undoes_encode(rotation: str, a: tuple[Pose]) -> None:
    entry, q = ROTATIONS[rotation], a[0].quaternion
    assert entry.encode(q).shape == (*a[0].shape, entry.size)
    assert_same(Pose(a[0].position, entry.decode(entry.encode(q))), a[0])
    assert_same(Pose(a[0].position, entry.decode(entry.encode(-q))), a[0])


@every_rotation
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_decode_gives_unit_quaternions_and_finite_gradients(
    rotation: str, seed: int, scale: float
) -> None:
    entry = ROTATIONS[rotation]
    generator = torch.Generator().manual_seed(seed)
    raw = scale * torch.randn(7, entry.size, generator=generator)
    assert_close(entry.decode(raw).norm(dim=-1), torch.ones(7))
    assert gradient(entry.decode, raw).isfinite().all()


@every_rotation
@pytest.mark.parametrize("q", [IDENTITY, *HALF_TURNS])
def test_decode_has_finite_gradients_at_the_ends(rotation: str, q: list[float]) -> None:
    entry = ROTATIONS[rotation]
    raw = entry.encode(torch.tensor(q, dtype=torch.float64))
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    slope = gradient(lambda x: entry.decode(x) * weights, raw)
    assert slope.isfinite().all()
    assert slope.abs().max() > 0.1


@every_rotation
@given(a=poses(dtype=torch.float64), seed=st.integers(0, 2**32 - 1))
def test_small_changes_of_parameters_turn_a_little(
    rotation: str, a: tuple[Pose], seed: int
) -> None:
    entry = ROTATIONS[rotation]
    raw = entry.encode(a[0].quaternion)
    step = torch.randn(raw.shape, generator=torch.Generator().manual_seed(seed)).double()
    angle = rotation_angle(entry.decode(raw + 1e-5 * step), entry.decode(raw))
    assert (angle <= 1e-4 * step.norm(dim=-1) + 1e-12).all()


@every_rotation
def test_both_signs_can_be_written_where_the_entry_says_so(rotation: str) -> None:
    entry = ROTATIONS[rotation]
    raw = torch.randn(4000, entry.size, dtype=torch.float64) * 2
    w = entry.decode(raw)[:, 0]
    assert bool((w < -0.1).any()) == entry.signed
    assert bool((w > 0.1).any())


def random_matrices(count: int) -> Tensor:
    return torch.randn(count, 3, 3, dtype=torch.float64)


def test_log_is_half_of_scipys_rotation_vector() -> None:
    q = Pose.from_quaternion(torch.zeros(50, 3), torch.randn(50, 4)).quaternion.double()
    assert_close(quaternion_log(q), torch.from_numpy(scipy_of(q).as_rotvec()) / 2)


def test_exp_reaches_both_signs_of_a_rotation() -> None:
    axis = torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64)
    near, far = quaternion_exp(0.4 * axis), quaternion_exp((0.4 + math.pi) * axis)
    assert_close(near, -far)


def test_six_numbers_are_gram_and_schmidt() -> None:
    columns = np.random.default_rng(0).normal(size=(20, 2, 3))
    twins = []
    for a, b in columns:
        q, r = np.linalg.qr(np.stack([a, b], axis=1))
        x, y = (q * np.sign(np.diag(r))).T
        twins.append(np.stack([x, y, np.cross(x, y)], axis=1))
    decoded = ROTATIONS["6d"].decode(torch.from_numpy(columns).flatten(1))
    assert_close(quaternion_to_matrix(decoded), torch.from_numpy(np.stack(twins)))


@pytest.mark.parametrize("columns", [[0] * 6, [1, 2, 3, 2, 4, 6], [0, 0, 0, 1, 0, 0]])
def test_six_numbers_that_span_no_plane_still_give_a_rotation(columns: list[float]) -> None:
    raw = torch.tensor([columns], dtype=torch.float64)
    matrix = quaternion_to_matrix(ROTATIONS["6d"].decode(raw))
    assert_close(matrix @ matrix.mT, torch.eye(3, dtype=torch.float64)[None])
    assert gradient(ROTATIONS["6d"].decode, raw).isfinite().all()


def test_nearest_rotation_is_scipys() -> None:
    matrix = random_matrices(50)
    for m, found in zip(matrix, nearest_rotation(matrix), strict=True):
        # Procrustes: the rotation that takes the unit vectors nearest to the columns.
        best = Rotation.align_vectors(m.numpy().T, np.eye(3))[0]
        assert_close(found, torch.from_numpy(best.as_matrix()))


def test_differential_of_the_nearest_rotation_is_right() -> None:
    matrix = random_matrices(20).requires_grad_()
    assert torch.autograd.gradcheck(nearest_rotation, matrix, rtol=1e-4)


@pytest.mark.parametrize(
    "matrix", [torch.eye(3), torch.zeros(3, 3), -torch.eye(3), torch.ones(3, 3)]
)
def test_nearest_rotation_has_finite_gradients_where_the_svd_has_none(matrix: Tensor) -> None:
    weights = torch.arange(9.0).view(3, 3)
    slope = gradient(lambda m: nearest_rotation(m) * weights, matrix)
    assert slope.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearly_parallel_columns_are_still_a_rotation(dtype: torch.dtype) -> None:
    first = torch.randn(200, 3, dtype=dtype)
    apart = torch.logspace(-16, 0, 200, dtype=dtype)[:, None] * torch.randn(200, 3, dtype=dtype)
    columns = torch.cat([first, 2 * first + apart], -1).requires_grad_()
    q = ROTATIONS["6d"].decode(columns)
    turned = quaternion_to_matrix(q)
    unit = first / first.norm(dim=-1, keepdim=True)
    assert_close(turned[:, :, 0], unit, atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=0)
    q.square().sum().backward()
    assert columns.grad is not None
    assert columns.grad.isfinite().all()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_quaternions_of_any_length_are_normalised(scale: float) -> None:
    raw = (scale * torch.randn(20, 4)).requires_grad_()
    q = Pose.from_quaternion(torch.zeros(20, 3), raw).quaternion
    assert_close(q.norm(dim=-1), torch.ones(20))
    if scale:
        assert_close(q, raw.double().div(raw.double().norm(dim=-1, keepdim=True)).float())
    (grad,) = torch.autograd.grad(q[:, 1].sum(), raw)
    assert grad.isfinite().all()
