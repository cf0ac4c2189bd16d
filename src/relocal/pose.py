"""Pose: where a camera is and where it looks.

Everywhere in this library a pose is ``world_from_cam``: ``position`` is the camera centre in the
world, ``rotation`` turns vectors of the camera frame into vectors of the world. Camera axes are
OpenCV's and COLMAP's: x right, y down, z forward. Quaternions are w, x, y, z.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_NEAR_ONE = 1e-9


def safe_norm(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Euclidean norm over the last axis whose gradient at zero is zero instead of NaN."""
    squared = x.square().sum(-1)
    zero = squared == 0  # false for NaN, which must not pass for zero
    # The inner where keeps sqrt'(0) = inf out of the backward pass; the outer one restores 0.
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())


@dataclass(frozen=True)
class Pose:
    """A batch of camera poses, ``world_from_cam``.

    ``Pose`` composes with ``@`` (``c_from_b @ b_from_a`` is ``c_from_a``), inverts with
    ``inverse()``, and moves points with ``apply``. The quaternion is unit; its sign is kept as
    given, because a network's output must stay continuous, and ``canonical()`` makes w >= 0.
    """

    position: Float[Tensor, "*batch 3"]
    """Camera centre in the world, in the scene's unit."""
    quaternion: Float[Tensor, "*batch 4"]
    """Unit quaternion w, x, y, z that turns camera vectors into world vectors."""

    @staticmethod
    def identity(*batch: int, dtype: torch.dtype = torch.float64) -> "Pose":
        """The pose at the origin that looks along the world's z axis."""
        quaternion = torch.zeros(*batch, 4, dtype=dtype)
        quaternion[..., 0] = 1
        return Pose(torch.zeros(*batch, 3, dtype=dtype), quaternion)

    @staticmethod
    def from_quaternion(
        position: Float[Tensor, "*batch 3"], quaternion: Float[Tensor, "*batch 4"]
    ) -> "Pose":
        """Normalises any 4-vector w, x, y, z; its sign is kept. Zero becomes no turn."""
        largest = quaternion.detach().abs().amax(-1, keepdim=True)
        # The squares of numbers far from one leave the range of float32.
        far = (largest < _NEAR_ONE) & (largest > 0) | (largest > 1 / _NEAR_ONE)
        quaternion = quaternion / torch.where(far, largest, 1.0)
        norm = safe_norm(quaternion)[..., None]
        none = norm == 0
        unit = quaternion / torch.where(none, 1.0, norm)
        return Pose(position, torch.where(none, unit.new_tensor([1.0, 0.0, 0.0, 0.0]), unit))

    @staticmethod
    def from_matrix(world_from_cam: Float[Tensor, "*batch 4 4"]) -> "Pose":
        """Reads 4x4 matrices ``world_from_cam`` with an orthonormal rotation block."""
        rotation = world_from_cam[..., :3, :3]
        return Pose(world_from_cam[..., :3, 3], matrix_to_quaternion(rotation))

    @staticmethod
    def from_colmap(
        quaternion: Float[Tensor, "*batch 4"], translation: Float[Tensor, "*batch 3"]
    ) -> "Pose":
        """Reads COLMAP's ``cam_from_world``; its translation is not the camera centre."""
        return Pose.from_quaternion(translation, quaternion).inverse().canonical()

    @property
    def rotation(self) -> Float[Tensor, "*batch 3 3"]:
        """Rotation matrices that turn camera vectors into world vectors."""
        return quaternion_to_matrix(self.quaternion)

    @property
    def look_direction(self) -> Float[Tensor, "*batch 3"]:
        """Unit vector along the optical axis, in the world."""
        return self.rotation[..., :, 2]

    @property
    def shape(self) -> torch.Size:
        """The batch shape."""
        return self.position.shape[:-1]

    def matrix(self) -> Float[Tensor, "*batch 4 4"]:
        """4x4 matrices ``world_from_cam``."""
        top = torch.cat([self.rotation, self.position[..., None]], dim=-1)
        bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*self.shape, 1, 4)
        return torch.cat([top, bottom], dim=-2)

    def inverse(self) -> "Pose":
        """``cam_from_world``, what COLMAP stores."""
        conjugate = quaternion_conjugate(self.quaternion)
        return Pose(-quaternion_rotate(conjugate, self.position), conjugate)

    def canonical(self) -> "Pose":
        """The same poses with w >= 0."""
        return Pose(self.position, in_hemisphere(self.quaternion))

    def shifted(self, by: Float[Tensor, "3"]) -> "Pose":
        """The same poses with a vector added to every position."""
        return Pose(self.position + by, self.quaternion)

    def apply(self, points: Float[Tensor, "*points 3"]) -> Float[Tensor, "*both 3"]:
        """Moves points of the camera frame into the world; shapes broadcast."""
        return quaternion_rotate(self.quaternion, points) + self.position

    def __matmul__(self, other: "Pose") -> "Pose":
        """``c_from_b @ b_from_a`` is ``c_from_a``; batch shapes broadcast."""
        quaternion = quaternion_multiply(self.quaternion, other.quaternion)
        return Pose.from_quaternion(self.apply(other.position), quaternion)

    def __getitem__(self, index: Any) -> "Pose":
        """Indexes the first batch axis, with anything that a tensor takes."""
        return Pose(self.position[index], self.quaternion[index])

    def __len__(self) -> int:
        """The length of the first batch axis."""
        return self.shape[0]

    def to(self, *args: Any, **kwargs: Any) -> "Pose":
        """Moves both tensors like ``Tensor.to``."""
        return Pose(self.position.to(*args, **kwargs), self.quaternion.to(*args, **kwargs))

    @staticmethod
    def stack(poses: Sequence["Pose"]) -> "Pose":
        """Stacks poses of equal batch shape along a new first axis."""
        return Pose(
            torch.stack([p.position for p in poses]), torch.stack([p.quaternion for p in poses])
        )


