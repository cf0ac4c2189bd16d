"""Numbers of a study: medians over seeds, ratios to the oracle, and comparisons as texts."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from relocal.evaluation import ORACLE
from relocal.metrics import PoseErrors, median
from relocal.studies.contrasts import Comparison
from relocal.studies.results import MethodErrors, SceneErrors, Study
from relocal.studies.statistics import Effect, Quantity, geometric_mean, oracle_ratio


@dataclass(frozen=True)
class Middle:
    """Median errors of a method on one scene, in one quantity."""

    value: float
    """Mean over seeds of the median over images, in the scene's unit or degrees."""
    spread: float | None
    """Standard deviation between seeds; None for one seed, or where a seed has no finite median."""
    ratio: float
    """Mean over seeds of the median over that of the oracle nearest pose."""

    def text(self, quantity: Quantity) -> str:
        """The median, and its spread where there is one."""
        digits = 3 if quantity == "position" else 2
        spread = "" if self.spread is None else f" ± {self.spread:.{digits}f}"
        return f"{number(self.value, digits)}{spread}"


def errors_in(
    errors: MethodErrors | PoseErrors, quantity: Quantity
) -> Float[np.ndarray, "seeds images"]:
    """Errors in one quantity; a baseline has one row."""
    return np.atleast_2d(errors.position if quantity == "position" else errors.rotation_deg)


def middle(scene: SceneErrors, name: str, quantity: Quantity) -> Middle:
    """The median errors of a method or a baseline on a scene."""
    rows = errors_in(scene.methods.get(name) or scene.baselines[name], quantity)
    oracle = errors_in(scene.baselines[ORACLE], quantity)[0]
    medians = np.array([median(row) for row in rows])
    spread = len(rows) > 1 and bool(np.isfinite(medians).all())
    return Middle(
        value=float(medians.mean()),
        spread=float(medians.std(ddof=1)) if spread else None,
        ratio=float(np.mean([oracle_ratio(row, oracle) for row in rows])),
    )


def mean_ratio(study: Study, name: str, quantity: Quantity) -> float:
    """Geometric mean over all scenes of a method's ratio to the oracle; NaN if it lacks a scene."""
    scenes = study.scenes.values()
    if not scenes or lacking(study, name):
        return math.nan
    return geometric_mean(middle(scene, name, quantity).ratio for scene in scenes)


def method_names(study: Study) -> list[str]:
    """All methods, in the order given, whether or not they were measured."""
    return [method.text for method in study.config.methods()]


def lacking(study: Study, name: str) -> list[str]:
    """The scenes in which a method or baseline was not measured whole."""
    return [s.name for s in study.scenes.values() if name not in {*s.methods, *s.baselines}]


def validation_score(study: Study, name: str) -> float | None:
    """The product of the median errors on validation, geometric mean over scenes.

    None where a scene lacks it.
    """
    rows = [scene.methods.get(name) for scene in study.scenes.values()]
    scores = [row.validation for row in rows if row is not None and row.validation is not None]
    return geometric_mean(scores) if 0 < len(scores) == len(study.scenes) else None


def comparison_of(
    found: Iterable[Comparison], a: str, b: str, quantity: Quantity
) -> Comparison | None:
    """The comparison of a with b, of whatever kind."""
    pairs = (c for c in found if (c.a, c.b, c.quantity) == (a, b, quantity))
    return next(pairs, None)


def overall(comparison: Comparison) -> Effect:
    """What a comparison says as a whole: over its scenes, or in its only one."""
    only = next(iter(comparison.scenes.values()))
    return only if len(comparison.scenes) == 1 else comparison.combined


def where(comparison: Comparison) -> str:
    """Which scenes a comparison is over."""
    names = list(comparison.scenes)
    return f"in {names[0]}" if len(names) == 1 else f"over {len(names)} scenes"


def change(effect: Effect) -> str:
    """The change of the error in per cent, with its interval where there is one."""
    if math.isnan(effect.mean_log_ratio):
        return "–"
    interval = effect.percent_interval
    between = "" if interval is None else f" ({signed(interval[0])} to {signed(interval[1])})"
    return f"{signed(effect.percent_change)} %{between}"


def change_and_verdict(effect: Effect | None) -> str:
    """The change, and what may be said of it; a dash where nothing was compared."""
    return "–" if effect is None else f"{change(effect)}, {effect.verdict}"


def signed(percent: float) -> str:
    """A change in per cent with its sign."""
    text = f"{percent:+.1f}" if abs(percent) < 1000 else f"{percent:+.2g}"
    return text.replace("-", "−")


def number(value: float | None, digits: int) -> str:
    """A number; a failure is infinite, and a dash stands for none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}f}" if math.isfinite(value) else "∞"


def short_numbers(setting: str) -> str:
    """A loss's setting whose broken numbers have four significant digits."""
    broken = r"(?<==)-?\d+\.\d+(?:e[+-]?\d+)?(?=/|$)"
    return re.sub(broken, lambda found: f"{float(found[0]):.4g}", setting)


def probability(value: float | None) -> str:
    """A p value."""
    if value is None:
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
