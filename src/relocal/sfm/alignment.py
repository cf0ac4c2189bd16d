"""The frame of a labelled scene: upright, its origin in the middle, its scale if one is known.

Photos alone leave seven numbers open: where the origin is, how the world is turned, and how long a
metre is. Cameras are held level more often than not, so up can be told; the length of a metre must
be given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from relocal.errors import InputError, unknown
from relocal.pose import Pose, matrix_to_quaternion, position_error, rotation_error_deg
from relocal.scene import Scene
from relocal.scene.scene import some
from relocal.sfm.places import gps_place

LEAST_FIT = 3
_ON_A_LINE = 1e-6  # how wide points are, as a share of how long
_ROUNDING = 1e-15  # of a coordinate
_DOWN_WEIGHT = 0.01
WRONG, WRONG_DEG = 0.2, 20.0
"""Median residuals from which known poses are not those of the photos: of the positions, as a share
of how far they spread, and of the rotations."""
DOUBTFUL, DOUBTFUL_DEG = 0.05, 5.0
"""Median residuals from which known poses are doubtful."""
_LEAST_M = 1e-6  # a distance below it, or above its inverse, is a slip of the pen


@dataclass(frozen=True)
class Similarity:
    """x ↦ scale · R x + shift, from one world to another."""

    scale: float
    rotation: Float[Tensor, "3 3"]
    shift: Float[Tensor, "3"]

    def points(self, xyz: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Points of the one world in the other."""
        return self.scale * xyz @ self.rotation.T + self.shift

    def poses(self, poses: Pose) -> Pose:
        """Poses of the one world in the other."""
        turn = Pose(torch.zeros(3).double(), matrix_to_quaternion(self.rotation))
        turned = turn @ Pose(torch.zeros_like(poses.position), poses.quaternion)
        return Pose(self.points(poses.position), turned.quaternion).canonical()


def moved(scene: Scene, by: Similarity) -> Scene:
    """The scene in another world."""
    points = scene.points
    if points is not None:
        xyz = by.points(torch.from_numpy(points.xyz).double()).numpy()
        points = replace(points, xyz=xyz)
    return replace(scene, poses=by.poses(scene.poses), points=points)


def upright(scene: Scene) -> Similarity:
    """Turns the world so that z is up, and puts the middle of the map points at its origin.

    Up is the direction to which all cameras' x axes are most nearly square, as they are when nobody
    rolls the camera; how the cameras' own down directions agree breaks ties, when all look the same
    way, and says which end is up. The rotation about it is left as small as it can be.
    """
    rotation = scene.poses.rotation.double()
    across, down = rotation[:, :, 0], rotation[:, :, 1].mean(0)
    level = across.T @ across / len(scene)
    values = torch.linalg.eigh(level - _DOWN_WEIGHT * torch.outer(down, down))
    up = values.eigenvectors[:, 0]
    up = up if float(up @ down) < 0 else -up
    turn = _shortest_turn(up)
    seen = scene.poses.position if scene.points is None else torch.from_numpy(scene.points.xyz)
    return Similarity(1.0, turn, -(seen.double() @ turn.T).quantile(0.5, dim=0))


