"""A cell of a study: one training and its errors, kept as a small JSON file.

A cell is the same wherever it runs: in this process, in another, on another machine. What it
depends on stands in its file, so that a file of other options or images is never taken for it.
"""

import hashlib
import importlib
import json
import re
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relocal.errors import InputError
from relocal.losses import build_loss, needs_depth, needs_range, takes_points
from relocal.plugins import import_modules
from relocal.pose import position_error, rotation_error_deg
from relocal.scene.files import read_json, write_json
from relocal.studies.folds import Fold, asked_images, fold_scene, training_images
from relocal.training import TrainConfig
from relocal.training.loop import fit, predict, prepare
from relocal.training.run import DEPTH_TOLERANCE, environment

SCRATCH = "scratch"
"""Folder of a study for what is made on the way; all else in it is small and worth keeping."""
FAILURES = "failures.txt"
"""Tracebacks of cells that failed in a way that relocal did not foresee."""
_DIGITS = 5
_DECIMALS = 8
_OFF_TIES = -1.7e-13
"""Keeps labels printed with nine digits from lying halfway, where the last bit rounds them."""

Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Cell:
    """One training of a study, and what is asked of it."""

    scene: str
    """The scene's name."""
    fold: Fold
    method: str
    """The method's text."""
    config: TrainConfig
    """Every option; ``validate`` says whether validation blocks or test images are asked."""
    label: str
    """What tells it from the method's other cells of this fold: ``seed-0``, ``tune-2``."""

    def file(self, out: Path) -> Path:
        """Where its result is kept."""
        words = re.sub(r"[^\w.+=-]+", "_", self.method)
        name = f"{words[:60]}-{_sha(self.method)[:6]}"
        part = "validation" if self.config.validate else "test"
        own = "own" if self.fold.number < 0 else f"fold-{self.fold.number}"
        return out / "cells" / self.scene / name / f"{part}-{own}-{self.label}.json"


