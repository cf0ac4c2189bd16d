"""The motion, or similarity, between two worlds in which the same cameras stand.

Positions and rotations both tell how the worlds are turned: rotations alone where the cameras stand
on a line or in one place, positions more exactly where they stand far apart. With a chordal
distance for rotations the best turn for given weights is one Procrustes problem: for positions
Umeyama's (1991), for rotations the mean of Markley et al. (2007).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relocal.errors import InputError
from relocal.local_frame import LocalFrame
from relocal.pose import (
    Pose,
    matrix_to_quaternion,
    nearest_rotation,
    quaternion_conjugate,
    quaternion_multiply,
    quaternion_to_matrix,
    rotation_angle,
)
from relocal.sfm.alignment import Similarity

_STEPS = 100
_MEDIAN_OF_CHI = 1.538  # of three components of standard deviation 1
_CUT = 22.46  # six squared components exceed it once in a thousand
_STARTS_RIGID, _STARTS_SCALED = 200, 30  # pairs that starts are made of
_FLOOR, _CONVERGED = 1e-9, 1e-10


@dataclass(frozen=True)
class Fit:
    """A similarity, and how far it may be believed."""

    by: Similarity
    kept: Bool[Tensor, " n"]
    """Which pairs agree with the others."""
    sigma: float
    """Spread of the positions about it, per axis, in the target's unit."""
    free_scale: float
    """The scale that the positions ask for under this turn, whether or not it was free."""
    scale_error: float
    """Its standard deviation; infinite where the cameras do not move."""


def fit_poses(source: Pose, target: Pose, *, scaled: bool) -> Fit:
    """The similarity that takes most poses near to their partners; wrong pairs have no say.

    It starts from the best of what single pairs say (least median; with a scale, of what two pairs
    say), so that anything below half of the pairs may be wrong, and goes on with reweighted least
    squares (Geman-McClure) whose spreads are those of the pairs themselves.

    Args:
        source: Poses in the one world, (n,), float64.
        target: The same cameras in the other.
        scaled: Whether a scale is looked for; without it, it is 1.

    Raises:
        InputError: If a scale is looked for and no camera moved.
    """
    here, there = _frames(source.position, target.position, scaled)
    fit = _fit(here.poses(source), there.poses(target), scaled)
    ratio, by = there.length / here.length, fit.by
    shift = there.world_points(by.shift) - ratio * by.scale * by.rotation @ here.origin
    return Fit(
        Similarity(ratio * by.scale, by.rotation, shift),
        fit.kept,
        there.length * fit.sigma,
        ratio * fit.free_scale,
        ratio * fit.scale_error,
    )


def _frames(
    source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"], scaled: bool
) -> tuple[LocalFrame, LocalFrame]:
    """Frames in which neither world is far away or large; of one unit where the scale is 1."""
    here, there = LocalFrame.about(source), LocalFrame.about(target)
    return (here if scaled else LocalFrame(here.origin, there.length)), there


def _fit(source: Pose, target: Pose, scaled: bool) -> Fit:
    pairs = _Pairs(
        source.position,
        target.position,
        quaternion_multiply(target.quaternion, quaternion_conjugate(source.quaternion)),
    )
    by, matrices = _start(source, target, scaled), quaternion_to_matrix(pairs.turns)
    weights = torch.ones(len(source)).double()
    for _ in range(_STEPS):
        before = by
        sigmas, squared = _misfit(by, pairs)
        weights = (1 + squared / _CUT) ** -2
        by = _refitted(by, pairs, matrices, weights, sigmas, scaled)
        if _moves_little(before, by, pairs):
            break
    (sigma, _), squared = _misfit(by, pairs)
    here, there = _centred(pairs.source, weights), _centred(pairs.target, weights)
    length = float((weights[:, None] * here.square()).sum().sqrt())
    free = _scale(by.rotation, here, there, weights) if length > 0 else by.scale
    left = _sigma((free * here @ by.rotation.T - there).norm(dim=-1), 0.0)
    return Fit(by, squared <= _CUT, sigma, free, left / length if length > 0 else math.inf)


@dataclass(frozen=True)
class _Pairs:
    source: Float[Tensor, "n 3"]
    """Positions in the one world."""
    target: Float[Tensor, "n 3"]
    """Positions in the other."""
    turns: Float[Tensor, "n 4"]
    """What each pair alone says of the turn from the one to the other."""


def _misfit(by: Similarity, pairs: _Pairs) -> tuple[tuple[float, float], Float[Tensor, " n"]]:
    """Spreads of positions and rotations per axis, and each pair's squared residual in them."""
    position = (by.points(pairs.source) - pairs.target).norm(dim=-1)
    rotation = rotation_angle(matrix_to_quaternion(by.rotation).expand_as(pairs.turns), pairs.turns)
    sigmas = _sigma(position, _FLOOR * (1 + _reach(pairs.target))), _sigma(rotation, _FLOOR)
    return sigmas, (position / sigmas[0]).square() + (rotation / sigmas[1]).square()


