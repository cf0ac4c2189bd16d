"""Sequences: the answers about a block of images, filtered as a video's."""

import numpy as np
from jaxtyping import Int
from torch import Tensor

from relocal.evaluation.report import MethodResult
from relocal.localizers.sequence import filter_poses, fit_motion, measured
from relocal.metrics import pose_errors
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.scene.splits import block_numbers


def as_videos(result: MethodResult, scene: Scene, test: Int[Tensor, " n"]) -> MethodResult:
    """The same answers filtered, each block of images a video; the motion is that of training.

    Args:
        result: What a calibrated localizer answered.
        scene: The scene.
        test: The images that it was asked about.

    Raises:
        InputError: If the training images are no recording.
    """
    train = scene.indices("train")
    recordings = [scene.sequence(i) for i in train.tolist()]
    motion = fit_motion(scene.poses[train], recordings, train.double().tolist())
    blocks, sigmas = block_numbers(scene, test), result.sigmas
    assert sigmas is not None  # a calibrated localizer states them
    poses: list[Pose | None] = [None] * len(test)
    spreads = np.full((len(test), 2), np.nan)
    for block in np.unique(blocks):
        rows = np.flatnonzero(blocks == block)
        found = [measured(result.estimates[i], *sigmas[i].tolist()) for i in rows.tolist()]
        known = filter_poses(found, motion, test[rows].double().tolist())
        for i, one in zip(rows.tolist(), known, strict=True):
            if one is not None:
                poses[i], spreads[i] = one.pose, (one.sigma, one.sigma_deg)
    errors = pose_errors(poses, scene.poses[test])
    return MethodResult(poses, errors, result.time_ms, result.memory_mb, spreads)
