"""Backbones: RGB photo -> feature map, and the map's pooled descriptor.

A backbone is a chain of named layers. The first is its ``preprocess``, so every backbone takes
the same image: RGB, 0..255. The layers up to the first map of stride 8 are its stem, which
``freeze`` can hold still.
"""

import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from relocal.errors import InputError, unknown

Weights = Mapping[str, Tensor]
Stage = Literal["none", "stem", "all"]
"""How much of a backbone is frozen: nothing, the layers up to its stride-8 map, or everything."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which backbone, and what its weights start from."""

    name: str = "efficientnet_lite0"
    """Backbone: efficientnet_lite0 or googlenet."""
    weights: str = "pretrained"
    """"pretrained" (ImageNet), "none" (random start), or a safetensors file."""


class Preprocess(nn.Module):
    """Turns an RGB image in 0..255 into a network's own input: (image - mean) / scale.

    Args:
        mean: Subtracted from each channel, in the network's channel order, in 0..255.
        scale: Divides the difference.
        bgr: Whether the network wants blue first, as Caffe's do.
    """

    mean: Tensor

    def __init__(self, *, mean: tuple[float, float, float], scale: float, bgr: bool) -> None:
        super().__init__()
        self.scale = scale
        self.bgr = bgr
        # Part of the definition, not of the weights: not saved with them.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Returns the normalised image, in the network's channel order."""
        return ((image.flip(1) if self.bgr else image) - self.mean) / self.scale


class Backbone(nn.Module):
    """Named layers applied in order, from an RGB image in 0..255 to a feature map.

    Args:
        layers: The layers by name; the first is ``"preprocess"``.
        stem: Name of the last layer of the stem, whose output has stride 8.
        channels: Channels of the output.
        stride: Pixels of the image per pixel of the output.
        taps: Layers whose output ``features`` also returns, with their channels.
        pretrained: Returns the pretrained weights under this backbone's names; raises
            InputError with the ways to get them where they are not at hand.
    """

    preprocess: Preprocess

    def __init__(
        self,
        layers: dict[str, nn.Module],
        *,
        stem: str,
        channels: int,
        stride: int,
        taps: dict[str, int],
        pretrained: Callable[[], Weights],
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        names = list(layers)
        self.channels = channels
        self.stride = stride
        self.taps = taps
        self.pretrained = pretrained
        self._stages = {"none": [], "stem": names[: names.index(stem) + 1], "all": names}
        self._frozen: list[str] = []
        self.apply(_initialise)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Returns the feature map of RGB images in 0..255, of at least 32 x 32 pixels."""
        return self.features(image)["out"]

    def features(self, image: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B _ _ _"]]:
        """Returns the outputs of the layers named in ``taps``, and the last one as ``"out"``."""
        outputs: dict[str, Tensor] = {}
        x = image
        for name, layer in self.named_children():
            if name in self._frozen:
                with torch.no_grad():
                    x = layer(x)
            else:
                x = layer(x)
            if name in self.taps:
                outputs[name] = x
        return outputs | {"out": x}

    def freeze(self, stage: Stage) -> None:
        """Holds the layers of a stage still, batch statistics included, and frees the others."""
        if stage not in self._stages:
            raise unknown("frozen stage", stage, self._stages)
        self._frozen = self._stages[stage]
        for name, layer in self.named_children():
            layer.requires_grad_(name not in self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Sets training mode, except in frozen layers: their batch norm stays as it was learned."""
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).eval()
        return self


def _initialise(module: nn.Module) -> None:
    """Kaiming normal (He et al. 2015) for convolutions; fan-in counts depthwise ones rightly."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# EfficientNet-Lite0: EfficientNet-B0 (Tan & Le 2019, arXiv:1905.11946, table 1) without squeeze
# and excitation and with ReLU6, as in tensorflow/tpu, models/official/efficientnet/lite.


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's "SAME" padding, batch norm and, optionally, ReLU6."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.01)  # TensorFlow's decay of 0.99
        self.relu = relu

    def forward(self, x: Float[Tensor, "B _ H W"]) -> Float[Tensor, "B _ _ _"]:
        x = self.norm(self.conv(self._pad(x)))
        return F.relu6(x, inplace=True) if self.relu else x

    def _pad(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if kernel == 1:
            return x
        # As much padding as makes ceil(n / stride) outputs, the odd pixel after: an even side
        # with stride 2 gets none (kernel 3) or one (kernel 5) before, unlike PyTorch's.
        (top, bottom), (left, right) = (
            (total // 2, total - total // 2)
            for n in x.shape[-2:]
            for total in [max(kernel - (stride if n % stride == 0 else n % stride), 0)]
        )
        return F.pad(x, (left, right, top, bottom))


class InvertedResidual(nn.Module):
    """Widens, filters each channel, narrows (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, c_in: int, c_out: int, *, ratio: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = ratio * c_in
        self.expand = ConvNorm(c_in, wide) if ratio > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self.project = ConvNorm(wide, c_out, relu=False)
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x: Float[Tensor, "B _ H W"]) -> Float[Tensor, "B _ _ _"]:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skip else y


