"""The study: scenes × folds × methods × seeds with everything else equal, and what it shows."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from relocal.errors import InputError
from relocal.losses import LossConfig
from relocal.plugins import import_modules
from relocal.scene.files import read_json, write_json
from relocal.studies.cells import SCRATCH, Cell, finished, run_cells
from relocal.studies.config import StudyConfig
from relocal.studies.gathering import gather
from relocal.studies.methods import DEPTHS
from relocal.studies.plan import Plan, choose, make_plans
from relocal.studies.results import STUDY, Study, study_to_json
from relocal.training import TrainConfig
from relocal.training.loop import with_precision
from relocal.training.run import environment

LOOKS = "looks.json"

Progress = Callable[[int, int, str], None]


def study(
    scenes: list[Path] | list[str],
    out: Path | str,
    config: StudyConfig | None = None,
    base: TrainConfig | None = None,
    *,
    workers: int = 1,
    ray: str | None = None,
    modules: tuple[str, ...] = (),
    progress: Progress = lambda done, total, text: None,
) -> Study:
    """Compares losses on scenes, with everything else equal.

    Each loss is tuned on validation blocks with the same budget, then trained with every seed on
    every fold: from the same starting weights, with the same batches. Every training is a small
    file under ``out``, and is never made again.

    Args:
        scenes: Folders of scenes.
        out: Folder of the study, new or begun.
        config: What is compared.
        base: How the networks are trained; None takes what ``config.train`` stands for.
        workers: Processes on this machine.
        ray: ``local`` or the address of a cluster: cells run as tasks of Ray.
        modules: Files or modules with losses of their own.
        progress: Called with cells done, cells in all, and what is being done.

    Returns:
        The study; a cell that failed is named in it, and its method is left out of that scene.

    Raises:
        InputError: If a loss does not go with a scene, or ``out`` holds another study's cells.
    """
    import_modules(modules)
    out, config = Path(out), config or StudyConfig()
    base = with_precision(base or DEPTHS[config.train])
    _check_base(base)
    config.primary_pair()
    # Absolute, because other processes may work in another folder.
    folders, work = [Path(scene).resolve() for scene in scenes], (out / SCRATCH).resolve()
    plans = make_plans(folders, config, base, work, progress)
    total, done = sum(plan.count() for plan in plans), 0
    failed: list[str] = []

    def run(cells: list[Cell]) -> dict[Cell, dict[str, Any]]:
        nonlocal done
        found = {cell: result for cell in cells if (result := finished(cell, out)) is not None}
        rest = [cell for cell in cells if cell not in found]
        if any(not cell.config.validate for cell in rest):
            _note_look(out)
        done = min(total, done + len(found))
        for cell, result in run_cells(rest, out, workers=workers, ray=ray, modules=modules):
            done += 1
            progress(done, total, f"{cell.scene} {cell.method} {cell.label}")
            if isinstance(result, InputError):
                failed.append(f"{cell.scene} {cell.method} {cell.label}: {result}")
            else:
                found[cell] = result
        return found

    tuning = run([cell for plan in plans for cell in plan.tuning_cells()])
    chosen: dict[Plan, tuple[LossConfig, float]] = {}
    for plan in plans:
        if any(cell in tuning for cell in plan.tuning_cells()):
            chosen[plan] = choose(plan, tuning)
    measured = run([c for plan, (loss, _) in chosen.items() for c in plan.seed_cells(loss)])
    result = Study(
        config=config,
        base=base,
        scenes=gather(plans, config, chosen, measured, progress),
        failed=tuple(failed),
        looks=tuple(read_json(out / LOOKS)) if (out / LOOKS).is_file() else (),
        made_by={**environment(), "date": datetime.now(UTC).isoformat(timespec="seconds")},
    )
    write_json(out / STUDY, study_to_json(result))
    return result


def _check_base(base: TrainConfig) -> None:
    """Refuses options of training that the study sets itself, and would pass over."""
    if base.seed != 0 or base.validate:
        raise InputError("--seed and --validate: the study sets them; --seeds says how many.")
    if replace(base.loss, depth=None) != LossConfig():
        raise InputError("--loss: give losses with their options in --losses; --loss.depth stays.")


def _note_look(out: Path) -> None:
    """Records that test images are read, before they are."""
    out.mkdir(parents=True, exist_ok=True)
    looks = read_json(out / LOOKS) if (out / LOOKS).is_file() else []
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(out / LOOKS, [*looks, f"{now} at commit {environment()['commit']}"])
