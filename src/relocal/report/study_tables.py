"""Tables of a study, and the text that a terminal shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from relocal.report.study_numbers import (
    change,
    change_and_verdict,
    comparison_of,
    mean_ratio,
    method_names,
    middle,
    number,
    overall,
    probability,
    short_numbers,
    signed,
    where,
)
from relocal.report.study_words import (
    CELLS,
    TWO_MEANS,
    WITNESSES,
    answers,
    extent,
    kinds,
    making,
    remarks,
    standing,
)
from relocal.report.tables import aligned
from relocal.studies.contrasts import (
    QUANTITIES,
    Comparison,
    comparisons,
    pooled_twins,
    reference_of,
)
from relocal.studies.results import MethodErrors, SceneErrors, Study
from relocal.studies.statistics import Combined, Contrast, Effect, Quantity


@dataclass(frozen=True)
class Cell:
    """What stands in a table, and what its column is sorted by."""

    text: str
    value: float | None = None
    """None for texts; NaN stands last."""


@dataclass(frozen=True)
class Table:
    """A table for every way to show it; each row is named by its first cell."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    note: str = ""
    """What its words mean, in Markdown."""

    def texts(self) -> list[list[str]]:
        """The head, and the rows as texts."""
        return [self.head, *([cell.text for cell in row] for row in self.rows)]


def scene_table(study: Study, scene: SceneErrors, found: Sequence[Comparison]) -> Table:
    """Baselines and methods on one scene, each against the reference."""
    reference = reference_of(study)
    rows = [[Cell(name), *_middles(scene, name), Cell(""), Cell("")] for name in scene.baselines]
    for name in method_names(study):
        if name not in scene.methods:
            rows.append(
                [Cell(name), *[Cell("–", math.nan)] * 3, Cell("failed, see below"), Cell("")]
            )
            continue
        verdicts = [_against(found, name, reference, q, scene.name) for q in QUANTITIES]
        rows.append([Cell(name), *_middles(scene, name), *verdicts])
    head = ["method", f"median, {scene.unit}", "median, °", "÷ oracle", *_against_heads(reference)]
    return Table(f"{scene.name}: {extent(scene)}, {scene.regime}", head, rows)


def _against_heads(reference: str) -> list[str]:
    return [f"{quantity} against {reference}" for quantity in QUANTITIES]


def _middles(scene: SceneErrors, name: str) -> list[Cell]:
    position, rotation = (middle(scene, name, quantity) for quantity in QUANTITIES)
    ratios = f"{number(position.ratio, 2)} / {number(rotation.ratio, 2)}"
    return [
        Cell(position.text("position"), position.value),
        Cell(rotation.text("rotation"), rotation.value),
        Cell(ratios, position.ratio),
    ]


def _against(
    found: Sequence[Comparison], name: str, reference: str, quantity: Quantity, scene: str
) -> Cell:
    """A method against the reference in one scene."""
    if name == reference:
        return Cell("reference", 0.0)
    comparison = comparison_of(found, name, reference, quantity)
    if comparison is None or scene not in comparison.scenes:
        return Cell("–", math.nan)
    effect = comparison.scenes[scene]
    return Cell(change_and_verdict(effect), effect.mean_log_ratio)


def _together(study: Study, found: Sequence[Comparison], name: str, quantity: Quantity) -> Cell:
    """A method against the reference over scenes; fewer scenes are another mean, and said."""
    reference = reference_of(study)
    if name == reference:
        return Cell("reference", 0.0)
    comparison = comparison_of(found, name, reference, quantity)
    if comparison is None:
        return Cell("–", math.nan)
    count, effect = len(comparison.scenes), comparison.combined
    only = "" if count == len(study.scenes) else f"; {count} of {len(study.scenes)} scenes"
    return Cell(change_and_verdict(effect) + only, effect.mean_log_ratio)


def scenes_table(study: Study, found: Sequence[Comparison]) -> Table:
    """Over all scenes: ratios to the oracle, and what the scenes say together."""
    reference, rows = reference_of(study), list[list[Cell]]()
    baselines = dict.fromkeys(b for scene in study.scenes.values() for b in scene.baselines)
    for name in [*baselines, *method_names(study)]:
        ratios = [mean_ratio(study, name, quantity) for quantity in QUANTITIES]
        row = [Cell(name), *(Cell(number(ratio, 2), ratio) for ratio in ratios)]
        verdicts = [Cell(""), Cell("")]
        if name not in baselines:
            verdicts = [_together(study, found, name, q) for q in QUANTITIES]
        rows.append([*row, *verdicts])
    head = ["method", "position ÷ oracle", "rotation ÷ oracle", *_against_heads(reference)]
    caption = f"Over {len(study.scenes)} scenes: geometric mean of the ratios to the oracle"
    return Table(caption, head, rows)


def overall_table(found: Sequence[Comparison]) -> Table:
    """Every comparison as a whole; those with the reference stand in the other tables, too."""
    rows = [[*_pair(c), Cell(where(c)), *_effect(overall(c))] for c in found]
    head = ["a against b", "kind", "of", "where", "change", "p", "p, Holm", "verdict"]
    return Table("All comparisons as a whole", head, rows, kinds(found))


def pooled_table(study: Study) -> Table:
    """Each coupled term against its twin over all bases, scene by scene and as a whole."""
    rows = [
        [Cell(f"{c.a} against {c.b}"), Cell(c.quantity), Cell(place), *_effect(effect)]
        for c in pooled_twins(study)
        for place, effect in [*c.scenes.items(), *_over_scenes(c)]
    ]
    head = ["term", "of", "scene", "change", "p", "p, Holm", "verdict"]
    return Table("Coupled terms against their decoupled twins, over all bases", head, rows)


