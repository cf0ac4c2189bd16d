"""Models: ``image -> Prediction``, one file an architecture."""

from collections.abc import Callable

from relocal.models.posenet import PoseNet, PoseNetConfig

MODELS: dict[str, Callable[..., PoseNet]] = {
    "posenet": PoseNet,
}

__all__ = ["MODELS", "PoseNet", "PoseNetConfig"]
