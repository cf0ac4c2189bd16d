"""The panel beside the picture: one frame in words and photos, and how the errors are spread."""

import math
import re
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from relocal.errors import InputError
from relocal.evaluation import Report, radian_weight
from relocal.images import decode, resize
from relocal.metrics import nearest_pose
from relocal.report.figures import (
    BASELINE,
    Quantity,
    colours,
    drawing,
    errors_of,
    plot_curves,
    unit_of,
)
from relocal.scene import Scene
from relocal.viewer.gathering import Gathered

_PHOTO_PX, _GAP_PX = 320, 6
_BINS = 25


def thumbnail(gathered: Gathered, frame: int, side_px: int) -> UInt8[np.ndarray, "h w 3"] | None:
    """A frame's photo, small; None where there is no scene, or its file cannot be read any more."""
    if gathered.scene is None:
        return None
    return _small(gathered.scene, gathered.rows[frame], side_px)


def plain(text: str) -> str:
    """Text as Markdown that shows just it: names may hold signs of Markdown, or HTML."""
    return re.sub(r"[^\w\s./,:;°-]|_", lambda found: f"&#{ord(found[0])};", text)


def frame_text(gathered: Gathered, method: str | None, frame: int) -> str:
    """What is known of one frame, in Markdown."""
    report = gathered.report
    place = place_text(report.truth.position[frame], report.extent)
    lines = [plain(report.images[frame]), f"at {place} {report.unit}"]
    if method is not None:
        errors = report.methods[method].errors
        off, turned = float(errors.position[frame]), float(errors.rotation_deg[frame])
        told = f"{off:.3g} {report.unit}, {turned:.3g}° off" if np.isfinite(off) else "no answer"
        lines.append(f"{plain(method)}: {told}")
    if gathered.scene is None:
        lines.append("Give the scene, too, to see its photos.")
    elif (near := nearest_training(gathered, frame)) is not None:
        nearest = gathered.scene.images[near]
        lines.append(f"Left: the photo. Right: the nearest training photo, {plain(nearest)}")
    return "\n\n".join(lines)


def place_text(position: Float[Tensor, "3"], extent: float) -> str:
    """Coordinates of the scene, to a thousandth of its unit, or finer where it is small.

    Args:
        position: In the scene.
        extent: How large the scene is.
    """
    small = -math.floor(math.log10(extent)) if extent > 0 else 0
    return ", ".join(f"{value:.{3 + max(small, 0)}f}" for value in position.tolist())


def photo_pair(gathered: Gathered, frame: int) -> UInt8[np.ndarray, "h w 3"] | None:
    """A frame's photo beside that of the nearest training pose; None without photos.

    One that cannot be read any more is left grey.
    """
    scene = gathered.scene
    if scene is None:
        return None
    near = nearest_training(gathered, frame)
    rows = [gathered.rows[frame], *([] if near is None else [near])]
    seen = [_small(scene, row, _PHOTO_PX) for row in rows]
    missing = np.full((_PHOTO_PX * 3 // 4, _PHOTO_PX, 3), 128, dtype=np.uint8)
    parts = [missing if photo is None else photo for photo in seen]
    height = max(part.shape[0] for part in parts)
    width = sum(part.shape[1] for part in parts) + _GAP_PX * (len(parts) - 1)
    pair = np.full((height, width, 3), 255, dtype=np.uint8)
    left = 0
    for part in parts:
        pair[: part.shape[0], left : left + part.shape[1]] = part
        left += part.shape[1] + _GAP_PX
    return pair


def nearest_training(gathered: Gathered, frame: int) -> int | None:
    """The number, in the scene, of the training image whose pose is nearest; never the frame's."""
    scene = gathered.scene
    if scene is None or not scene.splits.get("train"):
        return None
    train = scene.indices("train")
    others = train[train != gathered.rows[frame]]
    if not len(others):
        return None
    truth = gathered.report.truth[torch.tensor([frame])]
    return int(others[nearest_pose(truth, scene.poses[others], radian_weight(scene))[0]])


def _small(scene: Scene, row: int, side_px: int) -> UInt8[np.ndarray, "h w 3"] | None:
    try:
        pixels = decode(scene.path(row), (side_px, side_px))
    except InputError:  # gone since: poses and points still hold
        return None
    height, width = pixels.shape[1:]
    scale = min(1.0, side_px / max(width, height))
    small = resize(pixels, max(1, round(scale * width)), max(1, round(scale * height)))
    return small.permute(1, 2, 0).numpy()


def errors_picture(report: Report, method: str) -> UInt8[np.ndarray, "h w 3"]:
    """Histograms of a method's errors, above the cumulative curves of all methods."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with drawing(**{"font.size": 9}):
        figure = Figure(figsize=(6.4, 5.2), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 2)
        for axes, quantity in zip(above, ("position", "rotation"), strict=True):
            _histogram(axes, report, method, quantity)
        for axes, quantity in zip(below, ("position", "rotation"), strict=True):
            plot_curves(axes, report, quantity)
        above[0].set_ylabel("images")
        below[0].set_ylabel("share of images")
        handles, labels = below[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _histogram(axes: Any, report: Report, method: str, quantity: Quantity) -> None:
    errors = errors_of(report, method, quantity)
    given = errors[np.isfinite(errors)]
    axes.hist(given, bins=_BINS, color=colours(report).get(method, BASELINE))
    failed = len(errors) - len(given)
    title = f"{method}: {failed} without an answer" if failed else method
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(f"{quantity} error, {unit_of(report, quantity)}")
