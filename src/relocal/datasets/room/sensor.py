"""What a camera adds to a picture: blur of motion and lens, exposure, noise."""

import cv2
import numpy as np
from jaxtyping import Float

from relocal.datasets.room.config import Pinhole, RoomConfig
from relocal.datasets.room.textures import Image, to_image

_GAMMA = 2.2  # pixel values stand for light to this power
_TYPICAL_DEPTH_M = 2.5


def expose(
    image: Image,
    config: RoomConfig,
    *,
    stops: float,
    motion_px: Float[np.ndarray, "2"],
    rng: np.random.Generator,
) -> Image:
    """The picture as the sensor gives it.

    Args:
        image: RGB, what the lens is pointed at.
        config: How strong blur and noise are.
        stops: Exposure; each stop doubles the light.
        motion_px: How far the picture moves while the shutter is open.
        rng: Source of the noise.
    """
    values = _smear(image.astype(np.float32), motion_px)
    if config.blur_px > 0:
        values = cv2.GaussianBlur(values, (0, 0), config.blur_px)
    values *= 2 ** (stops / _GAMMA)
    if config.noise_levels > 0:
        noise = rng.standard_normal(image.shape, np.float32)
        values += np.float32(config.noise_levels) * noise
    return to_image(values + 0.5)


def motion_px(
    world_from_cam: Float[np.ndarray, "4 4"], following: Float[np.ndarray, "4 4"], camera: Pinhole
) -> Float[np.ndarray, "2"]:
    """How far the middle of the picture moves from one pose to the next."""
    middle = np.array([0, 0, _TYPICAL_DEPTH_M, 1])
    moved = camera.matrix @ (np.linalg.inv(following) @ world_from_cam @ middle)[:3]
    return moved[:2] / moved[2] - np.array([camera.cx_px, camera.cy_px])


def _smear(values: np.ndarray, motion: Float[np.ndarray, "2"]) -> np.ndarray:
    """The mean of the picture (H, W, 3) over a straight shift, centred."""
    steps = int(np.ceil(np.linalg.norm(motion)))
    if steps < 1:
        return values
    size = values.shape[1::-1]
    shifted = (
        cv2.warpAffine(
            values, np.array([[1, 0, x], [0, 1, y]]), size, borderMode=cv2.BORDER_REPLICATE
        )
        for x, y in np.linspace(-0.5, 0.5, steps + 1)[:, None] * motion
    )
    return sum(shifted, np.zeros_like(values)) / np.float32(steps + 1)