_LITE0 = (  # ratio, kernel, stride of the first, channels, repeats
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def efficientnet_lite0() -> Backbone:
    c_in = 32
    blocks: list[nn.Module] = []
    for ratio, kernel, stride, c_out, repeats in _LITE0:
        for i in range(repeats):
            step = stride if i == 0 else 1
            blocks.append(InvertedResidual(c_in, c_out, ratio=ratio, kernel=kernel, stride=step))
            c_in = c_out
    layers: dict[str, nn.Module] = {
        "preprocess": Preprocess(mean=(127.0, 127.0, 127.0), scale=128.0, bgr=False),
        "conv1": ConvNorm(3, 32, kernel=3, stride=2),
        **{f"block{i}": block for i, block in enumerate(blocks)},
        "head": ConvNorm(c_in, 1280),
    }
    return Backbone(layers, stem="block4", channels=1280, stride=32, taps={}, pretrained=dict)


class ConvReLU(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input), inplace=True)


class LocalResponseNorm(nn.Module):
    def __init__(self, channels: int, *, size=5, alpha=1e-4, beta=0.75, k=1.0) -> None:
        super().__init__()
        i = torch.arange(channels)
        band = ((i[:, None] - i).abs() <= size // 2).float() * (alpha / size)
        self.register_buffer("band", band[:, :, None, None], persistent=False)
        self.register_buffer("one", torch.ones(channels), persistent=False)

    def forward(self, x):
        s = F.conv2d(x * x, self.band, self.one)
        return x * (s * s.sqrt()).rsqrt()


class Inception(nn.Module):
    def __init__(self, c_in, c1, c3r, c3, c5r, c5, cp):
        super().__init__()
        self.add_module("1x1", ConvReLU(c_in, c1, 1))
        self.add_module("3x3_reduce", ConvReLU(c_in, c3r, 1))
        self.add_module("3x3", ConvReLU(c3r, c3, 3, padding=1))
        self.add_module("5x5_reduce", ConvReLU(c_in, c5r, 1))
        self.add_module("5x5", ConvReLU(c5r, c5, 5, padding=2))
        self.add_module("pool_proj", ConvReLU(c_in, cp, 1))

    fused = False

    def forward(self, x):
        m = self.get_submodule
        pool = m("pool_proj")(F.max_pool2d(x, 3, 1, 1))
        if self.fused:
            cs = [m("1x1"), m("3x3_reduce"), m("5x5_reduce")]
            y = F.conv2d(
                x, torch.cat([c.weight for c in cs]), torch.cat([c.bias for c in cs])
            ).relu_()
            a, b, c = y.split([c.out_channels for c in cs], 1)
        else:
            a, b, c = m("1x1")(x), m("3x3_reduce")(x), m("5x5_reduce")(x)
        return torch.cat([a, m("3x3")(b), m("5x5")(c), pool], 1)


_GOOG = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "pool3": None,
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "pool4": None,
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


def googlenet():
    pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)
    layers = {
        "preprocess": Preprocess(mean=(104.0, 117.0, 123.0), scale=1.0, bgr=True),
        "conv1": ConvReLU(3, 64, 7, 2, 3),
        "pool1": pool(),
        "norm1": LocalResponseNorm(64),
        "conv2_reduce": ConvReLU(64, 64, 1),
        "conv2": ConvReLU(64, 192, 3, padding=1),
        "norm2": LocalResponseNorm(192),
        "pool2": pool(),
    }
    for n, c in _GOOG.items():
        layers["inception_" + n if c else n] = Inception(*c) if c else pool()
    return Backbone(
        layers,
        stem="inception_3b",
        channels=1024,
        stride=32,
        taps={"inception_4a": 512, "inception_4d": 528},
        pretrained=dict,
    )


BACKBONES = {"efficientnet_lite0": efficientnet_lite0, "googlenet": googlenet}
