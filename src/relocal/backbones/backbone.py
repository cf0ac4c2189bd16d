"""What a backbone is: RGB photo -> feature map, and the map's pooled descriptor.

A backbone is a chain of named layers. The first one is its ``preprocess``, so every backbone
takes the same image, RGB in 0..255. The layers up to its stride-8 map are its stem, which can be
frozen on its own.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from relocal.errors import InputError

# How much of a backbone is frozen: nothing, the layers up to its stride-8 map, or all of it.
Stage = Literal["none", "stem", "all"]
STEM_STRIDE = 8


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def weight_faults(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Why tensors from a file cannot be a network's weights, a phrase each.

    Args:
        weights: The tensors, by name; others than those of the network are left aside.
        own: The network's ``state_dict``.
    """
    faults: list[str] = []
    for name, mine in own.items():
        value = weights.get(name)
        if value is None:
            faults.append(f"{name} is missing")
        elif value.shape != mine.shape:
            faults.append(f"{name} is {tuple(value.shape)}, not {tuple(mine.shape)}")
        elif value.dtype != mine.dtype and not (value.dtype in FLOATS and mine.dtype in FLOATS):
            faults.append(f"{name} is {value.dtype}, not {mine.dtype}".replace("torch.", ""))
        elif not bool(torch.isfinite(value.to(mine.dtype)).all()):
            faults.append(f"{name} has values that are not finite")
    return faults


class Preprocess(nn.Module):
    """Turns an RGB image in 0..255 into a network's own input: (image - mean) / scale.

    Args:
        mean: Mean of each channel, in the network's channel order, in 0..255.
        scale: What the difference is divided by: one number, or one a channel.
        bgr: Whether the network's channel order is blue, green, red, as Caffe's is.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        mean: tuple[float, float, float],
        scale: float | tuple[float, float, float],
        bgr: bool = False,
    ) -> None:
        super().__init__()
        self.bgr = bgr
        # Not persistent: they belong to the architecture, and weight files do not have them.
        for name, value in (("mean", mean), ("scale", scale)):
            self.register_buffer(name, torch.tensor(value).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Returns the normalised image in the network's channel order."""
        ordered = image.flip(1) if self.bgr else image
        return (ordered - self.mean) / self.scale


class Backbone(nn.Module):
    """Named layers, one after the other, from an RGB image in 0..255 to a feature map.

    Args:
        layers: The layers in order, by name; the first is called ``preprocess``.
        stem: Name of the last layer of the stem; None where there is none to be frozen alone.
        channels: Channels of the feature map.
        stride: Pixels of the image for each pixel of the map.
        pretrained: Reads the pretrained weights, named as in the ``state_dict``, or raises the
            InputError that says how to get them.
        taps: Inner layers whose outputs ``features`` returns too, with their channels.
        initialise: Whether convolutions start anew; False where the layers know better.
    """

    preprocess: Preprocess

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        *,
        stem: str | None,
        channels: int,
        stride: int,
        pretrained: Callable[[], Mapping[str, Tensor]],
        taps: Mapping[str, int] | None = None,
        initialise: bool = True,
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.channels = channels
        self.stride = stride
        self.pretrained = pretrained
        self.taps = dict(taps or {})
        names = tuple(layers)
        self._stages: dict[str, tuple[str, ...]] = {"none": (), "all": names}
        if stem is not None:
            self._stages["stem"] = names[: names.index(stem) + 1]
        self._frozen: tuple[str, ...] = ()
        if initialise:
            self.apply(_initialise)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Returns the feature map of RGB images in 0..255, 32 x 32 pixels or larger."""
        return self.features(image)["out"]

    def stem(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B c h w"]:
        """Returns the stem's map of stride 8 of RGB images in 0..255.

        Raises:
            InputError: If this backbone has no stem.
        """
        self._check_stage("stem")
        x = image
        for name in self._stages["stem"]:
            x = self.get_submodule(name)(x)
        return x

    def stem_state(self) -> dict[str, Tensor]:
        """The weights and statistics of the stem's layers."""
        self._check_stage("stem")
        names = self._stages["stem"]
        return {k: v for k, v in self.state_dict().items() if k.split(".")[0] in names}

    def features(
        self, image: Float[Tensor, "B _ _ _"], done: Stage = "none"
    ) -> dict[str, Float[Tensor, "B _ _ _"]]:
        """Returns the output of each layer in ``taps`` by name, and the feature map as ``out``.

        Args:
            image: RGB images in 0..255, or what a stage made of them.
            done: That stage: the stem, or all.
        """
        maps: dict[str, Tensor] = {}
        x = image
        for name, layer in self.named_children():
            if name in self._stages[done]:
                continue
            with torch.no_grad() if name in self._frozen else nullcontext():
                x = layer(x)
            if name in self.taps:
                maps[name] = x
        return maps | {"out": x}

    def freeze(self, stage: Stage) -> None:
        """Freezes the layers of a stage, batch statistics included, and frees all others.

        Raises:
            InputError: If it is the stem, and this backbone has none.
        """
        self._check_stage(stage)
        self._frozen = self._stages[stage]
        for name, layer in self.named_children():
            layer.requires_grad_(name not in self._frozen)
        self.train(self.training)

    def frozen_state(self) -> frozenset[str]:
        """Names of the weights and statistics that stand still."""
        return frozenset(k for k in self.state_dict() if k.split(".")[0] in self._frozen)

    def _check_stage(self, stage: Stage) -> None:
        if stage not in self._stages:
            raise InputError(f"--freeze {stage}: this backbone has no {stage}; use none or all.")

    def train(self, mode: bool = True) -> "Backbone":
        """Sets the training mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).eval()
        return self


def _initialise(module: nn.Module) -> None:
    """Kaiming normal (He et al. 2015); fan-in, because it is right for depthwise ones too."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def describe(
    features: Float[Tensor, "B C h w"], grid: tuple[int, int] = (3, 4)
) -> Float[Tensor, "B D"]:
    """Averages a map over the cells of a grid (rows, columns) into a descriptor an image.

    It is a float32 unit vector of D = C * rows * columns numbers, to be compared by cosine.
    """
    cells = F.adaptive_avg_pool2d(features.float(), grid)
    return F.normalize(cells.flatten(1), dim=1)
