"""What a training is made of; its dataclasses are also the command line's options."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from relocal.backbones import BackboneConfig, Stage
from relocal.errors import InputError, unknown
from relocal.losses import LossConfig
from relocal.models import MODELS, PoseNetConfig

Shape = Literal["square", "full"]
Augment = Literal["crop", "virtual", "none"]
Cache = Literal["images", "features"]
Precision = Literal["auto", "bf16-mixed", "32-true"]
Accelerator = Literal["auto", "cpu", "cuda", "mps"]


def _check_words(config: object, prefix: str, words: dict[str, Any]) -> None:
    """Refuses an option whose value is none of its words, which only the CLI checks by itself."""
    for option, known in words.items():
        if getattr(config, option) not in get_args(known):
            raise unknown(f"--{prefix}{option}", getattr(config, option), get_args(known))


# By type, not instance: to Python true is a whole number, and here it is a mistake.
_KINDS: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}


def _check_kinds(make: Any, values: Any) -> None:
    """Refuses a value of a file that is not of its option's kind, which the CLI sees to itself."""
    for option in fields(make) if isinstance(values, dict) else ():
        kinds, value = _KINDS.get(option.type), values.get(option.name)
        if kinds is not None and option.name in values and type(value) not in kinds:
            raise InputError(f"{option.name}: {str(value)[:40]} is not of the right kind.")


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """What the network sees of a photo, and how training varies it."""

    input_px: int = 144
    """Short side of the network's input."""
    margin: float = 8 / 7
    """Short side of the training camera over that of the input; the rest is room for cropping."""
    shape: Shape = "full"
    """Input as a square window, as PoseNet, or in the photo's own shape."""
    augment: Augment = "virtual"
    """Random crop with the label unchanged, as PoseNet, or a virtual camera whose label turns."""
    turn_deg: float = 5.0
    """Largest turn of the virtual camera about each of its axes."""
    jitter: float = 0.3
    """Largest change of brightness, contrast and saturation, as a factor of 1 ± this."""
    kept: int = 8
    """Views of a photo that are kept, the first without a turn (--freeze all --cache features)."""

    def __post_init__(self) -> None:
        if self.input_px < 32:
            raise InputError(f"--view.input-px: must be at least 32, not {self.input_px}.")
        if not 1 <= self.margin <= 4:
            raise InputError(f"--view.margin: must be in [1, 4], not {self.margin}.")
        if not 0 <= self.jitter < 1:
            raise InputError(f"--view.jitter: must be in [0, 1), not {self.jitter}.")
        if not 1 <= self.kept <= 1000:
            raise InputError(f"--view.kept: must be 1 to 1000, not {self.kept}.")
        if not 0 <= self.turn_deg < 45:
            raise InputError(f"--view.turn-deg: must be in [0, 45), not {self.turn_deg}.")
        _check_words(self, "view.", {"shape": Shape, "augment": Augment})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a localizer is trained."""

    model: PoseNetConfig = field(default_factory=PoseNetConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 32
    """Images a step, on all devices together."""
    lr: float = 1e-3
    """Largest learning rate of the regressor's own layers."""
    backbone_lr: float = 2e-4
    """Largest learning rate of the backbone."""
    weight_decay: float = 1e-2
    """AdamW's weight decay; learned loss weights have none."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises; then it falls along a cosine."""
    ema_decay: float = 0.99
    """Decay a step of the averaged weights, which are the ones that are kept."""
    freeze: Stage = "none"
    """Part of the backbone that is not trained: nothing, its stem, all."""
    cache: Cache = "images"
    """What is kept of each photo: its pixels, or the features of what is frozen. Of a frozen stem
    they are its map, from which windows are cropped: twice as fast (--preset frozen_stem). Of a
    backbone frozen whole they are what the head sees of a few views: seconds instead of minutes
    (--preset frozen)."""
    validate: bool = False
    """Hold out validation blocks (15 %) of the training images, to choose settings by."""
    seed: int = 0
    """Seed of the start, the order and the augmentation."""
    precision: Precision = "auto"
    """Arithmetic; auto is bf16-mixed on GPUs and on CPUs with AMX or AVX-512 BF16, else
    32-true."""
    accelerator: Accelerator = "auto"
    """Where to train."""
    devices: int = 1
    """Devices a node; more than one trains data-parallel."""
    nodes: int = 1
    """Nodes."""

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "devices": 1, "nodes": 1, "seed": 0}
        for option, low in least.items():
            if getattr(self, option) < low:
                flag = option.replace("_", "-")
                raise InputError(f"--{flag}: must be at least {low}, not {getattr(self, option)}.")
        if self.seed >= 2**32:
            raise InputError(f"--seed: must be below {2**32}, not {self.seed}.")
        for option in ("lr", "backbone_lr", "weight_decay"):
            if not 0 <= getattr(self, option) < float("inf"):
                flag = option.replace("_", "-")
                raise InputError(f"--{flag}: must be a number of at least 0.")
        for option in ("warmup", "ema_decay"):
            if not 0 <= getattr(self, option) < 1:
                raise InputError(f"--{option.replace('_', '-')}: must be in [0, 1).")
        words = {
            "freeze": Stage,
            "cache": Cache,
            "precision": Precision,
            "accelerator": Accelerator,
        }
        _check_words(self, "", words)
        if self.cache == "features":
            self._check_features()
        if self.model.name not in MODELS:
            raise unknown("--model", self.model.name, MODELS)

    @property
    def cached(self) -> Stage:
        """The part of the backbone that has looked at what is kept of each photo."""
        return self.freeze if self.cache == "features" else "none"

    def _check_features(self) -> None:
        """Features must not change, and those of a stem cannot be turned or jittered any more."""
        if self.freeze == "none":
            raise InputError("--cache features: needs --freeze stem or all.")
        if self.freeze == "stem" and (self.view.augment == "virtual" or self.view.jitter != 0):
            raise InputError(
                "--cache features: with --freeze stem needs --view.augment crop or none, and "
                "--view.jitter 0."
            )
        if self.freeze == "all" and (self.view.augment == "crop" or self.model.auxiliary):
            raise InputError(
                "--cache features: with --freeze all needs --view.augment virtual or none, and no "
                "--model.auxiliary."
            )

    def without_paths(self) -> "TrainConfig":
        """Weights by the name of their file: what is the same, and may be shown, on any machine."""
        name = Path(self.backbone.weights).name
        return replace(self, backbone=replace(self.backbone, weights=name))

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "TrainConfig":
        """Reads what ``to_json`` wrote.

        Raises:
            InputError: If a key is unknown or a value refused.
        """
        parts: dict[str, Callable[..., Any]] = {
            "model": PoseNetConfig,
            "backbone": BackboneConfig,
            "loss": LossConfig,
            "view": ViewConfig,
        }
        try:
            for key, make in {**parts, "": TrainConfig}.items():
                _check_kinds(make, value.get(key, {}) if key else value)
            built = {key: make(**value[key]) for key, make in parts.items() if key in value}
            return TrainConfig(**{**value, **built})
        except TypeError as error:
            raise InputError(f"training options: {error}.") from error


