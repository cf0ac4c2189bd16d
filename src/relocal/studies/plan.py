"""The grid of a study: scenes × folds × methods, the settings to choose from, and the cells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from relocal.errors import InputError
from relocal.losses import (
    LossConfig,
    build_loss,
    check_log_variance,
    check_rotation,
    check_scene,
    needs_depth,
    needs_range,
    takes_points,
)
from relocal.metrics import median
from relocal.scene import Scene, load_scene
from relocal.studies.cells import Cell
from relocal.studies.config import StudyConfig
from relocal.studies.folds import Fold, fold_scene, folds_of, with_points
from relocal.studies.methods import DEPTHS, Method, method_config, settings
from relocal.training import TrainConfig

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """One method on one fold of one scene."""

    scene: str
    fold: Fold
    method: Method
    config: TrainConfig
    tuning: TrainConfig
    """How a setting is tried: as ``config``, or with less that learns."""
    tries: tuple[LossConfig, ...]
    """Settings to choose from on validation."""
    seeds: int
    final: bool

    def tuning_cells(self) -> list[Cell]:
        """A cell a setting, all with seed 0, asked about validation blocks."""
        label = "tune" if self.tuning == self.config else f"tune-{self.tuning.freeze}"
        return [
            self._cell(replace(self.tuning, loss=loss, validate=True, seed=0), f"{label}-{i}")
            for i, loss in enumerate(self.tries)
        ]

    def seed_cells(self, loss: LossConfig) -> list[Cell]:
        """A cell a seed with the setting that was chosen.

        Where validation blocks are asked, tuning may have trained the one of seed 0 already.
        """
        config = replace(self.config, loss=loss, validate=not self.final)
        cells = [self._cell(replace(config, seed=s), f"seed-{s}") for s in range(self.seeds)]
        if not self._trained_while_tuning():
            return cells
        return [self.tuning_cells()[self.tries.index(loss)], *cells[1:]]

    def count(self) -> int:
        """How many cells there are."""
        return len(self.tries) + self.seeds - self._trained_while_tuning()

    def _trained_while_tuning(self) -> bool:
        return not self.final and self.tuning == self.config

    def _cell(self, config: TrainConfig, label: str) -> Cell:
        return Cell(self.scene, self.fold, self.method.text, config, label)


def make_plans(
    folders: list[Path], config: StudyConfig, base: TrainConfig, work: Path, progress: Progress
) -> list[Plan]:
    """All that is to be trained; what cannot be is refused before anything is.

    Folds get map points of their own training images, where a loss uses points or depth.

    Args:
        folders: The scenes.
        config: What is compared.
        base: How the networks are trained.
        work: Folder for what is made on the way.
        progress: Called with steps done, steps in all, and what is being done.

    Raises:
        InputError: If a loss does not go with a scene, two scenes share a name, or a pair's parts
            are not methods by themselves.
    """
    methods = config.methods()
    _check_pairs(methods)
    tuned = _tuning_base(config, base)
    plans: list[Plan] = []
    for folder in folders:
        name = load_scene(folder).name
        if name in {plan.scene for plan in plans}:
            raise InputError(f"{folder}: another scene is called {name}, too; import one anew.")
        for fold in folds_of(folder, config.folds):
            if any(_uses_map(method, base) for method in methods):
                fold = with_points(fold, work, progress)
            scene = fold_scene(fold)
            for method in (m for m in methods if not m.parts):
                trained = method_config(method, base)
                tuning = trained if tuned is base else _tuning(method, tuned)
                _check(method, trained, scene)
                tries = tuple(settings(trained.loss, config.tune, method.fixed))
                plans.append(
                    Plan(name, fold, method, trained, tuning, tries, config.seeds, config.final)
                )
    return plans


def _tuning_base(config: StudyConfig, base: TrainConfig) -> TrainConfig:
    """How settings are tried: another depth keeps the backbone, the network's options, the machine.

    Epochs, rates and views are its own.
    """
    if config.tune_train in (None, config.train):
        return base
    depth, usual = DEPTHS[config.tune_train], DEPTHS[config.train]
    changed = {
        option.name: getattr(base.model, option.name)
        for option in fields(base.model)
        if getattr(base.model, option.name) != getattr(usual.model, option.name)
    }
    return replace(
        depth,
        model=replace(depth.model, **changed),
        backbone=base.backbone,
        loss=base.loss,
        precision=base.precision,
        accelerator=base.accelerator,
    )


def _tuning(method: Method, tuned: TrainConfig) -> TrainConfig:
    try:
        return method_config(method, tuned)
    except InputError as error:
        raise InputError(f"{error} That is while settings are tried: --tune-train.") from error


def _uses_map(method: Method, base: TrainConfig) -> bool:
    loss, config = build_loss(method.loss), method_config(method, base)
    return takes_points(loss) or needs_range(loss) or (needs_depth(loss) and not config.loss.depth)


def _check(method: Method, config: TrainConfig, scene: Scene) -> None:
    loss, depth = build_loss(config.loss), scene.depth_range()
    try:
        check_rotation(loss, config.model.rotation)
        check_log_variance(loss, config.model.log_variance)
    except InputError as error:
        raise InputError(
            f"--losses {method.text}: {error} Options of training stand behind the loss: "
            f"{method.loss.name}/model.rotation=6d."
        ) from error
    if config.loss.depth is None:
        check_scene(loss, method.text, scene.name, depth, scene.points is not None)


def _check_pairs(methods: list[Method]) -> None:
    alone = {method.text for method in methods if not method.parts}
    for method in methods:
        if missing := [part for part in method.parts if part not in alone]:
            raise InputError(f"--losses {method.text}: list {missing[0]} by itself, too.")


def choose(plan: Plan, results: Mapping[Cell, Mapping[str, Any]]) -> tuple[LossConfig, float]:
    """The setting that is best on validation, and its score; lower is better.

    The score is the product of the median position and the median rotation error, so that neither
    unit weighs.

    Raises:
        InputError: If no setting's cell is there.
    """
    scores = {c.config.loss: _score(results[c]) for c in plan.tuning_cells() if c in results}
    if not scores:
        raise InputError(f"{plan.scene} {plan.method.text}: all its settings failed.")
    if not np.isfinite(list(scores.values())).any():
        raise InputError(f"{plan.scene} {plan.method.text}: no setting gave finite errors.")
    best = min(scores, key=lambda loss: scores[loss])
    return best, scores[best]


def _score(result: Mapping[str, Any]) -> float:
    score = median(np.array(result["position"])) * median(np.array(result["rotation_deg"]))
    return score if np.isfinite(score) else np.inf
