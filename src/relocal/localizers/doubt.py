"""Doubt: which answers are too unsure to be given."""

from relocal.errors import InputError
from relocal.localizers.calibration import Calibration
from relocal.localizers.registry import Localizer
from relocal.types import Estimate


def doubt(localizer: Localizer, estimate: Estimate | None) -> float:
    """How unsure an answer is: above 1 it is more so than nearly all held-out ones were.

    Args:
        localizer: What gave it; without a calibration nothing is known but whether it answered.
        estimate: The answer; none is infinite doubt.
    """
    if estimate is None:
        return float("inf")
    known = calibration_of(localizer)
    return 0.0 if known is None else known.doubt(estimate)


def refused(localizer: Localizer, estimate: Estimate | None) -> bool:
    """Whether an answer is too unsure to be given; so is one whose spread is no number."""
    return not doubt(localizer, estimate) <= 1


def calibration_of(localizer: Localizer) -> Calibration | None:
    """The calibration of a localizer that has one."""
    return getattr(localizer, "calibration", None)


def check_calibrated(name: str, localizer: Localizer) -> None:
    """Refuses a localizer that does not say how sure it is.

    Raises:
        InputError: If it has no calibration.
    """
    if calibration_of(localizer) is None:
        raise InputError(
            f"{name}: how sure its answers are is not known; calibrate its run or map (all of an "
            "ensemble's runs) first: relocal calibrate RUN SCENE."
        )


def can_doubt(localizer: Localizer) -> bool:
    """Whether a localizer says of each photo how sure it is of that one."""
    known = calibration_of(localizer)
    return known is not None and known.tells_apart


def check_doubts(name: str, localizer: Localizer) -> None:
    """Refuses a localizer that cannot say of which photo it is unsure.

    Raises:
        InputError: If it has no calibration, or states one spread for all photos.
    """
    check_calibrated(name, localizer)
    if not can_doubt(localizer):
        raise InputError(
            f"--reject: {name} states the same spread for every photo. Take bayesian, an ensemble, "
            "a map, or a run with --loss nll."
        )