def run_cell(cell: Cell, out: Path, threads: int | None = None) -> dict[str, Any]:
    """Trains, predicts, writes the cell's file and returns what it holds.

    An unfinished training of a network that is not frozen whole goes on after its last epoch.

    Raises:
        InputError: If the training fails, as with a loss that is no number.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    scene, config = fold_scene(cell.fold), cell.config
    began = time.perf_counter()
    fabric, model, loss, data = prepare(scene, config, _quiet, every_image=True)
    work = None
    if config.cached != "all":  # else it takes seconds
        # What was begun about another origin has its own folder, and is not gone on with.
        begun = [identity(cell), data.origin.tolist()]
        work = out / SCRATCH / "unfinished" / _sha(json.dumps(begun))[:16]
        work.mkdir(parents=True, exist_ok=True)
    averaged, rows = fit(fabric, model, loss, data, work, _quiet)
    model.load_state_dict(averaged)
    index = asked_images(scene, final=not config.validate)
    images = data.images[data.row[index]]
    poses = predict(model, images, data.camera, data.window, config.cached, fabric.device)
    truth = data.poses[index]
    if not bool(poses.matrix().isfinite().all()):
        raise InputError(
            "the trained network answers with numbers that are none; try a lower --lr."
        )
    if work is not None:
        rows = [json.loads(row) for row in (work / "metrics.jsonl").read_text().splitlines()]
    result = {
        **identity(cell),
        "position": _rounded(position_error(poses, truth)),
        "rotation_deg": _rounded(rotation_error_deg(poses, truth)),
        "curve": [
            [_round(row["loss"]), _round(row["train_position"]), _round(row["train_rotation_deg"])]
            for row in rows
        ],
        "images_per_s": _round(float(torch.tensor([r["images_per_s"] for r in rows]).median())),
        "seconds": _round(time.perf_counter() - began),
        "made_by": environment(),
    }
    file = cell.file(out)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, result)
    if work is not None:
        shutil.rmtree(work)
    return result


def finished(cell: Cell, out: Path) -> dict[str, Any] | None:
    """What the cell's file holds; None where there is none yet.

    Raises:
        InputError: If it was made with other options, images, cameras, unit or poses.
    """
    file = cell.file(out)
    if not file.is_file():
        return None
    try:
        result = read_json(file)
        _check_whole(cell, result)
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: is damaged ({error}); remove it to train it anew.") from error
    wanted = json.loads(json.dumps(identity(cell)))
    different = [key for key, value in wanted.items() if not _same(key, result.get(key), value)]
    if different:
        raise InputError(f"{file}: {_differences(result, wanted, different)}; give another --out.")
    return result


def _same(key: str, old: Any, new: Any) -> bool:
    """Whether two parts of an identity agree; depths nearly do where points were made anew.

    Cells of before pictures were told apart know nothing of them.
    """
    if key == "pictures" and old is None:
        return True
    if key != "depth" or old is None or new is None:
        return old == new
    return bool(np.allclose(old, new, rtol=DEPTH_TOLERANCE, atol=0))


def _check_whole(cell: Cell, result: Any) -> None:
    """Raises ValueError and the like where a file does not hold what ``run_cell`` wrote."""
    shapes = {"curve": (result["train"]["epochs"], 3)}
    if result.get("data") == data_identity(cell.fold, cell.config.validate)["data"]:
        asked = asked_images(fold_scene(cell.fold), final=not cell.config.validate)
        shapes |= {"position": (len(asked),), "rotation_deg": (len(asked),)}
    for key, shape in shapes.items():
        if np.array(result[key], dtype=np.float64).shape != shape:
            raise ValueError(f"{key} is not of shape {shape}")
    float(result["seconds"] + result["images_per_s"])


def _differences(result: dict[str, Any], wanted: dict[str, Any], keys: list[str]) -> str:
    """Which options differ, with both values; or that the images, poses or points do."""
    old, new = (_flat(value.get("train", {})) for value in (result, wanted))
    options = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if options:
        return "; ".join(f"{k} was {old.get(k)}, and is {new.get(k)} now" for k in options[:3])
    parts = " and ".join(keys)
    return f"was made with other {parts} (images, cameras, unit, poses or map points changed)"


def _flat(options: dict[str, Any], prefix: str = "--") -> dict[str, Any]:
    """Nested options under the names that the command line has for them."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        name = f"{prefix}{key.replace('_', '-')}"
        found |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def identity(cell: Cell) -> dict[str, Any]:
    """All that a result depends on, but for the code."""
    about = data_identity(cell.fold, cell.config.validate)
    loss = build_loss(cell.config.loss)
    if not (needs_depth(loss) or needs_range(loss) or takes_points(loss)):
        # Whether the scene has map points by now is nothing to this loss.
        about = {key: value for key, value in about.items() if key != "depth"}
    return {
        "scene": cell.scene,
        "method": cell.method,
        "train": cell.config.without_paths().to_json(),
        **about,
    }


@lru_cache(maxsize=64)
def data_identity(fold: Fold, validate: bool) -> dict[str, Any]:
    """What a fold's images and poses are known by."""
    scene = fold_scene(fold)
    parts = (training_images(scene, not validate), asked_images(scene, not validate))
    names = [[scene.images[i] for i in part.tolist()] for part in parts]
    numbers = (scene.poses.position, scene.poses.quaternion)
    poses = [_same_anywhere(part).tolist() for part in numbers]
    depth = scene.depth_range()
    return {
        "data": _sha(json.dumps([poses, names]))[:16],
        "pictures": _pictures(fold.folder),
        "depth": None if depth is None else [_round(value) for value in depth.tolist()],
    }


@lru_cache(maxsize=64)
def _pictures(folder: Path) -> str:
    """What the files of a scene's images, its cameras and its unit are known by."""
    scene = fold_scene(Fold(folder))
    cameras = [
        [c.model, c.width, c.height, _same_anywhere(c.params).tolist()] for c in scene.cameras
    ]
    files: list[str] = []
    for i in range(len(scene)):
        with scene.path(i).open("rb") as content:
            files.append(hashlib.file_digest(content, "sha256").hexdigest())
    about = [scene.unit, cameras, scene.camera_index.tolist(), files]
    return _sha(json.dumps(about))[:16]


