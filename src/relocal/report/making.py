"""The making of a report: labels, split, runs, commit, machine, as texts to read."""

from collections.abc import Iterator, Mapping
from typing import Any

from relocal.evaluation import Report
from relocal.losses import LossConfig, loss_text
from relocal.scene.scene import some


def trainings(report: Report) -> dict[str, str]:
    """How each localizer was trained, for those that were, in a line of Markdown."""
    found: dict[str, str] = {}
    for name, about in report.made_by.get("runs", {}).items():
        if "map" in about:
            options = about["map"]
            found[name] = (
                f"map of {about['map_points']} points from {about['training_images']} training "
                f"images, {options['features']} at scale {options['scale']:g}"
            )
        if "train" not in about:
            continue
        train, seconds = about["train"], about["training_seconds"]
        minutes = "" if seconds is None else f", {seconds / 60:.1f} min"
        rotation = train.get("model", {}).get("rotation", "quaternion")
        found[name] = (
            f"{about['training_images']} training images, {train['backbone']['name']}, loss "
            f"`{loss_text(LossConfig(**train['loss']))}`, rotation as `{rotation}`, "
            f"{train['epochs']} epochs, seed {train['seed']}{minutes}"
        )
    return found


def facts(report: Report) -> list[tuple[str, str]]:
    """What a reader must know to judge the numbers: a term and its Markdown each."""
    scene = report.made_by.get("provenance", {})
    return [
        ("Labels", str(scene.get("labels", "not stated"))),
        ("Split", f"{scene.get('split', 'not stated')}; read here: {report.split}"),
        ("Regime", report.regime),
        ("Unit", unit_name(report)),
        *((f"Training of {name}", text) for name, text in trainings(report).items()),
        *environment_facts(report.made_by),
    ]


def environment_facts(made: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Commit, date, machine and versions, of what ``environment`` and a date say."""
    versions = {"python": made.get("python"), **made.get("packages", {})}
    cores = None if made.get("cores") is None else f"{made['cores']} cores"
    machine = (made.get("processor"), cores, made.get("gpu"), made.get("system"))
    return [
        ("Commit", made.get("commit") or "not in a checkout"),
        ("Date", str(made.get("date", "not stated"))),
        ("Machine", ", ".join(str(part) for part in machine if part) or "not stated"),
        ("Versions", ", ".join(f"{name} {v}" for name, v in versions.items() if v) or "not stated"),
    ]


def unit_name(report: Report) -> str:
    """How lengths of this report are called."""
    return "metres" if report.unit == "m" else "the scene's own unit"


def options(report: Report) -> list[list[str]]:
    """Every option of every run: the names of the columns, then a row an option."""
    runs = {name: dict(flat(about)) for name, about in report.made_by.get("runs", {}).items()}
    keys = dict.fromkeys(key for values in runs.values() for key in values)
    return [["option", *runs], *([key, *(v.get(key, "–") for v in runs.values())] for key in keys)]


def provenance(report: Report) -> list[list[str]]:
    """Where the scene came from: the names of the columns, then a row a fact."""
    found = flat(report.made_by.get("provenance", {}))
    return [["fact", "value"], *([key, value] for key, value in found)]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as text, under dotted names; long lists are cut short."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", some([str(item) for item in value], limit=8)
        else:
            yield f"{prefix}{key}", "–" if value is None else str(value)
