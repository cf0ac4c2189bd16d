"""Words of a study: the answer in a sentence, what may be said of coupling, how it was made."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relocal.evaluation import ORACLE, RETRIEVAL
from relocal.report.making import environment_facts, flat
from relocal.report.study_numbers import (
    change,
    comparison_of,
    lacking,
    method_names,
    middle,
    overall,
    validation_score,
    where,
)
from relocal.scene.scene import some
from relocal.studies.contrasts import (
    QUANTITIES,
    Comparison,
    best_uncoupled,
    is_coupled,
    named_late,
    reference_of,
    twin_of,
)
from relocal.studies.methods import Depth
from relocal.studies.results import SceneErrors, Study
from relocal.studies.statistics import BETTER, NO_DIFFERENCE, WORSE, Effect, Quantity

HONEST = (
    "None of these losses is called the source paper's term (Ward, Jalwana, Bennamoun 2019): the "
    "text that this project has stops before the paper's equation. The family is built from what "
    "that text states: a term that combines both errors, is added to the default loss, and is "
    "chosen by experiment."
)
BASELINES = (
    "*Mean pose* (of the training images), *oracle nearest* (the training pose nearest to the true "
    "one; it looks at no image) and *retrieval* (the pose of the training image that looks most "
    "alike) need no training."
)
TWO_MEANS = (
    "A median is over all images, a change is a mean over blocks of log ratios, in which every "
    "block counts alike: so a method's median may be lower although its change is positive."
)
LEGEND = (
    "*Median*: mean over seeds of the median over images, ± the standard deviation between seeds. "
    "*÷ oracle*: that median over the median of the oracle nearest pose, position / rotation. "
    f"{BASELINES} *Against*: change of the error with its 95 % interval, and the verdict; negative "
    f"is better. {TWO_MEANS} A failure is an infinite error. After a scene's name stands its "
    "*regime*: how far its images are from the training images."
)
VERDICTS = (
    "An interval is of the mean over blocks of the log ratio of block medians, and counts "
    "neighbouring blocks and seeds; over scenes it is that of a random effect. Every verdict but "
    "the primary one goes by its p value adjusted after Holm, so that it can be *no difference "
    "shown* although the interval leaves zero out. Where secondary contrasts were fixed "
    "beforehand, they and the primary one in rotation are adjusted for their own number, the rest "
    "for theirs. In a scene, and over scenes, each of these families is wrong somewhere in at most "
    "one study of twenty; all scenes and families together, in more. Scenes of different units are "
    "never averaged: over scenes there are only ratios."
)
_KINDS = {
    "primary": "the contrast that was fixed beforehand",
    "secondary": "fixed beforehand, too",
    "reference": "against the method that all are compared with",
    "base": "a coupled loss against the same loss without the term",
    "twin": "a coupled loss against the same loss with its term decoupled",
    "best uncoupled": "a coupled loss against the best method without a coupled term",
    "all bases": "a coupled term against its twin, over all losses that have both",
}
WITNESSES = (
    "*Lag-1 correlation*: between the log ratios of neighbouring blocks; near zero where blocks "
    "are independent witnesses."
)
CELLS = (
    "*Validation*: product of the median position and rotation error on validation blocks, of the "
    "training that tuned the method (seed 0), geometric mean over folds; lower is better. *s a "
    "cell*: median time of one training (one fold, one seed), in seconds. *Images/s*: median speed "
    "of training."
)
_FOLDS = {
    "own": "the one that each scene was imported with",
    "all": "all, so that every block is tested once",
}
_DEPTHS: dict[Depth, str] = {
    "head": "the regressor alone, on cached features",
    "tail": "all but the stem of the backbone",
    "full": "the whole network",
}


def standing(study: Study) -> str:
    """Which images the numbers are of: validation, or the test set and how often it was read."""
    count = len(study.looks)
    if not study.config.final and not count:
        read = images_read(study).removesuffix(".")
        return f"{read}; no test image was read (--final reads them)."
    if not count:
        return (
            f"{images_read(study)} When the test images were read is not on record (looks.json); "
            "no contrast is known to have been fixed before."
        )
    times = "once" if count == 1 else f"{count} times"
    before = "" if study.config.final else " before"
    when = f": {'; '.join(map(_look, study.looks))}"
    late = named_late(study)
    after = f" Named only after that, and so among the rest: {', '.join(late)}." if late else ""
    return f"{images_read(study)} The test images were read {times}{before}{when}.{after}"


def _look(look: Mapping[str, Any]) -> str:
    """When test images were read, at which commit, and what was fixed by then."""
    fixed = f"primary contrast {look['primary'] or 'none'}"
    if look["secondary"]:
        fixed += f", secondary {_pairs_in_words(look['secondary'])}"
    return f"{look['date']} at commit {look['commit']}, {fixed}"


def _pairs_in_words(text: str) -> str:
    """Several contrasts, with a blank after each comma."""
    return ", ".join("".join(text.split()).split(","))


def images_read(study: Study) -> str:
    """Which images the numbers are of, in a sentence."""
    if study.config.final:
        return "These are test numbers."
    return (
        "These are validation numbers: the images are blocks of the training set, on which "
        "settings were chosen, too."
    )


def kinds(found: Iterable[Comparison]) -> str:
    """What the kinds of these comparisons mean, in Markdown."""
    words = [f"*{kind}*: {kind_in_words(kind)}" for kind in dict.fromkeys(c.kind for c in found)]
    return f"Kinds. {'; '.join(words)}." if words else ""


def kind_in_words(kind: str) -> str:
    """What a comparison of this kind asks."""
    return _KINDS.get(kind, kind)


def answers(study: Study, found: Sequence[Comparison]) -> list[str]:
    """The answers first: what the primary contrast says, and whether coupling had an effect."""
    return [_primary(found), _coupling(study, found)]


def _primary(found: Sequence[Comparison]) -> str:
    """The primary contrast in words, or that there is none."""
    primary = [c for c in found if c.kind == "primary" and c.quantity == "position"]
    if not primary:
        return (
            "No primary contrast was fixed beforehand and measured (--primary A:B), so that the "
            "study has no single answer; all verdicts are adjusted."
        )
    return _sentence(primary[0])


def _sentence(comparison: Comparison) -> str:
    """What a comparison says, and in each scene where it says nothing as a whole."""
    effect = overall(comparison)
    kind, place = f"{comparison.quantity} error", where(comparison)
    a, b = (f"`{name}`" for name in (comparison.a, comparison.b))
    if effect.verdict in (BETTER, WORSE):
        smaller = "smaller" if effect.verdict == BETTER else "larger"
        return f"{a} has a {smaller} {kind} than {b} {place}: {_change(effect)}."
    if effect.verdict == NO_DIFFERENCE:
        return f"No difference in {kind} between {a} and {b} was shown {place}: {_change(effect)}."
    scenes = (f"{name}: {c.verdict}, {change(c)}" for name, c in comparison.scenes.items())
    each = f" By scene: {'; '.join(scenes)}." if len(comparison.scenes) > 1 else ""
    return f"On the {kind} of {a} against {b} {place}: {effect.verdict}.{each}"


def _change(effect: Effect) -> str:
    return change(effect).replace(" (", " (95 % interval ")


def _coupling(study: Study, found: Sequence[Comparison]) -> str:
    """Contrast (b), the only one that may be called an effect of coupling."""
    coupled = [m.text for m in study.config.methods() if is_coupled(m)]
    if not coupled:
        return "No coupled loss took part, so that nothing is said of coupling."
    best = best_uncoupled(study)
    if best is None:
        return "Nothing can be said of coupling: no uncoupled loss was measured in every scene."
    effects: list[tuple[str, Quantity]] = [
        (a, q) for a in coupled for q in QUANTITIES if coupling_shown(a, best, q, found)
    ]
    against = f"both its decoupled twin and the best uncoupled loss on validation, `{best}`"
    if effects:
        which = some([f"`{a}` in {q} {_place(found, a, q)}" for a, q in effects])
        return f"An effect of coupling was shown: {which}, better than {against}."
    pairs = ((comparison_of(found, a, twin_of(a), q) for a in coupled) for q in QUANTITIES)
    twins = [overall(c) for row in pairs for c in row if c is not None]
    if all(effect.reason for effect in twins):
        why = twins[0].reason if twins else "no decoupled twin was measured"
        return f"Nothing can be said of an effect of coupling: {why}."
    return f"No effect of coupling was shown: no coupled loss was better than {against}."


def coupling_shown(a: str, best: str, quantity: Quantity, found: Sequence[Comparison]) -> bool:
    """Whether a coupled method is better than its twin, and than the best uncoupled one."""
    pairs = [comparison_of(found, a, b, quantity) for b in (twin_of(a), best)]
    return all(c is not None and overall(c).verdict == BETTER for c in pairs)


def _place(found: Sequence[Comparison], a: str, quantity: Quantity) -> str:
    """Where a coupled method was compared with its twin."""
    twin = comparison_of(found, a, twin_of(a), quantity)
    return "" if twin is None else where(twin)


def settings(study: Study) -> list[tuple[str, str]]:
    """What was chosen before anything was trained: a term and its Markdown each."""
    config = study.config
    depth = config.tune_train
    where = f" while training {_DEPTHS[depth]}, as --train {depth} does" if depth else ""
    tuned = (
        "nothing was tuned"
        if config.tune == 1
        else f"up to {config.tune} settings of each loss, tried on validation blocks with one seed"
        + where
    )
    return [
        ("Trained", f"{_DEPTHS[config.train]} ({config.train})"),
        ("Seeds", f"{config.seeds} for each method, scene and fold"),
        ("Folds", _FOLDS.get(config.folds, f"numbers {config.folds}")),
        ("Tuning", tuned),
        ("Primary contrast", config.primary or "none was fixed"),
        *([("Secondary contrasts", _pairs_in_words(config.secondary))] if config.secondary else []),
        ("Reference", f"`{reference_of(study)}`"),
        ("Best uncoupled", _best(study)),
    ]


def _best(study: Study) -> str:
    """The best uncoupled method, its score, and the rule that chose it."""
    name = best_uncoupled(study)
    score = None if name is None else validation_score(study, name)
    if score is None:
        return "none: no uncoupled method was validated in every scene"
    return (
        f"`{name}`, with {score:.4g}: the least product of the median position and rotation error "
        "on validation blocks (of the training that tuned it, seed 0), geometric mean over folds "
        "and scenes, of all methods without a coupled term, twins included"
    )


def training_options(study: Study) -> list[tuple[str, str]]:
    """The options of training that methods have in common: each sets its own loss."""
    options = flat(study.base.to_json())
    return [(name, value) for name, value in options if not name.startswith("loss.")]


def extent(scene: SceneErrors) -> str:
    """How many images were asked, in how many blocks."""
    counts = {"image": len(scene.images), "block": len(set(scene.block.tolist()))}
    return " in ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items())


def scene_facts(study: Study) -> list[tuple[str, str]]:
    """What a reader must know of each scene."""
    return [
        (
            scene.name,
            f"{extent(scene)}; positions in {'metres' if scene.unit == 'm' else 'its own unit'}; "
            f"regime: {scene.regime}; labels: {scene.labels or 'not stated'}; split: {scene.split}",
        )
        for scene in study.scenes.values()
    ]


def remarks(study: Study) -> list[str]:
    """What a reader must not miss: who loses to answers without training, and what is missing."""
    return [*_behind(study), *gaps(study)]


def _behind(study: Study) -> list[str]:
    """By scene and baseline, how many methods are not better, by their medians."""
    found: list[str] = []
    for scene in study.scenes.values():
        for baseline in (RETRIEVAL, ORACLE):
            texts: list[str] = []
            for quantity in QUANTITIES:
                bar = middle(scene, baseline, quantity).value
                values = [middle(scene, name, quantity).value for name in scene.methods]
                if behind := sum(not value < bar for value in values):
                    texts.append(f"{behind} of {len(values)} in {quantity}")
            if texts:
                what = f"methods that do not beat {baseline}"
                found.append(f"{scene.name}: {what}: {', '.join(texts)}.")
    return found


def gaps(study: Study) -> list[str]:
    """What is missing: cells that failed, and methods that lack a scene."""
    left_out = [
        f"{name} is left out of {some(scenes)}: not all of its cells are there."
        for name in method_names(study)
        if (scenes := lacking(study, name))
    ]
    return [*(f"Failed: {cell}" for cell in study.failed), *left_out]


def making(study: Study) -> list[tuple[str, str]]:
    """How the study was made: settings, scenes, commit, machine."""
    return [*settings(study), *scene_facts(study), *environment_facts(study.made_by)]