def _sigma(lengths: Float[Tensor, " n"], least: float) -> float:
    """The spread per axis that lengths of errors show, most of which are sound."""
    few = 1 + 5 / max(len(lengths) - 1, 1)  # few residuals look too small (Rousseeuw 1987)
    return max(few * float(lengths.median()) / _MEDIAN_OF_CHI, least)


def _refitted(
    by: Similarity,
    pairs: _Pairs,
    matrices: Float[Tensor, "n 3 3"],
    weights: Float[Tensor, " n"],
    sigmas: tuple[float, float],
    scaled: bool,
) -> Similarity:
    """The best turn for the scale as it is, then the best scale for this turn, then the shift."""
    here, there = _centred(pairs.source, weights), _centred(pairs.target, weights)
    # A chordal distance is twice the squared angle, where that is small.
    positions = 2 * by.scale * (weights[:, None] * there).T @ here
    rotations = (weights[:, None, None] * matrices).sum(0)
    evidence = (sigmas[1] / sigmas[0]) ** 2 * positions + rotations
    turn = nearest_rotation(evidence / evidence.norm())
    scale = max(_scale(turn, here, there, weights), _FLOOR) if scaled else 1.0
    shift = _middle(pairs.target, weights) - scale * turn @ _middle(pairs.source, weights)
    return Similarity(scale, turn, shift)


def _moves_little(one: Similarity, other: Similarity, pairs: _Pairs) -> bool:
    apart = (one.points(pairs.source) - other.points(pairs.source)).abs().max()
    turned = (one.rotation - other.rotation).abs().max()
    return float(apart) < _CONVERGED * (1 + _reach(pairs.target)) and float(turned) < _CONVERGED


def _scale(turn: Tensor, here: Tensor, there: Tensor, weights: Tensor) -> float:
    """Umeyama's scale for a known turn, of centred positions."""
    both = (weights[:, None] * (here @ turn.T) * there).sum()
    return float(both / (weights[:, None] * here.square()).sum())


def _middle(points: Tensor, weights: Tensor) -> Tensor:
    return (weights[:, None] * points).sum(0) / weights.sum()


def _centred(points: Tensor, weights: Tensor) -> Tensor:
    return points - _middle(points, weights)


def _reach(points: Tensor) -> float:
    return float(points.abs().max())


def _start(source: Pose, target: Pose, scaled: bool) -> Similarity:
    """The best of what few pairs say, by the medians of what it leaves of all."""
    first, scales = _candidates(source, target, scaled)
    here = Pose(scales[:, None] * source.position[first], source.quaternion[first])
    motions = target[first] @ here.inverse()
    shape = (len(first), *source.position.shape[:1])
    scaled_source = Pose(
        scales[:, None, None] * source.position, source.quaternion.expand(*shape, 4)
    )
    moved = motions[:, None] @ scaled_source
    position = (moved.position - target.position).norm(dim=-1).median(dim=1).values
    rotation = rotation_angle(moved.quaternion, target.quaternion.expand(*shape, 4))
    rotation = rotation.median(dim=1).values
    floor = _FLOOR * (1 + _reach(target.position))
    score = position / (position.min() + floor) + rotation / (rotation.min() + _FLOOR)
    best = int(score.argmin())
    return Similarity(float(scales[best]), motions[best].rotation, motions[best].position)


def _candidates(
    source: Pose, target: Pose, scaled: bool
) -> tuple[Int[Tensor, " h"], Float[Tensor, " h"]]:
    """Pairs that starts are made of, and the scale of each: the one between it and a second."""
    most = _STARTS_SCALED if scaled else _STARTS_RIGID
    count = len(source)
    chosen = torch.linspace(0, count - 1, min(count, most)).round().long()
    if not scaled:
        return chosen, torch.ones(len(chosen)).double()
    lengths, wanted = (
        torch.cdist(x, x) for x in (source.position[chosen], target.position[chosen])
    )
    apart = (lengths > _FLOOR * (1 + _reach(source.position))) & (wanted > 0)
    rows = apart.nonzero()[:, 0]
    if not len(rows):
        raise InputError("the device, or the photos by their estimates, never moved: no scale.")
    return chosen[rows], wanted[apart] / lengths[apart]


def spread(poses: Pose) -> float:
    """The median distance of positions from their middle."""
    middle = poses.position.median(dim=0).values
    return float((poses.position - middle).norm(dim=-1).median())
