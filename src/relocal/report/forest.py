"""The forest plot: what every comparison says, in each scene and over scenes."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from relocal.report.figures import BASELINE, GRID, drawing
from relocal.report.panels import STYLE
from relocal.report.study_numbers import comparison_of
from relocal.studies.contrasts import FIXED, QUANTITIES, Comparison
from relocal.studies.statistics import BETTER, NO_DIFFERENCE, WORSE, Effect

FOREST = "forest.png"
_COLOURS = {BETTER: "#0072b2", WORSE: "#d55e00", NO_DIFFERENCE: "#6b737c"}
_PERCENT = (-90, -80, -70, -60, -50, -40, -30, -20, -10, -5, 0, 5, 10, 20, 30, 50, 100, 200, 400)
_LEAST, _MOST = math.log(0.9), math.log(10)  # of what the axis reaches to
_MOST_TICKS = 7
_LETTER = 0.072  # inches, of a heading


def drawn_comparisons(found: Sequence[Comparison], shown: Collection[str]) -> list[Comparison]:
    """The comparisons of methods that figures show; those fixed beforehand always."""
    return [c for c in found if c.kind in FIXED or (c.a in shown and c.b in shown)]


def draw_forest(found: Sequence[Comparison]) -> Any:
    """Draws changes with their intervals: a group a pair, position and rotation side by side.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure

    pairs = list(dict.fromkeys((c.a, c.b) for c in found))
    with drawing(**STYLE):
        rows = sum(_height(found, *pair) + 1.6 for pair in pairs)
        heads = [_heading(found, *pair) for pair in pairs]
        width = max(9.0, 1.8 + _LETTER * max(map(len, heads)))
        figure = Figure(figsize=(width, 1.2 + 0.19 * rows), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        panels[0].set_zorder(1)
        panels[0].patch.set_visible(False)
        panels[1].spines["left"].set_visible(False)  # headings run across it
        for axes, quantity in zip(panels, QUANTITIES, strict=True):
            y, effects = 0.0, list[Effect]()
            for (a, b), heading in zip(pairs, heads, strict=True):
                c = comparison_of(found, a, b, quantity)
                axes.axhline(y - 0.55, color=GRID, lw=0.8)
                if quantity == "position":
                    style: dict[str, Any] = {"fontsize": 8, "fontweight": "bold", "va": "center"}
                    style |= {"bbox": {"facecolor": "white", "lw": 0, "pad": 1}}
                    offset: Any = axes.get_yaxis_transform()
                    # It runs on over the other panel, and must not push that aside.
                    head = axes.text(0.01, y, heading, transform=offset, **style)
                    head.set_in_layout(False)
                height = _height(found, a, b)
                # Zero stands beside the rows only, so that no heading covers it.
                axes.plot([0, 0], [y + 0.5, y + height + 0.5], color="black", lw=0.8, zorder=1)
                if c is not None:
                    effects += _draw_group(axes, c, y + 1)
                y += height + 1.6
            _finish(axes, effects, quantity, y)
        _name_rows(panels[0], found, pairs)
    return figure


def _heading(found: Sequence[Comparison], a: str, b: str) -> str:
    """Two methods, and of which kinds their comparison is."""
    kinds = dict.fromkeys(c.kind for c in found if (c.a, c.b) == (a, b))
    return f"{a} against {b} ({', '.join(kinds)})"


def _height(found: Sequence[Comparison], a: str, b: str) -> int:
    """The rows of a pair: its scenes, and all of them together where there are several."""
    both = (comparison_of(found, a, b, quantity) for quantity in QUANTITIES)
    return max(len(_rows(c)) for c in both if c is not None)


def _rows(comparison: Comparison) -> list[tuple[str, Effect]]:
    rows: list[tuple[str, Effect]] = list(comparison.scenes.items())
    return [*rows, ("all scenes", comparison.combined)] if len(rows) > 1 else rows


def _draw_group(axes: Any, comparison: Comparison, top: float) -> list[Effect]:
    """Draws the rows of one comparison, and gives what it has drawn."""
    rows = _rows(comparison)
    for i, (_, effect) in enumerate(rows):
        together, y = effect is comparison.combined, top + i
        if math.isnan(effect.mean_log_ratio):
            axes.text(0, y, "undecided", fontsize=7, color=BASELINE, ha="center", va="center")
            continue
        colour = _COLOURS.get(effect.verdict, BASELINE)
        if effect.interval is not None:
            axes.plot(effect.interval, [y, y], color=colour, lw=2.2 if together else 1.2)
        face = colour if effect.verdict in _COLOURS else "white"
        style = {"marker": "D" if together else "o", "ms": 6 if together else 4.5}
        axes.plot(effect.mean_log_ratio, y, color=colour, mfc=face, **style)
    return [effect for _, effect in rows]


def _finish(axes: Any, effects: Sequence[Effect], quantity: str, bottom: float) -> None:
    """Zero, limits and ticks: the axis is logarithmic, and named in per cent."""
    ends = [abs(end) for e in effects for end in (e.interval or (e.mean_log_ratio,))]
    finite = [end for end in ends if math.isfinite(end)]
    # A few wide intervals may leave the picture, lest they press all others together.
    reach = 1.1 * min(max(finite), 2 * float(np.quantile(finite, 0.8))) if finite else 0.0
    reach = min(max(reach, -_LEAST), _MOST)
    ticks = _ticks(reach)
    axes.set_xlim(-reach, reach)
    names = [f"{p:+d} %".replace("-", "−") if p else "0" for p in ticks]
    axes.set_xticks([math.log1p(p / 100) for p in ticks], names, fontsize=8)
    axes.set_ylim(bottom - 0.8, -0.8)
    axes.set_xlabel(f"change of the {quantity} error")
    axes.grid(axis="x", color=GRID, lw=0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_axisbelow(True)


def _ticks(reach: float) -> list[int]:
    """Changes in per cent to name, from zero outwards, none too near to the last."""
    gap, ticks = 2 * reach / _MOST_TICKS, [0]
    for side in (-1, 1):
        last = 0.0
        for percent in sorted((p for p in _PERCENT if p * side > 0), key=abs):
            place = abs(math.log1p(percent / 100))
            if place - last >= gap and place <= reach:
                ticks.append(percent)
                last = place
    return sorted(ticks)


def _name_rows(axes: Any, found: Sequence[Comparison], pairs: Sequence[tuple[str, str]]) -> None:
    names, places, top = list[str](), list[float](), 0.0
    for pair in pairs:
        c = comparison_of(found, *pair, "position") or comparison_of(found, *pair, "rotation")
        assert c is not None  # the pair is that of a comparison
        for i, (name, _) in enumerate(_rows(c)):
            names.append(name)
            places.append(top + 1 + i)
        top += _height(found, *pair) + 1.6
    axes.set_yticks(places, names, fontsize=7.5)
