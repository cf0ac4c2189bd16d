"""Two walks through the synthetic room, filmed: frames, poses and map points in a folder."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64, Int

from relocal.datasets.room.config import Pinhole, RoomConfig
from relocal.datasets.room.landmarks import Landmarks, scatter, visible
from relocal.datasets.room.renderer import Room, build_room, photograph, see
from relocal.datasets.room.sensor import expose, motion_px
from relocal.datasets.room.textures import Image
from relocal.datasets.room.walk import walk, wander
from relocal.scene.files import Progress

_EXPOSURE_PERIOD_FRAMES = 150.0
_JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequence:
    """One walk. Frames can be made in any order, and come out the same."""

    number: int
    split: str
    config: RoomConfig
    room: Room
    poses: Float64[np.ndarray, "N 4 4"]
    """world_from_cam, OpenCV axes, metres."""
    stops: Float64[np.ndarray, " N"]
    """Exposure of each frame."""

    @property
    def camera(self) -> Pinhole:
        """The camera of every frame."""
        return self.config.camera

    def name(self, index: int) -> str:
        """The name of a frame."""
        return f"seq-{self.number:02d}/frame-{index:06d}.jpg"

    def frame(self, index: int) -> Image:
        """Takes a frame, RGB."""
        # The last frame has no next one: it moves as it did to get there.
        start = max(0, min(index, len(self.poses) - 2))
        following = min(start + 1, len(self.poses) - 1)
        moved = motion_px(self.poses[start], self.poses[following], self.camera)
        return expose(
            photograph(self.room, self.poses[index], self.camera),
            self.config,
            stops=float(self.stops[index]),
            motion_px=self.config.shutter * moved,
            rng=self.config.rng("noise", self.number, index),
        )

    def sees(
        self, index: int, landmarks: Landmarks
    ) -> tuple[Int[np.ndarray, " M"], Float64[np.ndarray, "M 2"]]:
        """The indices of the landmarks in a frame, and their pixels."""
        pose = self.poses[index]
        return visible(landmarks, see(self.room, pose, self.camera), pose, self.camera)


def film(config: RoomConfig) -> tuple[Sequence, Sequence, Landmarks]:
    """Builds the room and plans both walks.

    Returns:
        The training sequence, the test sequence, and the map points of the room, seen or not.
    """
    room = build_room(config)

    def plan(number: int, split: str, frames: int, lap_frames: int) -> Sequence:
        swing = wander(config.rng("exposure", number), frames, _EXPOSURE_PERIOD_FRAMES)
        return Sequence(
            number=number,
            split=split,
            config=config,
            room=room,
            poses=walk(config.rng("walk", number), frames, lap_frames),
            stops=config.exposure_stops * swing,
        )

    return (
        plan(1, "train", config.train_frames, config.train_lap_frames),
        plan(2, "test", config.test_frames, config.test_lap_frames),
        scatter(room, config.points, config.rng("points")),
    )


def record(folder: Path, config: RoomConfig, progress: Progress) -> dict[str, Any]:
    """Writes the frames and the map points of a room.

    Args:
        folder: Where to; it exists.
        config: What to make.
        progress: Called with the number of frames done and of all.

    Returns:
        What was made, for JSON: the camera, and the name, split and pose of each frame.
    """
    train, test, landmarks = film(config)
    jobs = [(sequence, i) for sequence in (train, test) for i in range(len(sequence.poses))]

    def shoot(job: tuple[Sequence, int]) -> None:
        sequence, index = job
        _write_jpeg(folder / sequence.name(index), sequence.frame(index))

    for sequence in (train, test):
        (folder / sequence.name(0)).parent.mkdir()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            for done, _ in enumerate(pool.map(shoot, jobs), start=1):
                progress(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _write_points(folder / "points.npz", train, landmarks)
    return {
        "camera": asdict(config.camera),
        "frames": [
            {
                "image": sequence.name(index),
                "split": sequence.split,
                "world_from_cam": sequence.poses[index].tolist(),
            }
            for sequence, index in jobs
        ],
    }


def _write_jpeg(file: Path, rgb: Image) -> None:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), quality)
    file.write_bytes(data.tobytes())


def _write_points(file: Path, train: Sequence, landmarks: Landmarks) -> None:
    """Saves the landmarks that training frames see: a map knows nothing of test images."""
    seen = [train.sees(index, landmarks) for index in range(len(train.poses))]
    kept, point_index = np.unique(np.concatenate([i for i, _ in seen]), return_inverse=True)
    np.savez_compressed(
        file,
        xyz=landmarks.xyz[kept],
        rgb=landmarks.rgb[kept],
        # Training frames are the first of all.
        image_index=np.repeat(np.arange(len(seen)), [len(i) for i, _ in seen]),
        point_index=point_index,
        xy=np.concatenate([xy for _, xy in seen]).astype(np.float32),
    )
