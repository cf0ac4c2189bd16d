"""Two walks through the synthetic room, filmed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from relocal.datasets.room.config import Pinhole, RoomConfig
from relocal.datasets.room.landmarks import Landmarks, scatter, visible
from relocal.datasets.room.renderer import Room, build_room, photograph, see
from relocal.datasets.room.sensor import expose, motion_px
from relocal.datasets.room.textures import Image
from relocal.datasets.room.walk import walk, wander

_EXPOSURE_PERIOD_FRAMES = 150


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequence:
    """One walk. Frames can be made in any order, and come out the same."""

    config: RoomConfig
    number: int
    """1 for training, 2 for test."""
    room: Room
    poses: Float64[np.ndarray, "N 4 4"]
    """world_from_cam, OpenCV axes, metres."""
    stops: Float64[np.ndarray, " N"]
    """Exposure of each frame."""

    @property
    def camera(self) -> Pinhole:
        """The camera of every frame."""
        return self.config.camera

    def frame(self, index: int) -> Image:
        """Takes one frame, RGB."""
        config, poses = self.config, self.poses
        # The last frame has no next one: it moves as it did to get there.
        start = max(0, min(index, len(poses) - 2))
        moved = motion_px(poses[start], poses[min(start + 1, len(poses) - 1)], self.camera)
        return expose(
            photograph(self.room, poses[index], self.camera),
            config,
            stops=float(self.stops[index]),
            motion_px=config.shutter * moved,
            rng=config.rng("noise", self.number, index),
        )

    def sees(
        self, index: int, landmarks: Landmarks
    ) -> tuple[Int[np.ndarray, " M"], Float64[np.ndarray, "M 2"]]:
        """The indices of the landmarks in a frame, and their pixels."""
        pose = self.poses[index]
        return visible(landmarks, see(self.room, pose, self.camera), pose, self.camera)


def film(config: RoomConfig) -> tuple[Sequence, Sequence, Landmarks]:
    """Builds the room and plans the training and the test sequence.

    Returns:
        seq-01, seq-02, and the map points of the room, seen or not.
    """
    room = build_room(config)
    plans = (
        (1, config.train_frames, config.train_lap_frames),
        (2, config.test_frames, config.test_lap_frames),
    )
    train, test = (
        Sequence(
            config=config,
            number=number,
            room=room,
            poses=walk(config.rng("walk", number), frames, lap),
            stops=config.exposure_stops
            * wander(config.rng("exposure", number), frames, _EXPOSURE_PERIOD_FRAMES),
        )
        for number, frames, lap in plans
    )
    return train, test, scatter(room, config.points, config.rng("points"))
