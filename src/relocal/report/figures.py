"""Figures: where the answers lie, and how their errors are spread (matplotlib)."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from relocal.evaluation import MEAN, ORACLE, RETRIEVAL, Report
from relocal.metrics import Errors, cumulative_curve
from relocal.pose import Pose

TRUE, PREDICTED, TRAINING = "#e8820c", "#6a3fb5", "#b8bec6"
TOP_VIEW, CURVES = "top_view.png", "curves.png"
# Baselines are grey, so that the eye goes to what was measured.
_BASELINE_STYLE = {MEAN: ":", ORACLE: "-", RETRIEVAL: "--"}


def draw_top_view(report: Report, path: Path, method: str | None = None) -> None:
    """Draws positions from above: true (orange), predicted (purple), training (grey).

    Args:
        report: The report.
        path: The picture to write.
        method: Whose predictions; by default the first localizer's.
    """
    from matplotlib.figure import Figure

    method = method or next(iter(report.localizers()), None)
    axes_world = _ground_axes(report.training)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    training = report.training.position.numpy() @ axes_world
    truth = report.truth.position.numpy() @ axes_world
    axes.scatter(*training.T, s=6, color=TRAINING, label="training", zorder=1)
    if method is not None:
        answered = [i for i, p in enumerate(report.methods[method].estimates) if p is not None]
        poses = [p for p in report.methods[method].estimates if p is not None]
        if poses:
            predicted = Pose.stack(poses).position.double().numpy() @ axes_world
            for start, end in zip(truth[answered], predicted, strict=True):
                axes.plot(*np.stack([start, end]).T, color=PREDICTED, lw=0.7, alpha=0.5, zorder=2)
            axes.scatter(
                *predicted.T, s=16, color=PREDICTED, label=f"predicted: {method}", zorder=4
            )
    axes.scatter(*truth.T, s=16, color=TRUE, label="true", zorder=3)
    axes.scatter(0, 0, s=60, color="white", edgecolor="black", label="origin", zorder=5)
    axes.set_aspect("equal")
    axes.set_xlabel(f"to the right, {report.unit}")
    axes.set_ylabel(f"ahead, {report.unit}")
    axes.set_title(_title(report, method))
    axes.grid(color="#e6e8eb", lw=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="best", frameon=True, fontsize=9)
    figure.savefig(path, dpi=150)


def draw_curves(report: Report, path: Path) -> None:
    """Draws the share of images at or below each error, for every method; failures never arrive.

    Args:
        report: The report.
        path: The picture to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, result in report.methods.items():
        baseline = _BASELINE_STYLE.get(name)
        style = {"color": "#8a929c", "ls": baseline} if baseline else {"lw": 2}
        left.step(*_curve(result.errors.position), where="post", label=name, **style)
        right.step(*_curve(result.errors.rotation_deg), where="post", label=name, **style)
    left.set_xlabel(f"position error, {report.unit}")
    right.set_xlabel("rotation error, °")
    left.set_ylabel("share of images")
    shown = [report.methods[name].errors for name in (ORACLE, *report.localizers())]
    errors = [e.position for e in shown], [e.rotation_deg for e in shown]
    for axes, methods in zip((left, right), errors, strict=True):
        # Nine of ten answers of every localizer, and of the oracle, are in the picture; the mean
        # pose may leave it.
        tails = [np.quantile(e[np.isfinite(e)], 0.9) for e in methods if np.isfinite(e).any()]
        axes.set_xlim(0, 1.1 * max(*tails, 1e-6))
        axes.set_ylim(0, 1)
        axes.grid(color="#e6e8eb", lw=0.6)
        axes.set_axisbelow(True)
    right.legend(loc="lower right", frameon=True, fontsize=9)
    figure.savefig(path, dpi=150)


def _curve(
    errors: Errors,
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """A cumulative curve that starts at no error and no image."""
    values, shares = cumulative_curve(errors)
    return np.insert(values, 0, 0.0), np.insert(shares, 0, 0.0)


def _title(report: Report, method: str | None) -> str:
    if method is None:
        return f"{report.scene}, from above"
    numbers = report.summary()[method]
    return (
        f"{report.scene}, from above: median {numbers['median_position']:.3f} {report.unit}, "
        f"{numbers['median_rotation_deg']:.2f}°"
    )


def _ground_axes(poses: Pose) -> Float[np.ndarray, "3 2"]:
    """Two horizontal unit vectors: to the right and ahead of the mean camera.

    Down is the mean of the cameras' own down directions, for people hold cameras upright.
    """
    rotation = poses.rotation.double()
    down = rotation[:, :, 1].mean(0)
    down = down / down.norm()
    ahead = rotation[:, :, 2].mean(0)
    ahead = ahead - (ahead @ down) * down
    if float(ahead.norm()) < 1e-3:  # cameras that look all around, or straight down
        ahead = rotation[0, :, 0] - (rotation[0, :, 0] @ down) * down
    ahead = ahead / ahead.norm()
    right = torch.linalg.cross(down, ahead)
    return torch.stack([right, ahead], dim=1).numpy()
