"""Where the map of a place lies in the frame of a device that tracks itself (ARKit, WebXR, ...).

A device knows well how it moves, and not where it started; a localizer knows where a photo was
taken in the map, roughly, and now and then wrongly. A few photos of which both are known give
``map_from_session``, by which everything in the one frame is found in the other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relocal.errors import InputError, unknown
from relocal.metrics import PoseErrors, median, pose_errors
from relocal.notices import Notice
from relocal.pose import Pose, matrix_to_quaternion
from relocal.scene.scene import UNITS, some
from relocal.session.axes import AXES, QUARTERS, device_from_cam
from relocal.session.files import read_poses
from relocal.session.fitting import Fit, fit_poses, spread
from relocal.sfm.alignment import Similarity

LEAST_PAIRS = 5
_MOST_DEG = 20.0  # in the median: more than a network that learned anything is off
_LEAST_OF_SPREAD = 0.5  # of how the estimates spread: less way of the device explains nothing
_MOST_SCALE, _MOST_SCALE_ERROR = 2.0, 0.1
_STILL = 3.0  # times the positions' spread: less way says nothing of rotations
_SIGNIFICANT = 4.0  # standard deviations

Poses = Mapping[str, Pose] | Path | str
"""Poses by the names of their photos, or a file that ``read_poses`` reads."""


@dataclass(frozen=True)
class Alignment:
    """Where a session's frame lies in a map, and how well the pairs agree on it."""

    map_from_session: Similarity
    """x ↦ scale · R x + shift: points of the session in the map; scale 1 where that is metric."""
    unit: str
    """The map's, ``"m"`` or ``"unit"``."""
    axes: str
    """A key of ``AXES``: what the device's axes were."""
    names: tuple[str, ...]
    """The photos of which both poses are known."""
    residual: PoseErrors
    """How far each photo's estimate is from its device pose once that is moved into the map."""
    kept: Bool[Tensor, " n"]
    """Which pairs agree with the others; those that do not had next to no say."""
    warnings: tuple[Notice, ...] = ()
    """What the user should know."""

    def poses(self, session_from_cam: Pose) -> Pose:
        """Poses of the session in the map: positions with the scale, rotations without it."""
        return self.map_from_session.poses(session_from_cam.to(torch.float64))

    def matrix(self) -> Float[Tensor, "4 4"]:
        """``map_from_session`` for points; its 3 x 3 block is scale times rotation."""
        by, matrix = self.map_from_session, torch.eye(4, dtype=torch.float64)
        matrix[:3, :3], matrix[:3, 3] = by.scale * by.rotation, by.shift
        return matrix

    def to_json(self) -> dict[str, Any]:
        """Plain values, what ``relocal align`` writes."""
        by, left = self.map_from_session, self.residual
        rows = zip(
            self.names,
            left.position.tolist(),
            left.rotation_deg.tolist(),
            self.kept.tolist(),
            strict=True,
        )
        return {
            "map_from_session": self.matrix().tolist(),
            "position": by.shift.tolist(),
            "quaternion": matrix_to_quaternion(by.rotation).tolist(),
            "scale": by.scale,
            "unit": self.unit,
            "axes": self.axes,
            "residual": {
                "median_position": median(left.position),
                "median_rotation_deg": median(left.rotation_deg),
                "worst_position": float(left.position.max()),
                "worst_rotation_deg": float(left.rotation_deg.max()),
            },
            "pairs": [
                {"photo": name, "position": far, "rotation_deg": angle, "agrees": kept}
                for name, far, angle, kept in rows
            ],
            "warnings": [warning.to_json() for warning in self.warnings],
        }


def align(
    estimates: Poses,
    session: Poses,
    *,
    axes: str = "opencv",
    quarter_turns: int = 0,
    unit: str | None = None,
) -> Alignment:
    """Finds ``map_from_session`` from photos whose poses a localizer and the device both say.

    Positions and rotations both count, each by how much the pairs scatter, so that a walk along a
    line is enough; pairs that contradict the others have no say, if they are fewer than half
    (Umeyama 1991 and Markley et al. 2007 for the fit; least median and Geman-McClure weights
    against outliers).

    Args:
        estimates: ``map_from_camera``, as a localizer says it (``Estimate.pose``): poses by photo,
            or what ``relocal localize --format json`` or ``tum`` printed.
        session: ``session_from_device`` of the same photos, with the device's own axes.
        axes: A key of ``AXES``: opencv, or arkit, arcore or webxr, whose cameras have y up.
        quarter_turns: By how many quarter turns clockwise the photos were turned from how the
            sensor gave them; 1 where a phone that is held upright saves upright photos.
        unit: The map's unit, ``"m"`` or ``"unit"``, for which a scale is found, too. By default
            what the file of estimates says, else metres.

    Raises:
        InputError: If fewer than five photos are in both, the device moved too little to tell a
            scale, or the two do not belong together (the message says by how much).
    """
    found, stated = _read(estimates, "estimates")
    tracked, _ = _read(session, "session")
    unit = unit or stated or "m"
    if unit not in UNITS:
        raise unknown("--unit", unit, UNITS)
    turn = device_from_cam(axes, quarter_turns)
    names = [name for name in found if name in tracked]
    if len(names) < LEAST_PAIRS:
        raise InputError(
            f"the session has {len(names)} of the {len(found)} estimated photos, and {LEAST_PAIRS} "
            f"are needed; estimated are {some(list(found))}, the session has {some(list(tracked))}."
        )
    there, here = (
        Pose.stack([poses[name].to(torch.float64) for name in names]) for poses in (found, tracked)
    )
    for what, poses in (("estimates", there), ("session", here)):
        if not bool(torch.isfinite(torch.cat([poses.position, poses.quaternion], dim=1)).all()):
            raise InputError(f"{what}: has a pose that is not finite.")
    fit, left = _fitted(here @ turn, there, unit)
    if wrong := _contradiction(fit, left, here, there, unit):
        raise InputError(f"{wrong}{_other_reading(here, there, unit, (axes, quarter_turns))}")
    return Alignment(
        map_from_session=fit.by,
        unit=unit,
        axes=axes,
        names=tuple(names),
        residual=left,
        kept=fit.kept,
        warnings=tuple(_doubts(fit, here, names, unit)),
    )


