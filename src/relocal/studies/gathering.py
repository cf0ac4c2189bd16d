"""From cells to what a study measured: folds joined along the images, seeds as rows."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from relocal.evaluation import baselines, radian_weight, regime_of
from relocal.losses import LossConfig, loss_text
from relocal.metrics import PoseErrors, nearest_pose, pose_errors
from relocal.studies.cells import Cell
from relocal.studies.config import StudyConfig
from relocal.studies.folds import Fold, asked_images, block_numbers, fold_scene, training_images
from relocal.studies.plan import Plan
from relocal.studies.results import MethodErrors, SceneErrors

Progress = Callable[[int, int, str], None]
Results = Mapping[Cell, Mapping[str, Any]]
Chosen = Mapping[Plan, tuple[LossConfig, float]]

_BLOCKS_A_FOLD = 1_000_000_000  # more than any fold numbers


def gather(
    plans: list[Plan], config: StudyConfig, chosen: Chosen, measured: Results, progress: Progress
) -> dict[str, SceneErrors]:
    """What was measured, by scene; a method that lacks a cell is left out of its scene.

    Args:
        plans: The grid.
        config: What was compared.
        chosen: The setting of each plan, and its score on validation.
        measured: Results of the cells of all seeds.
        progress: Called with images done and in all, while baselines are asked.
    """
    found: dict[str, SceneErrors] = {}
    for name in dict.fromkeys(plan.scene for plan in plans):
        mine = [plan for plan in plans if plan.scene == name]
        rows: dict[str, MethodErrors] = {}
        for method in config.methods():
            parts = [plan for plan in mine if plan.method == method]
            if method.parts and all(part in rows for part in method.parts):
                rows[method.text] = _pair(*(rows[part] for part in method.parts))
            elif parts and all(_whole(plan, chosen, measured) for plan in parts):
                rows[method.text] = _joined(parts, chosen, measured)
        folds = list(dict.fromkeys(plan.fold for plan in mine))
        found[name] = _scene_errors(folds, config.final, rows, progress)
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
    folds: list[Fold], final: bool, rows: Mapping[str, MethodErrors], progress: Progress
) -> SceneErrors:
    names: list[str] = []
    blocks: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    beside: dict[str, list[PoseErrors]] = {}
    for place, fold in enumerate(folds):
        scene = fold_scene(fold)
        asked, train = asked_images(scene, final), training_images(scene, final)
        truth, training = scene.poses[asked], scene.poses[train]
        names += [scene.images[i] for i in asked.tolist()]
        # Validation blocks of two folds may overlap, and are still apart: other networks answer.
        blocks.append(block_numbers(scene, asked) + (0 if final else place * _BLOCKS_A_FOLD))
        nearest = nearest_pose(truth, training, radian_weight(scene)).tolist()
        distances.append(pose_errors([training[i] for i in nearest], truth).position)
        for method, result in baselines(scene, asked, train, progress).items():
            beside.setdefault(method, []).append(result.errors)
    scene = fold_scene(folds[0])
    return SceneErrors(
        name=scene.name,
        unit=scene.unit,
        regime=regime_of(scene) if final else "validation blocks of the training images",
        labels=str(scene.provenance.get("labels", scene.provenance.get("reader", ""))),
        split=str(scene.provenance.get("split", "official")),
        images=tuple(names),
        block=np.concatenate(blocks),
        nearest=np.concatenate(distances),
        baselines={name: _end_to_end(parts) for name, parts in beside.items()},
        methods=rows,
    )


def _end_to_end(parts: list[PoseErrors]) -> PoseErrors:
    return PoseErrors(
        np.concatenate([part.position for part in parts]),
        np.concatenate([part.rotation_deg for part in parts]),
    )
