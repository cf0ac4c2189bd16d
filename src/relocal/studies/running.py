"""The study: scenes × folds × methods × seeds with everything else equal, and what it shows."""

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from relocal.errors import InputError
from relocal.losses import LossConfig
from relocal.plugins import import_modules
from relocal.scene.files import read_json, write_json
from relocal.studies.cells import FAILURES, SCRATCH, Cell, finished, forget_scenes, run_cells
from relocal.studies.config import StudyConfig
from relocal.studies.gathering import gather
from relocal.studies.methods import DEPTHS
from relocal.studies.plan import Plan, choose, make_plans
from relocal.studies.results import STUDY, Study, study_to_json
from relocal.training import TrainConfig
from relocal.training.loop import with_precision
from relocal.training.run import environment

LOOKS = "looks.json"
WEIGHTS = "weights.json"
"""sha256 of each file of weights, by its name, which is what cells know it by."""
NO_FILE = ("pretrained", "none")
_LOCK = ".lock"
_PARTS = {"cells", SCRATCH, LOOKS, WEIGHTS, STUDY, FAILURES, _LOCK}

Progress = Callable[[int, int, str], None]


def study(
    scenes: Sequence[Path | str] | Path | str,
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
        scenes: Folders of scenes, or one.
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
    forget_scenes()
    out, config = Path(out), config or StudyConfig()
    base = with_precision(base or DEPTHS[config.train])
    _check_base(config, base)
    config.primary_pair()
    config.secondary_pairs()
    scenes = [scenes] if isinstance(scenes, Path | str) else scenes
    # Absolute, because other processes may work in another folder.
    folders = [Path(scene).resolve() for scene in scenes]
    with _alone(out):
        return _study(
            folders, out, config, base, progress, workers=workers, ray=ray, modules=modules
        )


def _study(
    folders: list[Path],
    out: Path,
    config: StudyConfig,
    base: TrainConfig,
    progress: Progress,
    **how: Any,
) -> Study:
    plans = make_plans(folders, config, base, (out / SCRATCH).resolve(), progress)
    _check_weights(plans, out)
    total, done = sum(plan.count() for plan in plans), 0
    progress(0, total, "the first training of a scene looks at its images")
    failed: list[str] = []

    def run(cells: list[Cell]) -> dict[Cell, dict[str, Any]]:
        nonlocal done
        found = {cell: result for cell in cells if (result := finished(cell, out)) is not None}
        rest = [cell for cell in cells if cell not in found]
        if any(not cell.config.validate for cell in rest):
            _note_look(out, config)
        done = min(total, done + len(found))
        for cell, result in run_cells(rest, out, **how):
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
        base=base.without_paths(),
        scenes=gather(plans, config, chosen, measured, out, progress),
        failed=tuple(failed),
        looks=_looks(out),
        made_by={**environment(), "date": datetime.now(UTC).isoformat(timespec="seconds")},
    )
    write_json(out / STUDY, study_to_json(result))
    return result


def _check_base(config: StudyConfig, base: TrainConfig) -> None:
    """Refuses options of training that the study sets itself, and would pass over."""
    if base.freeze != DEPTHS[config.train].freeze:
        words = {"all": "head", "stem": "tail", "none": "full"}
        raise InputError(
            f"--freeze {base.freeze}: give --train {words[base.freeze]} instead of {config.train}."
        )
    if base.seed != 0 or base.validate:
        raise InputError("--seed and --validate: the study sets them; --seeds says how many.")
    if base.devices != 1 or base.nodes != 1:
        raise InputError(
            "--devices, --nodes: a cell trains on one; --workers or --ray run several."
        )
    if replace(base.loss, depth=None) != LossConfig():
        raise InputError("--loss: give losses with their options in --losses; --loss.depth stays.")


@contextmanager
def _alone(out: Path) -> Generator[None]:
    """Makes the folder, and keeps other processes out of it.

    Raises:
        InputError: If it holds something else, such as a scene, or another study is at work in it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder.")
    names = {item.name for item in out.iterdir()} if out.is_dir() else set[str]()
    if names and not names & _PARTS:
        raise InputError(f"--out {out}: is not empty, and no study; give another folder.")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / _LOCK, timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"--out {out}: another study is at work in this folder.") from error


def _looks(out: Path) -> tuple[dict[str, Any], ...]:
    """When the test images were read so far.

    Raises:
        InputError: If the file that says so is damaged.
    """
    if not (out / LOOKS).is_file():
        return ()
    looks = read_json(out / LOOKS)
    wanted = {"date", "commit", "primary", "secondary"}
    if not isinstance(looks, list) or not all(
        isinstance(look, dict) and wanted <= look.keys() for look in looks
    ):
        raise InputError(f"{out / LOOKS}: is damaged; bring it back, or begin with another --out.")
    return tuple(looks)


def _note_look(out: Path, config: StudyConfig) -> None:
    """Records that test images are read, and which contrasts were fixed, before they are."""
    looks = _looks(out)
    look = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": environment()["commit"],
        "primary": config.primary,
        "secondary": config.secondary,
    }
    write_json(out / LOOKS, [*looks, look])


def _check_weights(plans: list[Plan], out: Path) -> None:
    """Refuses another file of weights under a name that finished cells know.

    Raises:
        InputError: If it is another, or called as weights that are no file.
    """
    kept = read_json(out / WEIGHTS) if (out / WEIGHTS).is_file() else {}
    if not isinstance(kept, dict):
        raise InputError(f"{out / WEIGHTS}: is damaged; bring it back, or give another --out.")
    found: dict[str, str] = {}
    for file in {Path(plan.config.backbone.weights) for plan in plans}:
        if str(file) in NO_FILE or not file.is_file():  # the backbone says what is wrong
            continue
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if file.name in NO_FILE or digest != found.setdefault(file.name, digest):
            raise InputError(f"--backbone.weights {file}: give the file another name.")
        if kept.get(file.name, digest) != digest:
            raise InputError(
                f"--backbone.weights {file}: cells of {out} were made with another file of this "
                "name; give another --out."
            )
    if found.keys() - kept.keys():
        write_json(out / WEIGHTS, {**kept, **found})
