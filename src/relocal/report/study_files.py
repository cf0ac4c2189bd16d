"""A study on disk: its pages and figures, beside the ``study.json`` that the study wrote."""

from pathlib import Path

from relocal.report.study_latex import study_to_latex
from relocal.report.study_page import study_to_html
from relocal.report.study_pictures import study_pictures
from relocal.report.study_texts import study_to_markdown
from relocal.scene.files import write_bytes, write_text
from relocal.studies.contrasts import comparisons
from relocal.studies.results import Study


def save_study(study: Study, out: Path | str) -> Path:
    """Writes ``study.md``, ``study.tex``, ``study.html`` and the figures, each one whole or not.

    Args:
        study: What was measured.
        out: The study's folder; what these files held before is replaced.

    Returns:
        The path of ``study.html``, which holds all that it shows.

    Raises:
        InputError: If the primary contrast names methods that the study does not have.
    """
    out, found = Path(out), comparisons(study)
    pictures = study_pictures(study, found)
    pngs = {picture.file: picture.png() for picture in pictures}
    out.mkdir(parents=True, exist_ok=True)
    for name, content in pngs.items():
        write_bytes(out / name, content)
    write_text(out / "study.md", study_to_markdown(study, found, pictures))
    write_text(out / "study.tex", study_to_latex(study, found))
    write_text(out / "study.html", study_to_html(study, found, pictures, pngs))
    return out / "study.html"
