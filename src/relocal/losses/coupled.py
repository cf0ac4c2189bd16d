"""Coupled terms, added to a base loss: moving and turning the camera both change the picture.

Each is zero at the label, and has a decoupled twin: the same without the cross term of position and
rotation. Errors may cancel each other in a term, never in its twin.
"""

from collections.abc import Callable
from functools import reduce
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from relocal.errors import InputError
from relocal.losses.loss import (
    Loss,
    PerSample,
    check_word,
    scene_depth,
    seen_points,
    shift,
    turn,
)
from relocal.pose import quaternion_conjugate, quaternion_log, quaternion_multiply, safe_norm
from relocal.types import Prediction, Target

Form = Literal["norm", "squared"]
DepthOf = Literal["scene", "image"]
Rays = Literal["corners", "grid"]
Schedule = Literal["constant", "rise", "fall"]

FEWEST_POINTS = 8  # that say how deep an image is
GRID = 5


class Term(Loss):
    """What coupled terms have in common: their form, their twin, and the depth d.

    Args:
        form: ``norm`` (the root before the mean over rays or points) or ``squared``.
        twin: Whether this is the decoupled twin.
        depth_of: Whether d is the scene's median depth, or that of the map points that the image
            itself sees, where it sees eight.
    """

    needs_depth = True

    def __init__(
        self, *, form: Form = "norm", twin: bool = False, depth_of: DepthOf = "scene"
    ) -> None:
        super().__init__()
        check_word("form", form, Form)
        check_word("depth_of", depth_of, DepthOf)
        self.form, self.twin, self.depth_of = form, twin, depth_of
        if depth_of == "image":
            self.needs_points = True

    def length(self, *parts: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
        """The length, or its square, of a sum of vectors.

        The twin's vector holds them side by side, so that its square has no cross term.
        """
        gap = torch.cat(parts, dim=-1) if self.twin else reduce(torch.add, parts)
        return gap.square().sum(-1) if self.form == "squared" else safe_norm(gap)

    def depth(self, target: Target) -> PerSample:
        """The depth d of each image, in scene units."""
        scene = scene_depth(target, self)[1].expand(target.pose.shape)
        if self.depth_of == "scene":
            return scene
        offset, weight = seen_points(target, self)
        if offset.shape[1] < FEWEST_POINTS:
            return scene
        depth = (offset * target.pose.look_direction[:, None]).sum(-1)
        seen = weight > 0
        median = torch.where(seen, depth, torch.nan).nanmedian(-1).values
        return torch.where(seen.sum(-1) >= FEWEST_POINTS, median, scene)

    def along(
        self, rays: Float[Tensor, "B K 3"], prediction: Prediction, target: Target
    ) -> PerSample:
        """Mean over viewing rays k of ‖Δx + d·(R(q̂) - R(q))k‖, the way of a point at depth d."""
        turned = prediction.pose().rotation - target.pose.rotation
        swept = self.depth(target)[:, None, None] * (rays @ turned.mT)
        moved = shift(prediction, target)[:, None].expand_as(swept)
        return self.length(moved, swept).mean(-1)


class Sightline(Term):
    """‖Δx + d·(R(q̂) - R(q))e_z‖: how far apart the points looked at are, at depth d.

    In scene units; the twin is √(‖Δx‖² + ‖d·(R(q̂) - R(q))e_z‖²). Zero also for: roll, and any
    orbit about the point looked at. The twin is zero also for: roll.
    """

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The term of each sample."""
        return self.along(optical_axis(target), prediction, target)


class Frustum(Term):
    """The same, mean over the optical axis and the four corner rays of the camera.

    In scene units. Zero also for: nothing else, nor is the twin.

    Args:
        form: ``norm`` (the root before the mean over rays) or ``squared``.
        twin: Whether this is the decoupled twin.
        depth_of: Whether d is the scene's, or each image's.
        rays: ``corners``, or a ``grid`` of 5 x 5 rays over the image.
    """

    def __init__(
        self,
        *,
        form: Form = "norm",
        twin: bool = False,
        depth_of: DepthOf = "scene",
        rays: Rays = "corners",
    ) -> None:
        super().__init__(form=form, twin=twin, depth_of=depth_of)
        check_word("rays", rays, Rays)
        self.rays = rays

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The term of each sample."""
        if self.rays == "grid":
            return self.along(image_rays(target, GRID), prediction, target)
        return self.along(frustum_rays(target), prediction, target)


class Points(Term):
    """Mean over the points P seen of ‖R(q̂)ᵀ(P - x̂) - R(q)ᵀ(P - x)‖: their way in the camera.

    That is (R(q̂) - R(q))ᵀ(P - x) - R(q̂)ᵀΔx, whose two parts the twin takes apart. In scene units.
    Zero also for: turns about a line on which all points seen lie, and any pose where the image
    sees none. The twin: such turns about a line through the true centre.
    """

    needs_depth = False
    needs_points = True

    def __init__(self, *, form: Form = "norm", twin: bool = False) -> None:
        super().__init__(form=form, twin=twin)

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The term of each sample."""
        offset, weight = seen_points(target, self)
        estimate = prediction.pose().rotation
        # Row vectors: v @ R is Rᵀv, from the world to the camera.
        swept = offset @ (estimate - target.pose.rotation)
        moved = -shift(prediction, target)[:, None] @ estimate
        return (weight * self.length(swept, moved.expand_as(swept))).sum(-1)


class Bearing(Term):
    """Mean over points P of ‖u(R(q̂)ᵀ(P - x̂)) - u(R(q)ᵀ(P - x))‖, with u = v/‖v‖: what is seen.

    P are the map points that the image sees; in a scene without, those of ``frustum`` at depth d.
    The twin squares and adds what the turn alone (q̂, x) and the move alone (q, x̂) do. No unit, and
    at most 2 a point (the twin 2√2). Zero also for: poses that see fewer than four points in the
    same directions, and any pose where the image sees none.
    """

    def __init__(self, *, form: Form = "norm", twin: bool = False) -> None:
        super().__init__(form=form, twin=twin)

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The term of each sample."""
        there, here = prediction.pose().rotation, target.pose.rotation
        if target.points is None:
            offset = self.depth(target)[:, None, None] * (frustum_rays(target) @ here.mT)
            weight = torch.full_like(offset[..., 0], 1 / offset.shape[1])
        else:
            offset, weight = seen_points(target, self)
        moved = offset - shift(prediction, target)[:, None]
        truth = F.normalize(offset @ here, dim=-1)
        views = [(offset, there), (moved, here)] if self.twin else [(moved, there)]
        gaps = [F.normalize(points @ rotation, dim=-1) - truth for points, rotation in views]
        return (weight * self.length(*gaps)).sum(-1)


class SE3(Term):
    """√(‖V(φ)⁻¹R(q)ᵀΔx‖² + d²‖φ‖²): the logarithm of T⁻¹T̂, its rotation vector φ weighed by d.

    V(φ)⁻¹ (Barfoot, State Estimation for Robotics, the inverse left Jacobian) makes the straight
    way Δx the arc of a screw; the twin, √(‖Δx‖² + d²‖φ‖²), leaves it out. In scene units. Zero also
    for: nothing else, nor is the twin; no errors cancel.
    """

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The term of each sample."""
        truth = quaternion_conjugate(target.pose.quaternion)
        half = quaternion_log(quaternion_multiply(truth, prediction.pose().quaternion))
        moved = shift(prediction, target)
        if not self.twin:
            moved = screw((moved[:, None] @ target.pose.rotation)[:, 0], half)
        return self.length(torch.cat([moved, 2 * self.depth(target)[:, None] * half], dim=-1))


class Product(Term):
    """(1 + ‖Δx‖/d)·(1 + angle) - 1, the squared form with both squared. No unit.

    The twin leaves out the product of the two. Zero also for: nothing else, nor is the twin; no
    errors cancel.
    """

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The term of each sample."""
        position = safe_norm(shift(prediction, target)) / self.depth(target)
        rotation = turn(prediction, target)[:, 0]
        if self.form == "squared":
            position, rotation = position.square(), rotation.square()
        both = position + rotation
        return both if self.twin else both + position * rotation


class CoupledSum(Loss):
    """A base loss plus γ times the sum of coupled terms.

    Args:
        base: The base loss.
        terms: Coupled terms.
        gamma: γ.
        schedule: Whether γ is constant, or goes linearly over the training, up from zero (``rise``)
            or down to it (``fall``).
    """

    def __init__(
        self,
        base: nn.Module,
        terms: list[nn.Module],
        gamma: float,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__()
        check_word("gamma_schedule", schedule, Schedule)
        self.base = base
        self.terms = nn.ModuleList(terms)
        self.gamma, self.schedule = gamma, schedule

    def forward(self, prediction: Prediction, target: Target, progress: float) -> PerSample:
        """The loss of each sample."""
        share = {"constant": 1.0, "rise": progress, "fall": 1 - progress}[self.schedule]
        value = self.base(prediction, target, progress)
        for term in self.terms:
            added = term(prediction, target, progress)
            if value.shape != added.shape:  # a loss from outside; else it would be spread silently
                raise InputError(
                    f"--loss: {type(self.base).__name__} gives values of shape "
                    f"{tuple(value.shape)}, {type(term).__name__} of {tuple(added.shape)}; a loss "
                    "gives one value an image."
                )
            value = value + self.gamma * share * added
        return value


def optical_axis(target: Target) -> Float[Tensor, "B 1 3"]:
    """The optical axis in the camera frame."""
    axis = target.pose.position.new_tensor([0.0, 0.0, 1.0])
    return axis.expand(*target.pose.shape, 1, 3)


def image_rays(target: Target, side: int) -> Float[Tensor, "B K 3"]:
    """Rays through side x side pixels that span the image, in the camera frame, at z = 1."""
    camera, like = target.camera, target.camera.params
    across, down = (
        torch.linspace(0, size, side, dtype=like.dtype, device=like.device)
        for size in (camera.width, camera.height)
    )
    batched = camera[:, None] if like.dim() > 1 else camera
    rays = batched.unproject(torch.cartesian_prod(across, down)).to(target.pose.position)
    return rays.expand(*target.pose.shape, side * side, 3)


def frustum_rays(target: Target) -> Float[Tensor, "B 5 3"]:
    """The optical axis and the rays through the image's corners."""
    return torch.cat([optical_axis(target), image_rays(target, 2)], dim=1)


def screw(moved: Float[Tensor, "B 3"], half: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3"]:
    """V(φ)⁻¹ times a vector, where φ is twice ``half``, at most π long."""
    eta = safe_norm(half)[:, None]
    small = eta < 0.05
    safe = torch.where(small, 1.0, eta)
    exact = (1 - safe * safe.cos() / safe.sin()) / safe.square()
    square = eta.square()
    series = 1 / 3 + square / 45 + 2 * square.square() / 945  # where the exact one loses digits
    once = torch.linalg.cross(half, moved)
    return moved - once + torch.where(small, series, exact) * torch.linalg.cross(half, once)


COUPLED: dict[str, Callable[..., nn.Module]] = {
    "sightline": Sightline,
    "frustum": Frustum,
    "points": Points,
    "bearing": Bearing,
    "se3": SE3,
    "product": Product,
}
