"""Reports: tables and figures of an evaluation, and the files that hold them."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from relocal.evaluation import MEAN, ORACLE, RETRIEVAL, Report
from relocal.metrics import Errors, cumulative_curve
from relocal.pose import Pose
from relocal.scene.files import new_folder, write_json
from relocal.types import Estimate

Format = Literal["text", "json", "colmap", "tum"]

TRUE, PREDICTED, TRAINING = "#e8820c", "#6a3fb5", "#b8bec6"
TOP_VIEW, CURVES = "top_view.png", "curves.png"
_LEGEND = (
    "*Mean pose*, *oracle nearest* (the training pose nearest to the true one; it looks at no "
    "image) and *retrieval* (the pose of the training image that looks most alike) need no "
    "training. *÷ oracle*: medians over those of the oracle, position / rotation. *Failed*: photos "
    "without an answer, which count as infinite errors."
)
# Baselines are grey, so that the eye goes to what was measured.
_BASELINE_STYLE = {MEAN: ":", ORACLE: "-", RETRIEVAL: "--"}


def save_report(report: Report, out: Path | str) -> Path:
    """Writes ``report.json`` (with a row an image), ``report.md`` and its figures.

    Args:
        report: What was found.
        out: The folder to make.

    Returns:
        The path of ``report.md``.

    Raises:
        InputError: If ``out`` exists.
    """
    out = Path(out)
    with new_folder(out) as folder:
        write_json(folder / "report.json", report_to_json(report))
        (folder / "report.md").write_text(report_to_markdown(report), "utf-8")
        draw_top_view(report, folder / TOP_VIEW)
        draw_curves(report, folder / CURVES)
    return out / "report.md"


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
        }
    truth = pose_to_json(report.truth[index])
    return {"image": report.images[index], "truth": truth, "answers": answers}


def pose_to_json(pose: Pose) -> dict[str, list[float]]:
    """Position and canonical quaternion w, x, y, z of one pose, ``world_from_cam``."""
    pose = pose.canonical()
    return {"position": pose.position.tolist(), "quaternion": pose.quaternion.tolist()}


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
            f"Regime: {report.regime}. Training split: {len(report.training)} images. "
            f"Positions in {unit_name(report)}.",
            "",
            table(report),
            "",
            _LEGEND,
            "",
            *remarks,
            *([""] if remarks else []),
            f"![True (orange) and predicted (purple) positions from above]({TOP_VIEW})",
            "",
            f"![Share of images at or below each error]({CURVES})",
            "",
            "## How it was made",
            "",
            f"- Labels: {provenance.get('labels', 'not stated')}",
            f"- Split: {provenance.get('split', 'not stated')}",
            *(_training_lines(report)),
            f"- Commit: {report.made_by.get('commit') or 'not in a checkout'}, "
            f"{report.made_by.get('date', '')}",
            f"- Machine: {report.made_by.get('processor')}, {report.made_by.get('cores')} cores, "
            f"torch {report.made_by.get('packages', {}).get('torch')}",
            "",
        ]
    )


def _training_lines(report: Report) -> list[str]:
    lines: list[str] = []
    for name, about in report.made_by.get("runs", {}).items():
        if not about:
            continue
        train, seconds = about["train"], about["training_seconds"]
        minutes = "" if seconds is None else f", {seconds / 60:.1f} min"
        lines.append(
            f"- {name}: {about['training_images']} training images, "
            f"{train['backbone']['name']}, loss `{train['loss']['name']}`, "
            f"{train['epochs']} epochs, seed {train['seed']}{minutes}"
        )
    return lines


def unit_name(report: Report) -> str:
    """How lengths of this report are called."""
    return "metres" if report.unit == "m" else "the scene's own unit"


def table(report: Report) -> str:
    """The Markdown table: a row a method."""
    unit = report.unit
    recalls = [f"≤ {_length(position)} {unit}, {deg:g}°" for position, deg in report.thresholds]
    head = ["method", f"median, {unit}", "median, °", "÷ oracle", f"mean, {unit}", "mean, °"]
    head += [*recalls, "failed", "ms"]
    lines = [_line(head), _line(["---", *["--:"] * (len(head) - 1)])]
    for name, n in report.summary().items():
        cells = [name, f"{n['median_position']:.3f}", f"{n['median_rotation_deg']:.2f}"]
        cells.append(f"{n['position_to_oracle']:.2f} / {n['rotation_to_oracle']:.2f}")
        cells += [f"{n['mean_position']:.3f}", f"{n['mean_rotation_deg']:.2f}"]
        cells += [f"{100 * share:.1f} %" for share in n["recall"]]
        time_ms = "–" if n["time_ms"] is None else f"{n['time_ms']:.1f}"
        lines.append(_line([*cells, str(n["failures"]), time_ms]))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _length(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.3g}"


def draw_top_view(report: Report, path: Path, method: str | None = None) -> None:
    """Draws positions from above: true (orange), predicted (purple), training (grey).

    Args:
        report: The report.
        path: The picture to write.
        method: Whose predictions; by default the first localizer's.
    """
    from matplotlib.figure import Figure

    method = method or next(iter(report.localizers()), None)
    axes_world = _ground_axes(report.training)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    training = report.training.position.numpy() @ axes_world
    truth = report.truth.position.numpy() @ axes_world
    axes.scatter(*training.T, s=6, color=TRAINING, label="training", zorder=1)
    if method is not None:
        answered = [i for i, p in enumerate(report.methods[method].estimates) if p is not None]
        poses = [p for p in report.methods[method].estimates if p is not None]
        if poses:
            predicted = Pose.stack(poses).position.double().numpy() @ axes_world
            for start, end in zip(truth[answered], predicted, strict=True):
                axes.plot(*np.stack([start, end]).T, color=PREDICTED, lw=0.7, alpha=0.5, zorder=2)
            axes.scatter(
                *predicted.T, s=16, color=PREDICTED, label=f"predicted: {method}", zorder=4
            )
    axes.scatter(*truth.T, s=16, color=TRUE, label="true", zorder=3)
    axes.scatter(0, 0, s=60, color="white", edgecolor="black", label="origin", zorder=5)
    axes.set_aspect("equal")
    axes.set_xlabel(f"to the right, {report.unit}")
    axes.set_ylabel(f"ahead, {report.unit}")
    axes.set_title(_title(report, method))
    axes.grid(color="#e6e8eb", lw=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="best", frameon=True, fontsize=9)
    figure.savefig(path, dpi=150)


def draw_curves(report: Report, path: Path) -> None:
    """Draws the share of images at or below each error, for every method; failures never arrive.

    Args:
        report: The report.
        path: The picture to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, result in report.methods.items():
        baseline = _BASELINE_STYLE.get(name)
        style = {"color": "#8a929c", "ls": baseline} if baseline else {"lw": 2}
        left.step(*_curve(result.errors.position), where="post", label=name, **style)
        right.step(*_curve(result.errors.rotation_deg), where="post", label=name, **style)
    left.set_xlabel(f"position error, {report.unit}")
    right.set_xlabel("rotation error, °")
    left.set_ylabel("share of images")
    shown = [report.methods[name].errors for name in (ORACLE, *report.localizers())]
    errors = [e.position for e in shown], [e.rotation_deg for e in shown]
    for axes, methods in zip((left, right), errors, strict=True):
        # Nine of ten answers of every localizer, and of the oracle, are in the picture; the mean
        # pose may leave it.
        tails = [np.quantile(e[np.isfinite(e)], 0.9) for e in methods if np.isfinite(e).any()]
        axes.set_xlim(0, 1.1 * max(*tails, 1e-6))
        axes.set_ylim(0, 1)
        axes.grid(color="#e6e8eb", lw=0.6)
        axes.set_axisbelow(True)
    right.legend(loc="lower right", frameon=True, fontsize=9)
    figure.savefig(path, dpi=150)


