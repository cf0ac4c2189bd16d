"""A report on disk: ``report.json``, ``report.md``, ``report.html`` and the figures."""

from pathlib import Path

from relocal.evaluation import Report
from relocal.report.corruptions import CORRUPTED, draw_corruptions
from relocal.report.figures import CURVES, TOP_VIEW, draw_curves, draw_top_view
from relocal.report.page import report_to_html
from relocal.report.photos import choose_photos
from relocal.report.reconstruction import RECONSTRUCTION, draw_reconstruction
from relocal.report.tables import report_to_json, report_to_markdown
from relocal.scene import Scene
from relocal.scene.files import new_folder, write_json


def save_report(
    report: Report, out: Path | str, scene: Scene | None = None, *, photos: bool = False
) -> Path:
    """Writes ``report.json`` (with a row an image), ``report.html``, ``report.md`` and its figures.

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
        write_json(folder / "report.json", report_to_json(report))
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
