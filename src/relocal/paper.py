"""The source paper's experiment: what the loss does to PoseNet on 7-Scenes, in its official splits.

Every scene is downloaded and imported, a network is trained with each loss and evaluated, and one
page gathers what came out. One training a cell: this is a table, and no verdict.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from relocal.datasets.downloads import (
    DOWNLOADS,
    all_missing_named,
    get_scene,
    size_text,
    source_folder,
)
from relocal.datasets.seven_scenes import median_depth
from relocal.errors import InputError, unknown
from relocal.evaluation import MEAN, ORACLE, RETRIEVAL, evaluate
from relocal.localizers import Regressor
from relocal.report import save_report
from relocal.scene import Scene, load_scene
from relocal.scene.files import read_json, write_json
from relocal.training import PRESETS, TrainConfig, stored_config, train

SCENES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")
BASE = "default"
LOSSES = (BASE, "posenet+frustum", "posenet+sightline", "default+frustum")
_MEDIANS = ("median_position", "median_rotation_deg")

Progress = Callable[[int, int, str], None]
Say = Callable[[str], None]


def paper_config(googlenet: Path | None = None, epochs: int | None = None) -> TrainConfig:
    """How the networks are trained; the loss is set cell by cell.

    Args:
        googlenet: ImageNet weights of GoogLeNet, to train as the 2015 paper did. Without them
            relocal's defaults, on EfficientNet-Lite0.
        epochs: Passes over the training images, instead of the default.

    Raises:
        InputError: If there is no such file of weights, or the number is senseless.
    """
    config = TrainConfig()
    if googlenet is not None:
        if not googlenet.is_file():
            raise InputError(f"--googlenet {googlenet}: there is no such file.")
        config = PRESETS["posenet2015"]
        config = replace(config, backbone=replace(config.backbone, weights=str(googlenet)))
    return config if epochs is None else replace(config, epochs=epochs)


def needs(
    out: Path, scenes: Sequence[str], config: TrainConfig, downloads: Path = Path("downloads")
) -> str:
    """What is still to be done, and what it takes, in a line."""
    missing = [
        name
        for name in map(_name, scenes)
        if not (_scene_folder(out, name) / "scene.json").is_file()
        and not (downloads / name).is_dir()
    ]
    cells = [_run_folder(out, _name(scene), loss) for scene in scenes for loss in LOSSES]
    trainings = sum(not (cell / "weights.safetensors").is_file() for cell in cells)
    size = sum(DOWNLOADS[name].archive.size or 0 for name in missing)
    download = f"{size_text(size)} to download (on the disk three times that), " if size else ""
    return (
        f"to do: {download}{trainings} training{'s' * (trainings != 1)} of {config.epochs} "
        f"epoch{'s' * (config.epochs != 1)} on "
        f"{config.backbone.name}; all of 7-Scenes takes hours on a GPU, days on a CPU. "
        "With make: make paper LICENCE=accept GOOGLENET=FILE."
    )


def repeat_paper(
    out: Path | str,
    *,
    scenes: Sequence[str] = SCENES,
    config: TrainConfig | None = None,
    accept_licence: bool = False,
    downloads: Path | str = "downloads",
    progress: Progress = lambda done, total, text: None,
    say: Say = lambda text: None,
) -> Path:
    """Trains and evaluates every loss on every scene, and gathers one page.

    Finished parts in ``out`` are kept, and an unfinished training goes on. The coupled losses take
    the scene's depth from the depth images of its training sequences.

    Args:
        out: Folder for everything that is made.
        scenes: Scenes of 7-Scenes.
        config: How to train; its loss is set cell by cell.
        accept_licence: Whether the user accepts the licence of 7-Scenes.
        downloads: Folder for what is downloaded and unpacked.
        progress: Called with steps done, steps in all, and what is being done.
        say: Called with what the user should know.

    Returns:
        The page, ``paper.md``; ``paper.json`` beside it has the numbers.

    Raises:
        InputError: If a scene cannot be had, or a finished part was made with other options.
    """
    out, config = Path(out), config or paper_config()
    found: dict[str, dict[str, Any]] = {}
    names = [_name(scene) for scene in scenes]
    for name in names:
        # The licence is not accepted: then nothing is to be fetched yet.
        waiting = [n for n in names if not _scene_folder(out, n).exists()] if accept_licence else []
        with all_missing_named(waiting, downloads=downloads):
            scene, depth_m = _scene(out, name, accept_licence, Path(downloads), progress, say)
        for loss in LOSSES:
            wanted = replace(config, loss=replace(config.loss, name=loss, depth=depth_m))
            report = _report(out, name, loss, scene, wanted, progress)
            found.setdefault(scene.name, {})[loss] = report
    write_json(out / "paper.json", {"epochs": config.epochs, "scenes": _numbers(found)})
    partial = out / ".paper.md.partial"
    partial.write_text(_page(found, config), "utf-8")
    return partial.replace(out / "paper.md")


def _name(scene: str) -> str:
    """The name of its download."""
    if scene not in SCENES:
        raise unknown("--scenes", scene, SCENES)
    return f"7scenes/{scene}"


def _scene_folder(out: Path, name: str) -> Path:
    return out / "scenes" / Path(name).name


def _run_folder(out: Path, name: str, loss: str) -> Path:
    return out / "runs" / Path(name).name / loss


def _scene(
    out: Path, name: str, accept_licence: bool, downloads: Path, progress: Progress, say: Say
) -> tuple[Scene, float]:
    """A scene and its median depth."""
    folder = _scene_folder(out, name)
    if folder.exists():
        scene = load_scene(folder)
    else:
        scene = get_scene(
            name,
            folder,
            accept_licence=accept_licence,
            downloads=downloads,
            progress=progress,
            say=say,
        )
    known = folder.with_name(f"{folder.name}.depth.json")
    if not known.is_file():
        depth_m = median_depth(source_folder(name, downloads), scene.splits["train"])
        write_json(known, {"median_depth_m": depth_m})
    return scene, float(read_json(known)["median_depth_m"])


def _report(
    out: Path, name: str, loss: str, scene: Scene, config: TrainConfig, progress: Progress
) -> dict[str, Any]:
    """What ``report.json`` of one cell holds."""
    run, cell = _run_folder(out, name, loss), f"{scene.name}, {loss}"

    def told(done: int, total: int, text: str) -> None:
        progress(done, total, f"{cell}: {text}")

    old = stored_config(run)
    # Which arithmetic "auto" stands for depends on the machine that it was begun on.
    if old is not None and replace(old, precision=config.precision) != config:
        raise InputError(f"{run}: was trained with other options; give another --out.")
    if not (run / "weights.safetensors").is_file():
        train(scene, run, old or config, resume=old is not None, report=told)
    report = out / "reports" / scene.name / loss
    if not (report / "report.json").is_file():
        localizer = Regressor(run)
        save_report(evaluate({loss: localizer}, scene, progress=told), report)
    return read_json(report / "report.json")


def _numbers(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Medians, and their ratios to the oracle's and to the base's, by scene and method."""
    keys = (*_MEDIANS, "position_to_oracle", "rotation_to_oracle")
    table: dict[str, dict[str, dict[str, float]]] = {}
    for scene, reports in found.items():
        methods = {name: reports[BASE]["methods"][name] for name in (MEAN, ORACLE, RETRIEVAL)}
        methods |= {loss: report["methods"][loss] for loss, report in reports.items()}
        rows = {name: {key: _number(of[key]) for key in keys} for name, of in methods.items()}
        for loss in reports:
            for key in _MEDIANS:
                rows[loss][f"{key}_to_{BASE}"] = rows[loss][key] / rows[BASE][key]
        table[scene] = rows
    return table


