"""What else the numbers of poses may mean: conventions that are taken for one another.

Each entry says what the numbers would be, and makes of poses that were read as ``world_from_cam``
of OpenCV's camera those that were meant. Only what images can tell apart is here: a turn,
a shift or another length of the whole world changes nothing between its cameras.
"""

from collections.abc import Callable

import torch

from relocal.pose import Pose, matrix_to_quaternion, quaternion_rotate

Reading = Callable[[Pose], Pose]


def _camera(*axes: tuple[int, int, int]) -> Reading:
    """Poses whose camera has other axes; where they are left-handed, in a mirrored world.

    Args:
        axes: Where the camera's right, down and ahead lie on the axes of the file.
    """
    turn = torch.tensor(axes, dtype=torch.float64).T
    world = torch.eye(3, dtype=torch.float64)
    # Which axis of the world is mirrored is a turn of the world, and no image can tell.
    world[2, 2] = torch.linalg.det(turn).round()

    def meant(poses: Pose) -> Pose:
        rotation = world @ poses.rotation.double() @ turn
        return Pose(poses.position.double() @ world, matrix_to_quaternion(rotation))

    return meant


def _signs(x: int, y: int, z: int) -> Reading:
    return _camera((x, 0, 0), (0, y, 0), (0, 0, z))


def _quaternion(*order: int) -> Reading:
    return lambda poses: Pose(poses.position, poses.quaternion[:, list(order)])


def _position(*order: int) -> Reading:
    return lambda poses: Pose(poses.position[:, list(order)], poses.quaternion)


def _turned_back(poses: Pose) -> Pose:
    return Pose(poses.position, poses.inverse().quaternion)


def _centre_of_translation(poses: Pose) -> Pose:
    return Pose(-quaternion_rotate(poses.quaternion, poses.position), poses.quaternion)


READINGS: dict[str, Reading] = {
    "the camera's axes are x right, y up, z back (OpenGL's)": _signs(1, -1, -1),
    "the camera's axes are x left, y up, z ahead (PyTorch3D's)": _signs(-1, -1, 1),
    "the camera's axes are x left, y down, z back": _signs(-1, 1, -1),
    "the world is mirrored, and the camera's x axis points left": _signs(-1, 1, 1),
    "the world is mirrored, and the camera's y axis points up": _signs(1, -1, 1),
    "the world is mirrored, and the camera's z axis points back": _signs(1, 1, -1),
    "the positions point the other way (x, y and z)": _signs(-1, -1, -1),
    "the camera's axes are x ahead, y left, z up (a robot's)": _camera(
        (0, -1, 0), (0, 0, -1), (1, 0, 0)
    ),
    "the camera's axes are x ahead, y right, z down": _camera((0, 1, 0), (0, 0, 1), (1, 0, 0)),
    "the camera's axes are x down, y left, z ahead": _camera((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "the camera's axes are x up, y right, z ahead": _camera((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    "the poses are cam_from_world": Pose.inverse,
    "the rotations are cam_from_world, and the positions are not": _turned_back,
    "the positions are translations of cam_from_world": _centre_of_translation,
    "the quaternions have w last, where it was read as the first": _quaternion(3, 0, 1, 2),
    "the quaternions have w first, where it was read as the last": _quaternion(1, 2, 3, 0),
    "the positions have x and y exchanged": _position(1, 0, 2),
    "the positions have x and z exchanged": _position(2, 1, 0),
    "the positions have y and z exchanged": _position(0, 2, 1),
}
"""By what the numbers would be: the poses that were meant."""
