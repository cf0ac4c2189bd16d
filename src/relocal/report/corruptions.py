"""Corruptions in a report: medians by kind and severity, as rows, JSON and curves."""

from pathlib import Path
from typing import Any

import numpy as np

from relocal.corruptions import SEVERITIES
from relocal.evaluation import MEAN, ORACLE, Report
from relocal.metrics import PoseErrors, failures, median
from relocal.report.figures import (
    BASELINE,
    BASELINE_STYLES,
    GRID,
    Quantity,
    colours,
    drawing,
    errors_of,
    far_apart,
    logarithmic,
    unit_of,
)
from relocal.report.panels import STYLE, inline_svg

CORRUPTED = "corruptions.png"
ABOUT = (
    "The same photos under corruptions, at severities 1 (mild) to 5; *as is*, or 0: the photo "
    "itself. Last row: change against *as is*, geometric mean over kinds. A localizer that knows "
    "little has little to lose: beside a small change look at the medians. In the figure, grey "
    "lines are the *oracle nearest* (solid) and the *mean pose* (dotted), which look at no photo; "
    "triangles at the upper edge are errors beyond it, crosses there no answer."
)
_QUANTITIES: tuple[Quantity, Quantity] = ("position", "rotation")
_COLUMNS = 4


def medians(report: Report, name: str, kind: str, quantity: Quantity) -> list[float]:
    """A localizer's median errors, of photos as they are and at each severity of a corruption."""
    as_is = median(errors_of(report, name, quantity))
    return [as_is, *(median(_of(e, quantity)) for e in report.corruptions[name][kind])]


def _of(errors: PoseErrors, quantity: Quantity) -> np.ndarray:
    return errors.position if quantity == "position" else errors.rotation_deg


def changes(report: Report, name: str, quantity: Quantity) -> list[float]:
    """By severity, how many times larger errors are than of photos as they are.

    The geometric mean over kinds of the ratios of medians. Infinite where a kind leaves most photos
    without an answer, not a number where photos as they are have none, or no error.
    """
    rows = np.array([medians(report, name, k, quantity) for k in report.corruptions[name]])
    if not 0 < rows[0, 0] < np.inf:
        return [float("nan")] * SEVERITIES
    with np.errstate(divide="ignore"):  # no error at all
        return np.exp(np.log(rows[:, 1:] / rows[:, :1]).mean(0)).tolist()


def corruption_rows(report: Report, name: str) -> list[list[str]]:
    """A localizer's medians as text: the names of the columns, a row a kind, and the changes."""
    head = ["corruption", "as is", *map(str, range(1, SEVERITIES + 1))]
    rows = [head]
    for kind in report.corruptions[name]:
        pairs = zip(*(medians(report, name, kind, q) for q in _QUANTITIES), strict=True)
        rows.append([kind, *(f"{_text(p, 3)} / {_text(r, 2)}" for p, r in pairs)])
    pairs = zip(*(changes(report, name, q) for q in _QUANTITIES), strict=True)
    rows.append(["change", "", *(f"× {_text(p, 2)} / {_text(r, 2)}" for p, r in pairs)])
    return rows


def _text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "∞" if value > 0 else "–"


def corruption_lines(report: Report) -> list[str]:
    """What a terminal says of corruptions: a line a localizer."""
    lines: list[str] = []
    for name in report.corruptions:
        cells = corruption_rows(report, name)[-1][2:]
        listed = ", ".join(f"{i}: {cell}" for i, cell in enumerate(cells, start=1))
        about = "medians against those of photos as they are, position / rotation, by severity"
        lines.append(f"{name} under corruptions, {about} {listed}.")
    return lines


def corruptions_to_json(report: Report) -> dict[str, Any]:
    """By localizer and kind, a row a severity."""
    return {
        name: {kind: [_row(errors) for errors in rows] for kind, rows in kinds.items()}
        for name, kinds in report.corruptions.items()
    }