def _shortest_turn(up: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The smallest rotation that takes a unit vector to the z axis."""
    z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    axis, cosine = torch.linalg.cross(up, z), float(up @ z)
    if cosine < -1 + 1e-12:
        return torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    x, y, w = axis.tolist()
    skew = torch.tensor([[0, -w, y], [w, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64) + skew + skew @ skew / (1 + cosine)


def fitted(source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"], what: str) -> Similarity:
    """The similarity that takes points nearest to others, wherever both lie (Umeyama 1991).

    Args:
        source: Camera centres.
        target: Where they are in the other world.
        what: What a message calls the others.

    Raises:
        InputError: If there are fewer than three, or they lie on a line.
    """
    source, target = source.double(), target.double()
    if len(source) < LEAST_FIT:
        raise InputError(f"{what}: needs {LEAST_FIT} images that are placed, has {len(source)}.")
    for centres in (source, target):
        check_spread(centres, what)
    if not (found := umeyama(source, target)).scale > 0:
        raise InputError(f"{what}: no scale, turn and shift make the images fit.")
    return found


def umeyama(source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> Similarity:
    """The similarity with the least squared distances (Umeyama 1991, eq. 40 to 42)."""
    here, there = source - source.mean(0), target - target.mean(0)
    left, sizes, right = torch.linalg.svd(there.T @ here)
    signs = torch.ones(3, dtype=torch.float64)  # without a mirror, also where all lie in a plane
    signs[2] = torch.linalg.det(left @ right).sign()
    rotation = left * signs @ right
    scale = float((sizes * signs).sum() / here.square().sum())
    return Similarity(scale, rotation, target.mean(0) - scale * rotation @ source.mean(0))


def check_spread(centres: Float[Tensor, "n 3"], what: str) -> None:
    """Refuses points in one or two places or on a line, in any unit, however far the origin is."""
    sizes = torch.linalg.svdvals(centres - centres.mean(0))
    rounding = _ROUNDING * float(centres.abs().max()) * len(centres) ** 0.5
    if float(sizes[1]) > max(_ON_A_LINE * float(sizes[0]), rounding):
        return
    away = (centres - centres[0]).norm(dim=1)
    same = max(_ON_A_LINE * float(sizes[0]), rounding)
    elsewhere = away > same
    far = centres[elsewhere]
    if not len(far) or float((far - far[0]).norm(dim=1).max()) <= same:
        where = "one place" if not len(far) else "two places"
        raise InputError(f"{what}: the images are in {where} only; {LEAST_FIT} are needed.")
    raise InputError(f"{what}: the images lie on a line, which leaves the rotation open.")


def check_scale(how: str, files: Mapping[str, Path], poses: Mapping[str, Pose]) -> None:
    """Refuses what cannot give photos a scale, wherever they will be placed.

    Args:
        how: As ``scaled`` takes it.
        files: Where each photo is, by image name.
        poses: Known poses by image name, for ``poses``.

    Raises:
        InputError: If it is of no such form, or says too little of these photos.
    """
    if how == "poses":
        if (found := len(poses)) < LEAST_FIT:
            raise InputError(
                f"--scale: the file has the poses of {found} of {len(files)} photos; {LEAST_FIT} "
                f"are needed. Its lines begin with the photos' names, such as {next(iter(files))}."
            )
        check_spread(Pose.stack(list(poses.values())).position.double(), "--scale")
        return
    if how == "gps":
        places = (file for file in files.values() if gps_place(file) is not None)
        if (found := sum(1 for _ in islice(places, LEAST_FIT))) < LEAST_FIT:
            raise InputError(few_places(found, f"{len(files)} photos"))
        return
    one, other, _ = _distance(how)
    for name in (one, other):
        if name not in files:
            raise unknown("--scale", name, files)
    if one == other:
        raise InputError(f"--scale {how}: names one image twice; give two.")


def few_places(found: int, photos: str) -> str:
    """Why GPS gives no scale."""
    return (
        f"--scale gps: {found} of {photos} have a GPS place in their EXIF; {LEAST_FIT} are needed."
    )


def _distance(how: str) -> tuple[str, str, float]:
    """Two images and the metres between their cameras."""
    names, equals, length = how.rpartition("=")
    one, comma, other = names.partition(",")
    try:
        metres = float(length)
    except ValueError:
        metres = 0.0
    if not (equals and comma) or not _LEAST_M <= metres <= 1 / _LEAST_M:
        raise InputError(
            f"--scale {how}: give two images and the metres between their cameras, "
            "walk/frame-000000.jpg,walk/frame-000100.jpg=1.5; or gps, or a file of poses."
        )
    return one, other, metres


def scaled(scene: Scene, how: str, poses: Mapping[str, Pose]) -> tuple[Scene, dict[str, Any]]:
    """Gives a scene its scale.

    Args:
        scene: The scene, upright.
        how: ``A,B=1.5`` (metres between the cameras of two images), or ``poses`` (those given,
            which also say the frame); for ``gps`` there is ``relocal.sfm.gps``.
        poses: Known poses by image name, for ``poses``.

    Returns:
        The metric scene, and what is to be said of the fit.

    Raises:
        InputError: If it is of no such form, or does not fit.
    """
    if how == "poses":
        return _by_poses(scene, poses)
    one, other, metres = _distance(how)
    index = {name: i for i, name in enumerate(scene.images)}
    if missing := [name for name in (one, other) if name not in index]:
        raise InputError(f"--scale: {some(missing)} is no image that was placed.")
    centres = scene.poses.position
    apart = float((centres[index[one]] - centres[index[other]]).norm())
    if apart <= 1e-6 * scene.extent():
        raise InputError(f"--scale: {one} and {other} were taken from the same place.")
    similarity = Similarity(metres / apart, torch.eye(3).double(), torch.zeros(3).double())
    about = {"by": "distance", "images": [one, other], "metres": metres}
    return replace(moved(scene, similarity), unit="m"), about


def _by_poses(scene: Scene, poses: Mapping[str, Pose]) -> tuple[Scene, dict[str, Any]]:
    known = [i for i, name in enumerate(scene.images) if name in poses]
    if not known:
        raise InputError("--scale: none of the file's images was placed.")
    rows = torch.tensor(known)
    truth = Pose.stack([poses[scene.images[i]] for i in known])
    similarity = fitted(scene.poses.position[rows], truth.position, "--scale")
    made = replace(moved(scene, similarity), unit="m")
    moved_by = position_error(made.poses[rows], truth).median()
    turned_by = rotation_error_deg(made.poses[rows], truth).median()
    about = {
        "by": "poses",
        "images": len(known),
        "median_residual_m": float(moved_by),
        "median_residual_deg": float(turned_by),
        "spread_m": _spread(truth.position),
    }
    if residuals_beyond(about, WRONG, WRONG_DEG):
        raise InputError(
            f"--scale: the file's poses are not those of the photos: {residuals_text(about)}. {ASK}"
        )
    return made, about


ASK = (
    "Is its world mirrored, are the camera's axes others than x right, y down, z forward, is w the "
    "last of the quaternion instead of the first, is it world_from_cam instead of cam_from_world, "
    "or do its names belong to other photos?"
)
"""What may be wrong with a file of poses."""


def _spread(places: Float[Tensor, "n 3"]) -> float:
    """How far places are from their middle, root mean square."""
    return float((places - places.mean(0)).square().sum(1).mean().sqrt())


def residuals_beyond(fit: Mapping[str, Any], share: float, degrees: float) -> bool:
    """Whether known poses are further from those of the photos than by these limits."""
    # Written so that a residual that is no number is beyond them, too.
    within = fit["median_residual_m"] <= share * fit["spread_m"]
    return not (within and fit["median_residual_deg"] <= degrees)


def residuals_text(fit: Mapping[str, Any]) -> str:
    """How far known poses are from those of the photos, in the words of a message."""
    return (
        "with the scale, turn and shift that fit best the median residuals are "
        f"{fit['median_residual_m']:.3g} m, where the cameras spread over {fit['spread_m']:.3g} m, "
        f"and {fit['median_residual_deg']:.3g}°"
    )
