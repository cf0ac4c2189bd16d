"""Panels: the figures of the HTML page, each one drawing as inline SVG.

Panels hold no legend: the page names the colours in its own text, which any screen can show.
"""

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Float

from relocal.evaluation import ORACLE, Report
from relocal.metrics import Errors, failures, median, running_median
from relocal.pose import Pose
from relocal.report.figures import (
    BASELINE,
    GRID,
    PREDICTED,
    TRAINING,
    TRUE,
    Quantity,
    answers,
    colours,
    drawing,
    errors_of,
    ground_axes,
    known_poses,
    length_text,
    of_place,
    picture_origin,
    plot_curves,
    unit_of,
)

_MANY = 300  # more marks than this are drawn as pixels, so that the page stays small
_DPI = 120
_LOOK = 0.05  # length of a look direction, as a share of the picture
_SHAPE = np.array([4.0, 3.0])  # of the views, wide and high
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": BASELINE,
    "xtick.color": BASELINE,
    "ytick.color": BASELINE,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
}


def curves_panel(report: Report, quantity: Quantity) -> str:
    """The share of images at or below each error, for every method."""
    halves = (
        f"{name} {_amount(median(errors_of(report, name, quantity)), report, quantity)}"
        for name in report.methods
    )
    alt = f"Curves: share of images at or below each {quantity} error. Medians: {', '.join(halves)}"

    def draw(axes: Any) -> None:
        plot_curves(axes, report, quantity)
        axes.set_ylabel("share of images")

    return panel(draw, alt)


def distance_panel(report: Report, quantity: Quantity) -> str:
    """Errors against the distance to the nearest training pose, with a running median.

    What is too far away is drawn as a triangle at the upper edge, no answer as a cross there.
    """
    nearest = report.methods[ORACLE].errors.position
    every = {name: errors_of(report, name, quantity) for name in report.localizers()}
    top = _top(np.concatenate([*every.values(), [0.0]]))

    def draw(axes: Any) -> None:
        for name, colour in colours(report).items():
            _plot_marks(axes, nearest, every[name], top, colour)
            middle = running_median(nearest, every[name])
            axes.plot(*middle, color="white", lw=4, zorder=4)
            axes.plot(*middle, color=colour, lw=2, zorder=4)
        if quantity == "position":
            # On this line, an answer is as far from the truth as the oracle's.
            axes.plot([0, nearest.max()], [0, nearest.max()], color=BASELINE, ls="dotted", zorder=1)
        axes.set_xlim(0, 1.04 * max(nearest.max(), 1e-6))
        axes.set_ylim(0, 1.04 * top)
        axes.set_xlabel(f"distance to the nearest training pose, {report.unit}")
        axes.set_ylabel(f"{quantity} error, {unit_of(report, quantity)}")

    found = (
        f"{name}: median {_amount(median(errors), report, quantity)}, "
        f"{len(errors) - failures(report.methods[name].errors)} of {len(errors)} answered"
        for name, errors in every.items()
    )
    alt = f"Points: {quantity} error against distance to the nearest training pose. "
    return panel(draw, alt + "; ".join(found))


def _plot_marks(axes: Any, nearest: Errors, errors: Errors, top: float, colour: str) -> None:
    """Dots for the errors up to ``top``; what is above, or has no answer, stands at that edge."""
    inside = errors <= top
    above, none = np.isfinite(errors) & ~inside, ~np.isfinite(errors)
    style = {"color": colour, "clip_on": False, "zorder": 3}
    dots = {"s": 12, "lw": 0, "alpha": 0.55 * _fade(len(errors)), **_pixels(len(errors))}
    axes.scatter(nearest[inside], errors[inside], **dots, **style)
    for marks, shape in ((above, "^"), (none, "x")):
        edge = np.full(int(marks.sum()), 1.04 * top)
        axes.scatter(nearest[marks], edge, s=16, marker=shape, lw=1, **style)


def _top(errors: Errors) -> float:
    """The largest error, unless a few outliers would press all others to the floor."""
    finite = errors[np.isfinite(errors)]
    largest, usual = float(finite.max()), 2 * float(np.quantile(finite, 0.95))
    return max(usual if largest > 2 * usual > 0 else largest, 1e-6)


