"""Training: Scene + model + loss -> Run."""

from relocal.training.config import PRESETS, TrainConfig, ViewConfig
from relocal.training.loop import train
from relocal.training.prediction import predict, predictions
from relocal.training.run import Run, load_run, stored_config

__all__ = [
    "PRESETS",
    "Run",
    "TrainConfig",
    "ViewConfig",
    "load_run",
    "predict",
    "predictions",
    "stored_config",
    "train",
]
