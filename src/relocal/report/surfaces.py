"""Loss surfaces: how each loss scores a joint error, a sideways shift with a yaw.

Moving the camera sideways and turning it change the picture alike. A loss that adds the two errors
is symmetric about both axes of these maps; most coupled terms have a valley, along which the shift
and the yaw compensate each other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
from relocal.studies.contrasts import TWIN
from relocal.types import Prediction, Target

SURFACES = "surfaces.png"
NEAR, DEPTH, FAR = 1.0, 2.0, 4.0
YAW_DEG = 25.0
SHIFT = DEPTH / 2
SIDE = 61  # errors along each axis; odd, so that the label is one of them
POINTS = 100

# What a loss from outside raises that is broken, or needs what is not here.
_FAULTS = (
    *(InputError, ArithmeticError, AssertionError, AttributeError, ImportError, LookupError),
    *(NameError, OSError, RuntimeError, TypeError, ValueError),
)
_COLUMNS = 4
_SHARES = np.linspace(0.1, 0.9, 9)
_LABEL = "#c23b00"


@dataclass(frozen=True)
class Surface:
    """A loss over the errors of a grid."""

    name: str
    value: Float[np.ndarray, "yaw shift"]
    """Above the value at the label."""
    valley: bool = False
    """Whether it is a coupled term in which a shift makes up for a turn."""


def error_axes() -> tuple[Float[np.ndarray, " side"], Float[np.ndarray, " side"]]:
    """Shifts to the right, in scene units up to d / 2, and turns to the right, in degrees."""
    return np.linspace(-SHIFT, SHIFT, SIDE), np.linspace(-YAW_DEG, YAW_DEG, SIDE)


Surfaces = tuple[list[Surface], list[Surface]]
"""Those of base losses, and those of coupled terms and their twins."""


def every_surface() -> Surfaces:
    """The surfaces of base losses, and of coupled terms, each before its twin.

    One from outside the package is left out where it cannot be built without arguments, or gives no
    finite value for each error.
    """
    bases = [_surface(name, LOSSES[name]) for name in LOSSES]
    terms: list[Surface] = []
    for name, term in COUPLED.items():
        coupled = _surface(name, term, coupled=True)
        twin = _surface(f"{TWIN}{name}", partial(term, twin=True))
        if coupled is not None and twin is not None:  # each stands beside the other
            terms += [coupled, twin]
    return [surface for surface in bases if surface is not None], terms


def left_out(surfaces: Surfaces) -> list[str]:
    """The losses, terms and twins that have no surface among these."""
    drawn = [surface.name for part in surfaces for surface in part]
    twins = [f"{TWIN}{term}" for term in COUPLED]
    return [name for name in (*LOSSES, *COUPLED, *twins) if name not in drawn]


def _surface(name: str, factory: Callable[..., nn.Module], coupled: bool = False) -> Surface | None:
    try:
        value = loss_surface(factory())
    except _FAULTS:
        return None
    if not np.isfinite(value).all():
        return None
    return Surface(name, value, coupled and _has_valley(value))


def _has_valley(value: Float[np.ndarray, "yaw shift"]) -> bool:
    """Whether a turn costs less with the shift that keeps the point straight ahead in its place."""
    shift, yaw = error_axes()
    rows = (SIDE // 10, SIDE - 1 - SIDE // 10)  # turned far to the left and to the right
    places = [int(np.abs(shift + DEPTH * np.tan(np.deg2rad(yaw[row]))).argmin()) for row in rows]
    return all(value[row, k] < value[row, SIDE // 2] for row, k in zip(rows, places, strict=True))


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
    value = loss.double()(prediction, _target(len(position)), 1.0)
    if value.shape != (len(position),):
        shape = tuple(value.shape)
        raise InputError(f"{type(loss).__name__}: give one value a sample, (B,), not {shape}.")
    value = value.reshape(SIDE, SIDE)
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


def loss_surfaces(surfaces: Surfaces | None = None) -> Any:
    """Draws base losses and coupled terms, each coupled one beside its twin.

    Every map has the same rule for its contours: they enclose 10, 20, ... 90 % of the errors shown,
    so that only the shape of a loss is seen, not its unit or power.

    Args:
        surfaces: What to draw; None draws ``every_surface``.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure

    bases, terms = surfaces or every_surface()
    heights = [math.ceil(len(part) / _COLUMNS) for part in (bases, terms)]
    with drawing(**{"font.size": 9}):
        figure = Figure(figsize=(8.6, 0.9 + 2.05 * sum(heights)), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=heights, hspace=0.02)
        titles = ("Base losses", "Coupled terms, each beside its decoupled twin")
        for part, drawn, rows, title in zip(parts, (bases, terms), heights, titles, strict=True):
            part.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
            _draw_part(part, drawn, rows)
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
    levels = np.unique(np.quantile(surface.value, _SHARES))
    if len(levels) > 1:
        shift, style = shift / DEPTH, {"levels": levels}
        axes.contourf(shift, yaw, surface.value, cmap="cividis", extend="both", **style)
        axes.contour(shift, yaw, surface.value, colors="white", linewidths=0.5, **style)
    if surface.valley:
        # Where the point at depth d straight ahead stays where it was in the picture.
        axes.plot(-np.tan(np.deg2rad(yaw)), yaw, color=_LABEL, lw=1.2, ls=(0, (4, 3)))
        axes.set_xlim(shift[0], shift[-1])
    axes.plot(0, 0, marker="+", color=_LABEL, ms=7, mew=1.5)
