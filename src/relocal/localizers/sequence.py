"""Sequence: poses of the frames of a video, filtered with how a camera can move.

An extended Kalman filter on position, rotation and their velocities, which stay as they are but for
random accelerations. The error of a rotation is a small turn of the camera about its own axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from relocal.errors import InputError
from relocal.pose import (
    Pose,
    quaternion_conjugate,
    quaternion_exp,
    quaternion_log,
    quaternion_multiply,
    quaternion_to_matrix,
)

GATE = 22.46  # 99.9 % of chi-squared with six degrees of freedom
LOST = 4  # estimates in a row that do not fit, after which the filter begins anew
_MEDIAN_CHI2_3 = 2.366
_BEND = 2 / 3  # variance of a second difference of twice integrated white noise
_LEAST = 1e-9  # of the path, and of a degree: what never moves unevenly would be sure of all
_FAST = 100.0  # accelerations that an unknown velocity may come from
_PLACE, _SPEED = slice(0, 6), slice(6, 12)  # of the state's error: x and turn, and their velocities


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How a camera moves: how much its velocities change in a frame, as standard deviations.

    The acceleration is white noise, so that the same holds for any time between two estimates.

    Raises:
        InputError: If one is not positive.
    """

    acceleration: float
    """Change of the velocity in a frame, per axis, in the scene's unit over frames."""
    turn_acceleration_deg: float
    """Change of the turning in a frame, per axis, in degrees over frames."""

    def __post_init__(self) -> None:
        for name in ("acceleration", "turn_acceleration_deg"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise InputError(f"--motion.{name.replace('_', '-')}: must be above 0: {value}.")


@dataclass(frozen=True)
class Measured:
    """One frame's estimate, with how sure it is."""

    pose: Pose
    """``world_from_cam``, batch shape ()."""
    sigma: float
    """Standard deviation per axis of the position, in the scene's unit."""
    sigma_deg: float
    """Standard deviation per axis of the rotation vector, in degrees."""

    def __post_init__(self) -> None:
        if not (0 < self.sigma < np.inf and 0 < self.sigma_deg < np.inf):
            raise InputError(
                f"an estimate with spreads {self.sigma:g} and {self.sigma_deg:g} cannot be "
                "filtered; they must be above 0."
            )


def measured(pose: Pose | None, sigma: float | None, sigma_deg: float | None) -> Measured | None:
    """An estimate for the filter, None where there is none or nobody knows how sure it is."""
    if pose is None or sigma is None or sigma_deg is None:
        return None
    if not (0 < sigma < np.inf and 0 < sigma_deg < np.inf):
        return None
    return Measured(pose, sigma, sigma_deg)


@dataclass(frozen=True)
class Filtered:
    """What the filter knows after a frame."""

    pose: Pose
    """``world_from_cam``, batch shape (), float64."""
    sigma: float
    """Standard deviation per axis of the position, in the scene's unit."""
    sigma_deg: float
    """Standard deviation per axis of the rotation vector, in degrees."""
    used: bool
    """Whether the frame's own estimate took part: it was there, and fitted."""


@dataclass(frozen=True)
class _State:
    pose: Pose
    velocity: Float[Tensor, "3"]
    """Of the position, in the world."""
    turning: Float[Tensor, "3"]
    """Of the rotation vector, in the camera's frame."""
    covariance: Float[Tensor, "12 12"]
    """Of the errors of position, turn, velocity and turning."""
    misfits: int = 0
    """Estimates in a row that did not fit."""


def fit_motion(
    poses: Pose, recordings: Sequence[str], frames: Sequence[float] | None = None
) -> Motion:
    """How the camera moved in recordings whose poses are known, from their second differences.

    Args:
        poses: Poses of frames in the order of recording, (n,).
        recordings: The recording of each; differences are taken within one.
        frames: When each was taken, in frames; by default one after another. Differences are of
            three that are equally far apart.

    Raises:
        InputError: If no recording has three frames.
    """
    names = np.array(recordings)
    gaps = np.diff(np.arange(len(names)) if frames is None else np.asarray(frames, float))
    same = (names[2:] == names[1:-1]) & (names[1:-1] == names[:-2])
    rows = np.flatnonzero(same & (gaps[1:] == gaps[:-1]) & (gaps[1:] > 0))
    if not len(rows):
        raise InputError("a motion is fitted to three frames of one recording or more.")
    index = torch.from_numpy(rows)
    x, q = poses.position.double(), poses.quaternion.double()
    bend = x[index + 2] - 2 * x[index + 1] + x[index]
    step = 2 * quaternion_log(quaternion_multiply(quaternion_conjugate(q[:-1]), q[1:]))
    twist = torch.rad2deg(step[index + 1] - step[index])
    # The variance of a second difference grows with the third power of the time between frames.
    apart = torch.from_numpy(gaps[rows, None] ** 1.5)
    extent = float((x.amax(0) - x.amin(0)).norm()) or 1.0
    return Motion(
        acceleration=_spread(bend / apart, _LEAST * extent),
        turn_acceleration_deg=_spread(twist / apart, _LEAST),
    )


def _spread(values: Float[Tensor, "n 3"], least: float) -> float:
    """What second differences say of the noise, from their median length: jumps do not count."""
    variance = values.square().sum(1).median() / _MEDIAN_CHI2_3
    return max(float((variance / _BEND).sqrt()), least)


def filter_poses(
    estimates: Sequence[Measured | None], motion: Motion, frames: Sequence[float] | None = None
) -> list[Filtered | None]:
    """Filters the estimates of the frames of a recording, each with those before it.

    An estimate that does not fit what the motion allows (99.9 %) takes no part; after four in a
    row the filter begins anew with the next one.

    Args:
        estimates: An estimate a frame, None where there is none.
        motion: How the camera moves.
        frames: When each was taken, in frames, ascending; by default one after another.

    Returns:
        What is known after each frame; None before the first estimate.

    Raises:
        InputError: If the times do not ascend.
    """
    times = range(len(estimates)) if frames is None else frames
    if len(times) != len(estimates):
        raise InputError("frames: one time an estimate is needed.")
    filter = PoseFilter(motion)
    return [filter.step(one, float(time)) for one, time in zip(estimates, times, strict=True)]


class PoseFilter:
    """The same, frame by frame.

    Args:
        motion: How the camera moves.
    """

    def __init__(self, motion: Motion) -> None:
        self.motion = motion
        self._state: _State | None = None
        self._time = -np.inf

    def step(self, estimate: Measured | None, time: float) -> Filtered | None:
        """What is known after a frame; None before the first estimate.

        Args:
            estimate: Of this frame alone, None where there is none.
            time: When it was taken, in frames.

        Raises:
            InputError: If the frame was taken before the last one.
        """
        if not time > self._time:
            raise InputError(f"frames: times must ascend; {time:g} comes after {self._time:g}.")
        if self._state is not None:
            self._state = _predict(self._state, time - self._time, self.motion)
        self._time = time
        self._state, used = _update(self._state, estimate, self.motion)
        return None if self._state is None else _known(self._state, used)


def _start(estimate: Measured, motion: Motion) -> _State:
    fast = (_FAST * _accelerations(motion)).square().repeat_interleave(3)
    spread = torch.cat([_noise(estimate), fast])
    zero = torch.zeros(3, dtype=torch.float64)
    pose = estimate.pose.to(torch.float64)
    return _State(pose, zero, zero, torch.diag(spread))


def _accelerations(motion: Motion) -> Float[Tensor, "2"]:
    """Standard deviations of the changes of velocity and turning (radians) in a frame."""
    values = [motion.acceleration, np.deg2rad(motion.turn_acceleration_deg)]
    return torch.tensor(values, dtype=torch.float64)


def _noise(estimate: Measured) -> Float[Tensor, "6"]:
    """Variances of position and rotation vector of an estimate."""
    sigmas = torch.tensor([estimate.sigma, np.deg2rad(estimate.sigma_deg)], dtype=torch.float64)
    return sigmas.square().repeat_interleave(3)


def _predict(state: _State, time: float, motion: Motion) -> _State:
    turn = quaternion_exp(time * state.turning / 2)
    pose = Pose(
        state.pose.position + time * state.velocity,
        quaternion_multiply(state.pose.quaternion, turn),
    )
    change = torch.eye(12, dtype=torch.float64)
    change[_PLACE, _SPEED] = time * torch.eye(6, dtype=torch.float64)
    change[3:6, 3:6] = quaternion_to_matrix(turn).T  # the error is seen from the turned camera
    sigmas = _accelerations(motion)
    # White acceleration, integrated once and twice (Bar-Shalom, Li & Kirubarajan 2001, 6.2.2).
    rows = [[time**3 / 3, time**2 / 2], [time**2 / 2, time]]
    times = torch.tensor(rows, dtype=torch.float64)
    noise = torch.kron(times, torch.diag(sigmas.square().repeat_interleave(3)))
    covariance = change @ state.covariance @ change.T + noise
    return replace(state, pose=pose, covariance=covariance)


def _update(
    state: _State | None, estimate: Measured | None, motion: Motion
) -> tuple[_State | None, bool]:
    """The state with what a frame says, and whether it took part."""
    if estimate is None:
        return state, False
    if state is None or state.misfits >= LOST:
        return _start(estimate, motion), True
    there = estimate.pose.to(torch.float64)
    back = quaternion_conjugate(state.pose.quaternion)
    turned = 2 * quaternion_log(quaternion_multiply(back, there.quaternion))
    gap = torch.cat([there.position - state.pose.position, turned])
    noise = torch.diag(_noise(estimate))
    expected = state.covariance[_PLACE, _PLACE] + noise
    if float(gap @ torch.linalg.solve(expected, gap)) > GATE:
        return replace(state, misfits=state.misfits + 1), False
    gain = torch.linalg.solve(expected, state.covariance[_PLACE]).T
    step = gain @ gap
    rest = torch.eye(12, dtype=torch.float64)
    rest[:, _PLACE] -= gain
    covariance = rest @ state.covariance @ rest.T + gain @ noise @ gain.T  # Joseph's form
    pose = Pose.from_quaternion(
        state.pose.position + step[:3],
        quaternion_multiply(state.pose.quaternion, quaternion_exp(step[3:6] / 2)),
    )
    return _State(pose, state.velocity + step[6:9], state.turning + step[9:], covariance), True


def _known(state: _State, used: bool) -> Filtered:
    spread = state.covariance.diagonal()
    sigma, turn = spread[:3].mean().sqrt(), spread[3:6].mean().sqrt()
    return Filtered(state.pose.canonical(), float(sigma), float(torch.rad2deg(turn)), used)
