"""Laws of poses and rotations; SciPy and pycolmap give the second opinions."""

import math
from collections.abc import Callable

import hypothesis
import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.testing import assert_close

from relocal.pose import (
    Pose,
    in_hemisphere,
    matrix_to_quaternion,
    mean_quaternion,
    position_error,
    quaternion_multiply,
    quaternion_rotate,
    quaternion_to_matrix,
    rotation_angle,
    rotation_error_deg,
    safe_norm,
)

IDENTITY = [1.0, 0.0, 0.0, 0.0]
HALF_TURNS = [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
AXES = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.6, -0.48, 0.64]]


def given(*args, **kwargs):
    """Hypothesis's ``given`` with few examples, because each of them is a batch."""
    few = hypothesis.settings(max_examples=25)
    return lambda test: few(hypothesis.given(*args, **kwargs)(test))


def about(axis: Tensor, angle: Tensor | float) -> Tensor:
    """The quaternion of a turn by an angle about a unit axis."""
    half = torch.as_tensor(angle, dtype=axis.dtype)[..., None] / 2
    return torch.cat([half.cos().expand_as(axis[..., :1]), half.sin() * axis], dim=-1)


def draw_quaternions(generator: torch.Generator, batch: tuple[int, ...]) -> Tensor:
    """Unit quaternions: uniform, near the identity, near π, exactly both; either sign."""

    def uniform(size: int) -> Tensor:
        x = torch.randn(*batch, size, generator=generator, dtype=torch.float64)
        return x / x.norm(dim=-1, keepdim=True)

    tiny = 10 ** (-9 * torch.rand(batch, generator=generator, dtype=torch.float64))
    kind = torch.randint(6, batch, generator=generator)
    angle = torch.where(kind % 2 == 0, tiny, math.pi - tiny)
    angle = torch.where(kind == 2, 0, torch.where(kind == 3, math.pi, angle))
    sign = torch.randint(2, (*batch, 1), generator=generator) * 2 - 1
    return sign * torch.where((kind >= 4)[..., None], uniform(4), about(uniform(3), angle))


@st.composite
def poses(draw: st.DrawFn, count: int = 1, dtype: torch.dtype | None = None) -> tuple[Pose, ...]:
    """Poses of one batch shape and one dtype."""
    batch = draw(st.sampled_from([(), (1,), (30,), (2, 3), (0,)]))
    dtype = dtype or draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    centres = torch.randn(count, *batch, 3, generator=generator)
    return tuple(Pose(c, draw_quaternions(generator, batch)).to(dtype) for c in centres)


def assert_same(a: Pose, b: Pose) -> None:
    """The same places and rotations, whatever the sign, up to a few roundings."""
    assert a.position.dtype == b.position.dtype
    precise = a.position.dtype == torch.float64
    assert_close(a.matrix(), b.matrix(), rtol=0, atol=1e-13 if precise else 2e-5)


def scipy_of(q: Tensor) -> Rotation:
    """SciPy's rotations, whose quaternions are x, y, z, w."""
    return Rotation.from_quat(q.double().reshape(-1, 4)[:, [1, 2, 3, 0]].numpy())


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    return torch.autograd.grad(function(at).sum(), at)[0]


# The group of poses.


@given(poses(2))
def test_composition_is_closed(ab: tuple[Pose, Pose]) -> None:
    a, b = ab
    c = a @ b
    assert c.shape == a.shape
    assert c.quaternion.dtype == a.quaternion.dtype
    assert_close(c.quaternion.norm(dim=-1), torch.ones(c.shape, dtype=c.quaternion.dtype))


@given(poses(2))
def test_composition_is_the_matrix_product(ab: tuple[Pose, Pose]) -> None:
    a, b = ab
    assert_same(a @ b, Pose.from_matrix(a.matrix() @ b.matrix()))


@given(poses())
def test_identity_changes_nothing(a: tuple[Pose]) -> None:
    one = Pose.identity(*a[0].shape, dtype=a[0].position.dtype)
    assert_same(one @ a[0], a[0])
    assert_same(a[0] @ one, a[0])
    assert_close(one.matrix(), torch.eye(4).to(one.position).expand(*one.shape, 4, 4))


