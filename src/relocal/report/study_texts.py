"""A study as Markdown, and as the LaTeX table that a paper would print."""

import re
from collections.abc import Sequence

from relocal.report.making import flat
from relocal.report.study_numbers import (
    QUANTITIES,
    change,
    comparison_of,
    mean_ratio,
    method_names,
    middle,
    number,
    overall,
)
from relocal.report.study_pictures import Picture
from relocal.report.study_tables import (
    Table,
    cells_table,
    contrasts_table,
    leave_one_out_table,
    main_tables,
    overall_table,
    pooled_table,
)
from relocal.report.study_words import HONEST, LEGEND, VERDICTS, answers, gaps, making, standing
from relocal.report.tables import markdown_table
from relocal.studies.contrasts import Comparison, reference_of
from relocal.studies.results import Study

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "°": r"$^\circ$",
    "÷": r"$\div$",
    "−": r"$-$",
    "–": "--",
    "∞": r"$\infty$",
    "×": r"$\times$",
}


def markdown_text(text: str) -> str:
    """A text from data that Markdown shows as it is, in one line."""
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#~|&$])", r"\\\1", text)


def latex_text(text: str) -> str:
    """A text from data that LaTeX prints as it is."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def study_to_markdown(
    study: Study, found: Sequence[Comparison], pictures: Sequence[Picture]
) -> str:
    """The study as a page to read, with all its numbers.

    Args:
        study: What was measured.
        found: Its comparisons.
        pictures: Its figures, whose files stand beside the page.
    """
    tables = [pooled_table(study), overall_table(found), contrasts_table(found)]
    tables.append(leave_one_out_table(found))
    options = [["option", "value"], *([k, v] for k, v in flat(study.base.to_json()))]
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
        *(_table(table) for table in tables if table.rows),
        "## Figures",
        *(part for picture in pictures for part in _picture(picture)),
        "## How it was made",
        "\n".join(f"- {markdown_text(term)}: {_prose(text)}" for term, text in making(study)),
        "\n".join(f"- {markdown_text(gap)}" for gap in gaps(study)),
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
    return f"{markdown_text(table.caption)}\n\n{markdown_table(rows)}"


def _picture(picture: Picture) -> tuple[str, str]:
    about = f"**{picture.title}.** {markdown_text(picture.caption)}"
    return about, f"![{markdown_text(picture.alt)}]({picture.file})"


def study_to_latex(study: Study, found: Sequence[Comparison]) -> str:
    r"""The main table, as a paper prints it: a row a method, two columns a scene.

    It needs ``\usepackage{booktabs}``.
    """
    scenes, reference = list(study.scenes.values()), reference_of(study)
    columns = "l" + "rr" * len(scenes) + "rrr"
    tops = [rf"\multicolumn{{2}}{{c}}{{{latex_text(scene.name)}}}" for scene in scenes]
    rules = [rf"\cmidrule(lr){{{2 * i + 2}-{2 * i + 3}}}" for i in range(len(scenes))]
    units = [latex_text(unit) for scene in scenes for unit in (scene.unit, "°")]
    baselines = list(dict.fromkeys(b for scene in scenes for b in scene.baselines))
    caption = (
        f"Median errors: mean over {study.config.seeds} seeds ± standard deviation between seeds, "
        "ratio to the oracle nearest pose (geometric mean over scenes, position / rotation), and "
        f"change of position and rotation error against {reference} with 95 % intervals. "
        f"{standing(study)}"
    )
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(["", *tops, "", "", ""]) + r" \\",
        "".join(rules),
        " & ".join(["method", *units, latex_text("÷ oracle"), "position", "rotation"]) + r" \\",
        r"\midrule",
        *(_latex_row(study, found, name) for name in baselines),
        r"\midrule",
        *(_latex_row(study, found, name) for name in method_names(study)),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(study: Study, found: Sequence[Comparison], name: str) -> str:
    cells = [name]
    for scene in study.scenes.values():
        there = name in scene.methods or name in scene.baselines
        cells += [middle(scene, name, q).text(q) if there else "–" for q in QUANTITIES]
    cells.append(" / ".join(number(mean_ratio(study, name, q), 2) for q in QUANTITIES))
    for quantity in QUANTITIES:
        comparison = comparison_of(found, name, reference_of(study), quantity)
        # Over fewer scenes it would be another mean.
        whole = comparison is not None and len(comparison.scenes) == len(study.scenes)
        cells.append(change(overall(comparison)) if comparison and whole else "")
    return " & ".join(latex_text(cell) for cell in cells) + r" \\"
