"""The statistics of a study: what may be said of two losses from their errors on the same images.

The unit is the block (a test block of consecutive frames, or a sequence), because the frames of a
block are wrong together. Per block and seed there is the median error; two losses are compared by
the log ratio of these medians, in the same block, averaged over seeds. Log ratios have no unit, so
that scenes of different scale can be combined; medians in units cannot.

Intervals and p values need SciPy: ``pip install 'relocal[study]'``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Float, Int

from relocal.errors import InputError
from relocal.metrics import Errors, median

MIN_BLOCKS = 10
MIN_SEEDS = 3
MIN_SCENES = 3
LEVEL = 0.95

Quantity = Literal["position", "rotation"]
BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference shown"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A mean log ratio of the errors of a to those of b, and how well it is known."""

    a: str
    b: str
    quantity: Quantity
    mean_log_ratio: float
    """Below zero where a is better; NaN where a block has no finite ratio."""
    standard_error: float | None = None
    degrees: float | None = None
    """Degrees of freedom of the t distribution; two variances added give a broken number."""
    interval: tuple[float, float] | None = None
    """The 95 % interval of the mean log ratio."""
    p_value: float | None = None
    """Two-sided."""
    adjusted_p: float | None = None
    """After Holm, for all but the primary contrast; the verdict then goes by it."""
    reason: str = ""
    """Why there is no verdict, such as ``no verdict (4 blocks)``; empty where there is one."""

    @property
    def percent_change(self) -> float:
        """How much the error of a is above that of b, in per cent; negative where a is better."""
        return _percent(self.mean_log_ratio)

    @property
    def percent_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the change, in per cent."""
        return (
            None
            if self.interval is None
            else (_percent(self.interval[0]), _percent(self.interval[1]))
        )

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference shown``, for a against b; or the reason."""
        p = self.p_value if self.adjusted_p is None else self.adjusted_p
        if p is None:
            return self.reason
        if p >= 1 - LEVEL:
            return NO_DIFFERENCE
        return BETTER if self.mean_log_ratio < 0 else WORSE


@dataclass(frozen=True, kw_only=True)
class Contrast(Effect):
    """Two methods on the blocks of one scene."""

    blocks: int
    seeds: int
    seed_error: float | None = None
    """The part of the standard error that comes from the seeds; the rest comes from the blocks."""
    lag1_correlation: float | None = None
    """Between the log ratios of neighbours; about -1 / blocks where they are independent."""


@dataclass(frozen=True, kw_only=True)
class Combined(Effect):
    """Two methods over several scenes, which stand for scenes that were not measured."""

    scenes: int
    scene_std: float | None = None
    """Standard deviation of the true mean log ratio between scenes (the root of τ²)."""
    leave_one_out: Mapping[str, float] = field(default_factory=dict)
    """By scene, the mean log ratio without it."""


SomeEffect = TypeVar("SomeEffect", bound=Effect)


def block_medians(
    errors: Float[np.ndarray, "seeds images"], block: Int[np.ndarray, " numbers"]
) -> Float[np.ndarray, "seeds blocks"]:
    """Median error by seed and block, blocks in ascending order of their number.

    Failures are infinite errors and take part, so that a median can be infinite; an error that is
    no number is a failure too.

    Args:
        errors: Errors of one method on the same images with each seed.
        block: The block that each image belongs to.

    Raises:
        InputError: If there are no images, or not as many as block numbers.
    """
    if not block.size or errors.shape[1] != len(block):
        raise InputError(
            f"{errors.shape[1]} images with {len(block)} block numbers: a comparison needs images, "
            "and the block of each."
        )
    errors = np.where(np.isnan(errors), np.inf, errors)
    medians = [np.median(errors[:, block == number], axis=1) for number in np.unique(block)]
    return np.stack(medians, axis=1)


