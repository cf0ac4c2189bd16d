"""Methods of a study: a loss with its options, what of it is tuned, and how it is trained."""

import inspect
import itertools
import json
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from relocal.errors import InputError, unknown
from relocal.losses import LOSSES, LossConfig, build_loss, parse_loss
from relocal.models import PoseNetConfig
from relocal.training import PRESETS, TrainConfig

Depth = Literal["head", "tail", "full"]

PAIR = "~"
# Factors on a loss's own weights, by how many it has: as many settings for one as for two.
_FACTORS: dict[int, tuple[tuple[float, ...], ...]] = {
    1: ((1 / 8,), (1 / 2,), (2.0,), (8.0,)),
    2: tuple(itertools.product((1 / 3, 3.0), repeat=2)),
}
MAX_SETTINGS = 4

DEPTHS: dict[Depth, TrainConfig] = {
    # ImageNet's features as they are; a narrow regressor, so that a cell takes seconds.
    "head": replace(
        PRESETS["frozen"],
        model=PoseNetConfig(pool="average", width=256),
        epochs=30,
        batch_size=64,
        lr=2e-3,
    ),
    "tail": replace(PRESETS["frozen_stem"], epochs=12),
    "full": TrainConfig(epochs=20),
}


@dataclass(frozen=True)
class Method:
    """A row of the study's tables.

    ``position~rotation`` is a pair: positions of the first, rotations of the second, two networks
    that are trained apart.
    """

    text: str
    """As it was given; its name in every table."""
    loss: LossConfig
    options: tuple[tuple[str, str], ...] = ()
    """Options of training that it changes, such as ``("model.rotation", "6d")``."""
    parts: tuple[str, ...] = ()
    """The two methods of a pair."""
    fixed: frozenset[str] = frozenset()
    """Options of the loss that the text gives, which are not tuned."""


def parse_method(text: str) -> Method:
    """Reads ``posenet+frustum/form=squared/model.rotation=6d``: a loss, and options.

    Options with a point in their name, and those that ``TrainConfig`` itself has, change how the
    network is built and trained; the others are the loss's own.

    Raises:
        InputError: If an option of the loss is not known. Whether the loss itself is, does not
            matter yet: a finished study is read without the file that its losses came from.
    """
    text = "".join(text.split())
    if PAIR in text:
        parts = tuple(part.strip() for part in text.split(PAIR))
        if len(parts) != 2:
            raise InputError(f"--losses {text}: a pair is two losses, POSITION{PAIR}ROTATION.")
        return Method(text, parse_method(parts[0]).loss, parts=parts)
    name, *options = text.split("/")
    own = {f.name for f in fields(TrainConfig)}
    trained = [o for o in options if "." in o.partition("=")[0] or o.partition("=")[0] in own]
    own_options = [o for o in options if o not in trained]
    loss = parse_loss("/".join([name, *own_options]))
    fixed = frozenset(o.partition("=")[0] for o in own_options)
    pairs = [(o.partition("=")[0], o.partition("=")[2]) for o in trained]
    for key, word in pairs:
        if not word:
            raise InputError(f"--losses {text}: {key} has no value; write {key}=VALUE.")
        if key in ("seed", "validate", "devices", "nodes"):
            raise InputError(f"--losses {text}: {key} is what the study itself sets.")
        if key.startswith("loss."):
            raise InputError(f"--losses {text}: write {key.removeprefix('loss.')}={word} instead.")
        if [name for name, _ in pairs].count(key) > 1:
            raise InputError(f"--losses {text}: {key} is given twice.")
    return Method(text, loss, tuple(pairs), fixed=fixed)


def method_config(method: Method, base: TrainConfig) -> TrainConfig:
    """How a method is trained: the study's options, and what it changes of them.

    Raises:
        InputError: If the loss or an option is unknown, or a value refused.
    """
    build_loss(method.loss)
    content = base.to_json()
    for key, word in method.options:
        *folders, last = key.split(".")
        place: Any = content
        for folder in folders:
            place = place.get(folder, {}) if isinstance(place, dict) else {}
        if not isinstance(place, dict) or last not in place or isinstance(place[last], dict):
            raise unknown(f"--losses {method.text}: option", key, _option_names(content))
        place[last] = word if isinstance(place[last], str) else _value(word)
    try:
        config = TrainConfig.from_json(content)
    except InputError as error:
        raise InputError(f"--losses {method.text}: {error}") from error
    depth = method.loss.depth or base.loss.depth
    return replace(config, loss=replace(method.loss, depth=depth))


def _value(word: str) -> Any:
    """A number, true or false, or else the word itself."""
    try:
        value = json.loads(word)
    except json.JSONDecodeError:
        return word
    return value if isinstance(value, int | float) else word


def _option_names(content: dict[str, Any]) -> list[str]:
    names = [k for k, v in content.items() if not isinstance(v, dict)]
    parts = {k: v for k, v in content.items() if isinstance(v, dict) and k != "loss"}
    return names + [f"{part}.{k}" for part, values in parts.items() for k in values]


def settings(loss: LossConfig, budget: int, fixed: Collection[str] = ()) -> list[LossConfig]:
    """The settings of a loss that are tried on validation: at most ``budget``, equal for all.

    Its weights β and γ are multiplied by factors around where they start, β alone by four, both
    by two each. What is ``fixed`` is not tuned, and a loss without weights has one
    setting.
    """
    start = {key: weight for key, weight in _weights(loss).items() if key not in fixed}
    if budget == 1 or not start:
        return [loss]
    return [
        replace(loss, **{k: w * f for (k, w), f in zip(start.items(), factors, strict=True)})
        for factors in _FACTORS[len(start)][:budget]
    ]


def _weights(loss: LossConfig) -> dict[str, float]:
    """The weights that may be tuned, and where they start."""
    base, *terms = loss.name.split("+")
    found: dict[str, float] = {}
    taken = inspect.signature(LOSSES[base]).parameters
    if loss.beta is None and "beta" in taken and isinstance(taken["beta"].default, int | float):
        found["beta"] = float(taken["beta"].default)
    if terms:
        found["gamma"] = loss.gamma
    return found
