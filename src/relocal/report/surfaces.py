"""Loss surfaces: how each loss scores a joint error, a sideways shift with a yaw.

Moving the camera sideways and turning it change the picture alike. A loss that adds the two errors
is symmetric about both axes of these maps; a coupled term has a valley, along which the shift and
the yaw compensate each other.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.losses import COUPLED, LOSSES
from relocal.pose import ROTATIONS, Pose
from relocal.report.figures import drawing
from relocal.types import Prediction, Target

SURFACES = "surfaces.png"
NEAR, DEPTH, FAR = 1.0, 2.0, 4.0
YAW_DEG = 25.0
SHIFT = DEPTH / 2
SIDE = 61  # errors along each axis; odd, so that the label is one of them
POINTS = 100

_COLUMNS = 4
_SHARES = np.linspace(0.1, 0.9, 9)
_LABEL = "#c23b00"


@dataclass(frozen=True)
class Surface:
    """A loss over the errors of a grid."""

    name: str
    value: Float[np.ndarray, "yaw shift"]
    """Above the value at the label."""
    coupled: bool = False
    """Whether errors may compensate each other in it."""


def error_axes() -> tuple[Float[np.ndarray, " side"], Float[np.ndarray, " side"]]:
    """Shifts to the right, in scene units up to d / 2, and turns to the right, in degrees."""
    return np.linspace(-SHIFT, SHIFT, SIDE), np.linspace(-YAW_DEG, YAW_DEG, SIDE)


def every_surface() -> tuple[list[Surface], list[Surface]]:
    """The surfaces of all base losses, and of all coupled terms, each before its twin.

    A loss from outside that cannot be asked here, since it needs something else, has only NaN.
    """
    bases = [_surface(name, LOSSES[name]()) for name in LOSSES]
    terms: list[Surface] = []
    for name, term in COUPLED.items():
        terms.append(_surface(name, term(), coupled=True))
        terms.append(_surface(f"twin:{name}", term(twin=True)))
    return bases, terms


def _surface(name: str, loss: nn.Module, coupled: bool = False) -> Surface:
    try:
        return Surface(name, loss_surface(loss), coupled)
    except InputError:
        return Surface(name, np.full((SIDE, SIDE), np.nan), coupled)


@torch.no_grad()
def loss_surface(loss: nn.Module) -> Float[np.ndarray, "yaw shift"]:
    """A loss at every shift and yaw of ``error_axes``, above its value at the label.

    The camera has 640 x 480 pixels and a focal length of 525; the scene is 1, 2 and 4 deep (near,
    median, far), with map points spread over what the camera sees. Log-variances are zero, and the
    training is over, which matters to losses with a warm-up.
    """
    shift, yaw = (torch.from_numpy(axis) for axis in error_axes())
    yaw, shift = torch.meshgrid(torch.deg2rad(yaw), shift, indexing="ij")
    half, zero = yaw.flatten() / 2, torch.zeros(SIDE * SIDE, dtype=torch.float64)
    # Turned about the camera's y axis, which points down: to the right where it is positive.
    quaternion = torch.stack([half.cos(), zero, half.sin(), zero], dim=-1)
    position = torch.stack([shift.flatten(), zero, zero], dim=-1)
    accepted = getattr(loss, "rotations", None)
    rotation = "quaternion" if accepted is None or "quaternion" in accepted else min(accepted)
    parameters = ROTATIONS[rotation].encode(quaternion)
    log_var = torch.zeros(len(position), 2, dtype=torch.float64)
    prediction = Prediction(position, parameters, rotation, log_var)
    value = loss.double()(prediction, _target(len(position)), 1.0).reshape(SIDE, SIDE)
    return (value - value[SIDE // 2, SIDE // 2]).numpy()


def _target(count: int) -> Target:
    """A camera at the origin that looks along z, ``count`` times, and what it sees."""
    draw = torch.Generator().manual_seed(0)
    spread = torch.rand(POINTS, 3, generator=draw, dtype=torch.float64)
    camera = Camera.pinhole(640, 480, 525.0, 525.0, 320.0, 240.0)
    depth = NEAR * (FAR / NEAR) ** spread[:, 2:]  # its median is DEPTH
    points = depth * camera.unproject(spread[:, :2] * torch.tensor([640.0, 480.0]).double())
    return Target(
        pose=Pose.identity(count),
        camera=Camera(camera.model, 640, 480, camera.params.expand(count, -1)),
        hemisphere=torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64),
        depth=torch.tensor([NEAR, DEPTH, FAR], dtype=torch.float64),
        points=points.expand(count, -1, -1),
        visible=torch.ones(count, POINTS, dtype=torch.bool),
    )


def loss_surfaces() -> Any:
    """Draws every loss and coupled term, each coupled one beside its twin.

    Every map has the same rule for its contours: they enclose 10, 20, ... 90 % of the errors shown,
    so that only the shape of a loss is seen, not its unit or power.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure

    bases, terms = every_surface()
    heights = [math.ceil(len(part) / _COLUMNS) for part in (bases, terms)]
    with drawing(**{"font.size": 9}):
        figure = Figure(figsize=(8.6, 0.9 + 2.05 * sum(heights)), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=heights, hspace=0.02)
        titles = ("Base losses", "Coupled terms, each beside its decoupled twin")
        for part, surfaces, rows, title in zip(parts, (bases, terms), heights, titles, strict=True):
            part.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
            _draw_part(part, surfaces, rows)
    return figure


def _draw_part(part: Any, surfaces: list[Surface], rows: int) -> None:
    grid = part.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
    for axes, surface in zip(grid.flat, surfaces, strict=False):
        _draw_surface(axes, surface)
    for axes in grid.flat[len(surfaces) :]:
        axes.set_visible(False)
    for column in range(_COLUMNS):
        drawn = [row for row in range(rows) if row * _COLUMNS + column < len(surfaces)]
        if drawn:
            grid[drawn[-1], column].tick_params(labelbottom=True)
    part.supxlabel("camera shifted to the right, in units of the scene's depth d", fontsize=9)
    part.supylabel("camera turned to the right, degrees", fontsize=9)


def _draw_surface(axes: Any, surface: Surface) -> None:
    shift, yaw = error_axes()
    axes.set_title(surface.name, fontsize=9)
    axes.set_xticks([-0.5, 0, 0.5])
    axes.set_yticks([-20, 0, 20])
    if not np.isfinite(surface.value).all():
        axes.text(0, 0, "cannot be drawn", ha="center", va="center", fontsize=8)
        return
    levels = np.unique(np.quantile(surface.value, _SHARES))
    if len(levels) > 1:
        shift, style = shift / DEPTH, {"levels": levels}
        axes.contourf(shift, yaw, surface.value, cmap="cividis", extend="both", **style)
        axes.contour(shift, yaw, surface.value, colors="white", linewidths=0.5, **style)
    if surface.coupled:
        # Where the point at depth d straight ahead stays where it was in the picture.
        axes.plot(-np.tan(np.deg2rad(yaw)), yaw, color=_LABEL, lw=1.2, ls=(0, (4, 3)))
        axes.set_xlim(shift[0], shift[-1])
    axes.plot(0, 0, marker="+", color=_LABEL, ms=7, mew=1.5)
