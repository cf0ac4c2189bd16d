"""The files of a study: whole, alone, escaped, and drawn so that they can be read."""

import math
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_study import CELL, FACTORS, ODD, SCENES, TERM, TWIN, some_study, with_config
from page_tree import Element, Tree, check_alone, check_shape
from PIL import Image

from relocal.evaluation import MEAN, ORACLE, RETRIEVAL
from relocal.report import save_study, study_table
from relocal.report.forest import draw_forest, drawn_comparisons
from relocal.report.study_figures import draw_distances, draw_training, shares_within
from relocal.report.study_latex import latex_text, study_to_latex
from relocal.report.study_page import study_to_html
from relocal.report.study_pictures import looks_of
from relocal.report.study_texts import markdown_text, study_to_markdown
from relocal.report.study_words import HONEST
from relocal.studies import Study, comparisons


@pytest.fixture(scope="module")
def study() -> Study:
    return some_study()


@pytest.fixture(scope="module")
def saved(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_study(study, tmp_path_factory.mktemp("studies") / "out").parent


@pytest.fixture(scope="module")
def page(saved: Path) -> Element:
    return Tree((saved / "study.html").read_text("utf-8")).root


def test_files_stand_beside_each_other(saved: Path) -> None:
    pictures = {"curves.png", "distances.png", "training.png", "forest.png", "surfaces.png"}
    assert {p.name for p in saved.iterdir()} == {"study.html", "study.md", "study.tex", *pictures}
    page = (saved / "study.md").read_text()
    for name in pictures:
        with Image.open(saved / name) as image:
            assert image.format == "PNG"
            assert image.width > 1000
        assert f"]({name})" in page
    assert HONEST in page


def test_page_is_whole_and_alone(saved: Path, page: Element) -> None:
    text = (saved / "study.html").read_text("utf-8")
    check_shape(page)
    check_alone(page, text)
    assert len(list(page.all("svg"))) == 4
    assert HONEST in page.text()
    assert len(text) < 6_000_000
    tags = [element.tag for element in page.all()]
    assert tags.count("script") == 1
    assert "b" not in tags
    assert "i" not in tags
    for name in (*SCENES, ODD):
        assert name in page.text()
    sortable = [t for t in page.all("table") if "press a header" in next(t.all("caption")).text()]
    for table in sortable:
        assert all(next(th.all("button"), None) for th in next(table.all("thead")).all("th"))
        for cell in next(table.all("tbody")).all("td"):
            if value := cell.attributes.get("data-value"):
                assert not math.isnan(float(value))


def test_hostile_names_stay_text_in_markdown(saved: Path) -> None:
    page = (saved / "study.md").read_text()
    outside = re.sub(r"`[^`\n]*`", "", page)
    assert not re.search(r"(?<!\\)<(?:b|i|script)", outside)
    tables = [line for line in page.splitlines() if line.startswith("| ")]
    assert any(markdown_text(ODD) in line for line in tables)
    for line in tables:
        cells = re.split(r"(?<!\\)\|", line)
        assert all(cell == cell.strip(" ") or cell.startswith(" ") for cell in cells)


def latex_tables(text: str) -> list[str]:
    return re.findall(r"\\begin\{longtable\}.*?\\end\{longtable\}", text, flags=re.DOTALL)


def latex_rows(table: str) -> list[list[str]]:
    body = table[table.index(r"\endlastfoot") :]
    lines = (
        re.sub(r" \\\\\*?$", "", x) for x in body.splitlines() if x.rstrip("*").endswith(r"\\")
    )
    return [re.split(r"(?<!\\)&", line) for line in lines]


def test_latex_is_escaped_and_its_rows_are_of_one_width(study: Study) -> None:
    text = study_to_latex(study, comparisons(study))
    tables = latex_tables(text)
    assert len(tables) == len(SCENES) + 2
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels)) == len(tables)
    assert text.count(r"\begin") == text.count(r"\end{")
    for table, width in zip(tables, [*[6] * len(SCENES), 5, 6], strict=True):
        rows = [row for row in latex_rows(table) if "multicolumn" not in row[0]]
        assert {len(row) for row in rows} == {width}
        assert not re.search(r"(?<!\\)[%#]", table)
        assert "--final" not in table
    assert r"\$\%\&\#\textbar{}" in tables[0]
    assert latex_text("a\\b~^\n{") == r"a\textbackslash{}b\textasciitilde{}\textasciicircum{} \{"
    assert latex_text("[*]") == "{[}{*}{]}"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(saved: Path, tmp_path: Path) -> None:
    """With the packages that its first line asks for, and no others."""
    text = (saved / "study.tex").read_text()
    packages = text.splitlines()[0].partition("needs ")[2]
    assert packages.startswith(r"\usepackage{")
    head = rf"\documentclass{{article}}{packages}\usepackage[utf8]{{inputenc}}\begin{{document}}"
    (tmp_path / "page.tex").write_text(f"{head}\n{text}\n\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    for known in (False, True):  # the widths of the columns, by the second time
        made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout[-2000:]
        assert not known or "Overfull" not in made.stdout


def test_latex_has_every_method_and_contrast_with_its_interval(study: Study) -> None:
    found = comparisons(study)
    *results, together, contrasts = latex_tables(study_to_latex(study, found))
    for table, scene in zip(results, study.scenes.values(), strict=True):
        rows = {row[0].replace(r"\allowbreak{}", "").strip(): row for row in latex_rows(table)}
        assert list(rows) == [latex_text(n) for n in (MEAN, ORACLE, RETRIEVAL, *FACTORS)]
        for name in scene.methods:
            changes = rows[latex_text(name)][4:]
            if name != "default":
                assert all("{[}" in change for change in changes)
    assert "failed" in results[2]
    assert "failed" in together
    assert contrasts.count("against") >= 2
    for word in ("fixed beforehand", "its term decoupled", "all scenes", "better", "0.0"):
        assert word in contrasts
    few = {n: replace(s, block=s.block // 4) for n, s in study.scenes.items()}
    bare = replace(study, scenes=few)
    assert latex_tables(study_to_latex(bare, comparisons(bare)))[0].count(", n.v.") == 10


@pytest.mark.parametrize("change", [lambda s: replace(s, scenes={}), lambda s: _bare(s)])
def test_study_of_nothing_has_pages(study: Study, change: Callable[[Study], Study]) -> None:
    empty = with_config(change(study), primary=None)
    found = comparisons(empty)
    assert found == []
    assert study_table(empty)
    assert study_to_latex(empty, found)
    assert study_to_markdown(empty, found, [])
    check_shape(Tree(study_to_html(empty, found, [], {})).root)


def _bare(study: Study) -> Study:
    scenes = {name: replace(scene, methods={}) for name, scene in study.scenes.items()}
    return replace(study, scenes=scenes)


def test_no_number_is_a_mean_over_units(study: Study, saved: Path) -> None:
    medians = {
        name: [np.median(scene.methods[name].position, axis=1).mean() for scene in found]
        for name in FACTORS
        if len(found := [s for s in study.scenes.values() if name in s.methods]) == 3
    }
    texts = [study_table(study), *((saved / f).read_text() for f in ("study.md", "study.tex"))]
    for values in medians.values():
        assert not any(f"{np.mean(values):.3f}" in text for text in texts)


def test_gaps_are_named_everywhere(saved: Path, study: Study, page: Element) -> None:
    text = study_table(study)
    assert f"Failed: {CELL}" in text
    assert "position is left out of yard: not all of its cells are there." in text
    assert CELL in page.text()
    assert markdown_text(CELL) in (saved / "study.md").read_text()
    for known in (text, page.text()):
        for fact in ("0123456789ab", "an abacus", "3 for each method", "up to 4 settings"):
            assert fact in known
        assert "failed, see below" in known


def test_comparison_of_any_kind_is_shown_everywhere(study: Study) -> None:
    found = comparisons(study)
    for kind in ("base", "some other kind"):
        found.append(replace(found[0], a=TERM, b="posenet"))
        object.__setattr__(found[-1], "kind", kind)  # one that the type may not know
    page = study_to_html(study, found, [], {})
    assert "a coupled loss against the same loss without the term" in page
    for text in (page, study_to_markdown(study, found, []), study_to_latex(study, found)):
        assert "ome other kind" in text
    drawn = draw_forest(drawn_comparisons(found, looks_of(study, found)))
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert f"{TERM} against posenet (base, some other kind)" in texts


# --- the figures -----------------------------------------------------------------------------


def test_curves_are_the_shares_within(study: Study) -> None:
    errors = study.scenes["lab"].methods["posenet"].position
    along = np.linspace(0, 0.3, 7)
    expected = [[np.mean(row <= x) for x in along] for row in errors]
    np.testing.assert_allclose(shares_within(errors, along), expected)


def test_many_methods_leave_the_figures_readable(study: Study) -> None:
    names = [f"posenet/beta={b}" for b in range(1, 95)]
    lab = study.scenes["lab"]
    more = {n: replace(lab.methods["position"], validation=100.0 - i) for i, n in enumerate(names)}
    losses = ",".join([*FACTORS, *names])
    many = replace(
        with_config(study, losses=losses),
        scenes={"lab": replace(lab, methods={**lab.methods, **more})},
    )
    looks = looks_of(many, comparisons(many))
    assert len(looks) == 8
    assert {"default", TERM, TWIN, "posenet"} <= set(looks)
    assert looks[TERM].colour == looks[TWIN].colour
    assert looks[TWIN].stroke == "dashed"


def test_axes_end_with_the_data_and_count_whole_epochs(study: Study) -> None:
    lab = study.scenes["lab"]
    rows = {name: replace(m, curve=m.curve[:3]) for name, m in lab.methods.items()}
    short = replace(study, scenes={"lab": replace(lab, methods=rows)})
    looks = looks_of(short, comparisons(short))
    for axes in draw_training(short, looks).axes:
        assert [tick % 1 for tick in axes.get_xticks()] == [0] * len(axes.get_xticks())
    left, right = draw_distances(short, looks).axes
    ends = [max(line.get_xdata()[-1] for line in axes.lines) for axes in (left, right)]
    assert left.get_xlim()[1] == right.get_xlim()[1] == pytest.approx(ends[0])
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


def test_titles_and_long_names_leave_the_panels_their_place(study: Study) -> None:
    names = [f"posenet/beta={b}/gamma=0.123456789/quaternion=raw/robust=huber" for b in range(8)]
    lab = study.scenes["lab"]
    methods = dict.fromkeys(names, lab.methods["posenet"])
    scene = replace(lab, name="gym", methods=methods)
    long = with_config(replace(study, scenes={"gym": scene}), losses=",".join(names), primary=None)
    figure = draw_training(long, looks_of(long, comparisons(long)))
    figure.draw_without_rendering()
    panels = [axes.get_window_extent() for axes in figure.axes]
    title = figure.axes[0]._left_title.get_window_extent()
    assert title.y0 > panels[0].y1
    assert title.y1 < figure.legends[0].get_window_extent().y0
    assert panels[0].height > 1.5 * figure.dpi
