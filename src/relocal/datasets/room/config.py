"""What to make: the camera, the frames, the look of the synthetic room."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from relocal.errors import InputError

_FOCAL_PER_WIDTH = 0.9  # a horizontal field of view of 58 degrees
_PURPOSES = ("paint", "walk", "exposure", "noise", "points")


@dataclass(frozen=True, kw_only=True)
class Pinhole:
    """A camera without distortion; pixels as COLMAP counts them."""

    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float

    @property
    def matrix(self) -> Float64[np.ndarray, "3 3"]:
        """The intrinsic matrix K."""
        return np.array([[self.fx_px, 0, self.cx_px], [0, self.fy_px, self.cy_px], [0, 0, 1.0]])


@dataclass(frozen=True, kw_only=True)
class RoomConfig:
    """The synthetic room and its two recordings.

    Raises:
        InputError: If a value makes no sense; the message names it.
    """

    train_frames: int = 400
    """Frames of seq-01, the training sequence."""
    test_frames: int = 100
    """Frames of seq-02, the test sequence: another walk through the same part of the room."""
    train_lap_frames: int = 240
    """Frames of seq-01 for one walk around: more make slower motion."""
    test_lap_frames: int = 120
    """Frames of seq-02 for one walk around."""
    width_px: int = 320
    """Image width."""
    height_px: int = 240
    """Image height."""
    focal_px: float | None = None
    """Focal length; 0.9 image widths unless given."""
    textureless: bool = False
    """Plain paint everywhere instead of patterns and pictures: a hard room for matching."""
    points: int = 4000
    """Map points on the surfaces; those that no training frame sees are dropped."""
    exposure_stops: float = 0.2
    """Largest change of exposure over a sequence, either way, in stops."""
    noise_levels: float = 2.0
    """Standard deviation of the sensor noise, in levels of 255."""
    blur_px: float = 0.0
    """Standard deviation of the lens blur."""
    shutter: float = 0.0
    """Share of the time between frames that the shutter is open: motion blur."""
    seed: int = 0
    """The paint, the walks and the noise follow from it; the furniture never moves."""

    def __post_init__(self) -> None:
        for name in ("train_frames", "test_frames"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        self._check("points", 1 <= self.points <= 30_000, "1 to 30000")
        for name in ("train_lap_frames", "test_lap_frames"):
            self._check(name, getattr(self, name) >= 20, "at least 20")
        for name in ("width_px", "height_px"):
            self._check(name, 16 <= getattr(self, name) <= 4096, "16 to 4096")
        for name in ("exposure_stops", "noise_levels", "blur_px"):
            self._check(name, 0 <= getattr(self, name) < np.inf, "0 or more")
        self._check("shutter", 0 <= self.shutter <= 1, "0 to 1")
        self._check("seed", self.seed >= 0, "0 or more")
        if self.focal_px is not None:
            longest = 20 * max(self.width_px, self.height_px)
            shortest = 0.1 * max(self.width_px, self.height_px)
            wanted = f"{shortest:g} to {longest:g} for images of this size"
            self._check("focal_px", shortest <= self.focal_px <= longest, wanted)

    def _check(self, name: str, good: bool, wanted: str) -> None:
        if not good:
            raise InputError(f"{name}: must be {wanted}, not {getattr(self, name)!r}.")

    @property
    def camera(self) -> Pinhole:
        """The camera of every frame, its principal point in the middle."""
        focal = self.focal_px or _FOCAL_PER_WIDTH * self.width_px
        return Pinhole(
            width_px=self.width_px,
            height_px=self.height_px,
            fx_px=focal,
            fy_px=focal,
            cx_px=self.width_px / 2,
            cy_px=self.height_px / 2,
        )

    def rng(self, purpose: str, *index: int) -> np.random.Generator:
        """Randomness of its own for each purpose and thing, so that none shifts another."""
        return np.random.default_rng([self.seed, _PURPOSES.index(purpose), *index])
