"""Report: what an evaluation found, and the numbers that are made of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from relocal.evaluation.rejection import Rejection
from relocal.evaluation.uncertainty import Coverage, coverages
from relocal.metrics import PoseErrors, failures, mean, median, recall
from relocal.pose import Pose

ORACLE, MEAN, RETRIEVAL = "oracle nearest", "mean pose", "retrieval"
BASELINES = (MEAN, ORACLE, RETRIEVAL)
FILTERED = ", filtered"
"""What the name of a localizer ends with whose answers were filtered."""
_MEDIANS = {"position": "median_position", "rotation": "median_rotation_deg"}


@dataclass(frozen=True)
class MethodResult:
    """One method's answers on the test images."""

    estimates: Sequence[Pose | None]
    errors: PoseErrors
    time_ms: float | None = None
    """Median time from a photo's file to its pose; None for baselines."""
    memory_mb: float | None = None
    """Weights, map and descriptors in memory; None for baselines."""
    sigmas: Float[np.ndarray, "n 2"] | None = None
    """Stated spreads of position and rotation (degrees); not a number where none is stated."""
    other_methods: Mapping[str, int] = field(default_factory=dict)
    """How many answers are those of methods that the localizer fell back to, by their names."""
    doubts: Float[np.ndarray, " n"] | None = None
    """How unsure each answer was: above 1 it may be refused. Zeros where that is not known."""


@dataclass(frozen=True)
class Report:
    """What an evaluation found, with all that is needed to judge it."""

    scene: str
    unit: str
    split: str
    regime: str
    """Interpolation, extrapolation or another recording: how far test is from training."""
    images: tuple[str, ...]
    truth: Pose
    training: Pose
    methods: Mapping[str, MethodResult]
    thresholds: tuple[tuple[float, float], ...]
    """Recall thresholds: position in the scene's unit, and degrees."""
    extent: float
    """Diagonal of the box around the scene's camera centres."""
    corruptions: Mapping[str, Mapping[str, tuple[PoseErrors, ...]]] = field(default_factory=dict)
    """By localizer and kind of corruption, the errors at each severity; empty if none was asked."""
    block: Int[np.ndarray, " n"] | None = None
    """The block of each image, whose errors are correlated; None: all are one."""
    rejections: Mapping[str, Rejection] = field(default_factory=dict)
    """By localizer, how well it tells photos of other places; empty if there were none."""
    points: tuple[Float[np.ndarray, "P 3"], UInt8[np.ndarray, "P 3"]] | None = None
    """Map points of the scene or a map, and their colours, where there are some."""
    notes: tuple[str, ...] = ()
    """What else a reader must not miss."""
    made_by: Mapping[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Each method's numbers."""
        return {name: self._summary(result) for name, result in self.methods.items()}

    def _summary(self, result: MethodResult) -> dict[str, Any]:
        errors = result.errors
        middle = median(errors.position), median(errors.rotation_deg)
        oracle = self.methods[ORACLE].errors if ORACLE in self.methods else None
        apart = (math.nan, math.nan)
        if oracle is not None:
            apart = median(oracle.position), median(oracle.rotation_deg)
        return {
            "median_position": middle[0],
            "median_rotation_deg": middle[1],
            "mean_position": mean(errors.position),
            "mean_rotation_deg": mean(errors.rotation_deg),
            "position_to_oracle": _ratio(middle[0], apart[0]),
            "rotation_to_oracle": _ratio(middle[1], apart[1]),
            "recall": [recall(errors, *threshold) for threshold in self.thresholds],
            "failures": failures(errors),
            "time_ms": result.time_ms,
            "memory_mb": result.memory_mb,
            "other_methods": dict(result.other_methods),
            "coverage": {
                what: [asdict(one) for one in every]
                for what, every in self.coverages(result).items()
            },
        }

    def coverages(self, result: MethodResult) -> dict[str, list[Coverage]]:
        """How true the spreads are that a method states; nothing where it states none."""
        if result.sigmas is None:
            return {}
        one = np.zeros(len(self.images), dtype=np.int64)
        return coverages(result.errors, result.sigmas, one if self.block is None else self.block)

    def localizers(self) -> list[str]:
        """Names of the methods that are no baselines."""
        return [name for name in self.methods if name not in BASELINES]

    def remarks(self) -> list[str]:
        """What a reader must not miss."""
        numbers = self.summary()
        found: list[str] = []
        for name in self.localizers():
            if name.endswith(FILTERED):  # what is said of the answers themselves is enough
                continue
            # The weakest first: a localizer that loses to the mean pose has learned nothing.
            for baseline in (b for b in (MEAN, RETRIEVAL, ORACLE) if b in numbers):
                worse = [
                    what
                    for what, key in _MEDIANS.items()
                    if not numbers[name][key] < numbers[baseline][key]
                ]
                if worse:
                    found.append(f"{name} does not beat {baseline} in {' and '.join(worse)}.")
            if numbers[name]["failures"]:
                found.append(
                    f"{name} gave no answer for {numbers[name]['failures']} of {len(self.images)} "
                    "images; they count as infinite errors." + self._kept(self.methods[name].errors)
                )
            found += [
                f"{count} of the {len(self.images)} answers of {name} are those of {other}, which "
                "it fell back to."
                for other, count in self.methods[name].other_methods.items()
            ]
        return [*found, *self.notes]

    def _kept(self, errors: PoseErrors) -> str:
        """How good the answers are that were given, if any was."""
        kept = errors.answered()
        if not len(kept):
            return ""
        middle = f"{median(kept.position):.4g} {self.unit}, {median(kept.rotation_deg):.3g}°"
        return f" Medians of its answers: {middle}."


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference > 0 else math.nan
