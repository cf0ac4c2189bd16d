"""Tables: the numbers of a report as JSON, as Markdown, and for a terminal."""

from dataclasses import asdict
from typing import Any

import numpy as np

from relocal.evaluation import ORACLE, MethodResult, Report
from relocal.report.corruptions import (
    ABOUT,
    CORRUPTED,
    corruption_lines,
    corruption_rows,
    corruptions_to_json,
)
from relocal.report.figures import CURVES, TOP_VIEW, length_text
from relocal.report.lines import pose_to_json
from relocal.report.making import trainings, unit_name
from relocal.report.reconstruction import RECONSTRUCTION
from relocal.report.uncertainty import ABOUT as SURE
from relocal.report.uncertainty import REJECTED_ABOUT, coverage_rows, rejection_rows, stated

_BASELINES = (
    "*Mean pose*, *oracle nearest* (the training pose nearest to the true one; it looks at no "
    "image) and *retrieval* (the pose of the training image that looks most alike) need no "
    "training. *÷ oracle*: medians over those of the oracle, position / rotation. "
)
_FAILED = (
    "*Failed*: photos without an answer, which count as infinite errors: with one the mean is "
    "infinite (∞). *ms*: from a photo's file to its pose, median. *MB*: weights, map and "
    "descriptors in memory."
)


def legend(report: Report) -> str:
    """What the main table's words mean, in Markdown."""
    return (_BASELINES if ORACLE in report.methods else "") + _FAILED


def training_text(report: Report) -> str:
    """How many images were trained on, where that is known."""
    known = f"Training split: {len(report.training)} images. " if len(report.training) else ""
    return f"Regime: {report.regime}. {known}Positions in {unit_name(report)}."


def report_to_json(report: Report) -> dict[str, Any]:
    """All numbers of a report as plain values; an infinite error is null."""
    content = {
        "format": 1,
        "scene": report.scene,
        "unit": report.unit,
        "split": report.split,
        "regime": report.regime,
        "images": len(report.images),
        "training_images": len(report.training),
        "extent": report.extent,
        "recall_thresholds": [list(pair) for pair in report.thresholds],
        "methods": report.summary(),
        "remarks": report.remarks(),
        "rejections": {name: asdict(one) for name, one in report.rejections.items()},
        **({"corruptions": corruptions_to_json(report)} if report.corruptions else {}),
        "made_by": dict(report.made_by),
        "rows": [_row(report, i) for i in range(len(report.images))],
    }
    return _finite(content)


def _row(report: Report, index: int) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for name, result in report.methods.items():
        pose = result.estimates[index]
        answers[name] = {
            "position_error": float(result.errors.position[index]),
            "rotation_error_deg": float(result.errors.rotation_deg[index]),
            "pose": None if pose is None else pose_to_json(pose),
            **_sureness(result, index),
        }
    truth = pose_to_json(report.truth[index])
    return {"image": report.images[index], "truth": truth, "answers": answers}


def _sureness(result: MethodResult, index: int) -> dict[str, float]:
    """How sure a localizer said it was of one answer, and its doubt: above 1 is too unsure."""
    if result.sigmas is None or result.doubts is None:
        return {}
    position, rotation = result.sigmas[index].tolist()
    return {"sigma_m": position, "sigma_deg": rotation, "doubt": float(result.doubts[index])}