PRESETS: dict[str, TrainConfig] = {
    # Kendall, Grimes & Cipolla 2015, as far as the paper and its files say: GoogLeNet, short side
    # 256, random 224 crops with the label unchanged, auxiliary regressors, half of the features
    # dropped, no colour jitter.
    "posenet2015": TrainConfig(
        model=PoseNetConfig(pool="average", dropout=0.5, auxiliary=True),
        backbone=BackboneConfig(name="googlenet"),
        loss=LossConfig(name="default"),
        view=ViewConfig(input_px=224, shape="square", augment="crop", jitter=0.0),
    ),
    # What the loss study chose on validation blocks, of 157 methods; docs/results.md has the
    # evidence, and says of what no effect was shown. It has no coupled term, since none was better
    # than its decoupled twin. The source paper's own equation is not known here: who has it adds it
    # to COUPLED (losses/coupled.py), one class and one line, and names it here.
    "proposed": TrainConfig(
        model=PoseNetConfig(rotation="9d"),
        loss=LossConfig(name="posenet", beta=5.0, robust="huber"),
    ),
    # The quick one, for studies of many runs: the stem looks at each photo once.
    "frozen_stem": TrainConfig(
        freeze="stem", cache="features", view=ViewConfig(augment="crop", jitter=0.0)
    ),
    # The quickest: ImageNet's features as they are, and only the regressor learns.
    "frozen": TrainConfig(freeze="all", cache="features"),
}
