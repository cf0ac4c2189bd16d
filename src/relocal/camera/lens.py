"""Lenses: how a viewing ray at z = 1 becomes a point of the image plane, and back.

Every model is done in two steps. The *projection* shrinks a ray towards the axis by a formula that
can be turned round (not at all, by its angle, ...). The *distortion* bends what comes out with
polynomials, and is undone by Newton's method. Formulas are those of COLMAP (and OpenCV, whose
models it took over).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_STEPS = 60  # of a bracketed root: halving alone needs that many
_NEAR = 1e-9  # where a bracketed root is near enough for Newton's method to double its digits
_SOLVED = 1e-12  # of what a pixel is off after Newton's method, in focal lengths

Values = Mapping[str, Tensor]
"""A camera's parameters by name, each of the batch's shape."""
Profile = Callable[[Tensor, Values], Tensor]


# Projections: the distance from the axis at z = 1 to that in the plane, and back. Each gives the
# ratio of the two, so that nothing divides by zero at the centre. NaN where there is no ray.


def _angle(r: Tensor, v: Values) -> Tensor:
    return torch.atan(r) / r


def _from_angle(r: Tensor, v: Values) -> Tensor:
    return torch.where(r < torch.pi / 2, torch.tan(r) / r, torch.nan)


def _omega(v: Values) -> Tensor:
    omega = v["omega"]
    return torch.where(omega.abs() < 1e-6, 1e-6, omega)


def _fov(r: Tensor, v: Values) -> Tensor:
    """Devernay & Faugeras 2001."""
    omega = _omega(v)
    return torch.atan(2 * r * torch.tan(omega / 2)) / (omega * r)


def _from_fov(r: Tensor, v: Values) -> Tensor:
    omega = _omega(v)
    ratio = torch.tan(omega * r) / (2 * r * torch.tan(omega / 2))
    return torch.where(omega.abs() * r < torch.pi / 2, ratio, torch.nan)


def _division(r: Tensor, v: Values) -> Tensor:
    """Fitzgibbon 2001."""
    return 2 / (1 + (1 - 4 * v["k"] * r * r).clamp(min=0).sqrt())


def _from_division(r: Tensor, v: Values) -> Tensor:
    bent = v["k"] * r * r
    return torch.where(bent.abs() < 1, 1 / (1 + bent), torch.nan)


def _eucm(r: Tensor, v: Values) -> Tensor:
    """Khomutenko, Garcia & Martinet 2016, "An Enhanced Unified Camera Model"."""
    alpha = v["alpha"]
    return 1 / (alpha * (v["beta"] * r * r + 1).clamp(min=0).sqrt() + 1 - alpha)


def _from_eucm(r: Tensor, v: Values) -> Tensor:
    alpha, bent = v["alpha"], v["beta"] * r * r
    root = (1 - (2 * alpha - 1) * bent).clamp(min=0).sqrt()
    z = (1 - alpha * alpha * bent) / (alpha * root + 1 - alpha)
    return torch.where(z > 0, 1 / z, torch.nan)


_PROJECTIONS: dict[str, tuple[Profile, Profile]] = {
    **dict.fromkeys(
        (
            *("SIMPLE_FISHEYE", "FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"),
            *("OPENCV_FISHEYE", "THIN_PRISM_FISHEYE"),
        ),
        (_angle, _from_angle),
    ),
    "FOV": (_fov, _from_fov),
    **dict.fromkeys(("SIMPLE_DIVISION", "DIVISION"), (_division, _from_division)),
    "EUCM": (_eucm, _from_eucm),
}
_RATIONAL = "FULL_OPENCV"  # its k4, k5 and k6 stand below the line
_BENDS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "sx1", "sy1")


@dataclass(frozen=True)
class Lens:
    """A model's lens with its coefficients."""

    model: str
    """A key of ``CAMERA_MODELS``."""
    values: Values
    """All parameters by name."""

    @property
    def is_pinhole(self) -> bool:
        """Whether the model knows no distortion at all, whatever its parameters."""
        return self.model in ("SIMPLE_PINHOLE", "PINHOLE")

    @property
    def is_perspective(self) -> bool:
        """Whether it is a pinhole, bent or not: straight ahead of the distortion nothing else."""
        return self.model not in _PROJECTIONS

    @property
    def is_distorted(self) -> bool:
        """Whether it differs from a pinhole."""
        bent = any(bool((self.values[k] != 0).any()) for k in _BENDS if k in self.values)
        return self.model in _PROJECTIONS or bent

    def distort(self, rays: Float[Tensor, "*rays 2"]) -> Float[Tensor, "*plane 2"]:
        """Where rays, given by x and y at z = 1, meet the image plane, in focal lengths."""
        return rays if self.is_pinhole else self._bend(self._shrunk(rays))

    def undistort(self, plane: Float[Tensor, "*plane 2"]) -> Float[Tensor, "*rays 2"]:
        """The rays that meet points of the image plane; NaN where the lens model reaches none."""
        if self.is_pinhole:
            return plane
        straight = self._straight(plane)
        if self.model not in _PROJECTIONS:
            return straight
        return straight * _PROJECTIONS[self.model][1](_length(straight), self.values)[..., None]

    def before_fold(self, rays: Float[Tensor, "*rays 2"]) -> Bool[Tensor, "*inside"]:
        """Whether rays are nearer the axis than where the lens model turns back.

        Beyond it the formulas mean nothing: they would draw points from far aside into the image.
        """
        if self.is_pinhole:
            return torch.ones_like(rays[..., 0], dtype=torch.bool)
        inside = _length(self._shrunk(rays)) < self._bend_limit()
        return inside & (rays.square().sum(-1) < self._projection_limit().square())

    def fold_radius(self) -> Float[Tensor, "*batch"]:
        """Distance from the axis, at z = 1, where the lens model turns back; may be inf."""
        radius = self._bend_limit()
        if self.model in _PROJECTIONS:
            finite = torch.where(radius.isfinite(), radius, 1.0)
            ray = finite * _PROJECTIONS[self.model][1](finite, self.values)
            radius = torch.where(radius.isfinite() & ray.isfinite(), ray, torch.inf)
        return torch.minimum(radius, self._projection_limit())

    def _shrunk(self, rays: Tensor) -> Tensor:
        if self.model not in _PROJECTIONS:
            return rays
        return rays * _PROJECTIONS[self.model][0](_length(rays), self.values)[..., None]

    def _projection_limit(self) -> Tensor:
        """Distance from the axis, at z = 1, up to which the projection is one."""
        zero = torch.zeros_like(self.values["cx"])
        k = self.values.get("k", zero)
        return torch.where(k > 0, 0.5 / torch.where(k > 0, k, 1.0).sqrt(), torch.inf)

    def _polynomials(self) -> tuple[list[Tensor], list[Tensor]]:
        """Coefficients of r², r⁴, ... above and below the line of the radial distortion."""
        k = [self.values[name] for name in _BENDS[:6] if name in self.values]
        return (k[:3], k[3:]) if self.model == _RATIONAL else (k, [])

    def _side(self) -> tuple[Tensor, ...]:
        """p1, p2, sx1 and sy1, zeros where the model has none."""
        zero = torch.zeros_like(self.values["cx"])
        return tuple(self.values.get(name, zero) for name in _BENDS[6:])

    def _bend(self, points: Tensor) -> Tensor:
        """The radial, tangential and thin prism distortion."""
        p1, p2, s1, s2 = self._side()
        x, y = points.unbind(-1)
        r2 = x * x + y * y
        above, below = self._polynomials()
        radial = _value(above, r2) / _value(below, r2)
        xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + s1 * r2
        yd = y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y) + s2 * r2
        return torch.stack([xd, yd], dim=-1)

    def _bend_jacobian(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The Jacobian of ``_bend``: its entries xx, xy, yx and yy."""
        p1, p2, s1, s2 = self._side()
        x, y = points.unbind(-1)
        r2 = x * x + y * y
        above, below = self._polynomials()
        n, d = _value(above, r2), _value(below, r2)
        radial = n / d
        slope = 2 * (_slope(above, r2) - radial * _slope(below, r2)) / d  # d radial / d x over x
        cross = slope * x * y + 2 * p1 * x + 2 * p2 * y
        xx = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x + 2 * s1 * x
        yy = radial + slope * y * y + 2 * p2 * x + 6 * p1 * y + 2 * s2 * y
        return xx, cross + 2 * s1 * y, cross + 2 * s2 * x, yy

    def _straight(self, bent: Tensor) -> Tensor:
        """Solves _bend(points) = bent: first the radial part alone, then all by Newton's method."""
        if not any(name in self.values for name in _BENDS):
            return bent
        with torch.no_grad():
            size = _length(bent)
            far = size > 1.1 * self._bent_limit()  # beyond all that tangential terms could add
            wanted, size = torch.where(far[..., None], 0.0, bent), torch.where(far, 1.0, size)
            points = wanted * (self._straight_radius(size) / size)[..., None]
            tolerance = _SOLVED * (1 + size)
            for _ in range(20):
                if bool((self._off(points, wanted) <= 1e-3 * tolerance).all()):
                    break
                points = self._newton(points, wanted)
            solved = (self._off(points, wanted) <= tolerance) & ~far
            solved = solved & (_length(points) < self._bend_limit())
        # One step more, which carries the gradients.
        points = self._newton(torch.where(solved[..., None], points, 0.0), bent)
        return torch.where(solved[..., None], points, torch.nan)

    def _bent_limit(self) -> Tensor:
        """The largest distance from the axis that the radial part bends to; may be inf."""
        limit = self._bend_limit()
        r2 = torch.where(limit.isfinite(), limit, 1.0).square()
        above, below = self._polynomials()
        bent = r2.sqrt() * _value(above, r2) / _value(below, r2)
        # It rises up to there; a negative value lies a rounding behind a pole, before which it is
        # infinite.
        return torch.where(limit.isfinite() & (bent > 0), bent, torch.inf)

    def _off(self, points: Tensor, bent: Tensor) -> Tensor:
        return (self._bend(points) - bent).abs().amax(-1)

    def _newton(self, points: Tensor, bent: Tensor) -> Tensor:
        x, y = (self._bend(points) - bent).unbind(-1)
        xx, xy, yx, yy = self._bend_jacobian(points)
        step = torch.stack([yy * x - xy * y, xx * y - yx * x], dim=-1)
        return points - step / (xx * yy - xy * yx)[..., None]

    def _straight_radius(self, bent: Tensor) -> Tensor:
        """The distance from the axis that the radial part bends to ``bent``; inside a bracket."""
        above, below = self._polynomials()
        low, high = torch.zeros_like(bent), self._bend_limit().expand_as(bent)
        radius = torch.where(bent < high, bent, 0.5 * high)
        for _ in range(_STEPS):
            r2 = radius * radius
            n, d = _value(above, r2), _value(below, r2)
            off = radius * n / d - bent
            if bool((off.abs() <= _NEAR * (1 + bent)).all()):
                break
            low, high = torch.where(off < 0, radius, low), torch.where(off > 0, radius, high)
            slope = (n + 2 * r2 * (_slope(above, r2) - n / d * _slope(below, r2))) / d
            step = radius - off / slope
            middle = torch.where(high.isfinite(), (low + high) / 2, 2 * low + 1)
            radius = torch.where((step > low) & (step < high), step, middle)
        return radius

    def _bend_limit(self) -> Tensor:
        """Distance from the axis where the radial distortion turns back; may be inf."""
        above, below = self._polynomials()
        if not above:
            return torch.full_like(self.values["cx"], torch.inf)
        if not below and len(above) <= 2:
            return _quadratic_limit(*above, *[torch.zeros_like(above[0])] * (2 - len(above)))
        with torch.no_grad():
            return _first_root(_slope_above_the_line(above, below)).sqrt()


def _length(points: Tensor) -> Tensor:
    """Distance from the axis; never zero, so that it can be divided by and has a gradient."""
    return points.square().sum(-1).clamp(min=torch.finfo(points.dtype).eps).sqrt()


def _value(coefficients: list[Tensor], r2: Tensor) -> Tensor:
    """1 + c₁ r² + c₂ r⁴ + ..."""
    total = torch.zeros_like(r2)
    for c in reversed(coefficients):
        total = (total + c) * r2
    return 1 + total


def _slope(coefficients: list[Tensor], r2: Tensor) -> Tensor:
    """The derivative of ``_value`` by r²."""
    total = torch.zeros_like(r2)
    for power in range(len(coefficients), 0, -1):
        total = total * r2 + power * coefficients[power - 1]
    return total


def _quadratic_limit(k1: Tensor, k2: Tensor) -> Tensor:
    # The slope 1 + 3·k1·r² + 5·k2·r⁴ first vanishes at r² = 2 / divisor, if that is positive.
    discriminant = 9 * k1 * k1 - 20 * k2
    divisor = discriminant.clamp(min=0).sqrt() - 3 * k1
    folds = (discriminant >= 0) & (divisor > 0)
    return torch.where(folds, (2 / torch.where(folds, divisor, 1.0)).sqrt(), torch.inf)


def _slope_above_the_line(above: list[Tensor], below: list[Tensor]) -> list[Tensor]:
    """Coefficients of u = r², from u on, of what the slope of r·n(u)/d(u) vanishes with.

    That is (n + 2 u n')·d - 2 u n·d', times d, where the model has a pole; the constant is 1.
    """
    one = torch.ones_like(above[0])
    n, d = [one, *above], [one, *below]
    steep = [(1 + 2 * i) * c for i, c in enumerate(n)]
    falling = [2 * i * c for i, c in enumerate(d)]
    first, second = _product(steep, d), _product(n, falling)
    slope = [a - b for a, b in zip(first, second, strict=True)]
    return _product(slope, d)[1:]


def _product(one: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    """Coefficients of the product of two polynomials."""
    total = [torch.zeros_like(one[0])] * (len(one) + len(other) - 1)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            total[i + j] = total[i + j] + a * b
    return total


def _first_root(coefficients: list[Tensor]) -> Tensor:
    """The least positive root of 1 + c₁ u + c₂ u² + ..., or inf: by eigenvalues, for w = 1 / u."""
    c = torch.stack(coefficients, dim=-1).double()
    companion = torch.diag_embed(torch.ones_like(c[..., 1:]), offset=-1)
    companion[..., 0, :] = -c
    w = torch.linalg.eigvals(companion)
    real = (w.imag.abs() <= 1e-7 * w.abs()) & (w.real > 1e-9)
    largest = torch.where(real, w.real, 0.0).amax(-1)
    return torch.where(largest > 0, 1 / largest, torch.inf).to(coefficients[0])
