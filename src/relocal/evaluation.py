"""Evaluation: Localizer × Scene -> Report.

Beside every localizer stand three answers that need no training, on the same images: the mean
training pose, the oracle nearest training pose (which looks at the true pose, at no image), and
image retrieval. A localizer that does not beat them has learned little of the place.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from relocal.backbones import BackboneConfig, build_backbone, describe
from relocal.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from relocal.errors import InputError
from relocal.images import build_cache, training_camera
from relocal.localizers import Localizer, Regressor
from relocal.metrics import (
    RECALL_THRESHOLDS_M,
    RECALL_THRESHOLDS_PERCENT,
    PoseErrors,
    failures,
    mean,
    mean_pose,
    median,
    nearest_pose,
    pose_errors,
    recall,
)
from relocal.pose import Pose
from relocal.scene import Scene, load_scene
from relocal.scene.scene import some
from relocal.training.run import Run, channels_last, environment

ORACLE, MEAN, RETRIEVAL = "oracle nearest", "mean pose", "retrieval"
_DESCRIPTOR_BACKBONE = BackboneConfig()  # its ImageNet weights come with the installation
_DESCRIPTOR_SHORT_SIDE_PX = 192
_BATCH = 32
_MEDIANS = {"position": "median_position", "rotation": "median_rotation_deg"}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class MethodResult:
    """One method's answers on the test images."""

    estimates: Sequence[Pose | None]
    errors: PoseErrors
    time_ms: float | None = None
    """Median time from a photo's file to its pose; None for baselines."""