@given(poses())
def test_inverse_undoes(a: tuple[Pose]) -> None:
    one = Pose.identity(*a[0].shape, dtype=a[0].position.dtype)
    assert_same(a[0] @ a[0].inverse(), one)
    assert_same(a[0].inverse() @ a[0], one)
    assert_same(a[0].inverse().inverse(), a[0])


@given(poses(3))
def test_composition_is_associative(abc: tuple[Pose, Pose, Pose]) -> None:
    a, b, c = abc
    assert_same((a @ b) @ c, a @ (b @ c))


@given(poses(3, dtype=torch.float64))
def test_apply_acts_like_the_group(abp: tuple[Pose, Pose, Pose]) -> None:
    a, b, points = abp[0], abp[1], abp[2].position
    assert_close((a @ b).apply(points), a.apply(b.apply(points)))
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    assert_close(a.apply(points), (a.matrix() @ homogeneous[..., None])[..., :3, 0])


@given(poses())
def test_batch_shapes_broadcast(a: tuple[Pose]) -> None:
    many, dtype = a[0], a[0].position.dtype
    one = Pose(torch.ones(3), torch.tensor([0.6, 0.0, 0.8, 0.0])).to(dtype)
    repeated = Pose(one.position.expand(*many.shape, 3), one.quaternion.expand(*many.shape, 4))
    assert_same(many @ one, many @ repeated)
    assert_same(one @ many, repeated @ many)
    assert_close(many.apply(one.position), many.apply(repeated.position))
    assert_close(one.apply(many.position), repeated.apply(many.position))


# Other ways to write a pose.


@given(poses())
def test_matrix_round_trip(a: tuple[Pose]) -> None:
    assert_same(Pose.from_matrix(a[0].matrix()), a[0])


@given(poses(), st.sampled_from([1e-6, 0.3, 1e6]))
def test_quaternion_is_normalised_and_keeps_its_sign(a: tuple[Pose], scale: float) -> None:
    again = Pose.from_quaternion(a[0].position, scale * a[0].quaternion)
    assert_close(again.quaternion, a[0].quaternion)


@given(poses())
def test_colmap_round_trip(a: tuple[Pose]) -> None:
    cam_from_world = a[0].inverse()
    again = Pose.from_colmap(cam_from_world.quaternion, cam_from_world.position)
    assert_same(again, a[0])
    assert (again.quaternion[..., 0] >= 0).all()


@given(poses(dtype=torch.float64))
def test_colmap_agrees_about_the_inverse_and_the_centre(a: tuple[Pose]) -> None:
    q, t = a[0].quaternion.reshape(-1, 4), a[0].position.reshape(-1, 3)
    pose = Pose.from_colmap(q, t)
    forth, back = pose.inverse().matrix()[:, :3].numpy(), pose.matrix()[:, :3].numpy()
    for i in range(len(q)):
        theirs = pycolmap.Rigid3d(pycolmap.Rotation3d(q[i, [1, 2, 3, 0]].numpy()), t[i].numpy())
        np.testing.assert_allclose(forth[i], theirs.matrix(), rtol=0, atol=1e-13)
        np.testing.assert_allclose(back[i], theirs.inverse().matrix(), rtol=0, atol=1e-13)
        np.testing.assert_allclose(pose.position[i], theirs.tgt_origin_in_src(), atol=1e-13)


