"""A report on disk: ``report.json``, ``report.md`` and the figures."""

from pathlib import Path

from relocal.evaluation import Report
from relocal.report.figures import CURVES, TOP_VIEW, draw_curves, draw_top_view
from relocal.report.tables import report_to_json, report_to_markdown
from relocal.scene.files import new_folder, write_json


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
