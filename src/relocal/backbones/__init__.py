"""Backbones: RGB photo -> feature map.

A new one is a function that returns a ``Backbone``, and a line in ``BACKBONES``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from relocal.backbones.backbone import (
    STEM_STRIDE,
    Backbone,
    Preprocess,
    Stage,
    describe,
    weight_faults,
)
from relocal.backbones.efficientnet_lite import (
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
)
from relocal.backbones.googlenet import googlenet, googlenet_bn
from relocal.backbones.resnet import resnet18, resnet34, resnet50
from relocal.backbones.timm_models import TIMM, timm_backbone
from relocal.errors import InputError, unknown

__all__ = [
    "BACKBONES",
    "STEM_STRIDE",
    "TIMM",
    "Backbone",
    "BackboneConfig",
    "Preprocess",
    "Stage",
    "build_backbone",
    "describe",
    "weight_faults",
]


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which network looks at the photo, and what its weights start from."""

    name: str = "efficientnet_lite0"
    """Network: efficientnet_lite0 to 2, googlenet (PoseNet's), googlenet_bn, resnet18, resnet34,
    resnet50, or timm:NAME."""
    weights: str = "pretrained"
    """Starting weights: pretrained (on ImageNet), none (random), or a safetensors file."""


def build_backbone(config: BackboneConfig) -> Backbone:
    """Builds a backbone with its starting weights; random ones come from torch's generator.

    Raises:
        InputError: If there is no such backbone, or its weights cannot be had or do not fit.
    """
    if config.name.startswith(TIMM):
        backbone = timm_backbone(config.name.removeprefix(TIMM))
    elif config.name in BACKBONES:
        backbone = BACKBONES[config.name]()
    else:
        raise unknown("--backbone.name", config.name, [*BACKBONES, f"{TIMM}NAME"])
    if config.weights == "pretrained":
        _load(backbone, backbone.pretrained(), f"the pretrained weights of {config.name}")
    elif config.weights != "none":
        try:
            weights = load_file(config.weights)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"--backbone.weights: {config.weights} cannot be read ({error}). Give pretrained, "
                "none, or a whole safetensors file."
            ) from error
        _load(backbone, weights, config.weights)
    return backbone


def _load(backbone: Backbone, weights: Mapping[str, Tensor], source: str) -> None:
    """Copies the weights in; tensors that the backbone lacks (a classifier) are left aside."""
    own_weights = backbone.state_dict()
    # Older files do not count batches, and nothing depends on the count.
    counts = {name for name in own_weights if name.endswith("num_batches_tracked")}
    weights = {**{name: own_weights[name] for name in counts}, **weights}
    if faults := weight_faults(weights, own_weights):
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(f"--backbone.weights: {source}: {', '.join(faults[:3])}{more}.")
    backbone.load_state_dict({name: weights[name] for name in own_weights})


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite2,
    "googlenet": googlenet,
    "googlenet_bn": googlenet_bn,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
}