def _finite(value: Any) -> Any:
    """JSON has no infinity: it becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def report_to_markdown(report: Report) -> str:
    """The report as a page to read."""
    remarks = [f"- {remark}" for remark in report.remarks()]
    provenance = report.made_by.get("provenance", {})
    return "\n".join(
        [
            f"# {report.scene}: {len(report.images)} {report.split} images",
            "",
            training_text(report),
            "",
            table(report),
            "",
            legend(report),
            "",
            *remarks,
            *([""] if remarks else []),
            f"![True (orange) and predicted (purple) positions from above]({TOP_VIEW})",
            "",
            f"![Share of images at or below each error]({CURVES})",
            "",
            *_reconstruction(report),
            *_uncertainty(report),
            *_rejections(report),
            *_corruptions(report),
            "## How it was made",
            "",
            f"- Labels: {provenance.get('labels', 'not stated')}",
            f"- Split: {provenance.get('split', 'not stated')}",
            *(f"- {name}: {text}" for name, text in trainings(report).items()),
            f"- Commit: {report.made_by.get('commit') or 'not in a checkout'}, "
            f"{report.made_by.get('date', '')}",
            f"- Machine: {report.made_by.get('processor')}, {report.made_by.get('cores')} cores, "
            f"torch {report.made_by.get('packages', {}).get('torch')}",
            "",
        ]
    )


def _reconstruction(report: Report) -> list[str]:
    if report.points is None:
        return []
    return [
        f"![True (orange) and predicted (purple) positions among the map points]({RECONSTRUCTION})",
        "",
    ]


def _uncertainty(report: Report) -> list[str]:
    if not stated(report):
        return []
    return ["## How sure they are", "", SURE, "", markdown_table(coverage_rows(report)), ""]


def _rejections(report: Report) -> list[str]:
    if not report.rejections:
        return []
    rows = markdown_table(rejection_rows(report))
    return ["## Photos of other places", "", REJECTED_ABOUT, "", rows, ""]


def _corruptions(report: Report) -> list[str]:
    if not report.corruptions:
        return []
    lines = ["## Under corruptions", "", ABOUT, ""]
    for name in report.corruptions:
        lines += [f"Medians of {name}, {report.unit} / °, by severity:", ""]
        lines += [markdown_table(corruption_rows(report, name)), ""]
    return [*lines, f"![Median errors against the severity of each corruption]({CORRUPTED})", ""]


def table(report: Report) -> str:
    """The Markdown table: a row a method."""
    return markdown_table(numbers(report))


def markdown_table(rows: list[list[str]]) -> str:
    """Rows as a Markdown table; the first one is the head."""
    head, *rest = rows
    return "\n".join(
        [_line(head), _line(["---", *["--:"] * (len(head) - 1)]), *(_line(row) for row in rest)]
    )


def numbers(report: Report) -> list[list[str]]:
    """The main table as text: the names of its columns, then a row a method."""
    unit = report.unit
    compared = ORACLE in report.methods
    recalls = [f"≤ {_length(position)} {unit}, {deg:g}°" for position, deg in report.thresholds]
    head = ["method", f"median, {unit}", "median, °", *(["÷ oracle"] if compared else [])]
    rows = [[*head, f"mean, {unit}", "mean, °", *recalls, "failed", "ms", "MB"]]
    for name, n in report.summary().items():
        cells = [name, length_text(n["median_position"]), f"{n['median_rotation_deg']:.2f}"]
        if compared:
            cells.append(f"{n['position_to_oracle']:.2f} / {n['rotation_to_oracle']:.2f}")
        means = length_text(n["mean_position"]), f"{n['mean_rotation_deg']:.2f}"
        cells += ["∞" if mean == "inf" else mean for mean in means]
        cells += [f"{100 * share:.1f} %" for share in n["recall"]]
        costs = (_or_dash(n[key]) for key in ("time_ms", "memory_mb"))
        rows.append([*cells, str(n["failures"]), *costs])
    return rows


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _length(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.3g}"


def plain_table(report: Report) -> str:
    """The main numbers for a terminal: a row a method."""
    compared = ORACLE in report.methods
    middle = ["÷ oracle"] if compared else []
    rows = [["method", f"median, {report.unit}", "median, °", *middle, "ms"]]
    for name, n in report.summary().items():
        ratio = f"{n['position_to_oracle']:.2f} / {n['rotation_to_oracle']:.2f}"
        medians = length_text(n["median_position"]), f"{n['median_rotation_deg']:.2f}"
        rows.append([name, *medians, *([ratio] if compared else []), _or_dash(n["time_ms"])])
    about = f"{report.scene}: {len(report.images)} {report.split} images, {report.regime}"
    refused = aligned(rejection_rows(report)) if report.rejections else []
    return "\n".join(
        [about, *aligned(rows), *report.remarks(), *refused, *corruption_lines(report)]
    )


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows as lines for a terminal, whose columns stand under each other."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(cell.rjust(w) if k else cell.ljust(w) for k, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
