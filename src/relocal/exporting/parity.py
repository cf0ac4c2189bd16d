"""Parity: an exported network answers as the run does, on real photos."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from relocal.images import decode_for, load_view, resample
from relocal.localizers.exported import Runtime
from relocal.metrics import median, pose_errors
from relocal.models import PoseNet
from relocal.pose import Pose, position_error, rotation_error_deg
from relocal.scene import Scene
from relocal.training import Run, predict

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Parity:
    """How an exported network's answers differ from those of the run, and from the truth."""

    photos: int
    split: str
    """Which photos were asked about."""
    unit: str
    """Of positions."""
    median_position: float
    """Of the differences, in the scene's unit."""
    worst_position: float
    median_deg: float
    worst_deg: float
    errors: tuple[float, float]
    """Median errors of the run, in the scene's unit and in degrees."""
    exported_errors: tuple[float, float]
    """Those of the exported network."""

    @property
    def change(self) -> float:
        """By how much of itself the worse of both median errors changed; NaN where one is."""
        pairs = zip(self.exported_errors, self.errors, strict=True)
        return float(np.max([abs(new - old) / max(old, 1e-12) for new, old in pairs]))


def parity(
    run: Run,
    model: PoseNet,
    answer: Runtime,
    scene: Scene,
    photos: int,
    progress: Progress = lambda done, total, text: None,
) -> Parity:
    """Asks a run and its exported network about the same photos of its scene.

    Args:
        run: The run.
        model: Its network.
        answer: The exported network.
        scene: The scene: its test photos are taken, or those of training where it has none.
        photos: How many, evenly spaced.
        progress: Called with photos done, photos in all, and what is being done.
    """
    split = "test" if scene.splits.get("test") else "train"
    rows = spread_evenly(scene.indices(split), photos)
    ours: list[Pose] = []
    theirs: list[Pose] = []
    for done, i in enumerate(rows, start=1):
        source, camera = scene.path(i), scene.camera(i)
        view = load_view(source, camera, run.camera)
        said = predict(model, view[None], run.camera, run.window, run.config.cached)
        ours.append(run.in_world(said)[0])
        position, quaternion, _ = map(torch.from_numpy, answer(photo_of(run, scene, i)))
        theirs.append(run.in_world(Pose(position, quaternion))[0])
        progress(done, len(rows), "comparing with the run")
    one, other = Pose.stack(ours), Pose.stack(theirs)
    away, turned = position_error(one, other), rotation_error_deg(one, other)
    truth = scene.poses[torch.tensor(rows)]
    errors, exported = (pose_errors([p[i] for i in range(len(rows))], truth) for p in (one, other))
    return Parity(
        photos=len(rows),
        split=split,
        unit=run.unit,
        median_position=float(away.median()),
        worst_position=float(away.max()),
        median_deg=float(turned.median()),
        worst_deg=float(turned.max()),
        errors=(median(errors.position), median(errors.rotation_deg)),
        exported_errors=(median(exported.position), median(exported.rotation_deg)),
    )


def photo_of(run: Run, scene: Scene, i: int) -> UInt8[np.ndarray, "1 h w 3"]:
    """A photo of a scene as ``localize.py`` gives it to an exported network, (1, h, w, 3).

    Decoded and no more, unless another lens took it than the network knows.
    """
    camera, known = scene.camera(i), run.photo_camera
    pixels, seen_by = decode_for(scene.path(i), camera, run.seen_camera)
    fitted = known.resized(seen_by.width, seen_by.height)
    if fitted.model != seen_by.model or not torch.allclose(fitted.params, seen_by.params):
        pixels = resample(pixels, seen_by, run.seen_camera)
    return pixels.permute(1, 2, 0).contiguous().numpy()[None]


def spread_evenly(rows: Int[Tensor, " n"], count: int) -> list[int]:
    """At most ``count`` of some rows, evenly spaced."""
    step = max(1, -(-len(rows) // count))
    return rows[::step].tolist()