def forget_scenes() -> None:
    """Reads scenes anew: those of an earlier study may have been made anew in their folders."""
    for cached in (fold_scene, data_identity, _pictures):
        cached.cache_clear()


def run_cells(
    cells: Iterable[Cell],
    out: Path,
    *,
    workers: int = 1,
    ray: str | None = None,
    modules: tuple[str, ...] = (),
) -> Iterator[tuple[Cell, dict[str, Any] | InputError]]:
    """Runs cells, and gives each with its result, or with the error that it failed with.

    Args:
        cells: What is to be run.
        out: Folder of the study.
        workers: Processes on this machine; they share the cores out.
        ray: Run them as tasks of Ray instead: ``local``, or the address of a cluster.
        modules: Files or modules to import first in each process, with losses of their own.
    """
    if ray is not None:
        yield from _on_ray(cells, out, ray, modules)
    elif workers == 1:
        for cell in cells:
            yield cell, _attempt(cell, out, None, ())
    else:
        yield from _in_processes(list(cells), out, workers, modules)


def _in_processes(
    cells: list[Cell], out: Path, workers: int, modules: tuple[str, ...]
) -> Iterator[tuple[Cell, dict[str, Any] | InputError]]:
    """Runs cells in processes; where one is killed, as for memory, its cells get one more chance.

    Then each has a pool of its own, so that the one that dies again is known.
    """
    threads = max(1, torch.get_num_threads() // workers)
    context, left = get_context("spawn"), dict.fromkeys(cells)
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = {pool.submit(_attempt, cell, out, threads, modules): cell for cell in cells}
        try:
            for future in as_completed(waiting):
                if not isinstance(future.exception(), BrokenProcessPool):
                    del left[waiting[future]]
                    yield waiting[future], future.result()
        except BaseException:  # Ctrl-C: what has begun is finished, what waits is not begun
            pool.shutdown(cancel_futures=True)
            raise
    for cell in left:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            try:
                yield cell, pool.submit(_attempt, cell, out, threads, modules).result()
            except BrokenProcessPool:
                yield cell, InputError("its process was killed twice, as when memory runs out.")


def _attempt(
    cell: Cell, out: Path, threads: int | None, modules: tuple[str, ...]
) -> dict[str, Any] | InputError:
    """A cell's result, or why it failed; a loss from outside may fail in any way."""
    import_modules(modules)
    try:
        return run_cell(cell, out, threads)
    except InputError as error:
        return error
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        log = out / FAILURES
        with log.open("a") as file:
            file.write(f"{cell.file(out)}\n{traceback.format_exc()}\n")
        return InputError(
            f"{type(error).__name__}: {error} ({Path(at.filename).name}, line {at.lineno}; the "
            f"whole traceback is in {log})"
        )


def _on_ray(
    cells: Iterable[Cell], out: Path, address: str, modules: tuple[str, ...]
) -> Iterator[tuple[Cell, dict[str, Any] | InputError]]:
    """The same cells as tasks of Ray; a task asks for one core or what the address's side gives."""
    try:
        library: Any = importlib.import_module("ray")
    except ImportError as error:
        raise InputError("--ray: needs Ray: pip install 'relocal[ray]'.") from error
    library.init(address=None if address == "local" else address, log_to_driver=False)
    try:
        task = library.remote(_attempt)
        waiting = {task.remote(cell, out.resolve(), 1, modules): cell for cell in cells}
        while waiting:
            done, _ = library.wait(list(waiting))
            yield waiting.pop(done[0]), library.get(done[0])
    finally:
        library.shutdown()


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _same_anywhere(numbers: torch.Tensor) -> torch.Tensor:
    """Numbers without the last digits, in which processors differ: a scene is known on any."""
    # Adding 0 makes -0 the same as 0.
    return (numbers.double() + _OFF_TIES).round(decimals=_DECIMALS) + 0.0


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _rounded(values: torch.Tensor) -> list[float]:
    return [_round(value) for value in values.tolist()]


def _quiet(done: int, total: int, text: str) -> None:
    """A cell does not report; the study does."""
