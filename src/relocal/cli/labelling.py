"""The verb that makes a scene of photos and videos."""

import shlex
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from relocal.cli.console import INTERRUPTED, SOME_FAILED, counted, progress_bar, warn
from relocal.cli.verbs import print_scene
from relocal.errors import InputError
from relocal.report import save_labels, scale_text
from relocal.scene import Scene
from relocal.scene.scene import some
from relocal.sfm import LabelConfig, Labelling, add_photos, label


@dataclass(frozen=True, kw_only=True)
class Label:
    """Find where photos and frames of videos were taken, and make a scene of them.

    Example: relocal label walk-1.mp4 walk-2.mp4 --out scenes/office --split sequence
    """

    sources: Annotated[Positional[tuple[Path, ...]], arg(metavar="SRC")]
    """Folders of photos and videos, each a recording."""
    out: Path
    """The scene to make; what is made on the way is kept in a folder beside it, OUT.label."""
    add: bool = False
    """Place the photos in the scene OUT, which is there already; its poses stay as they are."""
    scale: str | None = None
    """What gives the scene its metres: the distance between the cameras of two images
    (walk/a.jpg,walk/b.jpg=1.5), gps (EXIF), or a file of known poses."""
    split: str | None = None
    """sequence (one recording is test), blocks:40/5/5, last:25%, or a JSON file; all images train
    without it."""
    fold: int | None = None
    """Which block of five, or which recording, is test, counted from 0; the last by default."""
    config: Annotated[LabelConfig, arg(name="")] = field(default_factory=LabelConfig)

    def run(self) -> int:
        """Labels, and says how good the labels are."""
        if self.add and self.scale is not None:
            raise InputError("--scale: a scene that photos are added to keeps its own.")
        make = add_photos if self.add else partial(label, scale=self.scale)
        try:
            with progress_bar() as report:
                made = make(
                    self.sources,
                    self.out,
                    self.config,
                    split=self.split,
                    fold=self.fold,
                    progress=report,
                )
        except KeyboardInterrupt:
            warn("stopped; what is made is kept, and the same command goes on with it.")
            return INTERRUPTED
        print_labels(made, self.out)
        print(f"Labels: {save_labels(made)}")
        print(next_steps(made.scene, self.out))
        return SOME_FAILED if made.about["not_read"] else 0


def next_steps(scene: Scene, out: Path) -> str:
    """What to do with a labelled scene: a map first, which needs no training and is more exact."""
    map, run = (out.with_name(f"{out.name}-{what}") for what in ("map", "run"))
    words = ["relocal", "train", str(out), "--out", str(run)]
    # The weights of the preset are of metres; those of the other loss are learned.
    words += ["--preset", "proposed"] if scene.unit == "m" else ["--loss", "homoscedastic"]
    first = shlex.join(["relocal", "map", str(out), "--out", str(map)])
    return f"Next: {first}\nOr a network, which is faster and less exact: {shlex.join(words)}"


def print_labels(made: Labelling, out: Path) -> None:
    """Says how many photos were placed, how well, and why others were not."""
    about = made.about
    print(
        f"{out}: {about['placed']} of {counted(about['photos'], 'photo')} placed, "
        f"{about['points']} map points, mean track {about['mean_track_length']:.1f} photos, "
        f"mean reprojection error {about['mean_reprojection_error_px']:.2f} px."
    )
    if passed := about["frames_passed_over"]:
        print(f"{passed} more frames show what their neighbours do; --step takes others.")
    for reason, names in _by_reason(about["left_out"]).items():
        warn(f"left out, {reason}: {some(names)}.")
    for doubt in made.warnings:
        warn(doubt.text)
    print(f"Scale: {scale_text(about['scale'], made.scene.unit)}.")
    print_scene(made.scene, out, "label")


def _by_reason(left: dict[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in left.items():
        reasons.setdefault(reason.removesuffix("."), []).append(name)
    return reasons