def _curve(
    errors: Errors,
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """A cumulative curve that starts at no error and no image."""
    values, shares = cumulative_curve(errors)
    return np.insert(values, 0, 0.0), np.insert(shares, 0, 0.0)


def _title(report: Report, method: str | None) -> str:
    if method is None:
        return f"{report.scene}, from above"
    numbers = report.summary()[method]
    return (
        f"{report.scene}, from above: median {numbers['median_position']:.3f} {report.unit}, "
        f"{numbers['median_rotation_deg']:.2f}°"
    )


def _ground_axes(poses: Pose) -> Float[np.ndarray, "3 2"]:
    """Two horizontal unit vectors: to the right and ahead of the mean camera.

    Down is the mean of the cameras' own down directions, for people hold cameras upright.
    """
    rotation = poses.rotation.double()
    down = rotation[:, :, 1].mean(0)
    down = down / down.norm()
    ahead = rotation[:, :, 2].mean(0)
    ahead = ahead - (ahead @ down) * down
    if float(ahead.norm()) < 1e-3:  # cameras that look all around, or straight down
        ahead = rotation[0, :, 0] - (rotation[0, :, 0] @ down) * down
    ahead = ahead / ahead.norm()
    right = torch.linalg.cross(down, ahead)
    return torch.stack([right, ahead], dim=1).numpy()


def plain_table(report: Report) -> str:
    """The main numbers for a terminal: a row a method."""
    head: tuple[str, ...] = ("method", f"median, {report.unit}", "median, °", "÷ oracle", "ms")
    rows: list[tuple[str, ...]] = [head]
    for name, n in report.summary().items():
        ratio = f"{n['position_to_oracle']:.2f} / {n['rotation_to_oracle']:.2f}"
        time_ms = "–" if n["time_ms"] is None else f"{n['time_ms']:.1f}"
        numbers = f"{n['median_position']:.3f}", f"{n['median_rotation_deg']:.2f}"
        rows.append((name, *numbers, ratio, time_ms))
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = [
        "  ".join(cell.rjust(w) if k else cell.ljust(w) for k, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    about = f"{report.scene}: {len(report.images)} {report.split} images, {report.regime}"
    return "\n".join([about, *lines, *report.remarks()])


def estimate_line(estimate: Estimate, photo: str, index: int, form: Format) -> str:
    """One photo's answer as one line.

    Args:
        estimate: The answer.
        photo: The photo's name, as the user wrote it.
        index: Its number in the list, which TUM's format has for a time stamp.
        form: ``text``; ``json``; ``colmap``: name qw qx qy qz tx ty tz, cam_from_world, where the
            name is all before the last seven numbers; ``tum``:
            index tx ty tz qx qy qz qw, world_from_cam.
    """
    pose = estimate.pose.canonical()
    if form == "json":
        return json.dumps(estimate_to_json(estimate, photo), ensure_ascii=False)
    if form == "colmap":
        cam_from_world = pose.inverse().canonical()
        values = [*cam_from_world.quaternion.tolist(), *cam_from_world.position.tolist()]
        return " ".join([photo, *(f"{value:.9g}" for value in values)])
    w, x, y, z = pose.quaternion.tolist()
    if form == "tum":
        return " ".join([str(index), *(f"{v:.9g}" for v in (*pose.position.tolist(), x, y, z, w))])
    position = " ".join(f"{value:.3f}" for value in pose.position.tolist())
    look = " ".join(f"{value:.3f}" for value in pose.look_direction.tolist())
    return (
        f"{photo}: at {position} {estimate.unit}, looking along {look} "
        f"(quaternion w x y z {w:.4f} {x:.4f} {y:.4f} {z:.4f}; {estimate.time_ms:.0f} ms)"
    )


def estimate_to_json(estimate: Estimate, photo: str) -> dict[str, Any]:
    """An answer as plain values, with the pose in both directions."""
    return {
        "photo": photo,
        **pose_to_json(estimate.pose),
        "world_from_cam": estimate.pose.matrix().tolist(),
        "cam_from_world": estimate.pose.inverse().matrix().tolist(),
        "unit": estimate.unit,
        "sigma_m": estimate.sigma_m,
        "sigma_deg": estimate.sigma_deg,
        "inliers": estimate.inliers,
        "method": estimate.method,
        "time_ms": estimate.time_ms,
        "warnings": list(estimate.warnings),
    }
