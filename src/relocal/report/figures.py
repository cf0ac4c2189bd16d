"""Figures: where the answers lie, and how their errors are spread (matplotlib)."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from relocal.evaluation import BASELINES, MEAN, ORACLE, RETRIEVAL, Report
from relocal.evaluation.report import FILTERED
from relocal.metrics import Errors, cumulative_curve, median
from relocal.pose import Pose

Quantity = Literal["position", "rotation"]

TRUE, PREDICTED, TRAINING = "#e8820c", "#6a3fb5", "#b8bec6"
BASELINE, GRID = "#8a929c", "#e6e8eb"
_SEEN_AXIS = 0.3  # of its length: shorter axes would only be a blot
TOP_VIEW, CURVES = "top_view.png", "curves.png"
# Baselines are grey, so that the eye goes to what was measured.
BASELINE_STYLES = {MEAN: "dotted", ORACLE: "solid", RETRIEVAL: "dashed"}
COLOURS = (
    *(PREDICTED, "#12876f", "#c23b78", "#2f6fd0", "#8c6d1f"),
    *("#17a5c4", "#8fae1b", "#b3261e", "#1f2f6b", "#b18ae0"),
)
_FAR = 20.0  # extents of the cameras that the world's origin may lie away, to be in a picture
_FAR_APART = 20.0  # ratio of errors from which only logarithms show both


def colours(report: Report) -> dict[str, str]:
    """Each localizer's colour; filtered it has the same."""
    own = [name for name in report.localizers() if not name.endswith(FILTERED)]
    found = dict(zip(own, cycle(COLOURS), strict=False))
    return {name: found[name.removesuffix(FILTERED)] for name in report.localizers()}


def look_of(report: Report, name: str) -> dict[str, Any]:
    """How a localizer's line is drawn: dashed where its answers were filtered."""
    dashed = "dashed" if name.endswith(FILTERED) else "solid"
    return {"color": colours(report)[name], "ls": dashed, "lw": 2}


def logarithmic(axes: Any, which: Literal["x", "y"]) -> None:
    """Makes an axis logarithmic, with plain numbers: powers would be formulas."""
    axes.set(**{f"{which}scale": "log"})
    getattr(axes, f"{which}axis").set_major_formatter("{x:g}")


def far_apart(values: Iterable[float]) -> bool:
    """Whether errors differ so much that only logarithms show them all."""
    seen = [value for value in values if np.isfinite(value) and value > 0]
    return bool(seen) and max(seen) > _FAR_APART * min(seen)


def errors_of(report: Report, method: str, quantity: Quantity) -> Errors:
    """A method's errors: position in the scene's unit, or rotation in degrees."""
    errors = report.methods[method].errors
    return errors.position if quantity == "position" else errors.rotation_deg


def unit_of(report: Report, quantity: Quantity) -> str:
    """The sign of an error's unit."""
    return report.unit if quantity == "position" else "°"


@contextmanager
def drawing(**style: Any) -> Generator[None]:
    """Names that hold a dollar sign are no formulas."""
    from matplotlib import rc_context

    settings: dict[Any, Any] = {"text.parse_math": False, **style}
    with rc_context(settings):
        yield


