"""Pictures of a study: which methods they show, how these look, and the files that hold them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Any

from relocal.report.figures import drawing
from relocal.report.forest import FOREST, draw_forest, drawn_comparisons
from relocal.report.panels import STYLE, inline_svg
from relocal.report.study_figures import (
    CURVES,
    DISTANCES,
    TRAINING_CURVES,
    Look,
    draw_distances,
    draw_error_curves,
    draw_training,
)
from relocal.report.study_numbers import (
    change_and_verdict,
    lacking,
    method_names,
    middle,
    number,
    overall,
    validation_score,
)
from relocal.report.surfaces import SURFACES, every_surface, left_out, loss_surfaces
from relocal.scene.scene import some
from relocal.studies.contrasts import FIXED, QUANTITIES, TWIN, Comparison, reference_of, twin_of
from relocal.studies.results import Study

MOST_METHODS = 8
_DPI = 150
# Okabe & Ito's colours, which colour-blind readers can tell apart, but for yellow and black.
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


@dataclass(frozen=True)
class Picture:
    """A figure of a study's pages."""

    file: str
    title: str
    caption: str
    alt: str
    figure: Any
    """A matplotlib Figure."""
    filled: bool = False
    """Whether it has areas of colour: such a one is in the page as pixels."""

    def png(self) -> bytes:
        """The picture as a file."""
        content = io.BytesIO()
        with drawing(**STYLE):
            self.figure.savefig(content, format="png", dpi=_DPI)
        return content.getvalue()

    def html(self, png: bytes) -> str:
        """The picture as an element of a page that asks for nothing else."""
        if not self.filled:
            return inline_svg(self.figure, self.alt)
        data = base64.b64encode(png).decode()
        return f'<img alt="{escape(self.alt)}" src="data:image/png;base64,{data}">'


def study_pictures(study: Study, found: Sequence[Comparison]) -> list[Picture]:
    """All figures of a study, and the loss surfaces, which are the same for each study."""
    looks = looks_of(study, found)
    left_out = [name for name in method_names(study) if name not in looks]
    note = f" Left out, to stay readable: {some(left_out)}." if left_out else ""
    pictures: list[Picture] = []
    if study.scenes:
        pictures += [
            Picture(
                CURVES,
                "Cumulative errors",
                "Share of images within each error. Lines: all seeds pooled; bands: least to most "
                f"of the seeds; grey: baselines. A failure never arrives.{note}",
                f"Curves of the share of images within each error, by scene. {_medians(study)}",
                draw_error_curves(study, looks),
            ),
            Picture(
                DISTANCES,
                "Errors far from the training poses",
                "Running median of the error (windows of a fifth of the images, median over seeds) "
                "against the distance to the nearest training pose. On the dotted line an answer "
                f"is as far off as that pose.{note}",
                "Lines, by scene: running median of each method's error against the distance to "
                "the nearest training pose",
                draw_distances(study, looks),
            ),
            Picture(
                TRAINING_CURVES,
                "Training",
                "Mean over folds and seeds. Losses have no common unit: each goes from 1, its "
                f"first value, to 0, its least. Pairs of two networks have no curves.{note}",
                "Lines, by scene: loss, position error and rotation error on the training images "
                "by epoch, for each method",
                draw_training(study, looks),
            ),
        ]
    compared = drawn_comparisons(found, looks)
    if compared:
        pictures.append(_forest_picture(compared, len(found) - len(compared)))
    return [*pictures, surfaces_picture()]


def _forest_picture(compared: Sequence[Comparison], left_out: int) -> Picture:
    rest = f" {left_out} comparisons of other methods are left out." if left_out else ""
    texts = [
        f"{c.a} against {c.b}, {c.quantity}: {change_and_verdict(overall(c))}" for c in compared
    ]
    return Picture(
        FOREST,
        "Comparisons as a picture",
        "Change of the error with 95 % intervals; left of zero the first method is better. "
        "Diamonds: over scenes. Blue: better, orange: worse, grey: no difference shown, "
        f"hollow: no verdict. The widest intervals may leave the picture.{rest}",
        f"Intervals of the change of errors. {some(texts, limit=MOST_METHODS)}",
        draw_forest(compared),
    )


def surfaces_picture() -> Picture:
    """The loss surfaces of the package, and of such losses from outside as can be drawn alone."""
    surfaces = every_surface()
    missing = left_out(surfaces)
    note = f" Left out, since they cannot be asked alone: {some(missing)}." if missing else ""
    return Picture(
        SURFACES,
        "How a joint error is scored",
        "Each loss over a sideways shift and a turn to the side (yaw), away from the label at the "
        "cross. Contours enclose 10, 20, ... 90 % of the errors shown, so that shapes compare and "
        "units do not matter. On the dashed line the point straight ahead, at the scene's depth d, "
        "stays where it was in the picture; it is drawn for the coupled terms that have a valley "
        "there, where a turn makes up for a shift. Their decoupled twins have none; terms without "
        "the line couple the errors in another way. Base losses that judge what the picture shows "
        f"have such a valley, too.{note}",
        "Contour maps of losses over sideways shift and yaw. Most coupled terms are small along a "
        "slanted valley where the two errors compensate each other; decoupled twins are "
        "symmetric about both axes",
        loss_surfaces(surfaces),
        filled=True,
    )


def looks_of(study: Study, found: Sequence[Comparison]) -> dict[str, Look]:
    """The methods that figures show, and how each looks.

    All where they are few; else the reference, the contrasts fixed beforehand, and those that
    validation puts first. A coupled method and its twin share their colour; the twin is dashed.
    """
    names = [n for n in method_names(study) if len(lacking(study, n)) < len(study.scenes)]
    reference = reference_of(study)
    if len(names) > MOST_METHODS:
        fixed = [n for c in found if c.kind in FIXED for n in (c.a, c.b)]
        first = [n for n in (reference, *fixed) if n in names]
        ranked = sorted(names, key=lambda name: _validation(study, name))
        chosen = list(dict.fromkeys([*first, *ranked]))[:MOST_METHODS]
        names = [name for name in names if name in chosen]
    families = dict.fromkeys(twin_of(n) for n in names if n != reference)
    colour_of = dict(zip(families, cycle(_COLOURS), strict=False))
    looks: dict[str, Look] = {}
    for name in names:
        family = twin_of(name)
        # The seventh family has the first one's colour with another stroke.
        again = name != reference and list(families).index(family) >= len(_COLOURS)
        stroke = "dashed" if TWIN in name else "dashdot" if again else "solid"
        looks[name] = Look("black" if name == reference else colour_of[family], stroke)
    return looks


def _validation(study: Study, name: str) -> tuple[bool, float]:
    """Puts methods in order: the best on validation first, those that lack a scene last."""
    score = validation_score(study, name)
    return score is None, score or 0.0


def _medians(study: Study) -> str:
    """Medians for those who cannot see the curves; the tables have all of them."""
    texts: list[str] = []
    for scene in study.scenes.values():
        for name in list(scene.methods)[:MOST_METHODS]:
            position, rotation = (middle(scene, name, q).value for q in QUANTITIES)
            texts.append(f"{name} {number(position, 3)} {scene.unit}, {number(rotation, 2)}°")
    return f"Medians: {some(texts, limit=MOST_METHODS)}"
