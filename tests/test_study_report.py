"""The output of a study: its numbers are those of the errors, and its words say no more."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_tree import Element, Tree, check_alone, check_shape
from PIL import Image

from relocal.evaluation import MEAN, ORACLE, RETRIEVAL
from relocal.metrics import PoseErrors
from relocal.report import save_study, study_table
from relocal.report.study_figures import shares_within
from relocal.report.study_page import study_to_html
from relocal.report.study_pictures import looks_of
from relocal.report.study_tables import leave_one_out_table, scene_table, scenes_table
from relocal.report.study_texts import latex_text, markdown_text, study_to_latex, study_to_markdown
from relocal.report.study_words import HONEST, answers, standing
from relocal.studies import MethodErrors, SceneErrors, Study, StudyConfig, comparisons, pooled_twins
from relocal.studies.statistics import BETTER, NO_DIFFERENCE, WORSE
from relocal.training import TrainConfig

SEEDS, BLOCKS, IMAGES = 3, 15, 6
TERM, TWIN, ODD = "posenet+frustum", "posenet+twin:frustum", '<b>a_b$%&#|"c'
FACTORS = {"default": 1.0, "posenet": 0.9, TERM: 0.5, TWIN: 0.88, "position": 1.6, ODD: 1.02}
SCENES = {"lab": ("m", 1.0), "wood <i>&_$1|": ("unit", 40.0), "yard": ("m", 5.0)}
CELL = "yard position seed-0: <script>alert(1)</script> is 5 % & $x_1$"


def some_scene(draw: np.random.Generator, name: str) -> SceneErrors:
    unit, scale = SCENES[name]
    count = BLOCKS * IMAGES
    hard = np.exp(0.3 * draw.normal(size=(2, count)))

    def errors(size: float, factor: float) -> np.ndarray:
        luck = np.exp(0.02 * draw.normal(size=(SEEDS, 1)) + 0.1 * draw.normal(size=(SEEDS, count)))
        return size * factor * luck

    def method(name: str, factor: float) -> MethodErrors:
        epochs = np.arange(1, 21)[:, None]
        return MethodErrors(
            position=hard[0] * errors(0.1 * scale, factor),
            rotation_deg=hard[1] * errors(4.0, factor**0.5),
            curve=np.array([2.0, 0.5 * scale, 20.0]) * (1 + factor / epochs),
            seconds=12.5,
            images_per_s=345.6,
            tuned={"0": f"{name}/beta=1.0", "1": f"{name}/beta=5.0"},
            validation=None if name == ODD else factor * scale,
        )

    methods = {key: method(key, f) for key, f in FACTORS.items()}
    if name == "yard":
        del methods["position"]
    if name == "lab":
        methods["posenet"].position[0, 3] = math.inf
        methods["posenet"].rotation_deg[0, 3] = math.inf
    beside = {key: PoseErrors(*(s * f * h for s, h in zip((scale, 20.0), hard, strict=True)))
              for key, f in ((MEAN, 1.5), (ORACLE, 0.2), (RETRIEVAL, 0.3))}  # fmt: skip
    return SceneErrors(
        name=name,
        unit=unit,
        regime="interpolation",
        labels="made up",
        split="blocks:40/5/5 fold 4",
        images=tuple(f"{i}.jpg" for i in range(count)),
        block=np.repeat(np.arange(BLOCKS), IMAGES),
        nearest=scale * draw.uniform(0.01, 0.4, size=count),
        baselines=beside,
        methods=methods,
    )


def some_study() -> Study:
    draw = np.random.default_rng(0)
    return Study(
        config=StudyConfig(losses=",".join(FACTORS), primary=f"{TERM}:default", final=True),
        base=TrainConfig(),
        scenes={name: some_scene(draw, name) for name in SCENES},
        failed=(CELL,),
        looks=("2026-01-02T03:04:05+00:00 at commit 0123456789ab",),
        made_by={"commit": "0123456789ab", "processor": "an abacus", "cores": 2, "date": "today"},
    )


@pytest.fixture(scope="module")
def study() -> Study:
    return some_study()


@pytest.fixture(scope="module")
def saved(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_study(study, tmp_path_factory.mktemp("studies") / "out").parent


@pytest.fixture(scope="module")
def page(saved: Path) -> Element:
    return Tree((saved / "study.html").read_text("utf-8")).root


def with_config(study: Study, **options: object) -> Study:
    return replace(study, config=replace(study.config, **options))


# --- the numbers -------------------------------------------------------------------------------


def slow_change(scene: SceneErrors, a: str, b: str, key: str) -> float:
    """The mean over blocks of the log ratio of block medians, each averaged over seeds."""
    ratios: list[float] = []
    for block in np.unique(scene.block):
        logs: dict[str, float] = {}
        for name in (a, b):
            rows = getattr(scene.methods[name], key)
            medians = [np.median(row[scene.block == block]) for row in rows]
            logs[name] = float(np.mean(np.log(medians)))
        ratios.append(logs[a] - logs[b])
    return 100 * (math.exp(np.mean(ratios)) - 1)


def amounts(text: str) -> list[float]:
    return [float(word) for word in re.findall(r"[+-]?\d+\.?\d*", text.replace("−", "-"))]


def test_scene_table_is_what_numpy_finds(study: Study) -> None:
    found = comparisons(study)
    for scene in study.scenes.values():
        table = scene_table(study, scene, found)
        assert table.head[1:3] == [f"median, {scene.unit}", "median, °"]
        rows = {row[0].text: row[1:] for row in table.rows}
        assert list(rows) == [MEAN, ORACLE, RETRIEVAL, *FACTORS]
        for name, errors in scene.baselines.items():
            assert rows[name][0].text == f"{np.median(errors.position):.3f}"
            assert rows[name][1].text == f"{np.median(errors.rotation_deg):.2f}"
        for name, errors in scene.methods.items():
            keys = ("position", "rotation_deg")
            for place, (key, digits) in enumerate(zip(keys, (3, 2), strict=True)):
                medians = [np.median(row) for row in getattr(errors, key)]
                mean, std = np.mean(medians), np.std(medians, ddof=1)
                assert rows[name][place].text == f"{mean:.{digits}f} ± {std:.{digits}f}"
                assert rows[name][place].value == pytest.approx(mean)
                ratio = mean / np.median(getattr(scene.baselines[ORACLE], key))
                assert amounts(rows[name][2].text)[place] == pytest.approx(ratio, abs=0.006)
                if name != "default":
                    change = slow_change(scene, name, "default", key)
                    assert amounts(rows[name][3 + place].text)[0] == pytest.approx(change, abs=0.06)


def test_scenes_are_joined_by_ratios_only(study: Study) -> None:
    table = scenes_table(study, comparisons(study))
    rows = {row[0].text: row[1:] for row in table.rows}
    assert not any("median" in head for head in table.head)
    for name in FACTORS:
        if name == "position":  # it lacks a scene
            assert [cell.text for cell in rows[name][:2]] == ["–", "–"]
            continue
        for place, key in enumerate(("position", "rotation_deg")):
            logs = [
                np.log(np.mean([np.median(row) for row in getattr(scene.methods[name], key)]))
                - np.log(np.median(getattr(scene.baselines[ORACLE], key)))
                for scene in study.scenes.values()
            ]
            assert rows[name][place].value == pytest.approx(math.exp(np.mean(logs)))
    assert "2 scenes" in rows["position"][2].text  # the combination says what it lacks


def test_no_number_is_a_mean_over_units(study: Study, saved: Path) -> None:
    medians = {
        name: [np.median(scene.methods[name].position, axis=1).mean() for scene in found]
        for name in FACTORS
        if len(found := [s for s in study.scenes.values() if name in s.methods]) == 3
    }
    texts = [study_table(study), *((saved / f).read_text() for f in ("study.md", "study.tex"))]
    for values in medians.values():
        assert not any(f"{np.mean(values):.3f}" in text for text in texts)


def test_one_seed_and_failures_everywhere_have_no_spread(study: Study) -> None:
    lab = study.scenes["lab"]
    never = replace(lab.methods["posenet"], position=np.full((SEEDS, BLOCKS * IMAGES), np.inf))
    once = replace(
        lab.methods[TERM],
        position=lab.methods[TERM].position[:1],
        rotation_deg=lab.methods[TERM].rotation_deg[:1],
    )
    scene = replace(lab, methods={**lab.methods, "posenet": never, TERM: once})
    found = comparisons(replace(study, scenes={"lab": scene}))
    rows = {r[0].text: r[1:] for r in scene_table(study, scene, found).rows}
    assert rows["posenet"][0].text == "∞"
    assert rows["posenet"][2].text.startswith("∞ / ")
    assert rows["posenet"][3].text == ("–, undecided: 15 blocks without a finite ratio of medians")
    assert "±" not in rows[TERM][0].text
    assert "no verdict (1 seed)" in rows[TERM][3].text


def test_leave_one_out_has_every_scene(study: Study) -> None:
    found = comparisons(study)
    rows = leave_one_out_table(found).rows
    assert {row[3].text for row in rows} == set(SCENES)
    first = found[0].combined
    assert rows[0][4].value == first.leave_one_out[rows[0][3].text]


def test_curves_are_the_shares_within(study: Study) -> None:
    errors = study.scenes["lab"].methods["posenet"].position
    along = np.linspace(0, 0.3, 7)
    expected = [[np.mean(row <= x) for x in along] for row in errors]
    np.testing.assert_allclose(shares_within(errors, along), expected)


# --- the words ---------------------------------------------------------------------------------


def test_first_line_says_which_images(study: Study) -> None:
    assert study_table(study).startswith("These are test numbers. The test images were read once:")
    looked = replace(study, looks=study.looks * 4)
    assert "were read 4 times" in study_table(looked).splitlines()[0]
    open_study = with_config(study, final=False)
    assert study_table(open_study).splitlines()[0].startswith("These are validation numbers")
    assert "no test image was read" in standing(open_study)


def test_answer_says_the_primary_contrast_and_coupling(study: Study) -> None:
    found = comparisons(study)
    primary, coupling = answers(study, found)
    combined = found[0].combined
    assert combined.verdict == BETTER
    assert primary.startswith(
        f"`{TERM}` has a smaller position error than `default` over 3 scenes: −"
    )
    assert amounts(primary.partition("scenes:")[2])[0] == round(combined.percent_change, 1)
    assert coupling.startswith(f"An effect of coupling was shown: `{TERM}` in position")
    assert f"the best uncoupled loss on validation, `{TWIN}`." in coupling


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"primary": None}, "No contrast was fixed beforehand"),
        ({"primary": f"position:{TERM}"}, "over 2 scenes: no verdict (2 scenes). By scene: lab: "),
        ({"primary": f"{TWIN}:posenet"}, f"`{TWIN}`"),
    ],
)
def test_primary_in_other_words(study: Study, options: dict, expected: str) -> None:
    other = with_config(study, **options)
    assert expected in answers(other, comparisons(other))[0]


def test_verdict_words(study: Study) -> None:
    text = study_table(study)
    found = comparisons(study)
    said = {c.scenes[s].verdict for c in found for s in c.scenes}
    assert {BETTER, WORSE, NO_DIFFERENCE} <= said
    for word in said:
        assert word in text
    alone = with_config(study, losses="default,posenet,position", primary=None)
    assert "No coupled loss took part" in answers(alone, comparisons(alone))[1]
    untwinned = with_config(study, losses=f"default,posenet,{TERM}", primary=None)
    said_of = answers(untwinned, comparisons(untwinned))[1]
    assert said_of.endswith("coupling: no decoupled twin was measured.")


def test_terms_are_pooled_over_all_bases_that_stand_with_their_twin(study: Study) -> None:
    assert pooled_twins(study) == []  # one base
    losses = "default,posenet,posenet+frustum,posenet+twin:frustum,default+frustum"
    both = with_config(study, losses=f"{losses},default+twin:frustum", primary=None)
    factor, draw = {"default+frustum": 0.8, "default+twin:frustum": 1.0}, np.random.default_rng(3)
    scenes = {}
    for name, scene in both.scenes.items():
        rows = dict(scene.methods)
        for text, f in factor.items():
            noise = np.exp(0.01 * draw.normal(size=rows["default"].position.shape))
            rows[text] = replace(rows["default"], position=f * noise * rows["default"].position)
        scenes[name] = replace(scene, methods=rows)
    found = pooled_twins(replace(both, scenes=scenes))
    assert [(c.kind, c.a, c.b, c.quantity) for c in found] == [
        ("all bases", "frustum", "twin:frustum", "position"),
        ("all bases", "frustum", "twin:frustum", "rotation"),
    ]
    # The geometric mean of the two bases' ratios: 0.5 / 0.88 and 0.8.
    expected = math.sqrt(0.5 / 0.88 * 0.8)
    for contrast in found[0].scenes.values():
        assert math.exp(contrast.mean_log_ratio) == pytest.approx(expected, rel=0.03)
        assert contrast.seeds == SEEDS
        assert contrast.verdict == BETTER
    assert "over all bases" in study_table(replace(both, scenes=scenes))


def test_coupling_needs_both_contrasts(study: Study) -> None:
    noise, scenes = np.random.default_rng(1), dict[str, SceneErrors]()
    for name, scene in study.scenes.items():
        term = scene.methods[TERM]
        shaken, turned = (
            errors * np.exp(0.02 * noise.normal(size=errors.shape))
            for errors in (term.position, term.rotation_deg)
        )
        twin = replace(term, position=shaken, rotation_deg=turned, validation=99.0)
        scenes[name] = replace(scene, methods={**scene.methods, TWIN: twin})
    other = replace(study, scenes=scenes)
    assert answers(other, comparisons(other))[1].startswith("No effect of coupling was shown")


def test_few_blocks_make_a_table_and_no_verdict(study: Study) -> None:
    lab = study.scenes["lab"]
    scene = replace(lab, block=lab.block // 4)
    small = replace(study, scenes={"lab": scene})
    primary, coupling = answers(small, comparisons(small))
    assert "in lab: no verdict (4 blocks)" in primary
    assert coupling == "Nothing can be said of an effect of coupling: no verdict (4 blocks)."
    assert "Over 1 scene" not in study_table(small)


def test_gaps_are_named_everywhere(saved: Path, study: Study, page: Element) -> None:
    text = study_table(study)
    assert f"Failed: {CELL}" in text
    assert "position is left out of yard: not all of its cells are there." in text
    assert CELL in page.text()
    assert markdown_text(CELL) in (saved / "study.md").read_text()
    for known in (text, page.text()):
        for fact in ("0123456789ab", "an abacus", "3 for each method", "up to 4 settings"):
            assert fact in known


# --- the files ---------------------------------------------------------------------------------


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


def test_latex_is_escaped_and_its_rows_are_of_one_width(study: Study) -> None:
    text = study_to_latex(study, comparisons(study))
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    widths = {len(re.findall(r"(?<!\\)&", row)) + row.count("multicolumn") for row in rows}
    assert widths == {1 + 2 * len(SCENES) + 3 - 1}
    assert latex_text(ODD) in body
    assert r"\$\%\&\#\textbar{}" in body
    assert not re.search(r"(?<!\\)[%#]", body)
    assert body.count(r"\begin") == body.count(r"\end")
    assert latex_text("a\\b~^\n{") == r"a\textbackslash{}b\textasciitilde{}\textasciicircum{} \{"


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
