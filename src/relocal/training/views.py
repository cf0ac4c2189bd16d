"""Batches: from the image cache to what the network sees, with the labels that belong to it.

Whole batches are cropped, turned and jittered on the training device; there is no Python per
image.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F

from relocal.camera import Camera
from relocal.pose import Pose, quaternion_exp
from relocal.training.config import ViewConfig


def input_camera(camera: Camera, config: ViewConfig, cell_px: int = 1) -> Camera:
    """The central window of the training camera that the network sees.

    Args:
        camera: The training camera.
        config: How large the window is.
        cell_px: Sides and corner are whole multiples of it; more than 1 for crops of feature maps.
    """
    scale = 1 / config.margin
    width = config.input_px if config.shape == "square" else round(camera.width * scale)
    height = config.input_px if config.shape == "square" else round(camera.height * scale)
    wanted, whole = (width, height), (camera.width, camera.height)
    cells = [min(round(w / cell_px), n // cell_px) for w, n in zip(wanted, whole, strict=True)]
    left, top = ((n // cell_px - c) // 2 * cell_px for n, c in zip(whole, cells, strict=True))
    return camera.cropped(left, top, cells[0] * cell_px, cells[1] * cell_px)


def central_view(images: UInt8[Tensor, "B 3 H W"], camera: Camera) -> Float[Tensor, "B 3 h w"]:
    """The window that ``input_camera`` gave, as the network wants it: what serving sees."""
    left = (images.shape[3] - camera.width) // 2
    top = (images.shape[2] - camera.height) // 2
    window = images[..., top : top + camera.height, left : left + camera.width]
    return window.float().contiguous(memory_format=torch.channels_last)


def augmented_view(
    images: UInt8[Tensor, "B 3 H W"],
    poses: Pose,
    camera: Camera,
    window: Camera,
    config: ViewConfig,
    generator: Generator,
) -> tuple[Float[Tensor, "B 3 h w"], Pose, Camera]:
    """Draws one view of each image.

    A random crop moves the principal point, which a network sees as a small rotation that its
    label does not have. The virtual camera turns about its centre instead: the image is warped by
    the homography of that rotation and the label turns with it, so image and label agree.

    Args:
        images: Images of the training camera.
        poses: Their poses, (B,).
        camera: The training camera.
        window: The camera of the network's input.
        config: What is varied, and by how much.
        generator: Source of all randomness, on the CPU.

    Returns:
        Images in 0..255, poses (B,), and the cameras (B,) that saw them.
    """
    if config.augment == "virtual":
        turns = draw_turns(len(images), config, generator).to(images.device)
        view, poses = turned_view(images, turns, camera, window), turned_poses(poses, turns)
        cameras = expanded(window, len(images))
    elif config.augment == "crop":
        view, cameras = _random_crop(images, camera, window, generator)
    else:
        view, cameras = central_view(images, window), expanded(window, len(images))
    if config.jitter > 0:
        view = jittered(view, config.jitter, generator)
    return view.contiguous(memory_format=torch.channels_last), poses, cameras


def draw_turns(count: int, config: ViewConfig, generator: Generator) -> Float[Tensor, "n 3"]:
    """Rotation vectors of virtual cameras, old_from_new, on the CPU."""
    limit = math.radians(config.turn_deg)
    return _uniform((count, 3), -limit, limit, generator, torch.device("cpu"))


def turned_poses(poses: Pose, turns: Float[Tensor, "*batch 3"]) -> Pose:
    """The poses of cameras that turned on the spot."""
    turns = turns.to(poses.position)
    return poses @ Pose(torch.zeros_like(turns), quaternion_exp(turns / 2))


def turned_view(
    images: UInt8[Tensor, "B 3 H W"], turns: Float[Tensor, "B 3"], camera: Camera, window: Camera
) -> Float[Tensor, "B 3 h w"]:
    """What ``window`` would have seen of images of ``camera``, had the camera turned."""
    device = images.device
    rays = window.to(device).unproject(_pixel_centres(window, device)).float()
    turn = Pose(torch.zeros_like(turns), quaternion_exp(turns / 2)).rotation
    # The homography of a turn on the spot: K R applied to the rays of the turned camera.
    homography = camera.matrix().to(rays) @ turn  # (B, 3, 3)
    seen = rays.flatten(0, 1) @ homography.mT  # (B, h w, 3)
    pixels = (seen[..., :2] / seen[..., 2:]).unflatten(1, (window.height, window.width))
    return _sample(images, pixels)


def _random_crop(
    images: Tensor, camera: Camera, window: Camera, generator: Generator
) -> tuple[Tensor, Camera]:
    count = len(images)
    room = (camera.width - window.width, camera.height - window.height)
    left, top = (
        torch.randint(0, side + 1, (count,), generator=generator).to(images.device) for side in room
    )
    corner = torch.stack([left, top], dim=-1).float()[:, None, None]
    pixels = _pixel_centres(window, images.device).float() + corner
    cameras = camera.to(images.device).cropped(left, top, window.width, window.height)
    return _sample(images, pixels), cameras


def _sample(images: Tensor, pixels: Tensor) -> Tensor:
    size = pixels.new_tensor([images.shape[3], images.shape[2]])
    grid = 2 * pixels / size - 1
    return F.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def jittered(
    images: Float[Tensor, "B 3 h w"], amount: float, generator: Generator
) -> Float[Tensor, "B 3 h w"]:
    """Random brightness, contrast and saturation, one factor each an image."""
    factors = _uniform((3, len(images), 1, 1, 1), 1 - amount, 1 + amount, generator, images.device)
    brightness, contrast, saturation = factors
    grey = images.mean(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    # All three are affine in colour, so they fold into: a·image + b·grey + c.
    a = brightness * contrast * saturation
    b = brightness * contrast * (1 - saturation)
    c = brightness * (1 - contrast) * mean
    return (a * images + (b * grey + c)).clamp(0, 255)


def _uniform(
    shape: tuple[int, ...], low: float, high: float, generator: Generator, device: torch.device
) -> Tensor:
    # Drawn on the CPU so that every device sees the same numbers.
    return (low + (high - low) * torch.rand(shape, generator=generator)).to(device)


def _pixel_centres(camera: Camera, device: torch.device) -> Tensor:
    x = torch.arange(camera.width, device=device, dtype=torch.float64) + 0.5
    y = torch.arange(camera.height, device=device, dtype=torch.float64) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def expanded(camera: Camera, count: int) -> Camera:
    """One camera for each image of a batch."""
    return Camera(camera.model, camera.width, camera.height, camera.params.expand(count, -1))
