"""The figure of the reconstruction: map points, true and predicted positions, no photo."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from relocal.evaluation import Report
from relocal.pose import Pose
from relocal.report.figures import (
    TRUE,
    answers,
    drawing,
    ground_axes,
    known_poses,
    title,
)

RECONSTRUCTION = "reconstruction.png"
_TILT_DEG = 35.0  # below the horizon: a floor plan that still has height
_GROUND, _PREDICTED = "#1b1e24", "#a884ff"  # the report's purple, light enough for a dark ground
_MOST_POINTS = 60_000
_ROOM = 1.8  # about the cameras, for what they look at
_NEAR = 20.0  # times how far cameras reach, within which the world's origin is shown
_SHAPE = 1.5  # width over height


def draw_reconstruction(report: Report, path: Path, method: str | None = None) -> None:
    """Draws map points, true positions (orange), predictions (purple) and the origin (white).

    As figure 1 of Ward, Jalwana & Bennamoun (2019). It looks ahead and down in parallel projection,
    turned so that the mean training camera looks away from the eye. An origin that lies far from
    all cameras is left out, as that of a map of the Earth.

    Args:
        report: The report; points are drawn where it has them.
        path: The picture to write.
        method: Whose predictions; by default the first localizer's.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    method = method or next(iter(report.localizers()), None)
    view = _view(known_poses(report))
    middle = known_poses(report).position.double().mean(0).numpy()
    truth = (report.truth.position.numpy() - middle) @ view
    answered, predicted = answers(report, method)
    found = (predicted.position.numpy() - middle) @ view
    known = (known_poses(report).position.numpy() - middle) @ view
    cameras, origin = np.concatenate([truth, known]), -middle @ view
    reach = float(np.linalg.norm(known, axis=1).max()) or 1.0
    near = bool(np.linalg.norm(origin) <= _NEAR * reach)
    with drawing():
        figure = Figure(figsize=(9, 6.3), layout="constrained", facecolor=_GROUND)
        axes = figure.add_subplot(facecolor=_GROUND)
        _draw_points(axes, report, middle, view)
        joins = np.stack([truth[answered][:, :2], found[:, :2]], axis=1)
        axes.add_collection(LineCollection(list(joins), color=_PREDICTED, lw=0.6, alpha=0.6))
        if len(answered):
            label = f"predicted: {method}"
            axes.scatter(*found[:, :2].T, s=14, color=_PREDICTED, label=label, zorder=4)
        axes.scatter(*truth[:, :2].T, s=14, color=TRUE, label="true", zorder=3)
        if near:
            axes.scatter(*origin[:2], s=70, color="white", label="origin", zorder=5)
        _frame(axes, np.concatenate([cameras, origin[None]]) if near else cameras)
        axes.set_title(title(report, method), color="white")
        axes.legend(
            loc="lower right", facecolor=_GROUND, edgecolor="none", labelcolor="white", fontsize=9
        )
        figure.savefig(path, dpi=110, facecolor=_GROUND)


def _view(poses: Pose) -> Float[np.ndarray, "3 3"]:
    """Unit vectors in the world, as columns: right, up and towards the eye in the picture."""
    right, ahead, up = ground_axes(poses).T
    tilt = np.deg2rad(_TILT_DEG)
    upwards = np.sin(tilt) * ahead + np.cos(tilt) * up
    return np.stack([right, upwards, np.sin(tilt) * up - np.cos(tilt) * ahead], axis=1)


def _draw_points(
    axes: Any, report: Report, middle: Float[np.ndarray, "3"], view: Float[np.ndarray, "3 3"]
) -> None:
    """Map points in their colours, the far ones first."""
    if report.points is None:
        return
    xyz, rgb = report.points
    step = max(1, -(-len(xyz) // _MOST_POINTS))
    seen, colours = (xyz[::step] - middle) @ view, rgb[::step] / 255
    order = seen[:, 2].argsort()
    axes.scatter(*seen[order, :2].T, s=1.5, c=colours[order], alpha=0.7, linewidths=0, zorder=1)


def _frame(axes: Any, places: Float[np.ndarray, "n 3"]) -> None:
    """All places, and the points that lie about them."""
    low, high = places[:, :2].min(0), places[:, :2].max(0)
    middle, half = (low + high) / 2, (high - low) / 2
    up = _ROOM * (max(half[1], half[0] / _SHAPE) or 1.0)
    axes.set_xlim(middle[0] - _SHAPE * up, middle[0] + _SHAPE * up)
    axes.set_ylim(middle[1] - up, middle[1] + up)
    axes.set_aspect("equal")
    axes.set_axis_off()