def draw_top_view(report: Report, path: Path, method: str | None = None) -> None:
    """Draws positions from above: true (orange), predicted (purple), training (grey).

    The picture is turned so that the mean training camera looks up in it; the world's own axes
    stand at the origin, or at what ``picture_origin`` gives, each as long as it is seen from above.

    Args:
        report: The report.
        path: The picture to write.
        method: Whose predictions; by default the first localizer's.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    method = method or next(iter(report.localizers()), None)
    origin = picture_origin(known_poses(report))
    axes_world = ground_axes(known_poses(report))[:, :2]
    with drawing():
        figure = Figure(figsize=(7, 6), layout="constrained")
        axes = figure.add_subplot()
        training = (report.training.position.numpy() - origin) @ axes_world
        truth = (report.truth.position.numpy() - origin) @ axes_world
        if len(training):
            axes.scatter(*training.T, s=6, color=TRAINING, label="training", zorder=1)
        answered, predicted = answers(report, method)
        if len(answered):
            found = (predicted.position.numpy() - origin) @ axes_world
            joins = np.stack([truth[answered], found], axis=1)
            style = {"color": PREDICTED, "lw": 0.7, "alpha": 0.5}
            axes.add_collection(LineCollection(list(joins), zorder=2, **style))
            axes.scatter(*found.T, s=16, color=PREDICTED, label=f"predicted: {method}", zorder=4)
        axes.scatter(*truth.T, s=16, color=TRUE, label="true", zorder=3)
        name = f"{place(origin) if origin.any() else 'origin'}, x y z"
        axes.scatter(0, 0, s=60, color="white", edgecolor="black", label=name, zorder=5)
        spread = np.ptp(training if len(training) else truth, axis=0).max()
        _draw_world_axes(axes, axes_world, 0.1 * float(spread))
        axes.set_aspect("equal")
        axes.set_xlabel(f"to the right{of_place(origin)}, {report.unit}")
        axes.set_ylabel(f"ahead, {report.unit}")
        axes.set_title(f"From above, {title(report, method)}")
        axes.grid(color=GRID, lw=0.6)
        axes.set_axisbelow(True)
        axes.legend(loc="best", frameon=True, fontsize=9)
        figure.savefig(path, dpi=150, bbox_inches="tight")


def _draw_world_axes(axes: Any, axes_world: Float[np.ndarray, "3 2"], length: float) -> None:
    """The world's x, y and z at the origin, but for those that point at the eye."""
    for name, seen in zip("xyz", axes_world, strict=True):
        if np.linalg.norm(seen) > _SEEN_AXIS:
            tip = length * seen
            arrow = {"arrowstyle": "<-", "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (0, 0), tip, arrowprops=arrow, annotation_clip=False, zorder=6)
            axes.text(*(1.3 * tip), name, ha="center", va="center", fontsize=9, zorder=6)
            axes.update_datalim([1.5 * tip])


def answers(report: Report, method: str | None) -> tuple[list[int], Pose]:
    """The numbers of the images that a method answered, and its poses of them, float64."""
    poses = [] if method is None else report.methods[method].estimates
    found = [(i, pose) for i, pose in enumerate(poses) if pose is not None]
    if not found:
        return [], report.truth[torch.zeros(0, dtype=torch.long)]
    return [i for i, _ in found], Pose.stack([pose for _, pose in found]).to(torch.float64)


def draw_curves(report: Report, path: Path) -> None:
    """Draws the share of images at or below each error, for every method; failures never arrive.

    Args:
        report: The report.
        path: The picture to write.
    """
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        plot_curves(left, report, "position")
        plot_curves(right, report, "rotation")
        left.set_ylabel("share of images")
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
        figure.savefig(path, dpi=150)


def plot_curves(axes: Any, report: Report, quantity: Quantity) -> None:
    """Plots the cumulative curves of one error, of all methods, on matplotlib's axes."""
    for name in report.methods:
        style = BASELINE_STYLES.get(name)
        look = {"color": BASELINE, "ls": style} if style else look_of(report, name)
        # A label that starts with an underscore would be left out of the legend.
        label = f" {name}" if name.startswith("_") else name
        axes.step(*_curve(errors_of(report, name, quantity)), where="post", label=label, **look)
    # Nine of ten answers of every localizer, and of the oracle, are in the picture; the mean pose
    # may leave it.
    names = [name for name in report.methods if name == ORACLE or name not in BASELINES]
    shown = [errors_of(report, name, quantity) for name in names]
    tails = [np.quantile(e[np.isfinite(e)], 0.9) for e in shown if np.isfinite(e).any()]
    far = 1.1 * max([*tails, 1e-6])
    if far_apart(median(e) for e in shown):
        least = min(np.quantile(e[e > 0], 0.05) for e in shown if np.isfinite(e[e > 0]).any())
        logarithmic(axes, "x")
        axes.set_xlim(min(least, far / 2), far)
    else:
        axes.set_xlim(0, far)
    axes.set_ylim(0, 1)
    axes.set_xlabel(f"{quantity} error, {unit_of(report, quantity)}")
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)


def _curve(
    errors: Errors,
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """A cumulative curve that starts at no error and no image."""
    values, shares = cumulative_curve(errors)
    return np.insert(values, 0, 0.0), np.insert(shares, 0, 0.0)


def length_text(value: float) -> str:
    """A length in the scene's unit; what is small has more digits, for the unit may be large."""
    if 0 < value < 1e-3:
        return f"{value:.2g}"
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}"


def title(report: Report, method: str | None) -> str:
    """What a view of a method's answers shows, and how good they are."""
    if method is None:
        return report.scene
    numbers = report.summary()[method]
    far = numbers["median_position"]
    return (
        f"{report.scene}: {method}, median {length_text(far)} "
        f"{report.unit}, {numbers['median_rotation_deg']:.2f}°"
    )


def known_poses(report: Report) -> Pose:
    """The poses that pictures are turned by: of the training images, else the true ones."""
    return report.training if len(report.training) else report.truth


def picture_origin(poses: Pose) -> Float[np.ndarray, "3"]:
    """What pictures are drawn relative to: the world's origin, unless it lies far away.

    Then, as in coordinates of a map of the Earth, nothing could be told apart beside it, and it is
    a round place amid the cameras.
    """
    positions = poses.position.double().numpy()
    low, high = positions.min(axis=0), positions.max(axis=0)
    middle, extent = (low + high) / 2, float(np.linalg.norm(high - low))
    if extent == 0 or np.linalg.norm(middle) <= _FAR * extent:
        return np.zeros(3)
    step = 10 ** np.floor(np.log10(extent))
    return np.round(middle / step) * step


def place(origin: Float[np.ndarray, "3"]) -> str:
    """A place as text."""
    return f"({', '.join(f'{value:.10g}' for value in origin.tolist())})"


def of_place(origin: Float[np.ndarray, "3"]) -> str:
    """What is added to the name of an axis that is relative to a place; nothing for zeros."""
    return f" of {place(origin)}" if origin.any() else ""


def ground_axes(poses: Pose) -> Float[np.ndarray, "3 3"]:
    """Unit vectors in the world, as columns: to the right and ahead of the mean camera, and up.

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
    return torch.stack([right, ahead, -down], dim=1).numpy()