@dataclass(frozen=True)
class Report:
    """What an evaluation found, with all that is needed to judge it."""

    scene: str
    unit: str
    split: str
    regime: str
    """Interpolation, extrapolation or another recording: how far test is from training."""
    images: tuple[str, ...]
    truth: Pose
    training: Pose
    methods: Mapping[str, MethodResult]
    thresholds: tuple[tuple[float, float], ...]
    """Recall thresholds: position in the scene's unit, and degrees."""
    extent: float
    """Diagonal of the box around the scene's camera centres."""
    corruptions: Mapping[str, Mapping[str, tuple[PoseErrors, ...]]] = field(default_factory=dict)
    """By localizer and kind of corruption, the errors at each severity; empty if none was asked."""
    made_by: Mapping[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Each method's numbers."""
        return {name: self._summary(result) for name, result in self.methods.items()}

    def _summary(self, result: MethodResult) -> dict[str, Any]:
        errors, oracle = result.errors, self.methods[ORACLE].errors
        return {
            "median_position": median(errors.position),
            "median_rotation_deg": median(errors.rotation_deg),
            "mean_position": mean(errors.position),
            "mean_rotation_deg": mean(errors.rotation_deg),
            "position_to_oracle": _ratio(median(errors.position), median(oracle.position)),
            "rotation_to_oracle": _ratio(median(errors.rotation_deg), median(oracle.rotation_deg)),
            "recall": [recall(errors, *threshold) for threshold in self.thresholds],
            "failures": failures(errors),
            "time_ms": result.time_ms,
        }

    def localizers(self) -> list[str]:
        """Names of the methods that are no baselines."""
        return [name for name in self.methods if name not in (ORACLE, MEAN, RETRIEVAL)]

    def remarks(self) -> list[str]:
        """What a reader must not miss."""
        numbers = self.summary()
        found: list[str] = []
        for name in self.localizers():
            # The weakest first: a localizer that loses to the mean pose has learned nothing.
            for baseline in (b for b in (MEAN, RETRIEVAL, ORACLE) if b in numbers):
                worse = [
                    what
                    for what, key in _MEDIANS.items()
                    if not numbers[name][key] < numbers[baseline][key]
                ]
                if worse:
                    found.append(f"{name} does not beat {baseline} in {' and '.join(worse)}.")
            if numbers[name]["failures"]:
                found.append(
                    f"{name} gave no answer for {numbers[name]['failures']} of {len(self.images)} "
                    "images; they count as infinite errors."
                )
        return found


def evaluate(
    localizers: Mapping[str, Localizer] | Path | str,
    scene: Scene | Path | str,
    *,
    split: str = "test",
    corruptions: bool = False,
    progress: Progress = lambda done, total, text: None,
) -> Report:
    """Measures localizers on a split of a scene, photo by photo, as a user would ask them.

    Args:
        localizers: Localizers by the name that the report gives them, or the folder of a run.
        scene: A scene with training images and the split, or its folder.
        split: Which images are asked about.
        corruptions: Ask about every photo under every entry of ``CORRUPTIONS`` and severity, too.
        progress: Called with photos done, photos in all, and what is being done.

    Raises:
        InputError: If the scene has no such images, or a localizer was trained on some of them.
    """
    scene = scene if isinstance(scene, Scene) else load_scene(Path(scene))
    if not isinstance(localizers, Mapping):
        localizers = {Path(localizers).resolve().name: Regressor(Path(localizers))}
    if taken := {ORACLE, MEAN, RETRIEVAL} & localizers.keys():
        raise InputError(f"{taken.pop()!r} is the name of a baseline; rename the run's folder.")
    test, train = scene.indices(split), scene.indices("train")
    for name, localizer in localizers.items():
        _check_not_trained_on(name, localizer, scene, test)
    truth, training = scene.poses[test], scene.poses[train]
    methods = baselines(scene, test, train, progress)
    for name, localizer in localizers.items():
        methods[name] = _ask(name, localizer, scene, test, progress)
    return Report(
        scene=scene.name,
        unit=scene.unit,
        split=split,
        regime=regime_of(scene),
        images=tuple(scene.images[i] for i in test.tolist()),
        truth=truth,
        training=training,
        methods=methods,
        thresholds=_thresholds(scene),
        extent=scene.extent(),
        corruptions=_under_corruptions(localizers, scene, test, progress) if corruptions else {},
        made_by={
            **environment(),
            "runs": {name: _about(localizer) for name, localizer in localizers.items()},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "provenance": dict(scene.provenance),
        },
    )


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


def regime_of(scene: Scene) -> str:
    """How far the test images are from the training images, by the rule of the split."""
    rule = str(scene.provenance.get("split", "official"))
    if rule.startswith("blocks:"):
        return "interpolation (blocks of the same recording)"
    if rule.startswith("last:"):
        return "extrapolation (the end of the same recording)"
    if rule.split(" ")[0] in ("official", "sequence"):
        return "another recording"
    return f"as {rule} says"


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


def _ask(
    name: str, localizer: Localizer, scene: Scene, test: Int[Tensor, " n"], progress: Progress
) -> MethodResult:
    estimates: list[Pose | None] = []
    times: list[float] = []
    for done, index in enumerate(test.tolist(), start=1):
        estimate = localizer.localize(scene.path(index), scene.camera(index))
        estimates.append(None if estimate is None else estimate.pose)
        if estimate is not None:
            times.append(estimate.time_ms)
        progress(done, len(test), name)
    errors = pose_errors(estimates, scene.poses[test])
    # The first photo warms the machine up.
    typical = float(torch.tensor(times[1:] or times).median()) if times else None
    return MethodResult(estimates, errors, typical)


def _under_corruptions(
    localizers: Mapping[str, Localizer],
    scene: Scene,
    test: Int[Tensor, " n"],
    progress: Progress,
) -> dict[str, dict[str, tuple[PoseErrors, ...]]]:
    """Errors by localizer, kind and severity; all localizers see the same corrupted photo."""
    found: dict[str, dict[str, tuple[PoseErrors, ...]]] = {name: {} for name in localizers}
    if not localizers:
        return {}
    total, done = len(CORRUPTIONS) * SEVERITIES * len(test), 0
    for kind in CORRUPTIONS:
        for severity in range(1, SEVERITIES + 1):
            poses: dict[str, list[Pose | None]] = {name: [] for name in localizers}
            for index in test.tolist():
                photo = corrupt(scene.path(index), kind, severity, scene.images[index])
                for name, localizer in localizers.items():
                    estimate = localizer.localize(photo, scene.camera(index))
                    poses[name].append(None if estimate is None else estimate.pose)
                done += 1
                progress(done, total, f"{kind}, severity {severity}")
            for name, estimates in poses.items():
                errors = pose_errors(estimates, scene.poses[test])
                found[name][kind] = (*found[name].get(kind, ()), errors)
    return found


def _check_not_trained_on(
    name: str, localizer: Localizer, scene: Scene, test: Int[Tensor, " n"]
) -> None:
    run = getattr(localizer, "run", None)
    if run is None:
        return
    if run.scene != scene.name:
        raise InputError(
            f"{name} was trained on the scene {run.scene!r}, this is {scene.name!r}: its poses "
            "would be in another world."
        )
    if scene.unit != run.unit or not scene.has_anchors(run.anchors):
        raise InputError(
            f"{name} was trained on other poses of {scene.name!r} (another ground truth, unit or "
            "import); two ground truths of one place differ and are never mixed."
        )
    seen = sorted(set(run.training_images) & {scene.images[i] for i in test.tolist()})
    if seen:
        raise InputError(
            f"{name} was trained on {len(seen)} of the images to test: {some(seen)}. Use the split "
            "that it was trained with."
        )


def _about(localizer: Localizer) -> dict[str, Any]:
    """The options and the training time of a localizer that was trained."""
    run: Run | None = getattr(localizer, "run", None)
    if run is None:
        return {}
    return {
        "train": run.config.without_paths().to_json(),
        "training_images": len(run.training_images),
        "training_seconds": run.training_seconds(),
    }


def _thresholds(scene: Scene) -> tuple[tuple[float, float], ...]:
    if scene.unit == "m":
        return RECALL_THRESHOLDS_M
    extent = scene.extent()
    return tuple((percent / 100 * extent, deg) for percent, deg in RECALL_THRESHOLDS_PERCENT)


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference > 0 else math.nan