def _row(errors: PoseErrors) -> dict[str, Any]:
    return {
        "median_position": median(errors.position),
        "median_rotation_deg": median(errors.rotation_deg),
        "failures": failures(errors),
    }


def draw_corruptions(report: Report, path: Path) -> None:
    """Draws median errors against severity, a panel a kind: positions above, rotations below.

    Args:
        report: The report.
        path: The picture to write.
    """
    from matplotlib.figure import Figure

    kinds = _kinds(report)
    rows = -(-len(kinds) // _COLUMNS)
    with drawing():
        figure = Figure(figsize=(10, 2 * (2 * 1.9 * rows)), layout="constrained")
        parts: Any = figure.subfigures(2, 1)
        for part, quantity in zip(parts, _QUANTITIES, strict=True):
            _plot(part, report, quantity)
        figure.savefig(path, dpi=120)


def corruptions_panel(report: Report, quantity: Quantity) -> str:
    """The same for one quantity, as an SVG element."""
    from matplotlib.figure import Figure

    rows = -(-len(_kinds(report)) // _COLUMNS)
    with drawing(**STYLE):
        figure = Figure(figsize=(8, 2.2 * rows), layout="constrained")
        _plot(figure, report, quantity)
    ratios = (
        f"{name} × {_text(changes(report, name, quantity)[-1], 2)}" for name in report.corruptions
    )
    alt = f"Curves: median {quantity} error against severity, a panel a corruption. At the worst: "
    return inline_svg(figure, alt + ", ".join(ratios))


def _kinds(report: Report) -> list[str]:
    return list(next(iter(report.corruptions.values())))


def _plot(figure: Any, report: Report, quantity: Quantity) -> None:
    kinds = _kinds(report)
    panels = figure.subplots(
        -(-len(kinds) // _COLUMNS), _COLUMNS, sharex=True, sharey=True, squeeze=False
    )
    lines = {b: median(errors_of(report, b, quantity)) for b in (ORACLE, MEAN)}
    every = [v for n in report.corruptions for k in kinds for v in medians(report, n, k, quantity)]
    finite = [value for value in [*every, *lines.values()] if np.isfinite(value)]
    # A localizer that is lost may be far beyond the mean pose, where it no longer matters.
    top = min(max(finite), max(2 * lines[MEAN], 1e-6))
    logs, least = far_apart(finite), min((v for v in finite if v > 0), default=1e-6)
    for axes, kind in zip(panels.flat, kinds, strict=False):
        for baseline, value in lines.items():
            axes.axhline(value, color=BASELINE, ls=BASELINE_STYLES[baseline], lw=1, label=baseline)
        for name, colour in colours(report).items():
            label = f" {name}" if name.startswith("_") else name
            values = np.array(medians(report, name, kind, quantity))
            axes.plot(range(SEVERITIES + 1), values, color=colour, marker=".", label=label)
            axes.tick_params(labelbottom=True)
            for marker, beyond in (
                ("^", np.isfinite(values) & (values > top)),
                ("x", values == np.inf),
            ):
                edge = np.full(int(beyond.sum()), (1.15 if logs else 1.02) * top)
                axes.scatter(
                    np.flatnonzero(beyond), edge, color=colour, marker=marker, clip_on=False
                )
        axes.set_title(kind, fontsize=9)
        axes.set_xticks(range(SEVERITIES + 1))
        if logs:
            logarithmic(axes, "y")
            axes.set_ylim(0.8 * least, 1.2 * top)
        else:
            axes.set_ylim(0, 1.05 * top)
        axes.grid(color=GRID, lw=0.6)
        axes.set_axisbelow(True)
    for axes in list(panels.flat)[len(kinds) :]:
        axes.set_visible(False)
    panels.flat[0].legend(fontsize=7)
    figure.supxlabel("severity", fontsize=9)
    figure.supylabel(f"median {quantity} error, {unit_of(report, quantity)}", fontsize=9)
