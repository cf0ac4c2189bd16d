"""The page of a study: one HTML file that asks for nothing else."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from relocal.report.elements import (
    button_heads,
    definitions,
    fill_page,
    grid,
    marked,
    section,
    table,
)
from relocal.report.study_pictures import Picture
from relocal.report.study_tables import (
    Cell,
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
from relocal.studies.contrasts import Comparison
from relocal.studies.results import Study


def study_to_html(
    study: Study,
    found: Sequence[Comparison],
    pictures: Sequence[Picture],
    pngs: Mapping[str, bytes],
) -> str:
    """The study as a page for a browser: the answer first, then all that it rests on.

    Args:
        study: What was measured.
        found: Its comparisons.
        pictures: Its figures.
        pngs: The same as files, by their names.
    """
    sections = [_answers(study, found), _results(study, found), _comparisons(study, found)]
    for picture in pictures:
        drawn = f"<figure>\n{picture.html(pngs[picture.file])}\n</figure>"
        about = f"<p>{escape(picture.caption)}</p>"
        sections.append(section(picture.title, about, f'<div class="wide">\n{drawn}\n</div>'))
    title = f"Loss study: {', '.join(study.scenes) or 'no scene'}"
    return fill_page(title, standing(study), [*sections, _making(study)])


def _answers(study: Study, found: Sequence[Comparison]) -> str:
    said = (f"<p><strong>{marked(answer)}</strong></p>" for answer in answers(study, found))
    return section("Answer", *said, f'<p class="note">{escape(HONEST)}</p>')


def _results(study: Study, found: Sequence[Comparison]) -> str:
    tables = [_sortable(part) for part in main_tables(study, found)]
    noted = "".join(f"<li>{escape(remark)}</li>\n" for remark in remarks(study))
    return section(
        "Results",
        *tables,
        f'<ul class="remarks">\n{noted}</ul>' if noted else "",
        f'<p class="note">{marked(LEGEND)}</p>',
    )


def _comparisons(study: Study, found: Sequence[Comparison]) -> str:
    shown = [_sortable(part) for part in comparison_tables(study, found)]
    if not shown:
        return ""
    return section("Comparisons", *shown, f'<p class="note">{marked(VERDICTS)}</p>')


def _making(study: Study) -> str:
    options = [[name, value] for name, value in training_options(study)]
    return section(
        "How it was made",
        definitions(making(study)),
        _sortable(cells_table(study)),
        table("Options of training", ["option", "value"], options, "text"),
    )


def _sortable(content: Table) -> str:
    """A table whose columns sort; one that holds a value anywhere sorts by values."""
    columns = range(len(content.head))
    numeric = [any(row[k].value is not None for row in content.rows) for k in columns]
    rows = ("".join(_cell(row[k], numeric[k], k == 0) for k in columns) for row in content.rows)
    caption = f"{content.caption}; press a header to sort"
    note = f'\n<p class="note">{marked(content.note)}</p>' if content.note else ""
    return grid(caption, button_heads(content.head), rows, "images study") + note


def _cell(cell: Cell, numeric: bool, names_row: bool) -> str:
    if names_row:
        return f'<th scope="row">{escape(cell.text)}</th>'
    if not numeric:
        return f"<td>{escape(cell.text)}</td>"
    value = cell.value
    if value is None or math.isnan(value):
        return f'<td data-value="">{escape(cell.text)}</td>'
    # Infinity is how the page's script writes it.
    key = repr(value) if math.isfinite(value) else "Infinity"
    return f'<td data-value="{key}">{escape(cell.text)}</td>'
