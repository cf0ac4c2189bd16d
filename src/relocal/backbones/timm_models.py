"""Any convolutional network of timm, ``timm:NAME``, where timm is installed."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from relocal.backbones.backbone import Backbone, Preprocess
from relocal.errors import InputError, unknown

TIMM = "timm:"


class LastMap(nn.Module):
    """A timm network that returns its last feature map alone."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B _ _ _"]:
        """Returns the last feature map."""
        return self.network(x)[-1]


def timm_backbone(name: str) -> Backbone:
    """Builds a network of timm; it is one layer, so it has no stem that could be frozen alone.

    Raises:
        InputError: If timm is not installed, has no such network, or it has no feature maps.
    """
    option = f"--backbone.name {TIMM}{name}"
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise _unfit(option, error) from error
        raise InputError(
            f"{option}: timm is not installed: pip install '.[timm]' in the clone."
        ) from error
    except (ImportError, RuntimeError) as error:
        raise _unfit(option, error) from error
    if not timm.is_model(name):
        raise unknown("--backbone.name, timm", name, timm.list_models())
    try:
        network: Any = timm.create_model(name, features_only=True)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        raise InputError(f"{option}: it gives no feature maps ({error}).") from error
    cfg, last = network.pretrained_cfg, network.feature_info.info[-1]
    return Backbone(
        {
            "preprocess": Preprocess(mean=_levels(cfg["mean"]), scale=_levels(cfg["std"])),
            "body": LastMap(network),
        },
        stem=None,
        channels=int(last["num_chs"]),
        stride=int(last["reduction"]),
        pretrained=lambda: _pretrained(name),
        initialise=False,
    )


def _unfit(option: str, error: Exception) -> InputError:
    """What to say of a timm that is there and cannot be imported: mostly torchvision's fault."""
    found: list[str] = []
    for package in ("timm", "torch", "torchvision"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return InputError(
        f"{option}: timm cannot be imported ({error}) with {', '.join(found)}. These do not "
        "fit each other: install torch and torchvision from one index."
    )


def _levels(values: Sequence[float]) -> tuple[float, float, float]:
    """One number a channel, in levels of 255."""
    red, green, blue = (255 * float(value) for value in values)
    return red, green, blue


def _pretrained(name: str) -> dict[str, Tensor]:
    import timm

    try:
        network: Any = timm.create_model(name, features_only=True, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"--backbone.weights pretrained: the weights of {TIMM}{name} cannot be had ({error}). "
            "Give them as a safetensors file (--backbone.weights FILE), or start from random "
            "weights (--backbone.weights none)."
        ) from error
    return {f"body.network.{key}": value for key, value in network.state_dict().items()}
