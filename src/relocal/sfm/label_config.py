"""Options of ``relocal label``."""

from dataclasses import dataclass
from typing import Literal, get_args

from relocal.camera import FITTED_MODELS
from relocal.errors import InputError, unknown

Pairing = Literal["auto", "exhaustive", "neighbours"]
Mapper = Literal["incremental", "global"]

WORK = ".label"
"""What is added to a scene's name for the folder of what is made on the way."""
LOCK = ".lock"
"""In that folder, what is held while a process is at work there."""
ALL_UP_TO = 300
"""Photos of a folder that are all taken, however little they move."""
EXHAUSTIVE_UP_TO = 60
"""Photos of which every pair is matched; more are matched with those that look alike."""


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """How photos and videos are labelled."""

    step: float = 0.05
    """Motion in the picture between two frames that are taken of a video, as a share of its
    width."""
    frames: int = 1000
    """Most frames that are taken of a video."""
    rate: float | None = None
    """Most frames that are taken of a second of a video; none: as many as the motion asks for."""
    camera_model: str = "SIMPLE_RADIAL"
    """Lens model that is fitted: SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV,
    FULL_OPENCV; for wide angles SIMPLE_RADIAL_FISHEYE, RADIAL_FISHEYE, OPENCV_FISHEYE, others."""
    features: int = 4096
    """Most SIFT features a photo."""
    pairing: Pairing = "auto"
    """Pairs of photos that are matched: every one (exhaustive), or those that follow each other or
    look alike (neighbours); auto takes every pair of up to 60 photos."""
    mapper: Mapper = "incremental"
    """Photos placed one by one (incremental), or all at once (global)."""

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            raise InputError(f"--step: must be in (0, 1], not {self.step}.")
        if self.frames < 3:
            raise InputError(f"--frames: must be at least 3, not {self.frames}.")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise InputError(f"--rate: must be above 0, not {self.rate}.")
        if self.camera_model not in FITTED_MODELS:
            raise unknown("--camera-model", self.camera_model, FITTED_MODELS)
        if self.features < 100:
            raise InputError(f"--features: must be at least 100, not {self.features}.")
        for option, known in (("pairing", Pairing), ("mapper", Mapper)):
            if getattr(self, option) not in get_args(known):
                raise unknown(f"--{option}", getattr(self, option), get_args(known))
