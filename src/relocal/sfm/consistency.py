"""Whether photos and poses belong together: one check for maps, map points and training.

Matches that two photos verify by themselves, without the poses, must lie where the poses put them.
Poses of a mirrored world, in other axes, or with quaternions in another order put them elsewhere.
Some wrong poses fit as well by themselves; beside the reading that was meant they fit worse.
What is not told: wrong focal lengths on an orbit, where longer ones look like flatter things.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from relocal.errors import InputError
from relocal.pose import Pose, rotation_angle
from relocal.scene import Points, Scene
from relocal.sfm.readings import READINGS

LEAST_SHARE = 0.6
"""Least share of matches that fit, in the median of pairs. Measured on pairs as ``sample_pairs``
draws them, with SIFT: right poses of a rendered room 1.00, a cube diorama 1.00, a phone's walk over
a terrace 0.79 to 0.97 (by which of its frames), redkitchen 1.00, and 0.94 with the poses of its
depth camera, which are 4 degrees off for its colours. Wrong ones of the room are mostly at 0.

The share alone does not tell all wrong poses: of the diorama, an orbit whose camera hardly turns
between images, it is 1.00 with the camera turned by half a turn about its axis, with images
mistaken for those next to them, and with half to four times the focal length. ``better_reading``
tells the first; the others nothing here tells on an orbit."""
LEAST_PAIRS = 5
TOLERANCE_RAD, TOLERANCE_OF_TURN = 0.006, 0.05
"""How far a match may be from what the poses allow: 3 pixels of 500 of focal length, and a share of
the angle between the cameras, which is what poses of a neighbouring camera of a rig are off."""
BETTER, CLEAR_SHARE = 0.6, 0.8
"""Another reading is better where it is off by less than this share of what the poses as given are,
and its share of matches is clear. Angles are medians over pairs (``misfit``), in milliradians, as
given and of the best other reading: right poses of a rendered room 0.3 and 52, of one of 160 px
0.5 and 25, fox 0.5 and 58, the terrace 0.4 and 2.0, redkitchen 1.1 and 60, with the poses
of its depth camera 11.0 and 48, the diorama 0.6 and 2.7. Of quarters of these recordings, the
best other is 1.64 times as far off or more. With its camera turned about its axis the diorama has
2.7 and 0.6; of a quarter of it, or of images next to one another, the reading that was meant has
0.29 of what is given at most."""
POINT_TOLERANCE_RAD = 0.012
_PARALLAX = 3.0  # in tolerances: matches that moved less fit any poses
_LEAST_MATCHES = 10
_STEPS = (1, 2, 4, 8)  # of images in the order of recording
_VERIFY_RAD = 0.004
_MOST_TURN_RAD = 1.0  # cameras that look elsewhere by more see little of the same
_COMPARED_PAIRS, _COMPARED = 40, 100  # how much of the matches readings are compared by
_EXACT_RAD = 2e-4  # a tenth of a pixel of 500: nothing fits photos better
_WRONG = (
    " The poses or cameras are wrong: of a mirrored world, in other axes (y and z exchanged, "
    "OpenGL's camera), with quaternions that have w at the other end, cam_from_world taken for "
    "world_from_cam, or of other photos."
)
_UNTURNED = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)

_LOG = logging.getLogger(__name__)

Rays = Float[Tensor, "_ 3"]
PairRays = Iterable[tuple[int, int, Rays, Rays]]
"""Two images, and where each sees the same things: directions in its camera's frame."""
_Pairs = Sequence[tuple[int, int, Tensor, Tensor]]  # the same, each of another length


def sample_pairs(
    pairs: Int[np.ndarray, "pairs 2"], images: int, count: int
) -> list[tuple[int, int]]:
    """Pairs to look at: some of those given, and as many of images recorded one after the other.

    Wrong poses put images side by side that show different things; the order of recording does not.

    Args:
        pairs: Images that should see the same things, by their poses.
        images: How many images there are.
        count: Most pairs of each kind.
    """
    draw = np.random.default_rng(0)
    recorded = np.array([(i, i + k) for k in _STEPS for i in range(images - k)]).reshape(-1, 2)
    drawn = [
        kind[draw.permutation(len(kind))[:count]].tolist() for kind in (np.asarray(pairs), recorded)
    ]
    return list(dict.fromkeys((a, b) for kind in drawn for a, b in kind))


