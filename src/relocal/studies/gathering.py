"""From cells to what a study measured: folds joined along the images, seeds as rows."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from relocal.errors import InputError
from relocal.evaluation import baselines, radian_weight, regime_of
from relocal.losses import LossConfig, loss_text
from relocal.metrics import PoseErrors, nearest_pose, pose_errors
from relocal.scene.files import read_json, write_json
from relocal.scene.splits import block_numbers
from relocal.studies.cells import Cell, data_identity
from relocal.studies.config import StudyConfig
from relocal.studies.folds import Fold, asked_images, fold_scene, training_images
from relocal.studies.plan import Plan
from relocal.studies.results import VALIDATION, MethodErrors, SceneErrors

Progress = Callable[[int, int, str], None]
Results = Mapping[Cell, Mapping[str, Any]]
Chosen = Mapping[Plan, tuple[LossConfig, float]]


def gather(
    plans: list[Plan],
    config: StudyConfig,
    chosen: Chosen,
    measured: Results,
    out: Path,
    progress: Progress,
) -> dict[str, SceneErrors]:
    """What was measured, by scene; a method that lacks a cell is left out of its scene.

    Args:
        plans: The grid.
        config: What was compared.
        chosen: The setting of each plan, and its score on validation.
        measured: Results of the cells of all seeds.
        out: Folder of the study, where errors of the baselines are kept, too.
        progress: Called with images done and in all, while baselines are asked.
    """
    found: dict[str, SceneErrors] = {}
    for name in dict.fromkeys(plan.scene for plan in plans):
        mine = [plan for plan in plans if plan.scene == name]
        rows: dict[str, MethodErrors] = {}
        for method in config.methods():
            parts = [plan for plan in mine if plan.method == method]
            if parts and all(_whole(plan, chosen, measured) for plan in parts):
                rows[method.text] = _joined(parts, chosen, measured)
        for method in config.methods():  # a pair may be named before its parts
            if method.parts and all(part in rows for part in method.parts):
                rows[method.text] = _pair(*(rows[part] for part in method.parts))
        rows = {m.text: rows[m.text] for m in config.methods() if m.text in rows}
        folds = list(dict.fromkeys(plan.fold for plan in mine))
        found[name] = _scene_errors(name, folds, config.final, rows, out, progress)
    return found


def _whole(plan: Plan, chosen: Chosen, measured: Results) -> bool:
    return plan in chosen and all(cell in measured for cell in plan.seed_cells(chosen[plan][0]))


def _joined(plans: list[Plan], chosen: Chosen, measured: Results) -> MethodErrors:
    """Folds side by side along the images; a row a seed."""
    cells = [[measured[cell] for cell in plan.seed_cells(chosen[plan][0])] for plan in plans]
    every = [cell for fold in cells for cell in fold]

    def errors(key: str) -> np.ndarray:
        return np.concatenate([np.array([cell[key] for cell in fold]) for fold in cells], axis=1)

    return MethodErrors(
        position=errors("position"),
        rotation_deg=errors("rotation_deg"),
        curve=np.mean([cell["curve"] for cell in every], axis=0),
        seconds=float(np.median([cell["seconds"] for cell in every])),
        images_per_s=float(np.median([cell["images_per_s"] for cell in every])),
        tuned={fold_name(plan.fold): loss_text(chosen[plan][0]) for plan in plans},
        validation=float(np.exp(np.mean([np.log(chosen[plan][1]) for plan in plans]))),
    )


def _pair(positions: MethodErrors, rotations: MethodErrors) -> MethodErrors:
    """Two networks: positions of the one, rotations of the other."""
    return MethodErrors(
        position=positions.position,
        rotation_deg=rotations.rotation_deg,
        curve=np.zeros((0, 3)),
        seconds=positions.seconds + rotations.seconds,
        images_per_s=1 / (1 / positions.images_per_s + 1 / rotations.images_per_s),
    )


def fold_name(fold: Fold) -> str:
    """What a fold is called in tables."""
    return "own" if fold.number < 0 else str(fold.number)


def _scene_errors(
    name: str,
    folds: list[Fold],
    final: bool,
    rows: Mapping[str, MethodErrors],
    out: Path,
    progress: Progress,
) -> SceneErrors:
    names: list[str] = []
    blocks: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    beside: dict[str, list[PoseErrors]] = {}
    for fold in folds:
        scene = fold_scene(fold)
        asked, train = asked_images(scene, final), training_images(scene, final)
        truth, training = scene.poses[asked], scene.poses[train]
        names += [scene.images[i] for i in asked.tolist()]
        # Validation blocks of two folds may overlap: the same place is the same block.
        blocks.append(block_numbers(scene, asked))
        nearest = nearest_pose(truth, training, radian_weight(scene)).tolist()
        distances.append(pose_errors([training[i] for i in nearest], truth).position)
        part = f"{'test' if final else 'validation'}-{fold_name(fold)}"
        file = out / "cells" / name / f"baselines-{part}.json"
        for method, errors in _baseline_errors(fold, final, file, progress).items():
            beside.setdefault(method, []).append(errors)
    scene = fold_scene(folds[0])
    return SceneErrors(
        name=scene.name,
        unit=scene.unit,
        regime=regime_of(scene) if final else VALIDATION,
        labels=str(scene.provenance.get("labels", scene.provenance.get("reader", ""))),
        split=str(scene.provenance.get("split", "official")),
        images=tuple(names),
        block=np.concatenate(blocks),
        nearest=np.concatenate(distances),
        baselines={name: _end_to_end(parts) for name, parts in beside.items()},
        methods=rows,
    )


def _baseline_errors(
    fold: Fold, final: bool, file: Path, progress: Progress
) -> dict[str, PoseErrors]:
    """Errors of the baselines, which are kept: retrieval describes every image."""
    about = data_identity(fold, not final)
    if file.is_file():
        try:
            kept = read_json(file)
            if all(kept.get(key, about[key]) == about[key] for key in ("data", "pictures")):
                rows = kept["errors"].items()
                return {name: PoseErrors(*map(np.array, errors)) for name, errors in rows}
        except (InputError, AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: is damaged ({error!r}); remove it, to make it anew."
            ) from error
    scene = fold_scene(fold)
    asked, train = asked_images(scene, final), training_images(scene, final)
    found = {n: r.errors for n, r in baselines(scene, asked, train, progress).items()}
    rows = {n: [e.position.tolist(), e.rotation_deg.tolist()] for n, e in found.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**about, "errors": rows})
    return found


def _end_to_end(parts: list[PoseErrors]) -> PoseErrors:
    return PoseErrors(
        np.concatenate([part.position for part in parts]),
        np.concatenate([part.rotation_deg for part in parts]),
    )
