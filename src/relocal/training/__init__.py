"""Training: Scene + model + loss -> Run."""

from relocal.training.config import PRESETS, TrainConfig, ViewConfig
from relocal.training.loop import predict, train
from relocal.training.run import Run, load_run, stored_config

__all__ = [
    "PRESETS",
    "Run",
    "TrainConfig",
    "ViewConfig",
    "load_run",
    "predict",
    "stored_config",
    "train",
]
