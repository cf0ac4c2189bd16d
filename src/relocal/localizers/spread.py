"""The middle of several answers about one photo, and how far they scatter."""

import torch

from relocal.pose import (
    Pose,
    mean_quaternion,
    quaternion_conjugate,
    quaternion_log,
    quaternion_multiply,
)


def middle_and_spread(poses: Pose) -> tuple[Pose, float, float]:
    """The mean pose, and standard deviations per axis of position and rotation vector (degrees).

    Args:
        poses: Two or more answers, (n,).
    """
    poses = poses.to(torch.float64)
    first = poses.position[0]  # differences from it keep their digits
    middle = Pose(
        first + (poses.position - first).mean(0), mean_quaternion(poses.quaternion)
    ).canonical()
    back = quaternion_conjugate(middle.quaternion).expand_as(poses.quaternion)
    turned = 2 * quaternion_log(quaternion_multiply(back, poses.quaternion))
    free = 3 * (len(poses) - 1)
    position = ((poses.position - middle.position).square().sum() / free).sqrt()
    rotation = (turned.square().sum() / free).sqrt()
    return middle, float(position), float(torch.rad2deg(rotation))