def test_colmap_translation_is_not_the_centre() -> None:
    # Half a turn about y: what lies at t in the camera's frame has the opposite x and z outside.
    pose = Pose.from_colmap(torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert_close(pose.position, torch.tensor([1.0, -2.0, 3.0]))


@given(poses())
def test_opposite_quaternions_are_one_rotation(a: tuple[Pose]) -> None:
    opposite = Pose(a[0].position, -a[0].quaternion)
    assert_same(opposite, a[0])
    assert_same(opposite.inverse(), a[0].inverse())
    assert_same(opposite.canonical(), a[0])
    assert (opposite.canonical().quaternion[..., 0] >= 0).all()
    assert (rotation_error_deg(opposite, a[0]) < 1e-4).all()


def test_look_direction_is_the_rotated_z_axis() -> None:
    # Turning about x (to the right) by 90° lifts z (forward) to -y (up: y points down).
    pose = Pose.from_quaternion(torch.zeros(2, 3), torch.tensor([IDENTITY, [1.0, 1.0, 0.0, 0.0]]))
    assert_close(pose.look_direction, torch.tensor([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]))


@given(poses())
def test_look_direction_is_where_a_point_ahead_lies(a: tuple[Pose]) -> None:
    ahead = a[0].position.new_tensor([0.0, 0.0, 1.0])
    assert_close(a[0].look_direction, a[0].apply(ahead) - a[0].position, rtol=0, atol=2e-6)


def test_indexing_stacking_and_length_follow_the_first_axis() -> None:
    q = draw_quaternions(torch.Generator().manual_seed(0), (4, 2))
    pose = Pose(torch.randn(4, 2, 3).double(), q)
    again = Pose.stack([pose[0], pose[1], pose[2], pose[3]])
    assert_same(again, pose)
    assert_same(pose[torch.tensor([2, 0])], Pose.stack([pose[2], pose[0]]))
    assert len(pose) == 4
    assert pose[1:].shape == (3, 2)
    assert pose.to(torch.float32).quaternion.dtype == torch.float32


def test_single_pose_has_no_length() -> None:
    with pytest.raises(IndexError):
        len(Pose.identity())


# Rotations.


@given(poses(3, dtype=torch.float64))
def test_scipy_agrees_about_products_matrices_and_angles(abc: tuple[Pose, Pose, Pose]) -> None:
    a, b, v = abc[0].quaternion, abc[1].quaternion, abc[2].position
    product = quaternion_to_matrix(quaternion_multiply(a, b)).reshape(-1, 3, 3)
    if len(product) == 0:
        return  # SciPy takes no empty batch
    np.testing.assert_allclose(product, (scipy_of(a) * scipy_of(b)).as_matrix(), atol=1e-14)
    turned = quaternion_rotate(a, v).reshape(-1, 3)
    np.testing.assert_allclose(turned, scipy_of(a).apply(v.reshape(-1, 3).numpy()), atol=1e-14)
    angle = (scipy_of(a).inv() * scipy_of(b)).magnitude()
    np.testing.assert_allclose(rotation_angle(a, b).flatten(), angle, rtol=0, atol=1e-14)


@given(poses())
def test_matrix_is_orthonormal_and_right_handed(a: tuple[Pose]) -> None:
    R = a[0].rotation
    assert_close(R @ R.mT, torch.eye(3).to(R).expand_as(R), rtol=0, atol=2e-6)
    assert (torch.linalg.det(R) > 0).all()


@pytest.mark.parametrize("largest", range(4))
def test_matrix_to_quaternion_is_exact_on_every_branch(largest: int) -> None:
    q = 0.2 * torch.randn(1000, 4, dtype=torch.float64)
    q[:, largest] = 1  # the largest entry of most
    q[:100, largest] = q[:100].abs().max(-1).values  # ties
    q = in_hemisphere(q / q.norm(dim=-1, keepdim=True))
    assert_close(matrix_to_quaternion(quaternion_to_matrix(q)), q, rtol=0, atol=1e-15)


@pytest.mark.parametrize("q", [IDENTITY, *HALF_TURNS, [0.0, 0.6, 0.0, 0.8], [0.5] * 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrix_to_quaternion_has_finite_gradients(q: list[float], dtype: torch.dtype) -> None:
    R = quaternion_to_matrix(torch.tensor(q, dtype=dtype))
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=dtype)
    slope = gradient(lambda m: matrix_to_quaternion(m) * weights, R)
    assert slope.isfinite().all()
    assert slope.abs().max() > 0.1


def test_matrix_to_quaternion_has_right_gradients() -> None:
    q = torch.tensor([[0.9, 0.1, -0.2, 0.3], [0.2, 0.9, 0.1, -0.3], [0.3, 0.2, -0.9, 0.1]])
    R = quaternion_to_matrix(q.double() / q.double().norm(dim=-1, keepdim=True))
    assert torch.autograd.gradcheck(matrix_to_quaternion, R.requires_grad_())


@given(poses(3, dtype=torch.float64))
def test_rotation_angle_is_a_metric(abc: tuple[Pose, Pose, Pose]) -> None:
    a, b, c = (pose.quaternion for pose in abc)
    assert_close(rotation_angle(a, b), rotation_angle(b, a))
    assert_close(rotation_angle(a, b), rotation_angle(-a, b))
    moved = (quaternion_multiply(c, a), quaternion_multiply(c, b))
    assert_close(rotation_angle(*moved), rotation_angle(a, b), rtol=0, atol=1e-14)
    assert (rotation_angle(a, c) <= rotation_angle(a, b) + rotation_angle(b, c) + 1e-14).all()
    assert (rotation_angle(a, b) <= math.pi + 1e-14).all()
    assert (rotation_angle(a, a) < 1e-15).all()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("angle", [0, 1e-9, 1e-6, 1e-3, 1.0, math.pi / 2, 3.0])
def test_rotation_angle_is_the_full_angle_and_exact(axis: list[float], angle: float) -> None:
    base = torch.tensor([0.1, -0.5, 0.7, 0.5], dtype=torch.float64)
    base = base / base.norm()
    direction = torch.tensor(axis, dtype=torch.float64)
    for turn, tolerance in ((angle, 5e-16), (math.pi - angle, 1e-15)):
        turned = quaternion_multiply(base, about(direction, turn))
        assert abs(float(rotation_angle(base, turned)) - turn) < tolerance
        errors = rotation_error_deg(Pose(direction, turned), Pose(direction, base))
        assert float(errors) == pytest.approx(math.degrees(turn), abs=1e-13)


@pytest.mark.parametrize("q", [IDENTITY, *HALF_TURNS, [0.0, 0.6, 0.0, 0.8], [0.8, 0.6, 0.0, 0.0]])
def test_rotation_angle_has_finite_gradients(q: list[float]) -> None:
    one = torch.tensor(IDENTITY)
    slopes = gradient(lambda x: rotation_angle(x, torch.tensor(q)), one)
    assert slopes.isfinite().all()
    assert gradient(lambda x: rotation_angle(one, x), torch.tensor(q)).isfinite().all()


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 1.0, math.pi - 1e-3, math.pi - 1e-6])
def test_rotation_angle_grows_at_unit_speed(angle: float) -> None:
    axis = torch.tensor(AXES[-1], dtype=torch.float64)
    one = torch.tensor(IDENTITY, dtype=torch.float64)
    at = torch.tensor(angle, dtype=torch.float64)
    assert float(gradient(lambda t: rotation_angle(one, about(axis, t)), at)) == pytest.approx(1)


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_mean_quaternion_is_scipys_and_blind_to_signs(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    axes = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    angles = 0.8 * torch.rand(count, generator=generator, dtype=torch.float64)
    spread = about(axes / axes.norm(dim=-1, keepdim=True), angles)
    q = quaternion_multiply(draw_quaternions(generator, ()), spread)
    signs = torch.randint(2, (count, 1), generator=generator) * 2 - 1
    apart = scipy_of(mean_quaternion(q)).inv() * scipy_of(q).mean()
    np.testing.assert_allclose(apart.magnitude(), 0, atol=1e-12)
    assert float(mean_quaternion(q)[0]) >= 0
    assert_close(mean_quaternion(signs * q), mean_quaternion(q), rtol=0, atol=1e-12)
    assert mean_quaternion(q.float()).dtype == torch.float32


@given(poses(2))
def test_hemisphere_changes_the_sign_alone(ab: tuple[Pose, Pose]) -> None:
    q, centre = ab[0].quaternion, ab[1].quaternion
    chosen = in_hemisphere(q, centre)
    assert ((chosen * centre).sum(-1) >= 0).all()
    assert ((chosen == q).all(-1) | (chosen == -q).all(-1)).all()
    assert (in_hemisphere(q)[..., 0] >= 0).all()


# Norms and errors.


def test_safe_norm_is_the_norm_with_a_flat_start() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-15, 0.0]])
    assert_close(safe_norm(x), torch.tensor([5.0, 0.0, 1e-15]))
    assert_close(gradient(safe_norm, x), torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))


def test_nan_is_no_small_error() -> None:
    lost = Pose(torch.full((3,), torch.nan), torch.full((4,), torch.nan))
    assert position_error(lost, Pose.identity(dtype=torch.float32)).isnan()
    assert rotation_error_deg(lost, Pose.identity(dtype=torch.float32)).isnan()


@given(poses(2, dtype=torch.float64))
def test_position_error_is_the_distance_of_centres(ab: tuple[Pose, Pose]) -> None:
    a, b = ab
    expected = np.linalg.norm(a.position.numpy() - b.position.numpy(), axis=-1)
    np.testing.assert_allclose(position_error(a, b), expected)
