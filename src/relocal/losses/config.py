"""LossConfig: which loss, and its numbers; and the same as a short text for lists."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin

from relocal.errors import InputError, unknown
from relocal.losses.coupled import DepthOf, Form, Rays, Schedule
from relocal.losses.loss import Robust, check_word
from relocal.losses.uncoupled import Noise, Quaternion


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Which loss, and its numbers; what is left out is the loss's own default."""

    name: str = "posenet"
    """A base loss and coupled terms: default, posenet+frustum, position+twin:sightline, ..."""
    alpha: float | None = None
    """Weight of the position (default, dsac)."""
    beta: float | None = None
    """Weight of the rotation (default, posenet, geodesic, chordal, dsac)."""
    quaternion: Quaternion | None = None
    """Whether the network's quaternion is compared raw or with unit length (default, posenet)."""
    match_sign: bool | None = None
    """Compare quaternions sign by sign instead of on the training mean's side."""
    noise: Noise | None = None
    """How the errors are distributed (nll)."""
    robust: Robust | None = None
    """What takes the place of the base loss's own distance."""
    robust_x: float | None = None
    """Error in scene units from which the position is weighed less; 0.1 if left out."""
    robust_q: float | None = None
    """Error from which the rotation is weighed less, in radians or what is compared; 0.05 if left
    out."""
    robust_shape: float | None = None
    """Barron's alpha, at most 2; -2 if left out (barron)."""
    gamma: float = 1.0
    """Weight of the coupled terms."""
    gamma_schedule: Schedule = "constant"
    """Whether that weight stays, rises from zero, or falls to zero."""
    form: Form | None = None
    """Whether coupled terms are a norm or squared."""
    depth_of: DepthOf | None = None
    """Whether coupled terms take the scene's depth, or each image's from the points it sees."""
    rays: Rays | None = None
    """Whether frustum takes the axis and the corners of the image, or a grid of 5 x 5."""
    depth: float | None = None
    """Median depth of the scene in its unit; needed when the scene has no map points."""

    def __post_init__(self) -> None:
        for option in ("alpha", "beta", "gamma", "depth", "robust_x", "robust_q"):
            value = getattr(self, option)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"--loss.{option}: must be a number of at least 0, not {value}.")
        for option in ("depth", "robust_x", "robust_q"):
            if getattr(self, option) == 0:
                raise InputError(f"--loss.{option}: must be above 0.")
        for option, kind in option_types().items():
            if get_origin(kind) is Literal and getattr(self, option) is not None:
                check_word(option, getattr(self, option), kind)
        self._check_robust()

    def _check_robust(self) -> None:
        """Refuses numbers of a robust kernel that is not there or does not have them."""
        bends = self.robust in ("huber", "cauchy", "barron")
        for option in ("robust_x", "robust_q"):
            if getattr(self, option) is not None and not bends:
                raise InputError(f"--loss.{option}: needs --loss.robust huber, cauchy or barron.")
        if self.robust_shape is None:
            return
        if self.robust != "barron":
            raise InputError("--loss.robust_shape: needs --loss.robust barron.")
        if not (math.isfinite(self.robust_shape) and self.robust_shape <= 2):
            raise InputError(
                f"--loss.robust_shape: must be a number of at most 2, not {self.robust_shape}."
            )


def option_types() -> dict[str, Any]:
    """The type of every option, without None."""
    plain: dict[str, Any] = {}
    for option in fields(LossConfig):
        parts = [part for part in get_args(option.type) if part is not type(None)]
        union = len(parts) < len(get_args(option.type))
        plain[option.name] = parts[0] if union else option.type
    return plain


def parse_loss(text: str) -> LossConfig:
    """Reads a loss with its options, as lists of losses have them.

    Args:
        text: ``default+frustum/robust=l1/gamma=0.5``: the name, then options of ``LossConfig``.

    Raises:
        InputError: If an option is unknown, given twice, or its value is not of its kind.
    """
    name, *parts = (part.strip() for part in text.split("/"))
    types, options = option_types(), dict[str, Any]()
    del types["name"]
    for part in parts:
        option, equals, value = (word.strip() for word in part.partition("="))
        if option not in types:
            raise unknown(f"{text}: option", option, types)
        if not equals or not value:
            raise InputError(f"{text}: {option} has no value; write {option}=VALUE.")
        if option in options:
            raise InputError(f"{text}: {option} is given twice.")
        options[option] = _value(text, option, value, types[option])
    return LossConfig(name=name, **options)


def _value(text: str, option: str, value: str, kind: Any) -> Any:
    if kind is bool:
        if value not in ("true", "false"):
            raise InputError(f"{text}: {option} must be true or false, not {value}.")
        return value == "true"
    if kind is not float:
        check_word(option, value, kind)
        return value
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"{text}: {option} must be a number, not {value}.") from error


def loss_text(config: LossConfig) -> str:
    """The text that ``parse_loss`` reads: the name, and the options that are not the default."""
    parts = [config.name]
    for option in fields(LossConfig):
        value = getattr(config, option.name)
        if option.name != "name" and value != option.default:
            word = str(value).lower() if isinstance(value, bool) else str(value)
            parts.append(f"{option.name}={word}")
    return "/".join(parts)
