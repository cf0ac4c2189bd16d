"""Evaluation: Localizer × Scene -> Report.

Beside every localizer stand three answers that need no training, on the same images: the mean
training pose, the oracle nearest training pose (which looks at the true pose, at no image), and
image retrieval. A localizer that does not beat them has learned little of the place.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from relocal.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from relocal.errors import InputError
from relocal.evaluation.rejection import Rejection, rejection
from relocal.evaluation.report import BASELINES, FILTERED, MethodResult, Report
from relocal.evaluation.sequences import as_videos
from relocal.evaluation.untrained import Progress, baselines
from relocal.images import decode
from relocal.localizers import FeatureMap, ImageIndex, Localizer, open_localizer
from relocal.localizers.doubt import (
    calibration_of,
    can_doubt,
    check_calibrated,
    check_doubts,
    doubt,
    refused,
)
from relocal.metrics import (
    RECALL_THRESHOLDS_M,
    RECALL_THRESHOLDS_PERCENT,
    PoseErrors,
    pose_errors,
)
from relocal.pose import Pose
from relocal.scene import Scene, load_scene
from relocal.scene.scene import some
from relocal.scene.splits import block_numbers
from relocal.training.run import WEIGHTS, Run, environment


def evaluate(
    localizers: Mapping[str, Localizer] | Path | str,
    scene: Scene | Path | str,
    *,
    split: str = "test",
    corruptions: bool = False,
    reject: bool = False,
    sequence: bool = False,
    others: Sequence[Path | str] = (),
    progress: Progress = lambda done, total, text: None,
) -> Report:
    """Measures localizers on a split of a scene, photo by photo, as a user would ask them.

    Args:
        localizers: Localizers by the name that the report gives them, or the folder of a run or a
            map.
        scene: A scene with training images and the split, or its folder.
        split: Which images are asked about.
        corruptions: Ask about every photo under every entry of ``CORRUPTIONS`` and severity, too.
        reject: Take no answer that is less sure than nearly all held-out ones were, of localizers
            that can tell.
        sequence: Measure each calibrated localizer once more with its answers filtered, each block
            of images a video.
        others: Photos of other places, files: how well is it told that they are?
        progress: Called with photos done, photos in all, and what is being done.

    Raises:
        InputError: If the scene has no such images, a localizer was trained on some of them, or
            does not say how sure it is where that is needed.
    """
    scene = scene if isinstance(scene, Scene) else load_scene(Path(scene))
    if not isinstance(localizers, Mapping):
        localizers = {Path(localizers).resolve().name: open_localizer(localizers)}
    if taken := {*BASELINES} & localizers.keys():
        raise InputError(f"{taken.pop()!r} is the name of a baseline; rename the run's folder.")
    others = _readable(others)
    test, train = scene.indices(split), scene.indices("train")
    surely = [name for name, one in localizers.items() if calibration_of(one) is not None]
    for name, localizer in localizers.items():
        _check_not_trained_on(name, localizer, scene, test)
        if reject and not any(map(can_doubt, localizers.values())):
            check_doubts(name, localizer)
        if sequence and not surely:
            check_calibrated(name, localizer)
    truth, training = scene.poses[test], scene.poses[train]
    methods = baselines(scene, test, train, progress)
    for name, localizer in localizers.items():
        methods[name] = _ask(name, localizer, scene, test, reject, progress)
        if sequence and name in surely:
            methods[name + FILTERED] = as_videos(methods[name], scene, test)
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
        block=block_numbers(scene, test),
        corruptions=_under_corruptions(localizers, scene, test, reject, progress)
        if corruptions
        else {},
        points=_points(localizers, scene),
        notes=(
            *_notes(localizers, scene),
            *_not_calibrated(localizers, surely, reject, sequence or bool(others)),
        ),
        rejections=_rejections(localizers, methods, others, progress) if others else {},
        made_by={
            **environment(),
            "runs": {name: _about(localizer) for name, localizer in localizers.items()},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "provenance": dict(scene.provenance),
        },
    )


def _readable(photos: Sequence[Path | str]) -> list[Path]:
    """The photos, each seen to be one before hours are spent on the others."""
    files = [Path(photo) for photo in ([photos] if isinstance(photos, str | Path) else photos)]
    for file in files:
        decode(file, (1, 1))
    return files


def _points(localizers: Mapping[str, Localizer], scene: Scene) -> Any:
    """Points of the scene, or of the first map, with their colours."""
    if scene.points is not None:
        return scene.points.xyz, scene.points.rgb
    for map in (getattr(localizer, "map", None) for localizer in localizers.values()):
        if map is not None:
            return map.xyz.double().numpy(), map.rgb.numpy()
    return None


def _notes(localizers: Mapping[str, Localizer], scene: Scene) -> tuple[str, ...]:
    maps = [name for name, one in localizers.items() if getattr(one, "map", None) is not None]
    if not maps or "sfm" not in str(scene.provenance.get("labels", "")).lower():
        return ()
    return (
        f"These poses were made by Structure from Motion, which favours {' and '.join(maps)}: maps "
        "of local features make the same errors (Brachmann et al. 2021).",
    )


def _not_calibrated(
    localizers: Mapping[str, Localizer], surely: Sequence[str], reject: bool, asked: bool
) -> tuple[str, ...]:
    """What could not be measured of localizers that do not say how sure they are."""
    unknown = [name for name in localizers if name not in surely] if asked or reject else []
    same = [n for n in surely if reject and not can_doubt(localizers[n])]
    notes: list[str] = []
    if unknown:
        notes.append(
            f"How sure {' and '.join(unknown)} may be is not known, so nothing is refused or "
            "filtered for it: relocal calibrate its run or map."
        )
    if same:
        notes.append(
            f"{' and '.join(same)} states the same spread for every photo and refuses none; "
            "bayesian, an ensemble, a map or a run with --loss nll tell photos apart."
        )
    return tuple(notes)


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


def _ask(
    name: str,
    localizer: Localizer,
    scene: Scene,
    test: Int[Tensor, " n"],
    reject: bool,
    progress: Progress,
) -> MethodResult:
    estimates: list[Pose | None] = []
    times: list[float] = []
    others = Counter[str]()
    sigmas, doubts = np.full((len(test), 2), np.nan), np.zeros(len(test))
    reject = reject and can_doubt(localizer)
    for done, index in enumerate(test.tolist(), start=1):
        estimate = localizer.localize(scene.path(index), scene.camera(index))
        doubts[done - 1] = doubt(localizer, estimate)
        estimate = None if reject and refused(localizer, estimate) else estimate
        estimates.append(None if estimate is None else estimate.pose)
        if estimate is not None:
            times.append(estimate.time_ms)
            if estimate.sigma_m is not None and estimate.sigma_deg is not None:
                sigmas[done - 1] = estimate.sigma_m, estimate.sigma_deg
            others.update([estimate.method] if estimate.method != localizer.method else [])
        progress(done, len(test), name)
    errors = pose_errors(estimates, scene.poses[test])
    # The first photo warms the machine up.
    typical = float(torch.tensor(times[1:] or times).median()) if times else None
    memory = _held_bytes(localizer) / 1e6
    return MethodResult(estimates, errors, typical, memory, sigmas, dict(others), doubts)


def _held_bytes(localizer: Localizer) -> int:
    """What a localizer keeps in memory of what it has learned, once it was asked."""
    total = 0
    for source in sources_of(localizer):
        if isinstance(source, Run):
            files = [source.folder / WEIGHTS, *source.folder.glob("model.*")]  # exported
            size = sum(file.stat().st_size for file in files if file.is_file())
            total += size * len(getattr(localizer, "members", [localizer]))
        else:
            total += sum(_bytes(value) for value in vars(source).values())
    return total


def _bytes(value: Any) -> int:
    if isinstance(value, Pose):
        return _bytes(value.position) + _bytes(value.quaternion)
    if isinstance(value, list):
        return sum(map(_bytes, value))
    return value.nbytes if isinstance(value, Tensor) else 0


def _rejections(
    localizers: Mapping[str, Localizer],
    methods: Mapping[str, MethodResult],
    others: Sequence[Path],
    progress: Progress,
) -> dict[str, Rejection]:
    """How well each localizer tells photos of other places from those that were asked about."""
    found: dict[str, Rejection] = {}
    for name, localizer in localizers.items():
        doubts = np.zeros(len(others))
        for done, photo in enumerate(others, start=1):
            doubts[done - 1] = doubt(localizer, localizer.localize(photo))
            progress(done, len(others), f"{name}, other places")
        mine = methods[name].doubts
        assert mine is not None  # every localizer was asked
        found[name] = rejection(mine, doubts)
    return found


def _under_corruptions(
    localizers: Mapping[str, Localizer],
    scene: Scene,
    test: Int[Tensor, " n"],
    reject: bool,
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
                    if reject and can_doubt(localizer) and refused(localizer, estimate):
                        estimate = None
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
    for source in sources_of(localizer):
        if source.scene != scene.name:
            raise InputError(
                f"{name} was made of the scene {source.scene!r}, this is {scene.name!r}: its poses "
                "would be in another world."
            )
        if scene.unit != source.unit or not scene.has_anchors(source.anchors):
            raise InputError(
                f"{name} was made of other poses of {scene.name!r} (another ground truth, unit or "
                "import); two ground truths of one place differ and are never mixed."
            )
        seen = sorted(set(source.training_images) & {scene.images[i] for i in test.tolist()})
        if seen:
            raise InputError(
                f"{name} was made of {len(seen)} of the images to test: {some(seen)}. Use the "
                "split that it was made with."
            )


def sources_of(localizer: Localizer) -> list[Run | FeatureMap | ImageIndex]:
    """The run, the map and the images that a localizer has learned from, where it has."""
    parts = (getattr(localizer, part, None) for part in ("run", "map", "index"))
    return [part for part in parts if part is not None]


def _about(localizer: Localizer) -> dict[str, Any]:
    """The options and the size of what a localizer has learned from."""
    about: dict[str, Any] = {}
    for source in sources_of(localizer):
        about["training_images"] = len(source.training_images)
        if isinstance(source, FeatureMap):
            about |= {"map": asdict(source.config), "map_points": len(source)}
        elif isinstance(source, Run):
            about["train"] = source.config.without_paths().to_json()
            about["training_seconds"] = source.training_seconds()
    return about


def _thresholds(scene: Scene) -> tuple[tuple[float, float], ...]:
    if scene.unit == "m":
        return RECALL_THRESHOLDS_M
    extent = scene.extent()
    return tuple((percent / 100 * extent, deg) for percent, deg in RECALL_THRESHOLDS_PERCENT)