def _number(value: float | None) -> float:
    """JSON has no infinity: a report writes it as null."""
    return math.inf if value is None else value


def _page(found: dict[str, dict[str, Any]], config: TrainConfig) -> str:
    """The page: a row a scene and method, the mean change of each loss, and Heads from above."""
    numbers = _numbers(found)
    first = next(iter(found.values()))[BASE]
    head = ["scene", "method", "median, m", "median, °", "÷ oracle", "position", "rotation"]
    lines = [_line(head), _line(["---", "---", *["--:"] * 5])]
    for scene, rows in numbers.items():
        lines += [_line([scene, name, *_cells(row)]) for name, row in rows.items()]
    means = [f"- `{loss}`: {_mean_change(numbers, loss)}" for loss in LOSSES if loss != BASE]
    views = [
        f"![Heads from above, {loss}](reports/heads/{loss}/top_view.png)"
        for loss in (LOSSES if "heads" in found else ())
    ]
    return "\n".join(
        [
            "# The loss of PoseNet on 7-Scenes",
            "",
            f"Official splits, another recording; labels: "
            f"{first['made_by']['provenance']['labels']}. {config.backbone.name}, "
            f"{config.epochs} epochs, seed {config.seed}. *Position*, *rotation*: change of the "
            f"median against `{BASE}`. One training a cell: no verdict.",
            "",
            *lines,
            "",
            f"Mean change over {len(numbers)} scenes (geometric mean of the ratios), position / "
            "rotation; the paper's best, indoors: -26.7 % / -24.0 %.",
            "",
            *means,
            "",
            *views,
            "",
        ]
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(row: dict[str, float]) -> list[str]:
    changes = [row.get(f"{key}_to_{BASE}") for key in _MEDIANS]
    return [
        f"{row['median_position']:.3f}",
        f"{row['median_rotation_deg']:.2f}",
        f"{row['position_to_oracle']:.2f} / {row['rotation_to_oracle']:.2f}",
        *("" if change is None else _percent(change) for change in changes),
    ]


def _mean_change(numbers: dict[str, dict[str, dict[str, float]]], loss: str) -> str:
    parts: list[str] = []
    for key in _MEDIANS:
        logs = [math.log(rows[loss][f"{key}_to_{BASE}"]) for rows in numbers.values()]
        parts.append(_percent(math.exp(sum(logs) / len(logs))))
    return " / ".join(parts)


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"