def view_panel(report: Report, method: str | None, side: bool) -> str:
    """Positions and look directions from above (right and ahead) or from the side (right and up).

    The picture shows the training and the true positions; answers outside leave only the line that
    leads to them, and ``outside`` counts them.
    """
    plane = _plane(report, side)
    lower, upper = _box(report, plane)
    length = _LOOK * float((upper - lower).max())
    answered, predicted = answers(report, method)
    origin = picture_origin(known_poses(report))
    truth = _seen(report, report.truth, plane)
    sets = ((report.training, TRAINING, 1), (report.truth, TRUE, 3), (predicted, PREDICTED, 4))

    def draw(axes: Any) -> None:
        for poses, colour, order in sets:
            centres = _seen(report, poses, plane)
            ends = centres + length * (poses.look_direction.double().numpy() @ plane)
            fade, size = _fade(len(centres)), 5 if poses is report.training else 10
            style = {"color": colour, "zorder": order, "alpha": fade, **_pixels(len(centres))}
            axes.plot(*_strokes(centres, ends), lw=0.8, **style)
            axes.scatter(*centres.T, s=max(2, fade * size), lw=0, **style)
        joins = _strokes(truth[answered], _seen(report, predicted, plane))
        style = {"color": PREDICTED, "zorder": 2, **_pixels(len(answered))}
        axes.plot(*joins, lw=0.7, alpha=0.45 * _fade(len(answered)), **style)
        axes.set_aspect("equal")
        axes.set_xlim(lower[0], upper[0])
        axes.set_ylim(lower[1], upper[1])
        axes.set_xlabel(f"to the right{of_place(origin)}, {report.unit}")
        axes.set_ylabel(f"{'up' if side else 'ahead'}, {report.unit}")

    predictions = f" and {len(answered)} predicted by {method}" if method else ""
    alt = (
        f"Map from {'the side' if side else 'above'}: {len(report.training)} training positions, "
        f"{len(report.truth)} true ones{predictions}, with look directions"
    )
    return panel(draw, alt, height=3.6)


def outside(report: Report, method: str) -> int:
    """How many of a method's answers lie outside the views from above or from the side."""
    _, predicted = answers(report, method)
    beyond = np.zeros(len(predicted), bool)
    for side in (False, True):
        plane = _plane(report, side)
        (lower, upper), centres = _box(report, plane), _seen(report, predicted, plane)
        beyond |= ((centres < lower) | (centres > upper)).any(axis=1)
    return int(beyond.sum())


def _plane(report: Report, side: bool) -> Float[np.ndarray, "3 2"]:
    """The picture's two directions in the world: to the right, and ahead or up."""
    return ground_axes(known_poses(report))[:, [0, 2] if side else [0, 1]]


def _seen(report: Report, poses: Pose, plane: Float[np.ndarray, "3 2"]) -> Float[np.ndarray, "n 2"]:
    """Where cameras stand in the picture."""
    return (poses.position.double().numpy() - picture_origin(known_poses(report))) @ plane


def _fade(count: int) -> float:
    """How opaque one of so many marks is: many are pale, so that their density can be seen."""
    return max(0.2, min(1.0, (_MANY / max(count, 1)) ** 0.5))


def _pixels(count: int) -> dict[str, Any]:
    """Whether so many marks are drawn as pixels."""
    return {"rasterized": count > _MANY}


def _strokes(
    starts: Float[np.ndarray, "n 2"], ends: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "2 m"]:
    """One line through all strokes that is lifted between them: small in a file."""
    return np.stack([starts, ends, np.full_like(starts, np.nan)], axis=1).reshape(-1, 2).T


def _box(
    report: Report, plane: Float[np.ndarray, "3 2"]
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Lower and upper corner of what a view shows: training and true positions, and a margin."""
    known = np.concatenate([_seen(report, each, plane) for each in (report.training, report.truth)])
    lower, upper = known.min(axis=0), known.max(axis=0)
    reach = 1.3 * ((upper - lower) / _SHAPE).max() or 1.0  # cameras that all stand in one place
    centre, half = (lower + upper) / 2, reach * _SHAPE / 2
    return centre - half, centre + half


def _amount(value: float, report: Report, quantity: Quantity) -> str:
    if not np.isfinite(value):
        return "no answer"
    return f"{length_text(value)} {report.unit}" if quantity == "position" else f"{value:.2f}°"


def panel(draw: Callable[[Any], None], alt: str, height: float = 3.2) -> str:
    """Draws a panel, and makes of it an SVG element that can stand in a page."""
    from matplotlib.figure import Figure

    with drawing(**STYLE):
        figure = Figure(figsize=(4.8, height), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(color=GRID, lw=0.6)
        axes.set_axisbelow(True)
        draw(axes)
    return inline_svg(figure, alt)


def inline_svg(figure: Any, alt: str) -> str:
    """Makes of matplotlib's figure an SVG element that can stand in a page."""
    content = io.StringIO()
    about = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # The salt keeps the names inside one panel apart from those inside another.
    with drawing(**STYLE, **{"svg.hashsalt": alt}):
        figure.savefig(content, format="svg", dpi=_DPI, transparent=True, metadata=about)
    return _inline(content.getvalue(), alt)


def _inline(file: str, alt: str) -> str:
    """The drawing of an SVG file without what only a file needs: addresses, fonts, unused names."""
    view = re.search(r'viewBox="[\d. ]+"', file)
    assert view is not None  # matplotlib always writes one
    content = file[file.index("<g ") : file.rindex("</svg>")]
    used = set(re.findall(r"#([\w-]+)", content))
    content = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", content)
    short = re.compile(r"(\.\d\d)\d+")
    content = re.sub(r' (?:d|x|y)="[^"]*"', lambda m: short.sub(r"\1", m[0]), content)
    content = re.sub(r"font-family: [^;]*; ", "", content)
    content = re.sub(r"\s*\n\s*", "\n", content)
    return f'<svg role="img" aria-label="{escape(alt)}" {view[0]}>\n{content}</svg>'
