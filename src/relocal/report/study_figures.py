"""Figures of a study: cumulative errors, errors far from training, training (matplotlib).

A row a scene, because scenes of different units share no axis.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from relocal.metrics import running_median
from relocal.report.figures import BASELINE, BASELINE_STYLES, GRID, drawing
from relocal.report.panels import STYLE
from relocal.report.study_numbers import errors_in
from relocal.studies.contrasts import QUANTITIES
from relocal.studies.results import SceneErrors, Study
from relocal.studies.statistics import Quantity

CURVES, DISTANCES, TRAINING_CURVES = "curves.png", "distances.png", "training.png"
_STEPS = 200  # points of a line, so that the page stays small
_WIDTH, _ROW, _LEGEND_ROW = 9.0, 2.9, 0.2  # inches


@dataclass(frozen=True)
class Look:
    """How a method is drawn, in all figures alike."""

    colour: str
    stroke: str = "solid"

    def style(self) -> dict[str, Any]:
        """Keyword arguments of a line."""
        return {"color": self.colour, "ls": self.stroke, "lw": 1.6}


Looks = Mapping[str, Look]


def draw_error_curves(study: Study, looks: Looks) -> Any:
    """Draws the share of images within each error: seeds pooled, a band from least to most.

    Returns:
        A matplotlib Figure, a row a scene.
    """

    def draw(axes: Any, scene: SceneErrors, column: int) -> None:
        quantity = QUANTITIES[column]
        rows = {name: errors_in(scene.methods[name], quantity) for name in _of(looks, scene)}
        baselines = {name: errors_in(b, quantity) for name, b in scene.baselines.items()}
        reach = _reach([*rows.values(), *baselines.values()])
        along = np.linspace(0, reach, _STEPS)
        for name, errors in baselines.items():
            (share,) = shares_within(errors, along)
            style = BASELINE_STYLES.get(name, "dotted")
            axes.plot(along, share, color=BASELINE, ls=style, lw=1, label=name)
        for name, errors in rows.items():
            shares, look = shares_within(errors, along), looks[name]
            band: dict[str, Any] = {"color": look.colour, "alpha": 0.15, "lw": 0}
            axes.fill_between(along, shares.min(0), shares.max(0), **band)
            axes.plot(along, shares.mean(0), label=_label(name), **look.style())
        axes.set_xlim(0, reach)
        axes.set_ylim(0, 1)
        axes.set_xlabel(f"{quantity} error, {_unit(scene, quantity)}")
        if column == 0:
            axes.set_ylabel("share of images")

    return _draw_rows(study, 2, draw)


def shares_within(
    errors: Float[np.ndarray, "seeds images"], along: Float[np.ndarray, " steps"]
) -> Float[np.ndarray, "seeds steps"]:
    """The share of images at or below each value, seed by seed; failures count as images."""
    ranks = [np.searchsorted(np.sort(row), along, side="right") for row in errors]
    return np.stack(ranks) / errors.shape[1]


def draw_distances(study: Study, looks: Looks) -> Any:
    """Draws running medians of errors against the distance to the nearest training pose.

    Returns:
        A matplotlib Figure, a row a scene.
    """

    def draw(axes: Any, scene: SceneErrors, column: int) -> None:
        quantity, top, reach = QUANTITIES[column], 0.0, 0.0
        for name in _of(looks, scene):
            rows = errors_in(scene.methods[name], quantity)
            # Every seed has the same windows.
            lines = [running_median(scene.nearest, row) for row in rows]
            along, middles = lines[0][0], np.median([line for _, line in lines], axis=0)
            reach = max([reach, *along.tolist()])
            thin = slice(None, None, max(1, len(along) // _STEPS))
            axes.plot(along[thin], middles[thin], label=_label(name), **looks[name].style())
            top = max([top, *middles[np.isfinite(middles)].tolist()])
        if quantity == "position":
            axes.plot([0, reach], [0, reach], color=BASELINE, ls="dotted", lw=1, zorder=1)
        axes.set_xlim(0, reach or 1)
        axes.locator_params(axis="x", nbins=6)
        axes.set_ylim(0, 1.08 * top or 1)
        axes.set_xlabel(f"distance to the nearest training pose, {scene.unit}")
        axes.set_ylabel(f"{quantity} error, {_unit(scene, quantity)}")

    return _draw_rows(study, 2, draw)


def draw_training(study: Study, looks: Looks) -> Any:
    """Draws loss, position error and rotation error on the training images by epoch.

    Returns:
        A matplotlib Figure, a row a scene.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    def draw(axes: Any, scene: SceneErrors, column: int) -> None:
        for name in _of(looks, scene):
            curve = scene.methods[name].curve
            if not len(curve):  # a pair of two networks
                continue
            values = curve[:, column] if column else share_of_drop(curve[:, 0])
            epochs = np.arange(1, len(curve) + 1)
            axes.plot(epochs, values, label=_label(name), **looks[name].style())
        if column:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:g}")  # powers of ten would be formulas
            axes.yaxis.set_minor_formatter(NullFormatter())
        units = ("loss, share of its drop", f"position, {scene.unit}", "rotation, °")
        axes.set_ylabel(units[column])
        axes.xaxis.set_major_locator(
            MaxNLocator(5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        )
        axes.set_xlabel("epoch")

    return _draw_rows(study, 3, draw)


def share_of_drop(loss: Float[np.ndarray, " epochs"]) -> Float[np.ndarray, " epochs"]:
    """A loss from 1, its largest value, to 0, its least: losses have no common unit."""
    least = loss.min()
    return (loss - least) / max(loss.max() - least, 1e-12)


def _draw_rows(study: Study, columns: int, draw: Callable[[Any, SceneErrors, int], None]) -> Any:
    """A figure with a row a scene, and one legend for all."""
    from matplotlib.figure import Figure

    scenes = list(study.scenes.values())
    with drawing(**STYLE):
        figure = Figure(layout="constrained")
        engine: Any = figure.get_layout_engine()
        engine.set(w_pad=0.1, h_pad=0.06)
        grid = figure.subplots(len(scenes), columns, squeeze=False)
        for row, scene in zip(grid, scenes, strict=True):
            row[0].set_title(scene.name, loc="left", fontsize=10, fontweight="bold", pad=9)
            for column, axes in enumerate(row):
                axes.grid(color=GRID, lw=0.6)
                axes.set_axisbelow(True)
                draw(axes, scene, column)
                axes.yaxis.labelpad = 7
        handles: dict[str, Any] = {}
        for axes in grid.flat:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        rows = 0
        if handles:
            columns = max(1, min(3, len(handles), int(_WIDTH / _label_width(handles))))
            rows = math.ceil(len(handles) / columns)
            style = {"ncols": columns, "frameon": False, "fontsize": 9}
            names = list(handles)
            figure.legend(list(handles.values()), names, loc="outside upper center", **style)
        # Long names stand one below another, and must not press the panels together.
        figure.set_size_inches(_WIDTH, 0.3 + _LEGEND_ROW * rows + _ROW * len(scenes))
    return figure


def _label_width(labels: Iterable[str]) -> float:
    """Of the longest label in a legend, with its line, in inches."""
    return 0.5 + 0.075 * max(len(label) for label in labels)


def _of(looks: Looks, scene: SceneErrors) -> list[str]:
    return [name for name in looks if name in scene.methods]


def _unit(scene: SceneErrors, quantity: Quantity) -> str:
    return scene.unit if quantity == "position" else "°"


def _reach(errors: list[np.ndarray]) -> float:
    """Nine of ten answers of all methods but the worst are in the picture."""
    tails = [np.quantile(row, 0.9, method="lower") for rows in errors for row in rows]
    finite = [float(tail) for tail in tails if np.isfinite(tail)]
    return 1.1 * max([1e-6, *finite]) if len(finite) < 3 else 1.1 * float(np.quantile(finite, 0.8))


def _label(name: str) -> str:
    """A label that starts with an underscore would be left out of the legend."""
    return f" {name}" if name.startswith("_") else name
