"""Answers that need no training: the mean pose, the oracle nearest pose, and image retrieval."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from relocal.evaluation.report import MEAN, ORACLE, RETRIEVAL, MethodResult
from relocal.localizers.retrieval import describe_images
from relocal.metrics import mean_pose, nearest_pose, pose_errors
from relocal.pose import Pose
from relocal.scene import Scene

Progress = Callable[[int, int, str], None]


def baselines(
    scene: Scene, test: Int[Tensor, " n"], train: Int[Tensor, " m"], progress: Progress
) -> dict[str, MethodResult]:
    """Mean pose, oracle nearest and retrieval on the test images."""
    truth, training = scene.poses[test], scene.poses[train]
    centre = mean_pose(training)
    nearest = nearest_pose(truth, training, radian_weight(scene))
    similar = _most_similar(scene, test, train, progress)
    answers: dict[str, list[Pose | None]] = {
        MEAN: [centre] * len(test),
        ORACLE: [training[i] for i in nearest.tolist()],
        RETRIEVAL: [training[i] for i in similar.tolist()],
    }
    return {name: MethodResult(poses, pose_errors(poses, truth)) for name, poses in answers.items()}


def radian_weight(scene: Scene) -> float:
    """What one radian weighs against a distance: 1 m, or half of the depth without a scale.

    A scene with neither scale nor depth takes half of its path's extent.
    """
    if scene.unit == "m":
        return 1.0
    depth = scene.depth_range()
    return float(depth[1]) / 2 if depth is not None else scene.extent() / 2


def _most_similar(
    scene: Scene, test: Int[Tensor, " n"], train: Int[Tensor, " m"], progress: Progress
) -> Int[Tensor, " n"]:
    descriptors = describe_images(scene, torch.cat([test, train]), progress)
    return (descriptors[: len(test)] @ descriptors[len(test) :].T).argmax(1)
