"""The graph that is exported: photos of any size in, positions and unit quaternions out."""

import copy
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from relocal.backbones import Stage
from relocal.images import same_view, sampling_grid
from relocal.models import PoseNet
from relocal.pose import ROTATIONS
from relocal.training import Run
from relocal.training.features import cells_corner, central_cells
from relocal.training.prediction import seen_features

_SQUARINGS = 20
_UNSCALED = 4  # squarings in a row that leave a matrix of norm 1 above 2 ** -16


class PhotoToPose(nn.Module):
    """A trained network with all that happens to a photo before, and to its answer after.

    The resize is two matrix products, so that every runtime gives the same: not all know the
    antialiased one, or round as torch does. The grid's means are two as well, which runtimes do
    faster than what torch makes of cells of different sizes.

    Args:
        run: The run.
        model: Its network, in evaluation mode.
    """

    grid: Tensor | None

    def __init__(self, run: Run, model: PoseNet) -> None:
        super().__init__()
        self.model = copy.copy(model)  # the run's keeps its own
        self.model.pool = partial(cell_means, grid=model.grid)
        self.camera, self.window = run.camera, run.window
        self.cached: Stage = run.config.cached
        stem = self.cached == "stem"
        self.corner = cells_corner(run.camera, run.window) if stem else None
        self.seen = run.seen_camera
        warped = not same_view(self.seen, run.camera)
        grid = sampling_grid(self.seen, run.camera)[0] if warped else None
        self.register_buffer("grid", grid)

    def forward(
        self, image: UInt8[Tensor, "B H W 3"]
    ) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B 4"], Float[Tensor, "B 2"]]:
        """Answers photos that the scene's camera took, or one with its field of view.

        Returns:
            Positions relative to the run's origin in the scene's unit, unit quaternions w x y z
            (``world_from_cam``), and the spreads of position and rotation vector (radians); ones
            where the network states none.
        """
        view = antialiased(image.permute(0, 3, 1, 2).float(), self.seen.height, self.seen.width)
        if self.grid is not None:
            grid = self.grid.expand(len(view), -1, -1, -1)
            warped = F.grid_sample(view, grid, padding_mode="border", align_corners=False)
            view = _whole(warped)
        view = view.to(torch.uint8)
        if self.corner is not None:  # known beforehand: cameras are tensors, which would be traced
            maps = self.model.backbone.stem(view.float())
            features = self.model.features(central_cells(maps, self.corner, self.window), "stem")
        else:
            features = seen_features(self.model, view, self.camera, self.window, self.cached)
        said = self.model.answer(features)
        if said.rotation_name == "9d":
            quaternion = nearest_quaternion(said.rotation.unflatten(-1, (3, 3)))
        else:
            quaternion = ROTATIONS[said.rotation_name].decode(said.rotation)
        spread = torch.ones_like(said.position[:, :2])
        if said.log_var is not None:
            spread = (said.log_var / 2).exp()
        return said.position, quaternion, spread


def antialiased(
    images: Float[Tensor, "B 3 H W"], height: int, width: int
) -> Float[Tensor, "B 3 h w"]:
    """What ``relocal.images.resize`` makes of images: rows first, each pass in whole numbers."""
    rows = _whole(images @ _triangles(images.shape[3], width).T)
    return _whole(_triangles(images.shape[2], height) @ rows)


def cell_means(maps: Float[Tensor, "B C h w"], grid: tuple[int, int]) -> Float[Tensor, "B C r c"]:
    """What ``adaptive_avg_pool2d`` makes of maps."""
    if maps.shape[2:] == grid:
        return maps
    rows, columns = (_cells(size, n) for size, n in zip(maps.shape[2:], grid, strict=True))
    return rows @ maps @ columns.T


def _cells(size: int, count: int) -> Float[Tensor, "count size"]:
    """How much each of ``size`` values counts in the mean of each cell; cells may overlap."""
    cell, at = torch.arange(count)[:, None], torch.arange(size)
    inside = (at >= cell * size // count) & (at < -(-(cell + 1) * size // count))
    return inside / inside.sum(1, keepdim=True)


def _whole(values: Tensor) -> Tensor:
    return (values + 0.5).floor()  # round() would take halves to the even number


def _triangles(size: Any, smaller: int) -> Float[Tensor, "n m"]:
    """How much each of ``size`` pixels counts in each of fewer, or more: Pillow's filter.

    The size is an int, or what stands for one while torch traces.
    """
    scale = size / smaller
    support: Any = torch.sym_max(scale, 1.0)
    centre = (torch.arange(smaller).double() + 0.5) * scale
    away = (torch.arange(size).double() + 0.5 - centre[:, None]).abs()
    weight = (1 - away / support).clamp(min=0)
    return _fixed_point(weight / weight.sum(1, keepdim=True))


def _fixed_point(weights: Tensor) -> Tensor:
    """Weights as whole numbers of 16 bits over a power of two: as torch resizes bytes."""
    bits = (torch.log2((2**15 - 0.5) / weights.max()).ceil() - 1).clamp(max=22)
    unit = torch.exp2(bits)
    return ((weights * unit + 0.5).floor() / unit).float()


def nearest_quaternion(matrix: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 4"]:
    """Quaternions with w >= 0 of the rotations nearest to matrices, without an SVD.

    It is the eigenvector of the largest eigenvalue of a symmetric 4 x 4 matrix (Horn 1987, "Closed-
    form solution of absolute orientation using unit quaternions"), here by repeated squaring.
    """
    size = matrix.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None]
    xx, xy, xz, yx, yy, yz, zx, zy, zz = (matrix / size).flatten(1).unbind(1)
    rows = [
        [xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, xx - yy - zz, yx + xy, xz + zx],
        [xz - zx, yx + xy, yy - xx - zz, zy + yz],
        [yx - xy, xz + zx, zy + yz, zz - xx - yy],
    ]
    power = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    # No eigenvalue is below -√3: a sum of singular values. Now none is negative.
    power = power + 3**0.5 * torch.eye(4, dtype=matrix.dtype)
    for k in range(_SQUARINGS):
        if k % _UNSCALED == 0:
            power = power / power.flatten(1).norm(dim=1)[:, None, None]
        power = power @ power
    # All columns are multiples of the eigenvector, the longest is the most exact.
    best = power.diagonal(dim1=1, dim2=2).argmax(1)
    quaternion = power.gather(2, best[:, None, None].expand(-1, 4, 1))[..., 0]
    quaternion = F.normalize(quaternion, dim=1)
    return torch.where(quaternion[:, :1] < 0, -quaternion, quaternion)