def _over_scenes(c: Comparison) -> list[tuple[str, Effect]]:
    return [("all scenes", c.combined)] if len(c.scenes) > 1 else []


def contrasts_table(found: Sequence[Comparison]) -> Table:
    """Every comparison in every scene, with what its verdict rests on."""
    rows = [
        [*_pair(c), Cell(scene), *_effect(contrast), *_witnesses(contrast)]
        for c in found
        for scene, contrast in c.scenes.items()
    ]
    head = ["a against b", "kind", "of", "scene", "change", "p", "p, Holm", "verdict"]
    witnesses = ["lag-1 correlation", "blocks", "seeds"]
    return Table("All comparisons, scene by scene", [*head, *witnesses], rows, WITNESSES)


def leave_one_out_table(found: Sequence[Comparison]) -> Table:
    """What would be said over scenes, were one scene not there."""
    rows: list[list[Cell]] = []
    for c in found:
        for scene, ratio in c.combined.leave_one_out.items():
            percent = 100 * math.expm1(ratio)
            change_of = Cell(f"{signed(percent)} %", ratio)
            together = Cell(f"{signed(c.combined.percent_change)} %", c.combined.mean_log_ratio)
            rows.append([*_pair(c), Cell(scene), change_of, together, _between(c.combined)])
    head = ["a against b", "kind", "of", "without", "change", "with all", "std between scenes"]
    return Table("Leave one scene out", head, rows)


def _between(combined: Combined) -> Cell:
    """How much scenes differ, as a standard deviation of log ratios."""
    std = combined.scene_std
    return Cell(number(std, 3), math.nan if std is None else std)


def _pair(c: Comparison) -> list[Cell]:
    return [Cell(f"{c.a} against {c.b}"), Cell(c.kind), Cell(c.quantity)]


def _effect(effect: Effect) -> list[Cell]:
    p_values = [
        Cell(probability(p), math.nan if p is None else p)
        for p in (effect.p_value, effect.adjusted_p)
    ]
    return [Cell(change(effect), effect.mean_log_ratio), *p_values, Cell(effect.verdict)]


def _witnesses(contrast: Contrast) -> list[Cell]:
    lag = contrast.lag1_correlation
    return [
        Cell(number(lag, 2).replace("-", "−"), math.nan if lag is None else lag),
        Cell(str(contrast.blocks), float(contrast.blocks)),
        Cell(str(contrast.seeds), float(contrast.seeds)),
    ]


def cells_table(study: Study) -> Table:
    """How methods were tuned, and how long their cells took."""
    rows = [
        [
            Cell(name),
            Cell(scene.name),
            Cell(_chosen(m)),
            Cell(number(m.validation, 4), math.nan if m.validation is None else m.validation),
            Cell(number(m.seconds, 1), m.seconds),
            Cell(number(m.images_per_s, 0), m.images_per_s),
        ]
        for name in method_names(study)
        for scene in study.scenes.values()
        if (m := scene.methods.get(name)) is not None
    ]
    head = ["method", "scene", "chosen setting, by fold", "validation", "s a cell", "images/s"]
    return Table("Chosen settings and times", head, rows, CELLS)


def _chosen(method: MethodErrors) -> str:
    """The settings that validation chose, by fold."""
    texts = (f"{fold}: {short_numbers(text)}" for fold, text in method.tuned.items())
    return "; ".join(texts) or "–"


def main_tables(study: Study, found: Sequence[Comparison]) -> list[Table]:
    """A table a scene, and one over scenes where there are several."""
    tables = [scene_table(study, scene, found) for scene in study.scenes.values()]
    return [*tables, scenes_table(study, found)] if len(tables) > 1 else tables


def comparison_tables(study: Study, found: Sequence[Comparison]) -> list[Table]:
    """The tables of comparisons that have rows; one scene says all that there is as a whole."""
    overall, by_scene = overall_table(found), contrasts_table(found)
    several = [overall, by_scene]
    if len(study.scenes) == 1:
        several = [replace(by_scene, note=f"{overall.note} {by_scene.note}")]
    tables = [pooled_table(study), *several, leave_one_out_table(found)]
    return [table for table in tables if table.rows]


def study_table(study: Study) -> str:
    """The study as text for a terminal; its first line says which images the numbers are of.

    Medians are means over seeds, ± the standard deviation between seeds.
    """
    found = comparisons(study)
    lines = [standing(study), *answers(study, found), ""]
    for table in main_tables(study, found):
        lines += [table.caption, *_indented(table), ""]
    pooled = pooled_table(study)
    if pooled.rows:
        lines += [pooled.caption, *_indented(pooled), ""]
    apart = overall_table([c for c in found if c.kind != "reference"])
    if apart.rows:
        lines += ["Other comparisons", *_indented(apart), f"  {apart.note}".replace("*", ""), ""]
    lines += [f"{term}: {text}" for term, text in making(study)]
    medians = "Medians: mean over seeds ± standard deviation between seeds; 95 % intervals."
    lines += [*remarks(study), "", f"{medians} {TWO_MEANS}"]
    return "\n".join(lines).replace("`", "")


def _indented(table: Table) -> list[str]:
    return [f"  {line}".rstrip() for line in aligned(table.texts())]