def verified(one: Rays, other: Rays) -> Int[np.ndarray, " k"]:
    """Rows of matches that agree on how the two photos were taken, whatever the poses say.

    Args:
        one: Directions in the first camera's frame.
        other: The same things from the second.

    Returns:
        Those within 0.004 rad of an essential matrix (RANSAC); none where few agree.
    """
    import cv2

    front = ((one[:, 2] > 0) & (other[:, 2] > 0)).nonzero()[:, 0].numpy()
    if len(front) < _LEAST_MATCHES:
        return front[:0]
    flat: Any = [np.ascontiguousarray((r[:, :2] / r[:, 2:])[front].numpy()) for r in (one, other)]
    cv2.setRNGSeed(0)
    find: Any = cv2.findEssentialMat  # whose types know no other arguments than positions
    _, mask = find(*flat, np.eye(3), method=cv2.RANSAC, prob=0.999, threshold=_VERIFY_RAD)
    kept = front[:0] if mask is None else front[mask.ravel().astype(bool)]
    return kept if len(kept) >= _LEAST_MATCHES else front[:0]


def arc_angle(one: Rays, other: Rays, other_from_one: Pose) -> Float[Tensor, " m"]:
    """How far matches are from what two poses allow, in radians.

    From the second camera, what the first sees along a ray lies on an arc: from the ray's own
    direction, where it is infinitely far, to that of the first camera, where it is next to it. This
    is the angle to that arc. Unlike the distance to an epipolar line it holds for any lens, without
    a step aside, and only where things are before both cameras.

    Args:
        one: Directions in the first camera's frame.
        other: Directions in the second's.
        other_from_one: The relative pose.
    """
    far = normalize(one.double(), dim=1) @ other_from_one.rotation.double().T
    seen, shift = normalize(other.double(), dim=1), other_from_one.position.double()
    if float(shift.norm()) < 1e-12:
        return _angle(far, seen)
    near = (shift / shift.norm()).expand_as(far)
    normal = normalize(torch.linalg.cross(far, near), dim=1)
    height = (seen * normal).sum(1)
    foot = seen - height[:, None] * normal
    inside = (torch.linalg.cross(far, foot) * normal).sum(1) >= 0
    inside &= (torch.linalg.cross(foot, near) * normal).sum(1) >= 0
    ends = torch.minimum(_angle(far, seen), _angle(near, seen))
    return torch.where(inside, height.abs().clamp(max=1).asin(), ends)


def _angle(one: Rays, other: Rays) -> Float[Tensor, " m"]:
    cross = torch.linalg.cross(one, other).norm(dim=1)
    return torch.atan2(cross, (one * other).sum(1))


def share_that_fits(one: Rays, other: Rays, other_from_one: Pose) -> float | None:
    """The share of a pair's matches that fit the poses; None where they cannot tell.

    Matches that are where a mere turn puts them say nothing, as those of things that are far away,
    or of photos from one place.
    """
    turned = Pose(torch.zeros_like(other_from_one.position), other_from_one.quaternion)
    angle = min(float(rotation_angle(turned.quaternion, _UNTURNED)), _MOST_TURN_RAD)
    allowed = TOLERANCE_RAD + TOLERANCE_OF_TURN * angle
    telling = arc_angle(one, other, turned) > _PARALLAX * allowed
    if int(telling.sum()) < _LEAST_MATCHES:
        return None
    off = arc_angle(one[telling], other[telling], other_from_one)
    return float((off < allowed).double().mean())


