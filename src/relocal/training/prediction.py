"""What a trained network says of images, batch by batch."""

import torch
from jaxtyping import Float
from torch import Tensor

from relocal.backbones import Stage
from relocal.camera import Camera
from relocal.models import PoseNet
from relocal.pose import Pose
from relocal.training.features import cells_corner, central_cells
from relocal.training.views import central_view
from relocal.types import Prediction

_BATCH = 64


@torch.no_grad()
def predict(
    model: PoseNet,
    images: Tensor,
    camera: Camera,
    window: Camera,
    cached: Stage = "none",
    device: torch.device | str = "cpu",
) -> Pose:
    """Poses (n,) of images, relative to the run's origin, in float32, on the CPU.

    Arguments as ``predictions`` takes them; ``Run.in_world`` makes them poses of the world.
    """
    return predictions(model, images, camera, window, cached, device).pose()


@torch.no_grad()
def predictions(
    model: PoseNet,
    images: Tensor,
    camera: Camera,
    window: Camera,
    cached: Stage = "none",
    device: torch.device | str = "cpu",
) -> Prediction:
    """What a network says of images, relative to the run's origin, in float32, on the CPU.

    Args:
        model: The network.
        images: Images of the training camera, uint8, or their features as they are cached.
        camera: The training camera.
        window: Its part that the network sees.
        cached: The part of the backbone whose features the network was trained on.
        device: Where the network is.
    """
    was_training = model.training
    if was_training:  # setting it in all modules takes as long as a third of the network
        model.eval()
    parts = [
        model.answer(seen_features(model, batch.to(device), camera, window, cached))
        for batch in images.split(_BATCH)
    ]
    if was_training:
        model.train()
    sure = [part.log_var for part in parts if part.log_var is not None]
    return Prediction(
        torch.cat([part.position for part in parts]).cpu(),
        torch.cat([part.rotation for part in parts]).cpu(),
        model.rotation_name,
        torch.cat(sure).cpu() if sure else None,
    )


def seen_features(
    model: PoseNet, batch: Tensor, camera: Camera, window: Camera, cached: Stage
) -> Float[Tensor, "B n"]:
    """What the head sees of a batch; arguments as ``predictions`` takes them."""
    pixels = batch.dtype == torch.uint8
    if cached == "stem":
        maps = model.backbone.stem(batch.float()) if pixels else batch
        return model.features(central_cells(maps, cells_corner(camera, window), window), "stem")
    if pixels:
        return model.features(central_view(batch, window))
    return model.features(batch[:, 0].float(), "all")  # the view that did not turn
