r"""The tables of a study as a paper prints them: results by scene, and the other contrasts.

They are ``longtable`` in landscape, so that no method is left out however many there are.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from relocal.report.study_numbers import (
    comparison_of,
    mean_ratio,
    method_names,
    middle,
    number,
    overall,
    probability,
    signed,
)
from relocal.report.study_words import BASELINES, TWO_MEANS, extent, images_read, kind_in_words
from relocal.studies.contrasts import QUANTITIES, Comparison, pooled_twins, reference_of
from relocal.studies.results import SceneErrors, Study
from relocal.studies.statistics import Effect

_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"{{{sign}}}" for sign in "[]*"},  # after a line break they would be its options
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "±": r"$\pm$",
    "°": r"$^\circ$",
    "÷": r"$\div$",
    "−": r"$-$",
    "–": "--",
    "∞": r"$\infty$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
}
_NO_VERDICT = "n.v."
_CHANGE = (
    "the mean over blocks of the log ratio of block medians as a change of the error in per cent, "
    "negative is better, with its 95 % interval in brackets; n.v.: no verdict (fewer than 10 "
    "blocks, 3 seeds or, over scenes, 3 scenes; or a block without a finite ratio)"
)


@dataclass(frozen=True)
class _LongTable:
    """A table over several pages, as LaTeX; its groups of rows have a rule between them."""

    caption: str
    label: str
    columns: str
    head: list[str]
    groups: list[list[str]]

    def text(self) -> str:
        head = ["\\toprule", _row(self.head), "\\midrule"]
        groups = ["\n".join(rows) for rows in self.groups if rows]
        lines = [
            rf"\begin{{longtable}}{{{self.columns}}}",
            rf"\caption{{{latex_text(self.caption)}}}\label{{tab:study-{self.label}}}\\",
            *head,
            r"\endfirsthead",
            *head,
            r"\endhead",
            r"\bottomrule",
            r"\endlastfoot",
            "\n\\midrule\n".join(groups),
            r"\end{longtable}",
        ]
        return "\n".join(lines)


def latex_text(text: str) -> str:
    """A text from data that LaTeX prints as it is."""
    return "".join(_SIGNS.get(sign, sign) for sign in " ".join(text.split()))


def study_to_latex(study: Study, found: Sequence[Comparison]) -> str:
    r"""The results of each scene and over scenes, and the contrasts not with the reference.

    It needs the packages ``array``, ``booktabs``, ``longtable`` and ``pdflscape``.
    """
    scenes = list(study.scenes.values())
    tables = [_results(study, found, scene, i) for i, scene in enumerate(scenes, start=1)]
    if len(scenes) > 1:
        tables.append(_over_scenes(study, found))
    apart = [*(c for c in found if c.kind != "reference"), *pooled_twins(study)]
    if apart:
        tables.append(_contrasts(study, apart))
    lines = [
        r"% needs \usepackage{array, booktabs, longtable, pdflscape}",
        r"\begin{landscape}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        r"\setlength{\LTcapwidth}{\linewidth}",
        *(table.text() for table in tables),
        r"\end{landscape}",
    ]
    return "\n".join(lines) + "\n"


def _results(
    study: Study, found: Sequence[Comparison], scene: SceneErrors, place: int
) -> _LongTable:
    """Baselines and methods on one scene."""

    def row(name: str) -> str:
        if name not in scene.methods and name not in scene.baselines:
            return _row([name, "–", "–", "–", "failed", "failed"])
        middles = [middle(scene, name, quantity) for quantity in QUANTITIES]
        texts = [m.text(q) for m, q in zip(middles, QUANTITIES, strict=True)]
        ratios = " / ".join(number(m.ratio, 2) for m in middles)
        changes = _changes(study, found, name, scene.name)
        return _row([name, *texts, ratios, *changes])

    caption = (
        f"Errors on {scene.name} ({extent(scene)}; {scene.regime}). {images_read(study)} Median "
        f"error: mean over {study.config.seeds} seeds of the median over images, ± the standard "
        f"deviation between seeds. ÷ oracle: {_ORACLE}, position / rotation. {_about(study)}"
    )
    head = ["method", f"position, {scene.unit}", "rotation, °", "÷ oracle", *_HEADS]
    groups = [[row(name) for name in names] for names in (scene.baselines, method_names(study))]
    return _LongTable(caption, f"results-{place}", _name_column(0.3) + "rrrrr", head, groups)


_ORACLE = "the median over that of the oracle nearest pose"
_HEADS = ["Δ position, %", "Δ rotation, %"]


def _about(study: Study) -> str:
    """What the baselines and the changes are, for a caption."""
    baselines = BASELINES.replace("*", "")
    return f"{baselines} Δ: against {reference_of(study)}, {_CHANGE}. {TWO_MEANS}"


def _over_scenes(study: Study, found: Sequence[Comparison]) -> _LongTable:
    """Ratios to the oracle, and what the scenes say together."""

    def row(name: str) -> str:
        ratios = [number(mean_ratio(study, name, quantity), 2) for quantity in QUANTITIES]
        return _row([name, *ratios, *_changes(study, found, name)])

    baselines = dict.fromkeys(b for scene in study.scenes.values() for b in scene.baselines)
    caption = (
        f"Errors over {len(study.scenes)} scenes. {images_read(study)} ÷ oracle: {_ORACLE}, "
        f"geometric mean over scenes. {_about(study)} Over scenes a change is a random effect; "
        "failed: a scene lacks the method."
    )
    head = ["method", "position ÷ oracle", "rotation ÷ oracle", *_HEADS]
    groups = [[row(name) for name in names] for names in (baselines, method_names(study))]
    return _LongTable(caption, "results-all", _name_column(0.3) + "rrrr", head, groups)


def _changes(
    study: Study, found: Sequence[Comparison], name: str, scene: str | None = None
) -> list[str]:
    """The changes of a method against the reference, in one scene or over all."""
    reference = reference_of(study)
    if name == reference:
        return ["reference", ""]
    if name not in method_names(study):
        return ["", ""]
    texts: list[str] = []
    for quantity in QUANTITIES:
        c = comparison_of(found, name, reference, quantity)
        if c is None:  # the reference is not there
            texts.append("–")
        elif scene is not None:
            texts.append(_change(c.scenes[scene]) if scene in c.scenes else "–")
        else:  # over fewer scenes it would be another mean
            whole = len(c.scenes) == len(study.scenes)
            texts.append(_change(overall(c)) if whole else "failed")
    return texts


def _contrasts(study: Study, apart: Sequence[Comparison]) -> _LongTable:
    """Contrasts by their kind: the primary one, the twins, the best uncoupled loss and others."""
    several = len(study.scenes) > 1
    head = ["contrast", "error", *(["scene"] if several else []), "Δ, %", "p", "verdict"]
    groups: list[list[str]] = []
    for kind in dict.fromkeys(c.kind for c in apart):
        words = kind_in_words(kind)
        title = latex_text(words[0].upper() + words[1:])
        rows = [rf"\multicolumn{{{len(head)}}}{{l}}{{\emph{{{title}}}}} \\*"]
        same = [c for c in apart if c.kind == kind]
        for pair in dict.fromkeys((c.a, c.b) for c in same):
            rows += _pair_rows([c for c in same if (c.a, c.b) == pair], several)
        groups.append(rows)
    caption = (
        f"Contrasts other than those with {reference_of(study)} alone. {images_read(study)} Only a "
        "coupled loss that is better than both its decoupled twin and the best uncoupled loss "
        f"shows an effect of coupling. Δ: {_CHANGE}. p: two-sided, adjusted after Holm for the "
        "number of contrasts (those that were fixed beforehand for their own number), but for the "
        "primary contrast in position; the verdict goes by it, so that it can be no difference "
        "shown although an interval leaves zero out."
    )
    scene = "l" if several else ""
    columns = f"{_name_column(0.32)}l{scene}rr{_name_column(0.17)}"
    return _LongTable(caption, "contrasts", columns, head, groups)


def _pair_rows(pair: Sequence[Comparison], several: bool) -> list[str]:
    """The rows of one pair of methods, which stay on one page and name it once."""
    rows: list[list[str]] = []
    for c in pair:
        effects: list[tuple[str, Effect]] = list(c.scenes.items())
        if len(effects) > 1:
            effects.append(("all scenes", c.combined))
        for scene, effect in effects:
            name = "" if rows else f"{c.a} against {c.b}"
            p = effect.p_value if effect.adjusted_p is None else effect.adjusted_p
            tail = [_change(effect), probability(p), effect.verdict]
            rows.append([name, c.quantity, *([scene] if several else []), *tail])
    return [*(_row(row, r"\\*") for row in rows[:-1]), _row(rows[-1])]


def _change(effect: Effect) -> str:
    """A change in per cent and its interval; without one there is no verdict."""
    if math.isnan(effect.mean_log_ratio):
        return _NO_VERDICT
    interval = effect.percent_interval
    if interval is None:
        return f"{signed(effect.percent_change)}, {_NO_VERDICT}"
    return f"{signed(effect.percent_change)} [{signed(interval[0])}, {signed(interval[1])}]"


def _name_column(share: float) -> str:
    return rf">{{\raggedright\arraybackslash}}p{{{share}\linewidth}}"


def _row(cells: Iterable[str], end: str = r"\\") -> str:
    """A row; its first cell may break after the signs that join a method's name."""
    first, *rest = (latex_text(cell) for cell in cells)
    for sign in "/+:":
        first = first.replace(sign, rf"{sign}\allowbreak{{}}")
    return f"{' & '.join([first, *rest])} {end}"