def check_matches(place: Path | str, poses: Pose, pairs: PairRays) -> float | None:
    """Refuses poses that matches of the photos contradict, or that were meant otherwise.

    Args:
        place: What the message calls the scene.
        poses: Of the images, ``world_from_cam``.
        pairs: Verified matches of pairs of images.

    Returns:
        The median share of matches that fit; None, with a warning, where too few pairs can tell.

    Raises:
        InputError: If it is below ``LEAST_SHARE``, or if one of ``READINGS`` fits clearly better.
    """
    pairs = [pair for pair in pairs if len(pair[2])]
    shares = _shares(poses, pairs)
    meant = better_reading(poses, pairs)
    hint = f" The photos fit if {meant}." if meant else ""
    if len(shares) >= LEAST_PAIRS:
        what = f"{len(shares)} pairs of images", "verified matches fit the poses"
        _checked(place, median(shares), what, hint)
    if meant:
        raise InputError(
            f"{place}: the poses are not what they are taken for: another reading of the same "
            f"numbers fits the photos much better.{hint}"
        )
    if len(shares) < LEAST_PAIRS:
        _LOG.warning(
            f"{place}: too few photos show the same things from different places to tell whether "
            "the poses are right."
        )
        return None
    return median(shares)


def _shares(poses: Pose, pairs: _Pairs) -> list[float]:
    """Of the pairs that can tell, the share of matches that fit."""
    shares = [share_that_fits(r, s, poses[b].inverse() @ poses[a]) for a, b, r, s in pairs]
    return [share for share in shares if share is not None]


def misfit(poses: Pose, pairs: _Pairs) -> float:
    """The median over pairs of the median angle of matches to what the poses allow, in radians."""
    one, other = ([pair[end] for pair in pairs] for end in (0, 1))
    relative = poses[other].inverse() @ poses[one]
    angles = [arc_angle(r, s, relative[k]) for k, (_, _, r, s) in enumerate(pairs)]
    return median(float(angle.median()) for angle in angles)


def _some(rows: Any, count: int) -> Any:
    return rows[:: -(-len(rows) // count) or 1]


def better_reading(poses: Pose, pairs: _Pairs) -> str | None:
    """The entry of ``READINGS`` that fits the photos clearly better than the poses as given.

    Wrong poses may fit well by themselves: from an orbit, a camera turned by half a turn about its
    axis sees what is near move as what is far does. Only beside right ones they are seen to be off.
    """
    some = [
        (a, b, _some(one, _COMPARED), _some(other, _COMPARED))
        for a, b, one, other in _some(pairs, _COMPARED_PAIRS)
    ]
    if len(some) < LEAST_PAIRS or (given := misfit(poses, some)) < _EXACT_RAD:
        return None
    others = {name: meant(poses) for name, meant in READINGS.items()}
    angles = {name: misfit(other, some) for name, other in others.items()}
    best = min(angles, key=angles.__getitem__)
    if angles[best] >= BETTER * given:
        return None
    shares = _shares(others[best], some)
    fits = len(shares) >= LEAST_PAIRS and median(shares) >= CLEAR_SHARE
    return best if fits else None


def check_points(
    scene: Scene, points: Points, images: Sequence[int], place: Path | str
) -> float | None:
    """Refuses map points that are not where the poses and cameras of their images see them.

    Arguments and errors as ``check_matches``, of the images that are given.
    """
    shares: list[float] = []
    for i in images:
        seen = np.flatnonzero(points.image_index == i)
        if len(seen) < _LEAST_MATCHES:
            continue
        rays = scene.camera(i).unproject(torch.from_numpy(points.xy[seen]).double())
        xyz = torch.from_numpy(points.xyz[points.point_index[seen]]).double()
        off = _angle(rays, scene.poses[i].inverse().apply(xyz))
        shares.append(float((off < POINT_TOLERANCE_RAD).double().mean()))
    if len(shares) < LEAST_PAIRS:
        return None
    what = f"{len(shares)} images", "observations of map points fit the poses"
    return _checked(place, median(shares), what)


def _checked(place: Path | str, share: float, what: tuple[str, str], hint: str = "") -> float:
    if share < LEAST_SHARE:
        raise InputError(
            f"{place}: only {100 * share:.0f} % of the {what[1]} (median of {what[0]}); "
            f"right poses give 80 % or more, and {100 * LEAST_SHARE:.0f} % are asked for."
            f"{hint or _WRONG}"
        )
    return share
