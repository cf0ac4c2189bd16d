"""PoseNet (Kendall, Grimes & Cipolla 2015): a classification CNN that regresses the pose."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from relocal.backbones import Backbone, Stage
from relocal.errors import InputError, unknown
from relocal.pose import ROTATIONS, Pose, mean_quaternion
from relocal.types import Prediction

Pool = Literal["average", "grid"]
MAX_WIDTH = 65_536


@dataclass(frozen=True, kw_only=True)
class PoseNetConfig:
    """The architecture, and its layers between the feature map and the pose."""

    name: str = "posenet"
    """Architecture: posenet."""

    pool: Pool = "grid"
    """Pool the feature map to its mean, as PoseNet, or to a 3 x 4 grid that keeps the layout."""
    width: int = 2048
    """Features before the pose."""
    dropout: float = 0.1
    """Share of these features dropped while training."""
    auxiliary: bool = False
    """PoseNet's two auxiliary regressors while training (googlenet)."""
    rotation: str = "quaternion"
    """How the network writes a rotation."""
    log_variance: bool = False
    """Whether it also says how sure it is, which the loss nll trains."""
    heads: int = 1
    """Position and rotation from one wide layer, as PoseNet, or from two of their own."""

    def __post_init__(self) -> None:
        if self.rotation not in ROTATIONS:
            raise unknown("--model.rotation", self.rotation, ROTATIONS)
        if self.pool not in get_args(Pool):
            raise unknown("--model.pool", self.pool, get_args(Pool))
        if not 0 <= self.dropout < 1:
            raise InputError(f"--model.dropout: must be in [0, 1), not {self.dropout}.")
        if self.heads not in (1, 2):
            raise InputError(f"--model.heads: must be 1 or 2, not {self.heads}.")
        if not 1 <= self.width <= MAX_WIDTH:
            raise InputError(f"--model.width: must be 1 to {MAX_WIDTH}, not {self.width}.")


class PoseHead(nn.Module):
    """Features -> one wide layer, or two -> position and rotation parameters, in float32."""

    def __init__(
        self,
        inputs: int,
        width: int,
        dropout: float,
        rotation_size: int,
        heads: int = 1,
        log_variance: bool = False,
    ) -> None:
        super().__init__()
        self.wide = nn.Linear(inputs, width)
        self.wide_rotation = nn.Linear(inputs, width) if heads == 2 else None
        self.dropout = nn.Dropout(dropout)
        self.position = nn.Linear(width, 3)
        self.rotation = nn.Linear(width, rotation_size)
        self.log_variance = nn.Linear(width, 2) if log_variance else None

    def forward(
        self, features: Float[Tensor, "B n"]
    ) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B k"], Float[Tensor, "B 2"] | None]:
        """Returns normalised positions, raw rotation parameters, and log-variances of both."""
        wide = self.dropout(F.relu(self.wide(features)))
        other = wide
        if self.wide_rotation is not None:
            other = self.dropout(F.relu(self.wide_rotation(features)))
        # bfloat16 has three digits: fine for features, not for centimetres.
        with torch.autocast(wide.device.type, enabled=False):
            wide, other = wide.float(), other.float()
            sure = None if self.log_variance is None else self.log_variance(wide)
            return self.position(wide), self.rotation(other), sure


class AuxiliaryHead(nn.Module):
    """The regressor at an inner layer: 4 x 4 pooling, 1x1 convolution to 128, then a head."""

    def __init__(self, channels: int, rotation_size: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, 128, 1)
        self.head = PoseHead(128 * 16, 1024, 0.7, rotation_size)

    def forward(
        self, features: Float[Tensor, "B C h w"]
    ) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B k"], None]:
        """Returns normalised positions and raw rotation parameters."""
        pooled = F.relu(self.reduce(F.adaptive_avg_pool2d(features, 4)))
        position, rotation, _ = self.head(pooled.flatten(1))
        return position, rotation, None


class PoseNet(nn.Module):
    """Backbone, pooled features, one wide layer, position and rotation.

    The mean and the scale of the training positions are buffers, so predictions are in scene
    units from the weights alone; they are relative to the origin that the run keeps.
    """

    position_mean: Tensor
    position_scale: Tensor

    def __init__(self, backbone: Backbone, config: PoseNetConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.rotation_name = config.rotation
        self.grid = (3, 4) if config.pool == "grid" else (1, 1)
        size = ROTATIONS[config.rotation].size
        features = backbone.channels * self.grid[0] * self.grid[1]
        self.head = PoseHead(
            features, config.width, config.dropout, size, config.heads, config.log_variance
        )
        if config.auxiliary and not backbone.taps:
            raise InputError(
                "--model.auxiliary: this backbone has no inner layers for auxiliary regressors; "
                "use --backbone.name googlenet."
            )
        inner = backbone.taps if config.auxiliary else {}
        self.inner_layers = tuple(inner)
        self.auxiliary = nn.ModuleList(AuxiliaryHead(c, size) for c in inner.values())
        self.register_buffer("position_mean", torch.zeros(3))
        self.register_buffer("position_scale", torch.ones(()))

    def fit_statistics(self, poses: Pose) -> None:
        """Takes mean and scale of the positions and the mean rotation from training poses.

        Every answer starts as the mean pose: random last layers would start tens of degrees off.

        Args:
            poses: Relative to the run's origin, (n,): the network knows no other positions.
        """
        centre = poses.position.mean(0)
        spread = (poses.position - centre).square().sum(-1).mean().sqrt()
        self.position_mean.copy_(centre)
        self.position_scale.copy_(spread.clamp(min=1e-6))
        start = ROTATIONS[self.rotation_name].encode(mean_quaternion(poses.quaternion))
        heads = [module for module in self.modules() if isinstance(module, PoseHead)]
        for head in heads:
            with torch.no_grad():
                for last in (head.position, head.rotation, head.log_variance):
                    if last is not None:
                        last.weight.zero_()
                        last.bias.zero_()
                head.rotation.bias.copy_(start)

    def forward(self, image: Float[Tensor, "B _ _ _"], done: Stage = "none") -> Prediction:
        """Predicts poses from RGB images in 0..255, or from what a stage of the backbone made."""
        maps = self.backbone.features(image, done)
        main = self.answer(self.pool(maps["out"]).flatten(1))
        if self.training:
            pairs = zip(self.inner_layers, self.auxiliary, strict=True)
            main.auxiliary = tuple(self._prediction(*head(maps[name])) for name, head in pairs)
        return main

    def features(
        self, image: Float[Tensor, "B _ _ _"], done: Stage = "none"
    ) -> Float[Tensor, "B n"]:
        """What the head sees of images, or of what a stage of the backbone made."""
        return self.pool(self.backbone.features(image, done)["out"]).flatten(1)

    def answer(self, features: Float[Tensor, "B n"]) -> Prediction:
        """The head's predictions."""
        return self._prediction(*self.head(features))

    def pool(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C r c"]:
        """What the head sees of a feature map; the same again when it is given that."""
        return maps if maps.shape[2:] == self.grid else F.adaptive_avg_pool2d(maps, self.grid)

    def _prediction(self, position: Tensor, rotation: Tensor, log_var: Tensor | None) -> Prediction:
        position = self.position_mean + self.position_scale * position
        if log_var is not None:  # of the position in scene units, too
            unit = torch.stack([self.position_scale.log(), self.position_scale.new_zeros(())])
            log_var = log_var + 2 * unit
        return Prediction(position, rotation, self.rotation_name, log_var)
