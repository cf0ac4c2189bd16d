"""A report on disk: ``report.json``, ``report.md``, ``report.html``, figures and map points."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from relocal.errors import InputError
from relocal.evaluation import MethodResult, Report
from relocal.metrics import pose_errors
from relocal.pose import Pose
from relocal.report.corruptions import CORRUPTED, draw_corruptions
from relocal.report.figures import CURVES, TOP_VIEW, draw_curves, draw_top_view
from relocal.report.page import report_to_html
from relocal.report.photos import choose_photos
from relocal.report.reconstruction import RECONSTRUCTION, draw_reconstruction
from relocal.report.tables import report_to_json, report_to_markdown
from relocal.scene import Scene
from relocal.scene.files import new_folder, read_json, write_json
from relocal.training.run import read_tensors, write_tensors

REPORT_JSON, PLACE = "report.json", "place.safetensors"


def save_report(
    report: Report, out: Path | str, scene: Scene | None = None, *, photos: bool = False
) -> Path:
    """Writes ``report.json`` (with a row an image), ``report.html``, ``report.md`` and its figures.

    ``place.safetensors`` holds the training poses and the map points, for the viewer.

    Args:
        report: What was found.
        out: The folder to make.
        scene: The scene, for a few of its photos; they are in the page where its provenance says
            ``"photos": "shareable"``.
        photos: Show them in any case, for private use.

    Returns:
        The path of ``report.html``, which holds all that it shows.

    Raises:
        InputError: If ``out`` exists.
    """
    out = Path(out)
    with new_folder(out) as folder:
        write_json(folder / REPORT_JSON, report_to_json(report))
        write_tensors(folder / PLACE, _place(report))
        (folder / "report.md").write_text(report_to_markdown(report), "utf-8")
        draw_top_view(report, folder / TOP_VIEW)
        draw_curves(report, folder / CURVES)
        if report.points is not None:
            draw_reconstruction(report, folder / RECONSTRUCTION)
        if report.corruptions:
            draw_corruptions(report, folder / CORRUPTED)
        page = report_to_html(report, choose_photos(report, scene, photos))
        # The newlines stay as they are: the page states the hash of its script.
        (folder / "report.html").write_text(page, "utf-8", newline="\n")
    return out / "report.html"


def load_report(folder: Path | str) -> Report:
    """Reads a report: its images, true poses, answers and map points.

    What it says of corruptions, of photos of other places and of sureness stays in the file.

    Args:
        folder: What ``save_report`` made.

    Raises:
        InputError: If it is no report, or is damaged.
    """
    folder = Path(folder)
    content: Any = read_json(folder / REPORT_JSON)
    place = read_tensors(folder / PLACE) if (folder / PLACE).is_file() else {}
    try:
        rows = content["rows"]
        if not rows:
            raise InputError(f"{folder / REPORT_JSON}: has no images.")
        truth = _poses([row["truth"] for row in rows])
        methods = {
            name: _method(name, about, rows, truth) for name, about in content["methods"].items()
        }
        return Report(
            scene=str(content["scene"]),
            unit=str(content["unit"]),
            split=str(content["split"]),
            regime=str(content["regime"]),
            images=tuple(str(row["image"]) for row in rows),
            truth=truth,
            training=_training(place),
            methods=methods,
            thresholds=tuple((float(p), float(d)) for p, d in content["recall_thresholds"]),
            extent=float(content["extent"]),
            points=_points(place),
            made_by=content["made_by"],
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / REPORT_JSON}: is not what evaluate wrote ({error!r})."
        ) from None


def _place(report: Report) -> dict[str, torch.Tensor]:
    found = {
        "training.position": report.training.position,
        "training.quaternion": report.training.quaternion,
    }
    if report.points is not None:
        xyz, rgb = report.points
        found["points.xyz"] = torch.tensor(xyz, dtype=torch.float64)
        found["points.rgb"] = torch.tensor(rgb)
    return found


def _training(place: Mapping[str, torch.Tensor]) -> Pose:
    if "training.position" not in place:  # of a report by an older relocal
        return Pose.identity(0)
    return Pose(place["training.position"].double(), place["training.quaternion"].double())


def _points(place: Mapping[str, torch.Tensor]) -> Any:
    if "points.xyz" not in place:
        return None
    return place["points.xyz"].double().numpy(), place["points.rgb"].numpy()


def _method(name: str, about: Any, rows: Any, truth: Pose) -> MethodResult:
    answers = [row["answers"][name]["pose"] for row in rows]
    poses = [None if answer is None else _poses([answer])[0] for answer in answers]
    return MethodResult(poses, pose_errors(poses, truth), about["time_ms"], about["memory_mb"])


def _poses(values: Any) -> Pose:
    position, quaternion = (
        torch.tensor([value[key] for value in values], dtype=torch.float64).reshape(-1, size)
        for key, size in (("position", 3), ("quaternion", 4))
    )
    return Pose(position, quaternion)
