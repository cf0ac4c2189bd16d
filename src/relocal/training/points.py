"""Map points in batches: for each image a few of those that it sees, drawn anew every time."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from relocal.camera import Camera
from relocal.pose import Pose
from relocal.scene import Points

POINTS_AN_IMAGE = 64


class PointSampler:
    """Draws map points that images see.

    Args:
        points: The scene's map points, relative to what the poses are relative to.
        images: How many images the scene has.
        train: The images whose observations count; what only others see is never drawn.
    """

    def __init__(self, points: Points, images: int, train: Int[Tensor, " n"]) -> None:
        kept = np.isin(points.image_index, train.numpy())
        image, point = points.image_index[kept], points.point_index[kept]
        order = np.argsort(image, kind="stable")
        self.xyz = torch.from_numpy(points.xyz).float()
        # One more, so that there is something to draw where no image sees any.
        self.point = torch.from_numpy(np.append(point[order], 0)).long()
        self.count = torch.from_numpy(np.bincount(image, minlength=images)).long()
        self.start = self.count.cumsum(0) - self.count

    def draw(
        self, index: Int[Tensor, " B"], poses: Pose, camera: Camera, generator: Generator
    ) -> tuple[Float[Tensor, "B P 3"], Bool[Tensor, "B P"]]:
        """Points of each image, with replacement, and which of them its camera sees.

        Args:
            index: The images.
            poses: Poses (B,) of the cameras that the network looks through.
            camera: These cameras, (B,).
            generator: Source of the randomness.
        """
        count = self.count[index][:, None]
        pick = (torch.rand(len(index), POINTS_AN_IMAGE, generator=generator) * count).long()
        # An image that sees no point draws another's, and none of them counts.
        place = (self.start[index][:, None] + pick).clamp(max=len(self.point) - 1)
        xyz = self.xyz[self.point[place]]
        _, visible = camera[:, None].project(poses.inverse()[:, None].apply(xyz))
        return xyz, visible & (count > 0)