def paired_log_ratio(
    a: Float[np.ndarray, "seeds_a blocks"], b: Float[np.ndarray, "seeds_b blocks_b"]
) -> Float[np.ndarray, " blocks"]:
    """Per block, the log of the median of a over that of b, each averaged over its seeds.

    NaN where a median of either is infinite (half of the images failed) or zero: two failures tell
    nothing, and one failure has no ratio. The seeds of a and b need not be the same, nor as many.

    Raises:
        InputError: If the blocks of a and b are not as many.
    """
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"{a.shape[1]} blocks cannot be paired with {b.shape[1]}: compare methods on the same "
            "images."
        )
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0, and inf - inf
        ratios = np.log(a).mean(0) - np.log(b).mean(0)
    return np.where(np.isfinite(ratios), ratios, np.nan)


def compare(
    a: Float[np.ndarray, "seeds_a blocks"],
    b: Float[np.ndarray, "seeds_b blocks_b"],
    *,
    names: tuple[str, str],
    quantity: Quantity,
    consecutive: bool = True,
    refused: str = "",
) -> Contrast:
    """Compares two methods by their block medians in one scene.

    A plain t interval over blocks is right when every block is an independent witness. Two things
    break that. How often 95 % intervals hold the truth is what tests/test_coverage.py measures, in
    simulated studies of 25 blocks of 40 correlated frames, with 3 seeds:

    - Neighbouring blocks of a recording are alike. Where the ratios of neighbours correlate by 0.3,
      the plain interval covers 86 %. So for ``consecutive`` blocks the variance is taken from slow
      waves, see ``_variance_over_blocks``.
    - A network is one draw, and all blocks that it answers share its luck. Where that moves all
      errors of a network by 10 %, the plain interval covers 76 %, and 92 % where five folds share
      the blocks. So the variance between seeds is added, see ``_variance_over_seeds``.

    With both, 93 to 97 % are covered in each of these cases and together (frames taken for
    independent: 32 %). The promise ends at 10 blocks that correlate by 0.3 (92 %) and at 25 that
    correlate by 0.5 (90 %): ``lag1_correlation`` tells, but reads about 0.1 too low. What folds
    share by training on the same images shows in no error: a result holds for these images.

    Args:
        a: Medians of the method that the verdict is about, see ``block_medians``.
        b: Medians of the method that it is compared with.
        names: The names of a and b.
        quantity: What the errors are of.
        consecutive: Whether blocks are numbered along a recording. False for whole recordings
            (sequences), whose order means nothing.
        refused: Why there shall be no verdict whatever the blocks are.
    """
    ratios = paired_log_ratio(a, b)
    blocks, seeds = len(ratios), min(len(a), len(b))
    about: dict[str, Any] = {"a": names[0], "b": names[1], "quantity": quantity}
    about |= {"blocks": blocks, "seeds": seeds, "mean_log_ratio": float(ratios.mean())}
    if undefined := int(np.isnan(ratios).sum()):
        reason = f"undecided: {_count(undefined, 'block')} without a finite ratio of medians"
        return Contrast(**about, reason=reason)
    if refused:
        return Contrast(**about, reason=f"no verdict ({refused})")
    if blocks < MIN_BLOCKS:
        return Contrast(**about, reason=f"no verdict ({_count(blocks, 'block')})")
    if seeds < MIN_SEEDS:
        return Contrast(**about, reason=f"no verdict ({_count(seeds, 'seed')})")
    of_seeds = [_variance_over_seeds(a), _variance_over_seeds(b)]
    variance, degrees = _add([_variance_over_blocks(ratios, consecutive), *of_seeds])
    return Contrast(
        **about,
        **_student(about["mean_log_ratio"], math.sqrt(variance), degrees),
        seed_error=math.sqrt(of_seeds[0][0] + of_seeds[1][0]),
        lag1_correlation=_lag1_correlation(ratios),
    )


