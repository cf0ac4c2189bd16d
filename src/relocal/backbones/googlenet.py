"""GoogLeNet: Inception v1 (Szegedy et al. 2015, arXiv:1409.4842, table 1), in its two forms.

``googlenet`` is the original with local response normalisation, as BVLC trained it in Caffe and
PoseNet (Kendall et al. 2015) started from it; layers are named as in its weight file.
``googlenet_bn`` has batch normalisation after every convolution, in torchvision's naming.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from relocal.backbones.backbone import Backbone, Preprocess
from relocal.backbones.hub import from_hub
from relocal.errors import InputError

_CHANNELS = {  # inputs; 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


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


def _with_pools(
    blocks: Mapping[str, nn.Module], prefix: str, last_pool: Callable[[], nn.Module]
) -> dict[str, nn.Module]:
    """The inception blocks in order, with a pooling after those of stride 8 and of stride 16."""
    layers: dict[str, nn.Module] = {}
    for name, block in blocks.items():
        layers[name] = block
        if name == f"{prefix}3b":
            layers["pool3"] = _pool()
        if name == f"{prefix}4e":
            layers["pool4"] = last_pool()
    return layers


def googlenet() -> Backbone:
    """GoogLeNet: 1024 channels, stride 32, 6 million parameters, taps for PoseNet's auxiliaries."""
    blocks = {f"inception_{name}": Inception(*channels) for name, channels in _CHANNELS.items()}
    layers: dict[str, nn.Module] = {
        "preprocess": Preprocess(mean=(104.0, 117.0, 123.0), scale=1.0, bgr=True),
        "conv1": ConvReLU(3, 64, 7, stride=2, padding=3),
        "pool1": _pool(),
        "norm1": LocalResponseNorm(64),
        "conv2_reduce": ConvReLU(64, 64, 1),
        "conv2": ConvReLU(64, 192, 3, padding=1),
        "norm2": LocalResponseNorm(192),
        "pool2": _pool(),
        **_with_pools(blocks, "inception_", _pool),
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


class ConvBN(nn.Sequential):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, c_in: int, c_out: int, side: int, stride: int = 1) -> None:
        conv = nn.Conv2d(c_in, c_out, side, stride, padding=side // 2, bias=False)
        norm = nn.BatchNorm2d(c_out, eps=1e-3)
        super().__init__(OrderedDict(conv=conv, bn=norm, relu=nn.ReLU(inplace=True)))


class InceptionBN(nn.Module):
    """Inception with batch normalisation; its third branch is 3x3, as torchvision trained it."""

    def __init__(self, c_in: int, *channels: int) -> None:
        super().__init__()
        c1, reduce3, c3, reduce5, c5, pool = channels
        self.branch1 = ConvBN(c_in, c1, 1)
        self.branch2 = nn.Sequential(ConvBN(c_in, reduce3, 1), ConvBN(reduce3, c3, 3))
        self.branch3 = nn.Sequential(ConvBN(c_in, reduce5, 1), ConvBN(reduce5, c5, 3))
        pooled = nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True)
        self.branch4 = nn.Sequential(pooled, ConvBN(c_in, pool, 1))

    def forward(self, x: Float[Tensor, "B _ H W"]) -> Float[Tensor, "B _ H W"]:
        """Returns the concatenated branches."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


def googlenet_bn() -> Backbone:
    """GoogLeNet with batch normalisation: 1024 channels, stride 32, 5.6 million parameters."""
    blocks = {f"inception{name}": InceptionBN(*channels) for name, channels in _CHANNELS.items()}
    layers: dict[str, nn.Module] = {
        # torchvision shifts ImageNet's statistics to the half that these weights were trained with.
        "preprocess": Preprocess(mean=(127.5, 127.5, 127.5), scale=127.5),
        "conv1": ConvBN(3, 64, 7, stride=2),
        "pool1": _pool(),
        "conv2": ConvBN(64, 64, 1),
        "conv3": ConvBN(64, 192, 3),
        "pool2": _pool(),
        **_with_pools(blocks, "inception", lambda: nn.MaxPool2d(2, stride=2, ceil_mode=True)),
    }
    return Backbone(
        layers,
        stem="inception3b",
        channels=1024,
        stride=32,
        pretrained=lambda: from_hub("googlenet_bn", "googlenet-1378be20.pth"),
        taps={"inception4a": 512, "inception4d": 528},
    )
