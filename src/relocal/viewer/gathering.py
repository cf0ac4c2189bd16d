"""Gathering: what there is to look at of a scene, maps, runs and a report, from their folders."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from relocal.errors import InputError
from relocal.evaluation import Report, evaluate
from relocal.evaluation.untrained import Progress
from relocal.localizers import open_localizers
from relocal.report import REPORT_JSON, load_report
from relocal.scene import Scene, load_scene
from relocal.scene.files import is_scene

ALL_IMAGES = "all"
"""The split of a report in which nothing was asked: every image of a scene is looked at."""


@dataclass(frozen=True)
class Gathered:
    """What there is to look at."""

    report: Report
    """Poses, answers and map points; without methods where nothing was asked."""
    scene: Scene | None = None
    """For the photos, where it was given."""

    @cached_property
    def rows(self) -> list[int]:
        """For each image of the report, its number in the scene; empty without a scene."""
        if self.scene is None:
            return []
        number = {name: i for i, name in enumerate(self.scene.images)}
        return [number[name] for name in self.report.images]


def gather(
    folders: Sequence[Path | str],
    progress: Progress = lambda done, total, text: None,
) -> Gathered:
    """Gathers what folders of one scene have to show.

    Args:
        folders: A scene, a report, runs and maps, in any order. Without a report, runs and maps are
            asked about the scene's test images.
        progress: Called while they are asked.

    Raises:
        InputError: If a folder is none of these, they are of different scenes, or there is nothing
            with poses.
    """
    paths = [Path(folder) for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path}: there is no such folder.")
    scenes = [path for path in paths if is_scene(path)]
    reports = [path for path in paths if (path / REPORT_JSON).is_file()]
    rest = [path for path in paths if path not in scenes and path not in reports]
    for found, kind in ((scenes, "scene"), (reports, "report")):
        if len(found) > 1:
            raise InputError(f"{found[1]}: is a second {kind}; one can be looked at.")
    scene = load_scene(scenes[0]) if scenes else None
    if reports:
        if rest:
            raise InputError(f"{rest[0]}: a report has its answers already; leave it out.")
        return Gathered(_of_scene(load_report(reports[0]), scene, reports[0]), scene)
    if scene is None:
        raise InputError(
            f"{paths[0]}: give its scene, too: its poses and photos are what is looked at."
            if paths
            else "FOLDER: give a scene, a report, or a run or map with its scene."
        )
    if rest:
        localizers = open_localizers(rest, (), scene)
        return Gathered(evaluate(localizers, scene, progress=progress), scene)
    return Gathered(_unasked(scene), scene)


def _of_scene(report: Report, scene: Scene | None, folder: Path) -> Report:
    """The report, once it is known to be of the scene, with what the scene knows more."""
    if scene is None:
        return report
    if report.scene != scene.name or not set(report.images) <= set(scene.images):
        raise InputError(f"{folder}: is a report on {report.scene!r}, not of this scene's images.")
    whole = _unasked(scene)
    training = report.training if len(report.training) else whole.training
    points = whole.points if report.points is None else report.points
    return replace(report, training=training, points=points)


def _unasked(scene: Scene) -> Report:
    train = scene.indices("train") if scene.splits.get("train") else torch.arange(0)
    return Report(
        scene=scene.name,
        unit=scene.unit,
        split=ALL_IMAGES,
        regime="nothing was asked",
        images=scene.images,
        truth=scene.poses,
        training=scene.poses[train],
        methods={},
        thresholds=(),
        extent=scene.extent(),
        points=None if scene.points is None else (scene.points.xyz, scene.points.rgb),
    )