def _read(poses: Poses, what: str) -> tuple[Mapping[str, Pose], str | None]:
    return read_poses(poses, what) if isinstance(poses, Path | str) else (poses, None)


def _fitted(here: Pose, there: Pose, unit: str) -> tuple[Fit, PoseErrors]:
    fit = fit_poses(here, there, scaled=unit != "m")
    moved = fit.by.poses(here)
    return fit, pose_errors([there[i] for i in range(len(there))], moved)


def _contradiction(fit: Fit, left: PoseErrors, here: Pose, there: Pose, unit: str) -> str | None:
    """Why the pairs do not belong together; None where they may."""
    off, off_deg = median(left.position), median(left.rotation_deg)
    if off_deg > _MOST_DEG:
        return (
            f"estimates and session do not fit: at best their rotations are still "
            f"{off_deg:.0f}° apart in the median, their positions {off:.2g} {unit}."
        )
    way = fit.by.scale * spread(here)
    # Of pairs that do not belong together it is √2 times the way, by Pythagoras.
    if off > way > _LEAST_OF_SPREAD * spread(there):
        return (
            f"estimates and session do not fit: at best their positions are still "
            f"{off:.2g} {unit} apart in the median, of {way:.2g} {unit} that the device moved."
        )
    if unit == "m" and _scale_is_off(fit, _MOST_SCALE):
        return (
            f"estimates and session do not fit: positions ask for scale {fit.free_scale:.3g}; one "
            "of them is not in metres (--unit unit finds a scale)."
        )
    relative = fit.scale_error / fit.by.scale
    if unit != "m" and relative > _MOST_SCALE_ERROR:
        return (
            f"the scale is uncertain by {100 * relative:.0f} %: the device moved by "
            f"{spread(here):.2g} m in the median, and estimates scatter by {fit.sigma:.2g} {unit}; "
            "walk farther."
        )
    return None


def _other_reading(here: Pose, there: Pose, unit: str, tried: tuple[str, int]) -> str:
    """Other axes or turns under which the pairs fit, as advice."""
    for axes, turns in product(("opencv", "arkit"), QUARTERS):
        if (AXES[axes], turns) == (AXES[tried[0]], tried[1]):
            continue
        fit, left = _fitted(here @ device_from_cam(axes, turns), there, unit)
        if _contradiction(fit, left, here, there, unit) is None:
            return f" They fit with --axes {axes} --quarter-turns {turns}."
    return ""


def _doubts(fit: Fit, here: Pose, names: Sequence[str], unit: str) -> list[Notice]:
    doubts: list[Notice] = []
    if wrong := [name for name, kept in zip(names, fit.kept.tolist(), strict=True) if not kept]:
        text = (
            f"{len(wrong)} of {len(names)} pairs disagree with the others and had next to no say: "
            f"{some(wrong)}."
        )
        doubts.append(Notice("pairs-disagree", text))
    if spread(here) * fit.by.scale < _STILL * fit.sigma:
        text = (
            f"the device moved by {spread(here):.2g} m in the median, and estimates scatter by "
            f"{fit.sigma:.2g} {unit}: the turn rests on the photos' rotations alone; walk farther."
        )
        doubts.append(Notice("device-still", text))
    if unit == "m" and _scale_is_off(fit, 1 + _MOST_SCALE_ERROR):
        text = (
            f"positions fit better with scale {fit.free_scale:.3g}; is the scene in metres, and "
            "the session? (--unit unit finds a scale.)"
        )
        doubts.append(Notice("scale-disagrees", text))
    return doubts


def _scale_is_off(fit: Fit, factor: float) -> bool:
    """Whether positions ask for a scale so many times larger or smaller than 1, beyond doubt."""
    larger = max(fit.free_scale, 1 / fit.free_scale) if fit.free_scale > 0 else math.inf
    return larger > factor and abs(fit.free_scale - 1) > _SIGNIFICANT * fit.scale_error
