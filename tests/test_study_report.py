"""The output of a study: its numbers are those of the errors, and its words say no more."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from made_study import BLOCKS, FACTORS, IMAGES, SCENES, SEEDS, TERM, TWIN, some_study, with_config

from relocal.evaluation import MEAN, ORACLE, RETRIEVAL
from relocal.report import study_table
from relocal.report.study_numbers import short_numbers
from relocal.report.study_tables import (
    comparison_tables,
    leave_one_out_table,
    scene_table,
    scenes_table,
)
from relocal.report.study_words import answers, kinds, making, standing, training_options
from relocal.studies import SceneErrors, Study, comparisons, pooled_twins
from relocal.studies.statistics import BETTER, NO_DIFFERENCE, WORSE


@pytest.fixture(scope="module")
def study() -> Study:
    return some_study()


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


# --- the words ---------------------------------------------------------------------------------


def test_first_line_says_which_images(study: Study) -> None:
    assert study_table(study).startswith("These are test numbers. The test images were read once:")
    looked = replace(study, looks=study.looks * 4)
    assert "were read 4 times" in study_table(looked).splitlines()[0]
    open_study = with_config(study, final=False)
    assert study_table(open_study).splitlines()[0].startswith("These are validation numbers")
    assert "The test images were read once before" in standing(open_study)
    assert "no test image was read" in standing(replace(open_study, looks=()))


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
        ({"primary": None}, "No primary contrast was fixed beforehand"),
        ({"primary": f"position:{TERM}"}, "over 2 scenes: no verdict (2 scenes). By scene: lab: "),
        ({"primary": f"{TWIN}:posenet"}, f"`{TWIN}`"),
    ],
)
def test_primary_in_other_words(study: Study, options: dict, expected: str) -> None:
    other = with_config(study, **options)
    assert expected in answers(other, comparisons(other))[0]


def test_contrasts_fixed_beforehand_are_a_family_of_their_own(study: Study) -> None:
    """Many others do not weigh on them, and they do not weigh on the others."""
    pairs = [(TERM, TWIN), ("posenet", "default")]
    fixed = with_config(study, secondary=",".join(f"{a}:{b}" for a, b in pairs))
    found = comparisons(fixed)
    family = [c for c in found if (c.a, c.b) in pairs or c.kind == "primary"][1:]
    assert [c.kind for c in family] == ["primary", *["secondary"] * 4]
    rest = [c for c in found[1:] if c not in family]
    assert {(c.a, c.b, c.quantity) for c in found} == {
        (c.a, c.b, c.quantity) for c in comparisons(study)
    }
    for members in (family, rest):
        effects = sorted((c.combined for c in members), key=lambda effect: effect.p_value or 1.0)
        known = [effect.p_value for effect in effects if effect.p_value is not None]
        held = [effect.adjusted_p or 0.0 for effect in effects if effect.p_value is not None]
        steps = [(len(members) - k) * p for k, p in enumerate(known)]
        np.testing.assert_allclose(held, np.minimum(1, np.maximum.accumulate(steps)))
    text = study_table(fixed)
    assert f"{TERM}:{TWIN}, posenet:default" in text
    assert "*secondary*: fixed beforehand, too" in kinds(found)


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


def test_one_scene_has_one_table_of_comparisons(study: Study) -> None:
    found = comparisons(study)
    several = [table.caption for table in comparison_tables(study, found)]
    assert several[:2] == ["All comparisons as a whole", "All comparisons, scene by scene"]
    alone = replace(study, scenes={"lab": study.scenes["lab"]})
    (table,) = comparison_tables(alone, comparisons(alone))
    for word in ("*primary*", "*twin*", "*Lag-1 correlation*"):
        assert word in table.note


def test_words_say_what_was_tuned_and_what_is_best(study: Study) -> None:
    said = dict(making(study))
    assert "own" not in said["Folds"].split()
    assert said["Best uncoupled"].startswith(f"`{TWIN}`, with {0.88 * 200 ** (1 / 3):.4g}: the")
    assert "least product of the median position and rotation error" in said["Best uncoupled"]
    once = dict(making(with_config(study, tune=1, folds="0,3")))
    assert once["Tuning"] == "nothing was tuned"
    assert once["Folds"] == "numbers 0,3"
    assert not [name for name, _ in training_options(study) if name.startswith("loss")]
    assert short_numbers("posenet+frustum/beta=0.8333333333333333/form=squared") == (
        "posenet+frustum/beta=0.8333/form=squared"
    )
    assert "may be lower although its change is positive" in study_table(study).splitlines()[-1]
