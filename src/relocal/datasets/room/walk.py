"""How the camera moves: in the hand of someone who goes round the room and looks across it.

How far a walk strays is the same for every seed, so that all walks share one space. The numbers
are such that the nearest of 400 training frames at 240 a lap is, in the median, about 4 % of the
room's diagonal and 7 degrees away from a test frame: near enough to learn from, far enough to be
beaten.
"""

import numpy as np
from jaxtyping import Float64

from relocal.datasets.room.layout import FREE_BOX_M

_RADIUS, _RADIUS_SWING = 0.55, 0.36  # of the half width of the free box
_HEIGHT_SWING = 0.9  # of the half height of the free box
_YAW_SWING_DEG = 22.0
_PITCH_DEG, _PITCH_SWING_DEG = -9.0, 5.0
_ROLL_SWING_DEG = 2.0
_TREMOR_M, _TREMOR_DEG = 0.004, 0.25
_TREMOR_FRAMES = 4.0
_WAVES = 4


def walk(
    rng: np.random.Generator, frames: int, lap_frames: int
) -> Float64[np.ndarray, "frames 4 4"]:
    """Poses of a walk.

    Args:
        rng: Decides where exactly it goes.
        frames: How many poses.
        lap_frames: Frames for one time around the room.

    Returns:
        world_from_cam, OpenCV axes, metres; all positions inside FREE_BOX_M.
    """

    def drift(laps: float, peak: float) -> Float64[np.ndarray, " frames"]:
        return peak * wander(rng, frames, laps * lap_frames)

    def tremble(peak: float) -> Float64[np.ndarray, "frames 3"]:
        return np.stack([peak * wander(rng, frames, _TREMOR_FRAMES) for _ in range(3)], axis=1)

    angle = 2 * np.pi * np.arange(frames) / lap_frames + drift(0.8, 0.35)
    radius = _RADIUS + drift(0.35, _RADIUS_SWING)
    height = drift(0.3, _HEIGHT_SWING)
    unit = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    lower, upper = np.array(FREE_BOX_M)
    position = (lower + upper) / 2 + (upper - lower) / 2 * unit + tremble(_TREMOR_M)

    shake = np.radians(tremble(_TREMOR_DEG))
    yaw = angle + np.pi + np.radians(drift(0.5, _YAW_SWING_DEG)) + shake[:, 0]
    pitch = np.radians(_PITCH_DEG + drift(0.3, _PITCH_SWING_DEG)) + shake[:, 1]
    roll = np.radians(drift(0.25, _ROLL_SWING_DEG)) + shake[:, 2]
    return _look(position, yaw, pitch, roll)


def wander(
    rng: np.random.Generator, frames: int, period_frames: float
) -> Float64[np.ndarray, " frames"]:
    """A smooth random signal between -1 and 1 whose waves are about `period_frames` long."""
    strength = rng.uniform(0.5, 1.0, _WAVES)
    frequency = rng.uniform(0.7, 1.4, _WAVES) / period_frames
    phase = rng.uniform(0, 2 * np.pi, _WAVES)
    waves = np.sin(2 * np.pi * np.arange(frames)[:, None] * frequency + phase)
    # The sine of the sum goes far out more often than the sum does, and stays within bounds.
    return np.sin(np.pi * (waves @ strength) / strength.sum())


def _look(
    position: Float64[np.ndarray, "N 3"],
    yaw: Float64[np.ndarray, " N"],
    pitch: Float64[np.ndarray, " N"],
    roll: Float64[np.ndarray, " N"],
) -> Float64[np.ndarray, "N 4 4"]:
    """Poses from angles in radians: yaw from east to north, pitch upwards, roll clockwise."""
    level = np.zeros_like(yaw)
    forward = np.stack(
        [np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=1
    )
    right = np.stack([np.sin(yaw), -np.cos(yaw), level], axis=1)
    down = np.cross(forward, right)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    axes = np.stack([c * right + s * down, c * down - s * right, forward], axis=2)
    pose = np.tile(np.eye(4), (len(position), 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = axes, position
    return pose