def quaternion_multiply(
    a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "*both 4"]:
    """Hamilton product: turning by ``b`` and then by ``a``; batch shapes broadcast."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def quaternion_conjugate(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The inverse of a unit quaternion."""
    return torch.cat([q[..., :1], -q[..., 1:]], dim=-1)


def quaternion_rotate(
    q: Float[Tensor, "*#batch 4"], v: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*both 3"]:
    """Turns vectors by unit quaternions; batch shapes broadcast."""
    w, u = q[..., :1], q[..., 1:]
    u, v = torch.broadcast_tensors(u, v)
    t = 2 * torch.linalg.cross(u, v)
    return v + w * t + torch.linalg.cross(u, t)


def quaternion_to_matrix(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of unit quaternions; q and -q give the same."""
    w, x, y, z = q.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix_to_quaternion(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions with w >= 0 of rotation matrices.

    Each row of the symmetric matrix 4 q qᵀ is the quaternion scaled by one of its own entries.
    The row of the largest entry is taken, so nothing is ever divided by a small number and the
    gradient is finite at every rotation.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = R.flatten(-2).unbind(-1)
    rows = [
        [1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01],
        [m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20],
        [m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21],
        [m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22],
    ]
    outer = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    largest = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = outer.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4)).squeeze(-2)
    return in_hemisphere(row / row.norm(dim=-1, keepdim=True))


def in_hemisphere(
    q: Float[Tensor, "*batch 4"], centre: Float[Tensor, "*#batch 4"] | None = None
) -> Float[Tensor, "*batch 4"]:
    """Picks of q and -q the one on the side of ``centre`` (by default w >= 0)."""
    dot = q[..., :1] if centre is None else (q * centre).sum(-1, keepdim=True)
    return torch.where(dot < 0, -q, q)


def mean_quaternion(q: Float[Tensor, "n 4"]) -> Float[Tensor, "4"]:
    """The rotation nearest to all in the chordal sense, blind to signs (Markley et al. 2007).

    It is the eigenvector of the largest eigenvalue of the sum of q qᵀ.
    """
    _, vectors = torch.linalg.eigh(q.double().T @ q.double())
    return in_hemisphere(vectors[:, -1]).to(q.dtype)


def rotation_angle(
    a: Float[Tensor, "*batch 4"], b: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch"]:
    """Full geodesic angle in radians, in [0, π], between unit quaternions.

    The arctangent form is exact at both ends, where the arccosine of a trace or of a dot product
    loses half of the digits, and its gradient is finite at 0 and at π.
    """
    difference = quaternion_multiply(quaternion_conjugate(a), b)
    return 2 * torch.atan2(safe_norm(difference[..., 1:]), difference[..., 0].abs())


def position_error(estimate: Pose, truth: Pose) -> Float[Tensor, "*batch"]:
    """Euclidean distance of the camera centres, in the scene's unit."""
    return safe_norm(estimate.position - truth.position)


def rotation_error_deg(estimate: Pose, truth: Pose) -> Float[Tensor, "*batch"]:
    """Full geodesic angle between the rotations, in degrees."""
    return torch.rad2deg(rotation_angle(estimate.quaternion, truth.quaternion))


@dataclass(frozen=True)
class RotationParameters:
    """One way to write a rotation as network outputs: an entry of ``ROTATIONS``."""

    size: int
    """How many numbers the network puts out."""
    decode: Callable[[Tensor], Tensor]
    """(*batch, size) parameters -> (*batch, 4) unit quaternions."""
    encode: Callable[[Tensor], Tensor]
    """(*batch, 4) unit quaternions -> (*batch, size) parameters of the same rotation."""
    signed: bool
    """Whether q and -q are different parameters; a matrix has only one."""


def _normalised(q: Tensor) -> Tensor:
    return Pose.from_quaternion(q[..., :3], q).quaternion


def quaternion_exp(half: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions of half rotation vectors: the axis times half the angle in radians."""
    angle = safe_norm(half)[..., None]
    ratio = torch.where(angle > 0, angle.sin() / torch.where(angle > 0, angle, 1.0), 1.0)
    return torch.cat([angle.cos(), half * ratio], dim=-1)


def quaternion_log(q: Float[Tensor, "*batch 4"], signed: bool = False) -> Float[Tensor, "*batch 3"]:
    """Half rotation vectors of unit quaternions, at most π/2 long; q and -q give the same.

    ``signed`` keeps the sign: at most π long, and what ``quaternion_exp`` takes back to q itself.
    """
    q = q if signed else in_hemisphere(q)
    sine = safe_norm(q[..., 1:])[..., None]
    # angle / sine is 1 at zero, where both vanish.
    ratio = torch.where(sine > 0, torch.atan2(sine, q[..., :1]) / sine.clamp(min=1e-30), 1.0)
    return q[..., 1:] * ratio


def _from_6d(columns: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 4"]:
    """Gram and Schmidt on the first two columns of a matrix (Zhou et al. 2019, equation 15).

    Where they are parallel, or nothing, an arbitrary direction takes the place of what is missing.
    """
    first, second = columns[..., :3], columns[..., 3:]
    x = _unit(first, first.new_tensor([1.0, 0.0, 0.0]).expand_as(first), 1e-12)
    # Any direction that is not x serves where the second column tells none but rounding.
    spare = F.one_hot(x.abs().argmin(-1), 3).to(x)
    noise = 8 * torch.finfo(x.dtype).eps * safe_norm(second.detach())[..., None]
    y = _unit(_rejected(second, x), _rejected(spare, x), noise + 1e-12)
    y = _rejected(y, x)  # what is left of x after one rejection is large where little else is
    y = y / safe_norm(y)[..., None]
    return matrix_to_quaternion(torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1))


def _rejected(v: Tensor, axis: Tensor) -> Tensor:
    """The part of v that is at right angles to a unit axis."""
    return v - (axis * v).sum(-1, keepdim=True) * axis


def _unit(v: Tensor, otherwise: Tensor, least: Tensor | float) -> Tensor:
    length = safe_norm(v)[..., None]
    tiny = length < least
    return torch.where(tiny, otherwise, v / torch.where(tiny, 1.0, length))


def _to_6d(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 6"]:
    return quaternion_to_matrix(q)[..., :2].mT.flatten(-2)


def _from_9d(entries: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 4"]:
    return matrix_to_quaternion(nearest_rotation(entries.unflatten(-1, (3, 3))))


def _to_9d(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 9"]:
    return quaternion_to_matrix(q).flatten(-2)


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation nearest to a matrix in the Frobenius norm (Levinson et al. 2020).

    With M = U S Vᵀ it is U diag(1, 1, det(U Vᵀ)) Vᵀ. Its differential, with A = Uᵀ dM V (the sign
    in V and S), is U ((A - Aᵀ) / (s_i + s_j)) Vᵀ: finite at every rotation, where the derivative of
    the SVD itself divides by s_i - s_j = 0. First derivatives only.
    """
    # Autocast would multiply these in bfloat16, which has three digits.
    with torch.autocast(matrix.device.type, enabled=False):
        return _nearest_rotation(matrix)


def _nearest_rotation(matrix: Tensor) -> Tensor:
    with torch.no_grad():
        u, s, vt = torch.linalg.svd(matrix)
        sign = torch.where(torch.linalg.det(u @ vt) < 0, -1.0, 1.0)
        last = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
        s, vt = s * last, vt * last[..., None]
        # Zero only where the nearest rotation is not unique; a bound keeps the step finite there.
        weight = 1 / (s[..., :, None] + s[..., None, :]).clamp(min=1e-6)
    a = u.mT @ matrix @ vt.mT
    change = u @ ((a - a.mT) * weight) @ vt
    return u @ vt + (change - change.detach())


ROTATIONS: dict[str, RotationParameters] = {
    "quaternion": RotationParameters(4, decode=_normalised, encode=in_hemisphere, signed=True),
    "log_quaternion": RotationParameters(3, quaternion_exp, quaternion_log, signed=True),
    "6d": RotationParameters(6, _from_6d, _to_6d, signed=False),
    "9d": RotationParameters(9, _from_9d, _to_9d, signed=False),
}
"""PoseNet's quaternion, MapNet's logarithm of it, and the two that are continuous everywhere."""
