"""A study as Markdown."""

import re
from collections.abc import Sequence

from relocal.report.study_pictures import Picture
from relocal.report.study_tables import (
    Table,
    cells_table,
    comparison_tables,
    main_tables,
)
from relocal.report.study_words import (
    HONEST,
    LEGEND,
    VERDICTS,
    answers,
    making,
    remarks,
    standing,
    training_options,
)
from relocal.report.tables import markdown_table
from relocal.studies.contrasts import Comparison
from relocal.studies.results import Study


def markdown_text(text: str) -> str:
    """A text from data that Markdown shows as it is, in one line."""
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#~|&$])", r"\\\1", text)


def study_to_markdown(
    study: Study, found: Sequence[Comparison], pictures: Sequence[Picture]
) -> str:
    """The study as a page to read, with all its numbers.

    Args:
        study: What was measured.
        found: Its comparisons.
        pictures: Its figures, whose files stand beside the page.
    """
    options = [["option", "value"], *training_options(study)]
    parts = [
        f"# Loss study: {_names(study)}",
        _prose(standing(study)),
        *(f"**{_prose(answer)}**" for answer in answers(study, found)),
        HONEST,
        "## Results",
        *(_table(table) for table in main_tables(study, found)),
        LEGEND,
        "## Comparisons",
        VERDICTS,
        *(_table(table) for table in comparison_tables(study, found)),
        "## Figures",
        *(part for picture in pictures for part in _picture(picture)),
        "## How it was made",
        "\n".join(f"- {markdown_text(term)}: {_prose(text)}" for term, text in making(study)),
        "\n".join(f"- {markdown_text(remark)}" for remark in remarks(study)),
        _table(cells_table(study)),
        "### Options of training",
        markdown_table([[markdown_text(cell) for cell in row] for row in options]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _names(study: Study) -> str:
    return markdown_text(", ".join(study.scenes)) or "no scene"


def _prose(text: str) -> str:
    """A sentence in which names stand between backticks, as Markdown."""
    parts = re.split(r"`([^`]*)`", " ".join(text.split()))
    return "".join(f"`{part}`" if i % 2 else _escaped(part) for i, part in enumerate(parts))


def _table(table: Table) -> str:
    rows = [[markdown_text(cell) for cell in row] for row in table.texts()]
    note = f"\n\n{table.note}" if table.note else ""
    return f"{markdown_text(table.caption)}\n\n{markdown_table(rows)}{note}"


def _picture(picture: Picture) -> tuple[str, str]:
    about = f"**{picture.title}.** {markdown_text(picture.caption)}"
    return about, f"![{markdown_text(picture.alt)}]({picture.file})"
