"""How sure localizers are, in a report: coverage as rows, and errors of the surest answers."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from relocal.evaluation import Report
from relocal.evaluation.uncertainty import Coverage, reliability, risk_coverage
from relocal.report.figures import (
    GRID,
    Quantity,
    errors_of,
    far_apart,
    logarithmic,
    look_of,
    unit_of,
)
from relocal.report.panels import panel

Curve = tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]
"""Along and up."""

ABOUT = (
    "Share of errors within the region that is said to hold 68 % or 95 % of them, mean over "
    "blocks, with its 95 % interval where there are several. Less is too sure, more too doubtful. "
    "`relocal calibrate` fits the spreads to held-out training images."
)
CURVES_ABOUT = (
    "The first pictures show all regions, not only those two: spreads are true on the diagonal, "
    "too small below it. The others show the median error of the surest answers, against how many "
    "of all photos they are: a line that rises to the right belongs to a localizer that knows "
    "which of its answers are good."
)
REJECTED_ABOUT = (
    "Photos that would be refused (`--reject`): of other places, and of this one (some of them "
    "rightly, for their answers are bad). "
    "*AUROC*: how often a photo of another place leaves more doubt than one of this place; 0.5 is "
    "no better than a coin. A localizer that is not calibrated refuses what it has no answer for."
)


def rejection_rows(report: Report) -> list[list[str]]:
    """What localizers would refuse as text: the names of the columns, then a row a localizer."""
    rows = [["method", "photos of other places", "refused", "refused of this one", "AUROC"]]
    for name, one in report.rejections.items():
        shares = f"{100 * one.rejected:.1f} %", f"{100 * one.falsely:.1f} %"
        rows.append([name, str(one.photos), *shares, f"{one.auroc:.3f}"])
    return rows


def stated(report: Report) -> list[str]:
    """The localizers that say how sure they are."""
    return [n for n in report.localizers() if report.coverages(report.methods[n])]


def coverage_rows(report: Report) -> list[list[str]]:
    """Coverage as text: the names of the columns, then a row a localizer that states spreads."""
    head = ["method", "position 68 %", "position 95 %", "rotation 68 %", "rotation 95 %"]
    rows = [head]
    for name in stated(report):
        found = report.coverages(report.methods[name])
        rows.append([name, *(_text(one) for every in found.values() for one in every)])
    return rows


def _text(one: Coverage) -> str:
    share = f"{100 * one.found:.0f} %"
    if one.interval is None:
        return share
    low, high = (f"{100 * end:.0f}" for end in one.interval)
    return f"{share} ({low} to {high})"


def _curves(report: Report, quantity: Quantity, of: Callable[..., Curve]) -> dict[str, Curve]:
    """A curve of the errors and stated spreads of each localizer that states them."""
    which = 0 if quantity == "position" else 1
    return {
        name: of(errors_of(report, name, quantity), sigmas[:, which])
        for name in stated(report)
        if (sigmas := report.methods[name].sigmas) is not None
    }


def reliability_panel(report: Report, quantity: Quantity) -> str:
    """The share of errors in regions of every size, against what is said, as inline SVG."""
    curves = _curves(report, quantity, reliability)

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=GRID, lw=1)
        for name, (said, found) in curves.items():
            axes.plot(said, found, **look_of(report, name))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("share that is said to lie in the region")
        axes.set_ylabel(f"share of {quantity} errors that do")

    return panel(draw, f"Curves: how true stated {quantity} spreads are: {', '.join(curves)}")


def risk_panel(report: Report, quantity: Quantity) -> str:
    """Median errors of the surest answers, as inline SVG."""
    curves = _curves(report, quantity, risk_coverage)

    def draw(axes: Any) -> None:
        for name, (kept, medians) in curves.items():
            axes.plot(kept, medians, **look_of(report, name))
        axes.set_xlim(0, 1)
        if far_apart(float(medians[-1]) for _, medians in curves.values()):
            logarithmic(axes, "y")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel("share of photos, the surest first")
        axes.set_ylabel(f"median {quantity} error, {unit_of(report, quantity)}")

    return panel(
        draw, f"Curves: median {quantity} error of the surest answers: {', '.join(curves)}"
    )