def combine(contrasts: Mapping[str, Contrast]) -> Combined:
    """The mean log ratio over scenes, as a random effect.

    Weights after DerSimonian and Laird (1986), the interval after Hartung and Knapp (2001), for few
    scenes: from how much they differ, but no narrower than their own errors allow (Röver, Knapp and
    Friede 2015). Scenes known very unequally well, which differ, are covered a little too seldom.

    Args:
        contrasts: The same comparison in each scene, by the scene's name.

    Raises:
        InputError: If there are no scenes, or they compare different things.
    """
    if len({(c.a, c.b, c.quantity) for c in contrasts.values()}) != 1:
        raise InputError("Combine the same two methods and quantity, in one scene or more.")
    first, scenes = next(iter(contrasts.values())), len(contrasts)
    about: dict[str, Any] = {"a": first.a, "b": first.b, "quantity": first.quantity}
    means = np.array([c.mean_log_ratio for c in contrasts.values()])
    if silent := [f"{name}: {c.reason}" for name, c in contrasts.items() if c.reason]:
        # Without that scene it would be the mean of another set of scenes.
        reason = f"no verdict ({'; '.join(silent)})"
        return Combined(**about, scenes=scenes, mean_log_ratio=float(means.mean()), reason=reason)
    variances = np.array([c.standard_error or 0.0 for c in contrasts.values()]) ** 2
    if not variances.all():
        names = ", ".join(n for n, v in zip(contrasts, variances, strict=True) if not v)
        reason = f"no verdict ({names}: the same difference in all blocks)"
        return Combined(**about, scenes=scenes, mean_log_ratio=float(means.mean()), reason=reason)
    tau2, weights = _random_effect(means, variances)
    mean = float(np.average(means, weights=weights))
    about |= {"scenes": scenes, "mean_log_ratio": mean, "scene_std": math.sqrt(tau2)}
    if scenes > 1:
        parts = [(means[r], variances[r]) for r in ~np.eye(scenes, dtype=bool)]
        without = [float(np.average(m, weights=_random_effect(m, v)[1])) for m, v in parts]
        about["leave_one_out"] = dict(zip(contrasts, without, strict=True))
    if scenes < MIN_SCENES:
        return Combined(**about, reason=f"no verdict ({_count(scenes, 'scene')})")
    q = float((weights * (means - mean) ** 2).sum()) / (scenes - 1)
    error = math.sqrt(max(q, 1.0) / float(weights.sum()))
    return Combined(**about, **_student(mean, error, scenes - 1.0))


