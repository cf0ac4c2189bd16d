"""Models: ``image -> Prediction``, one file an architecture."""

from collections.abc import Callable

from torch import nn

from relocal.models.posenet import PoseNet, PoseNetConfig

MODELS: dict[str, Callable[..., nn.Module]] = {
    "posenet": PoseNet,
}

__all__ = ["MODELS", "PoseNet", "PoseNetConfig"]
