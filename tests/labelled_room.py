"""A rendered room of two recordings, and how well photos of it were placed."""

import numpy as np

from relocal.datasets.room.config import RoomConfig
from relocal.datasets.room.layout import ROOM_SIZE_M
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.scene import Scene
from relocal.sfm import LabelConfig
from relocal.sfm.alignment import fitted

ROOM = RoomConfig(
    train_frames=22,
    train_lap_frames=44,
    test_frames=12,
    test_lap_frames=24,
    width_px=240,
    height_px=180,
)
ROOM_DIAGONAL_M = float(np.linalg.norm(ROOM_SIZE_M[:2]))
QUICK = LabelConfig(features=1500)


def errors(scene: Scene, truth: dict[str, Pose]) -> tuple[float, float]:
    """Median errors after the similarity that fits best, as a share of the room, and degrees."""
    wanted = Pose.stack([truth[name] for name in scene.images])
    poses = fitted(scene.poses.position, wanted.position, "test").poses(scene.poses)
    moved = float(position_error(poses, wanted).median()) / ROOM_DIAGONAL_M
    return moved, float(rotation_error_deg(poses, wanted).median())