def holm(p_values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Adjusted p values in the order given (Holm 1979): below 0.05 where the step-down rejects."""
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    return np.minimum(np.maximum.accumulate(steps), 1.0)[np.argsort(order)]


def adjust(effects: Sequence[SomeEffect], least: int = 0) -> list[SomeEffect]:
    """Sets ``adjusted_p``, for their number or for ``least`` if that is more.

    One without a p value stays so, but counts: a failure does not make it easier for the others.
    """
    known = [1.0 if e.p_value is None else e.p_value for e in effects]
    adjusted = holm(np.array([*known, *[1.0] * (least - len(known))]))
    return [
        effect if effect.p_value is None else replace(effect, adjusted_p=float(p))
        for effect, p in zip(effects, adjusted, strict=False)
    ]


def oracle_ratio(errors: Errors, oracle_errors: Errors) -> float:
    """The median error over that of the oracle nearest pose, on the same images: scale-free.

    NaN where the oracle's is zero or there are no images.
    """
    oracle = median(oracle_errors)
    return median(errors) / oracle if 0 < oracle < math.inf else math.nan


def geometric_mean(ratios: Iterable[float]) -> float:
    """The mean of ratios over scenes; one infinite ratio makes it infinite.

    Raises:
        InputError: If there are none.
    """
    with np.errstate(divide="ignore"):  # log 0
        logs = np.log(np.array(list(ratios), dtype=np.float64))
    if not logs.size:
        raise InputError("There is no ratio to take the mean of.")
    return float(np.exp(logs.mean()))


def mean_over_scenes(medians: Mapping[str, float], units: Mapping[str, str]) -> float:
    """The mean of the scenes' median errors, in their unit.

    Args:
        medians: Median error by scene.
        units: Unit of each scene, ``m`` or ``unit``; for angles ``°``.

    Raises:
        InputError: If the scenes are of different units, or of a scale that is not known.
    """
    found = {units[scene] for scene in medians}
    if len(found) != 1 or (found == {"unit"} and len(medians) > 1):
        scenes, names = _count(len(medians), "scene"), ", ".join(sorted(found)) or "no unit"
        raise InputError(
            f"{scenes} in {names} have no mean in a unit; take the geometric mean of the ratios to "
            "the oracle nearest pose."
        )
    return float(np.mean(list(medians.values())))


Variance = tuple[float, float]
"""An estimated variance of a mean, and its degrees of freedom."""


def _variance_over_blocks(ratios: Float[np.ndarray, " blocks"], consecutive: bool) -> Variance:
    """The variance of the mean of block ratios.

    For blocks along a recording it is measured on the blocks // 3 slowest cosine waves, since what
    neighbours share moves slowly, as their mean does (the equal-weighted cosine estimator of
    Lazarus, Lewis, Stock and Watson 2018). The waves are orthonormal, so that for independent
    normal blocks the interval stays exact; it is wider than the plain one by 9 % with 25 blocks, by
    33 % with 10. Fewer waves would stand more correlation, and cost more.
    """
    n = len(ratios)
    if not consecutive:
        return float(ratios.var(ddof=1)) / n, n - 1.0
    waves = n // 3
    phase = np.pi * np.outer(np.arange(1, waves + 1), np.arange(n) + 0.5) / n
    heights = math.sqrt(2 / n) * np.cos(phase) @ (ratios - ratios.mean())
    return float(np.mean(heights**2)) / n, float(waves)


def _variance_over_seeds(medians: Float[np.ndarray, "seeds blocks"]) -> Variance:
    """The variance of a method's mean log median that all blocks share: the luck of the training.

    By two-way analysis of variance, blocks against seeds: what the seeds differ by, less what they
    would differ by if each block drew its own luck, which the variance over blocks holds already.
    """
    logs = np.log(medians)
    seeds, blocks = logs.shape
    of_seeds, of_blocks = logs.mean(1, keepdims=True), logs.mean(0)
    between = blocks * float(of_seeds.var(ddof=1))
    within = float(((logs - of_seeds - of_blocks + logs.mean()) ** 2).sum())
    shared = between - within / ((seeds - 1) * (blocks - 1))
    return max(0.0, shared) / (seeds * blocks), seeds - 1.0


def _add(variances: Sequence[Variance]) -> Variance:
    """Adds independent variances; their degrees of freedom after Welch and Satterthwaite (1946)."""
    total = sum(variance for variance, _ in variances)
    if total == 0:
        return variances[0]
    return total, 1 / sum((variance / total) ** 2 / degrees for variance, degrees in variances)


def _random_effect(
    means: Float[np.ndarray, " scenes"], variances: Float[np.ndarray, " scenes"]
) -> tuple[float, Float[np.ndarray, " scenes"]]:
    """The variance τ² between scenes, and the weight of each (DerSimonian and Laird 1986)."""
    w = 1 / variances
    surplus = float((w * (means - np.average(means, weights=w)) ** 2).sum()) - (len(means) - 1)
    scale = float(w.sum() - (w**2).sum() / w.sum())
    tau2 = max(0.0, surplus / scale) if scale > 0 else 0.0  # one scene: no scale
    return tau2, 1 / (variances + tau2)


def _student(mean: float, standard_error: float, degrees: float) -> dict[str, Any]:
    """The fields of an Effect that the t distribution gives."""
    try:
        special: Any = import_module("scipy.special")
    except ImportError as error:
        raise InputError(
            "The intervals of a study need SciPy: pip install 'relocal[study]'."
        ) from error
    half = float(special.stdtrit(degrees, (1 + LEVEL) / 2)) * standard_error
    with np.errstate(divide="ignore"):  # methods that differ by the same factor everywhere
        t = float(np.abs(mean) / np.float64(standard_error)) if mean else 0.0
    return {
        "standard_error": standard_error,
        "degrees": degrees,
        "interval": (mean - half, mean + half),
        "p_value": float(2 * special.stdtr(degrees, -t)),
    }


def _lag1_correlation(ratios: Float[np.ndarray, " blocks"]) -> float | None:
    """Between neighbours in order; None where all blocks are the same."""
    d = ratios - ratios.mean()
    square = float(d @ d)
    return float(d[1:] @ d[:-1]) / square if square else None


def _percent(log_ratio: float) -> float:
    return 100 * math.expm1(log_ratio)


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
