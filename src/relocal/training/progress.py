"""What training says of itself: errors of its batches, a row an epoch, and a loss gone wrong."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from relocal.errors import InputError
from relocal.metrics import median
from relocal.pose import position_error, rotation_error_deg
from relocal.training.data import TrainingData
from relocal.types import Prediction, Target


def errors_row(
    mean: Tensor, prediction: Prediction, target: Target
) -> tuple[float, Tensor, Tensor]:
    """Loss and errors of a batch, for the progress line."""
    with torch.no_grad():
        pose = prediction.pose()
        return (
            float(mean),
            position_error(pose, target.pose),
            rotation_error_deg(pose, target.pose),
        )


def _medians(rows: list[tuple[float, Tensor, Tensor]]) -> tuple[float, float]:
    return (
        median(torch.cat([row[1] for row in rows]).cpu().numpy()),
        median(torch.cat([row[2] for row in rows]).cpu().numpy()),
    )


def progress_line(
    epoch: int, data: TrainingData, rows: list[tuple[float, Tensor, Tensor]], seconds: float
) -> str:
    """Epoch, loss, median errors of the latest training batches, and speed; fits a terminal."""
    position, rotation = _medians(rows[-20:])
    images_per_s = len(rows) * data.batch_size / seconds
    return (
        f"epoch {epoch + 1}/{data.config.epochs} loss {rows[-1][0]:.3f} "
        f"train {position:.3f} {data.scene.unit} {rotation:.1f}° {images_per_s:.0f} img/s"
    )


def epoch_row(
    epoch: int,
    rows: list[tuple[float, Tensor, Tensor]],
    data: TrainingData,
    seconds: float,
) -> dict[str, Any]:
    """The row of ``metrics.jsonl``; its training medians are of augmented images."""
    position, rotation = _medians(rows)
    return {
        "epoch": epoch + 1,
        "loss": float(np.mean([row[0] for row in rows])),
        "train_position": position,
        "train_rotation_deg": rotation,
        "images_per_s": data.steps_per_epoch * data.batch_size / seconds,
        "seconds": seconds,
    }


@torch.no_grad()
def check_finite(
    values: Float[Tensor, " B"],
    loss: nn.Module,
    prediction: Prediction,
    target: Target,
    progress: float,
    data: TrainingData,
    index: Tensor,
) -> None:
    """Stops at a loss that is no number, and names the image and the part of the loss."""
    bad = ~torch.isfinite(values)
    if not bool(bad.any()):
        return
    first = int(bad.nonzero()[0, 0])
    parts = {type(part).__name__: part for part in (getattr(loss, "base", loss), *_terms(loss))}
    wrong = [
        name
        for name, part in parts.items()
        if not bool(torch.isfinite(part(prediction, target, progress)[first]))
    ]
    raise InputError(
        f"--loss {data.config.loss.name}: the loss is {float(values[first])} for "
        f"{data.scene.images[int(index[first])]} (in {' and '.join(wrong) or 'their sum'}; a batch "
        f"of {len(values)} images, {100 * progress:.0f} % of the training done). Look at this "
        "image and its pose, or start a new run with a lower --lr."
    )


def _terms(loss: nn.Module) -> list[nn.Module]:
    return list(getattr(loss, "terms", ()))
