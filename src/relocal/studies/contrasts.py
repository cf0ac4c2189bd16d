"""Which methods are compared: contrasts that are fixed by rule before they are read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from relocal.losses import COUPLED
from relocal.studies.methods import Method
from relocal.studies.results import VALIDATION, SceneErrors, Study
from relocal.studies.statistics import (
    Combined,
    Contrast,
    Quantity,
    adjust,
    block_medians,
    combine,
    compare,
)

TWIN = "twin:"
TERM_OPTIONS = ("gamma", "gamma_schedule", "form", "depth_of", "rays")

QUANTITIES: tuple[Quantity, Quantity] = ("position", "rotation")

Kind = Literal["primary", "secondary", "reference", "base", "twin", "best uncoupled", "all bases"]


FIXED: tuple[Kind, ...] = ("primary", "secondary")
"""Kinds of comparisons that are fixed before anything is measured."""


@dataclass(frozen=True)
class Comparison:
    """Method a against b, in one quantity: scene by scene, and over all scenes."""

    kind: Kind
    """Against the reference (the paper's comparison), or the same loss without its terms; against
    the twin or the best uncoupled loss, which alone may be called an effect of coupling; or a term
    against its twin, over all bases that stand with both."""
    a: str
    b: str
    quantity: Quantity
    scenes: Mapping[str, Contrast]
    combined: Combined


def comparisons(study: Study) -> list[Comparison]:
    """All comparisons of a study: the primary one first, the others adjusted for their number.

    Where secondary ones were fixed beforehand, too, they and the primary one in rotation are
    adjusted for their own number, and the rest for theirs. Only what every look at the test images
    names was fixed beforehand; a contrast that was named later is one of the rest.

    Every method is compared with ``default``, or the first where that is not there; every coupled
    one with the same loss without its terms, with its decoupled twin, and with the uncoupled method
    that was best on validation. A scene in which one of the two lacks cells takes no part.
    """
    methods = {method.text: method for method in study.config.methods()}
    primary, secondary = fixed_pairs(study)
    pairs: list[tuple[Kind, str, str]] = [("primary", a, b) for a, b in primary]
    for a, b in secondary:
        pairs.append(("secondary", a, b))
    named = {frozenset(pair[1:]) for pair in pairs}
    pairs += [pair for pair in _pairs(study, methods) if frozenset(pair[1:]) not in named]
    found = [_compare(study, kind, a, b, q) for kind, a, b in pairs for q in QUANTITIES]
    found = [comparison for comparison in found if comparison is not None]
    first = [c for c in found if c.kind == "primary" and c.quantity == "position"]
    rest = [c for c in found if c not in first]
    family = [c for c in rest if secondary and c.kind in FIXED]
    # One that lost its cells counts all the same: a failure makes it no easier for the others.
    wanted = len(QUANTITIES) * len(secondary) + len(primary) if secondary else 0
    return first + _adjusted(family, wanted) + _adjusted([c for c in rest if c not in family])


def fixed_pairs(study: Study) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The primary and the secondary contrasts that every look at the test images names.

    Where test images were read and no look is on record, none is known to have been fixed.
    """
    if study.config.final and not study.looks:
        return [], []
    pair, looks = study.config.primary_pair(), study.looks if study.config.final else ()
    primary, secondary = [] if pair is None else [pair], study.config.secondary_pairs()

    def kept(pairs: list[tuple[str, str]], option: str) -> list[tuple[str, str]]:
        texts = [("".join((look[option] or "").split())).split(",") for look in looks]
        return [(a, b) for a, b in pairs if all(f"{a}:{b}" in named for named in texts)]

    return kept(primary, "primary"), kept(secondary, "secondary")


def named_late(study: Study) -> list[str]:
    """The contrasts that were named after test images had been read, as A against B."""
    config, fixed = study.config, [pair for pairs in fixed_pairs(study) for pair in pairs]
    pair = config.primary_pair()
    named = [*([] if pair is None else [pair]), *config.secondary_pairs()]
    return [f"{a} against {b}" for a, b in named if (a, b) not in fixed]


def _pairs(study: Study, methods: Mapping[str, Method]) -> list[tuple[Kind, str, str]]:
    texts, reference = list(methods), reference_of(study)
    pairs: list[tuple[Kind, str, str]] = [
        ("reference", text, reference) for text in texts if text != reference
    ]
    best = best_uncoupled(study)
    for text, method in methods.items():
        if not is_coupled(method):
            continue
        base, twin = base_of(text), twin_of(text)
        if base in methods and base != reference:
            pairs.append(("base", text, base))
        if twin in methods:
            pairs.append(("twin", text, twin))
        if best is not None and best not in (reference, base, twin):
            pairs.append(("best uncoupled", text, best))
    return pairs


def pooled_twins(study: Study) -> list[Comparison]:
    """Each coupled term against its twin, over all methods that stand with both: a factorial.

    Per block and seed, the log ratios of all these pairs are averaged, which asks whether coupling
    helps whatever the base is, and knows it better than any single pair. They are adjusted for
    their own number; terms with one pair have none.
    """
    methods = {method.text: method for method in study.config.methods()}
    terms: dict[str, list[tuple[str, str]]] = {}
    for text, method in methods.items():
        if is_coupled(method) and twin_of(text) in methods:
            term = "+".join(method.loss.name.split("+")[1:])
            terms.setdefault(term, []).append((text, twin_of(text)))
    found = [
        _pooled(study, term, pairs, quantity)
        for term, pairs in terms.items()
        if len(pairs) > 1
        for quantity in QUANTITIES
    ]
    return _adjusted([comparison for comparison in found if comparison is not None])


def _pooled(
    study: Study, term: str, pairs: list[tuple[str, str]], quantity: Quantity
) -> Comparison | None:
    names = (term, twin_of(f"+{term}").removeprefix("+"))
    scenes: dict[str, Contrast] = {}
    for name, scene in study.scenes.items():
        whole = [pair for pair in pairs if all(method in scene.methods for method in pair)]
        medians = [[_medians(scene, method, quantity) for method in pair] for pair in whole]
        if len(whole) > 1:
            with np.errstate(divide="ignore", invalid="ignore"):  # failures: an undecided block
                ratios = np.exp(np.mean([np.log(a) - np.log(b) for a, b in medians], axis=0))
            one, why = np.ones_like(ratios), _refused(scene)
            scenes[name] = compare(ratios, one, names=names, quantity=quantity, refused=why)
    return Comparison("all bases", *names, quantity, scenes, combine(scenes)) if scenes else None


def reference_of(study: Study) -> str:
    """The method that all others are compared with: ``default``, or the first one."""
    return study.config.reference()


def is_coupled(method: Method) -> bool:
    """Whether the loss has a coupled term that is no twin."""
    # A pair is read as its first part, and is no loss.
    return not method.parts and any(term in COUPLED for term in method.loss.name.split("+")[1:])


def base_of(text: str) -> str:
    """The same method without its coupled terms, and without what only these take."""
    name, *options = text.split("/")
    kept = [option for option in options if option.partition("=")[0] not in TERM_OPTIONS]
    return "/".join([name.split("+")[0], *kept])


def twin_of(text: str) -> str:
    """The same method with every coupled term decoupled."""
    name, *options = text.split("/")
    base, *terms = name.split("+")
    twins = [term if term.startswith(TWIN) else f"{TWIN}{term}" for term in terms]
    return "/".join(["+".join([base, *twins]), *options])


def best_uncoupled(study: Study) -> str | None:
    """The method without a coupled term that validation puts first over all scenes.

    Pairs take no part, nor do methods that lack a scene. None where nothing was validated.
    """
    scores: dict[str, float] = {}
    for method in study.config.methods():
        rows = [scene.methods.get(method.text) for scene in study.scenes.values()]
        values = [row.validation for row in rows if row is not None]
        known = [value for value in values if value is not None]
        if not is_coupled(method) and not method.parts and 0 < len(known) == len(study.scenes):
            scores[method.text] = float(np.mean(np.log(known)))
    return min(scores, key=lambda text: scores[text]) if scores else None


def _compare(study: Study, kind: Kind, a: str, b: str, quantity: Quantity) -> Comparison | None:
    scenes = {
        name: _contrast(scene, a, b, quantity)
        for name, scene in study.scenes.items()
        if a in scene.methods and b in scene.methods
    }
    if not scenes:
        return None
    return Comparison(kind, a, b, quantity, scenes, combine(scenes))


def _contrast(scene: SceneErrors, a: str, b: str, quantity: Quantity) -> Contrast:
    medians = [_medians(scene, method, quantity) for method in (a, b)]
    return compare(*medians, names=(a, b), quantity=quantity, refused=_refused(scene))


def _refused(scene: SceneErrors) -> str:
    """Settings were chosen on validation blocks, and those of several folds share images."""
    return "validation" if scene.regime == VALIDATION else ""


def _medians(
    scene: SceneErrors, method: str, quantity: Quantity
) -> Float[np.ndarray, "seeds blocks"]:
    key = "position" if quantity == "position" else "rotation_deg"
    return block_medians(getattr(scene.methods[method], key), scene.block)


def _adjusted(comparisons: list[Comparison], least: int = 0) -> list[Comparison]:
    """Adjusts within each scene, and over scenes, for the number of comparisons, or ``least``."""
    combined = adjust([c.combined for c in comparisons], least)
    found = [replace(c, combined=one) for c, one in zip(comparisons, combined, strict=True)]
    for name in dict.fromkeys(scene for c in comparisons for scene in c.scenes):
        rows = [i for i, c in enumerate(found) if name in c.scenes]
        mine = adjust([found[i].scenes[name] for i in rows], least)
        for i, contrast in zip(rows, mine, strict=True):
            found[i] = replace(found[i], scenes={**found[i].scenes, name: contrast})
    return found
