"""ResNet (He et al. 2016, arXiv:1512.03385, table 1), in torchvision's naming.

The bottleneck of ``resnet50`` has its stride at the 3x3 convolution, as torchvision's.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from relocal.backbones.backbone import Backbone, Preprocess
from relocal.backbones.hub import from_hub


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to their input."""

    expansion = 1

    def __init__(self, c_in: int, c: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c)
        self.conv2 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c)
        self.downsample = _shortcut(c_in, c, stride)

    def forward(self, x: Float[Tensor, "B _ _ _"]) -> Float[Tensor, "B _ _ _"]:
        """Returns the block's output."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, added to their input."""

    expansion = 4

    def __init__(self, c_in: int, c: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c)
        self.conv2 = nn.Conv2d(c, c, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c)
        self.conv3 = nn.Conv2d(c, 4 * c, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * c)
        self.downsample = _shortcut(c_in, 4 * c, stride)

    def forward(self, x: Float[Tensor, "B _ _ _"]) -> Float[Tensor, "B _ _ _"]:
        """Returns the block's output."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


def _shortcut(c_in: int, c_out: int, stride: int) -> nn.Module:
    """The input itself, or a 1x1 convolution where the shapes differ."""
    if c_in == c_out and stride == 1:
        return nn.Identity()
    conv = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


def resnet18() -> Backbone:
    """ResNet-18: 512 channels, stride 32, 11.2 million parameters."""
    return _resnet("resnet18", BasicBlock, (2, 2, 2, 2), "resnet18-f37072fd.pth")


def resnet34() -> Backbone:
    """ResNet-34: 512 channels, stride 32, 21.3 million parameters."""
    return _resnet("resnet34", BasicBlock, (3, 4, 6, 3), "resnet34-b627a593.pth")


def resnet50() -> Backbone:
    """ResNet-50: 2048 channels, stride 32, 23.5 million parameters."""
    return _resnet("resnet50", Bottleneck, (3, 4, 6, 3), "resnet50-0676ba61.pth")


def _resnet(
    name: str, block: type[BasicBlock] | type[Bottleneck], repeats: tuple[int, ...], file: str
) -> Backbone:
    layers: dict[str, nn.Module] = {
        "preprocess": Preprocess(mean=(123.675, 116.28, 103.53), scale=(58.395, 57.12, 57.375)),
        "conv1": nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        "bn1": nn.BatchNorm2d(64),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    c_in = 64
    for stage, count in enumerate(repeats):
        c = 64 * 2**stage
        blocks: list[nn.Module] = []
        for i in range(count):
            blocks.append(block(c_in, c, stride=2 if i == 0 and stage > 0 else 1))
            c_in = c * block.expansion
        layers[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    return Backbone(
        layers,
        stem="layer2",
        channels=c_in,
        stride=32,
        pretrained=lambda: from_hub(name, file),
    )
