"""Answers that need no training: the mean pose, the oracle nearest pose, and image retrieval."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from relocal.backbones import BackboneConfig, build_backbone, describe
from relocal.evaluation.report import MEAN, ORACLE, RETRIEVAL, MethodResult
from relocal.images import build_cache, training_camera
from relocal.metrics import mean_pose, nearest_pose, pose_errors
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.training.run import channels_last

_DESCRIPTOR_BACKBONE = BackboneConfig()  # its ImageNet weights come with the installation
_DESCRIPTOR_SHORT_SIDE_PX = 192
_BATCH = 32

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


def describe_images(
    scene: Scene, indices: Int[Tensor, " n"], progress: Progress
) -> Float[Tensor, "n D"]:
    """Unit descriptors of images: the ImageNet backbone's map pooled on a 3 x 4 grid."""
    rows = indices.tolist()
    target = training_camera(scene.camera(rows[0]), _DESCRIPTOR_SHORT_SIDE_PX)
    images = build_cache(
        [scene.path(i) for i in rows],
        [scene.camera(i) for i in rows],
        target,
        scene.cache_folder(),
        lambda done, total: progress(done, total, "reading images"),
    )
    backbone = channels_last(build_backbone(_DESCRIPTOR_BACKBONE).eval())
    parts: list[Tensor] = []
    for batch in images.split(_BATCH):
        with torch.inference_mode():
            view = batch.float().contiguous(memory_format=torch.channels_last)
            parts.append(describe(backbone(view)))
        progress(sum(len(part) for part in parts), len(images), "describing images")
    return torch.cat(parts)


def _most_similar(
    scene: Scene, test: Int[Tensor, " n"], train: Int[Tensor, " m"], progress: Progress
) -> Int[Tensor, " n"]:
    descriptors = describe_images(scene, torch.cat([test, train]), progress)
    return (descriptors[: len(test)] @ descriptors[len(test) :].T).argmax(1)
