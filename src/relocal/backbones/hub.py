"""Pretrained weights from the internet, for networks that no package carries weights of."""

from urllib.error import URLError

import torch
from torch import Tensor

from relocal.errors import InputError

URL = "https://download.pytorch.org/models"


def from_hub(backbone: str, file: str) -> dict[str, Tensor]:
    """Reads torchvision's ImageNet weights from torch.hub's cache, or downloads them into it.

    Args:
        backbone: Name of the backbone, for the message.
        file: Name of the file; the eight letters before its suffix begin its sha256, which is
            checked.

    Raises:
        InputError: If the file cannot be had or is not what its name says.
    """
    try:
        return torch.hub.load_state_dict_from_url(
            f"{URL}/{file}", map_location="cpu", check_hash=True, weights_only=True, progress=False
        )
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(
            f"--backbone.weights pretrained: the weights of {backbone} cannot be had from "
            f"{URL}/{file} ({error}). Put that file into {torch.hub.get_dir()}/checkpoints, give "
            "its tensors as a safetensors file (--backbone.weights FILE), start from random "
            "weights (--backbone.weights none), or take --backbone.name efficientnet_lite0."
        ) from error
