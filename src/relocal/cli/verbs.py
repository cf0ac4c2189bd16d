"""The verbs: a dataclass each, whose fields are its options, and a function of the library."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from relocal.cli.accounts import left_lines
from relocal.cli.console import (
    INTERRUPTED,
    counted,
    is_first_process,
    progress_bar,
    warn,
)
from relocal.datasets import import_scene
from relocal.datasets.writing import export_scene
from relocal.demonstration import demo
from relocal.report import plain_table
from relocal.scene import Scene, load_scene
from relocal.scene.splits import fitting_blocks
from relocal.sfm import MIN_POINTS_SEEN, TriangulateConfig, triangulate
from relocal.training import Run, TrainConfig, stored_config, train

FEW_STEPS = 100
"""Fewer leave the averaged weights behind, which remember as many (``--ema-decay`` 0.99)."""

Modules = Annotated[tuple[str, ...], arg(name="import"), UseAppendAction]


@dataclass(frozen=True, kw_only=True)
class Import:
    """Make a scene from images whose poses are known.

    Example: relocal import 7scenes heads --split official --out scenes/heads
    """

    reader: Positional[str]
    """What the folder holds: 7scenes, cambridge, colmap, nerfstudio, published, synthetic, tum."""
    folder: Positional[Path]
    """The folder to read; synthetic renders it when it does not exist."""
    out: Path
    """The scene to make."""
    labels: Path | None = None
    """Poses from a file instead of the dataset's own (7scenes)."""
    images: Path | None = None
    """Folder of the images, where it is not beside the model, or of smaller ones (colmap)."""
    split: str | None = None
    """official, sequence, blocks:40/5/5, last:25%, or a JSON file; official where there is one."""
    fold: int | None = None
    """Which block of five, or which sequence, is test, counted from 0; the last by default."""
    unit: Literal["m", "unit"] | None = None
    """m says that the poses are metric (nerfstudio, colmap), unit that they are not (tum)."""
    exif: Literal["stored", "upright"] | None = None
    """Which pixels the labels of photos that EXIF turns are of, where their size does not tell."""
    allow_missing: bool = False
    """Import a recording of which more than half the frames lost track."""
    modules: Modules = ()
    """A Python file or module to import first, with a reader of your own; may be given again."""

    def run(self) -> int:
        """Imports and says what was found."""
        with progress_bar() as report:
            scene = import_scene(
                self.reader,
                self.folder,
                self.out,
                labels=self.labels,
                images=self.images,
                split=self.split,
                fold=self.fold,
                unit=self.unit,
                exif=self.exif,
                allow_missing=self.allow_missing,
                progress=report,
            )
        print_scene(scene, self.out)
        return 0


@dataclass(frozen=True, kw_only=True)
class ExportScene:
    """Write a scene in the layout of another tool: 7scenes, cambridge, nerfstudio, tum.

    A scene is a COLMAP model already, which COLMAP's tools open as it is.

    Example: relocal export-scene scenes/heads --format nerfstudio --out heads-nerfstudio
    """

    scene: Positional[Path]
    """The scene."""
    format: str
    """7scenes, cambridge, nerfstudio or tum."""
    out: Path
    """The folder to make."""

    def run(self) -> int:
        """Exports and says how the folder is read again."""
        with progress_bar() as report:
            export_scene(self.scene, self.out, self.format, report)
        again = shlex.join(["relocal", "import", self.format, str(self.out), *self._options()])
        print(f"{self.out}: written as {self.format}. It is read again by: {again} --out SCENE")
        return 0

    def _options(self) -> list[str]:
        """What says to the reader what the layout does not."""
        if self.format == "7scenes":
            return ["--labels", str(self.out / "labels.txt")]
        if self.format == "tum" and (self.out / "split.json").is_file():
            return ["--split", str(self.out / "split.json")]
        if self.format == "nerfstudio" and load_scene(self.scene).unit == "m":
            return ["--unit", "m"]
        return []


@dataclass(frozen=True, kw_only=True)
class Triangulate:
    """Give a scene map points, from its training images and their poses.

    Example: relocal triangulate scenes/heads
    """

    scene: Positional[Path]
    """The scene."""
    replace: bool = False
    """Make new points in place of those that it has."""
    config: Annotated[TriangulateConfig, arg(name="")] = field(default_factory=TriangulateConfig)

    def run(self) -> int:
        """Triangulates and says how many points there are, how good, and how far away."""
        try:
            with progress_bar() as report:
                scene = triangulate(
                    self.scene, self.config, replace_points=self.replace, progress=report
                )
        except KeyboardInterrupt:
            warn("stopped; features and matches are kept, and the same command goes on with them.")
            return INTERRUPTED
        about, depth = scene.provenance["points"], scene.depth_range()
        print(
            f"{self.scene}: {about['count']} map points from {about['images']} training images, "
            f"mean track {about['mean_track_length']:.1f} images, "
            f"mean reprojection error {about['mean_reprojection_error_px']:.2f} px."
        )
        print(
            f"{about['images_that_see_points']} of {about['images']} training images see "
            f"{MIN_POINTS_SEEN} points or more; {100 * about['matches_kept']:.0f} % of the "
            "verified matches see one of them."
        )
        if depth is not None:
            near, median, far = (f"{value:.3g} {scene.unit}" for value in depth.tolist())
            print(f"Depth: near {near}, median {median}, far {far}.")
        return 0


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a localizer on a scene's training images.

    Short names: --model (--model.name), --loss (--loss.name), --pretrained (--backbone.weights).

    Example: relocal train scenes/heads --out runs/heads --loss posenet+frustum
    """

    scene: Positional[Path]
    """The scene."""
    out: Path
    """The run to make."""
    preset: str | None = None
    """Start from named options: posenet2015 is the 2015 paper's own training."""
    resume: bool = False
    """Go on with an unfinished run."""
    modules: Modules = ()
    """A Python file or module to import first, with a loss or a backbone of your own; may be given
    again."""
    config: Annotated[TrainConfig, arg(name="")] = field(default_factory=TrainConfig)

    def run(self) -> int:
        """Trains and says where the run is."""
        try:
            with progress_bar() as report:
                run = train(self.scene, self.out, self.config, resume=self.resume, report=report)
        except KeyboardInterrupt:
            if stored_config(self.out) is None:
                warn("stopped before the training began; nothing was made.")
            else:
                again = self._command("train", self.scene, "--out", self.out, "--resume")
                warn(f"stopped; finished epochs are kept. Go on with: {again}")
            return INTERRUPTED
        if is_first_process():
            if (steps := steps_of(run)) < FEW_STEPS:
                made = counted(steps, "step")
                warn(f"training made only {made}, too few for its averaged weights: more --epochs.")
            print(f"{self.out}: {training_line(run)}. Next: {self._next()}")
        return 0

    def _next(self) -> str:
        """What to do with the run."""
        if not load_scene(self.scene).splits.get("test"):
            return f"{self._command('localize', self.out)} PHOTO"
        report = self.out.with_name(f"{self.out.name}-report")
        return self._command("evaluate", self.out, self.scene, "--out", report)

    def _command(self, verb: str, *words: Path | str) -> str:
        """A command line for the same run, which needs the same modules."""
        modules = [word for module in self.modules for word in ("--import", module)]
        return shlex.join(["relocal", verb, *map(str, words), *modules])


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Render a room, train on it, evaluate, localize: the whole way, without a download.

    Example: relocal demo --out my-demo
    """

    out: Path = Path("relocal-demo")
    """Folder for everything that it makes; finished parts that are there already are kept."""

    def run(self) -> int:
        """Runs the demo."""
        with progress_bar() as report:
            result, page, line = demo(self.out, report)
        print(plain_table(result))
        print(f"First test photo: {line}")
        print(f"Report: {page}")
        return 0


def print_scene(scene: Scene, out: Path, verb: str = "import") -> None:
    """Says what a scene holds that a verb has made, and what it lacks."""
    if scene.account is not None and verb == "import":  # label says it photo by photo
        for line in left_lines(scene.account):
            warn(line)
    for pixels, count in scene.provenance.get("exif", {}).items():
        turned = f"{counted(count, 'image')} turned as EXIF says"
        warn(f"{turned}; labels taken as of {pixels} pixels.")
    for notice in () if scene.account is None else scene.account.notices:
        warn(notice.text)
    parts = [f"{len(names)} {split}" for split, names in scene.splits.items()]
    if rest := len(scene) - sum(len(names) for names in scene.splits.values()):
        parts.append(f"{rest} left out between them")
    unit = "metres" if scene.unit == "m" else "no known scale"
    points = "no map points" if scene.points is None else f"{len(scene.points.xyz)} map points"
    print(f"{out}: {counted(len(scene), 'image')} ({', '.join(parts)}), {unit}, {points}.")
    if not scene.splits["test"]:
        # What label keeps beside a scene belongs to the scene's name: there it takes seconds.
        where = (
            f"remove {out} and {verb}" if verb == "label" else f"{verb} it, into another folder,"
        )
        warn(
            "there are no test images, so this scene trains but cannot be evaluated; for that "
            f"{where} again with --split {fitting_blocks(scene)}."
        )


def training_line(run: Run) -> str:
    """What a finished training measured: epochs, time, and its last medians."""
    rows = run.epochs()
    if not rows:
        return "trained"
    last, parts = rows[-1], []
    for name, key in (("training", "train"), ("validation", "validation")):
        if f"{key}_position" in last:
            rotation = last[f"{key}_rotation_deg"]
            parts.append(f"{name} median {last[f'{key}_position']:.3f} {run.unit}, {rotation:.2f}°")
    minutes = (run.training_seconds() or 0) / 60
    epochs = counted(len(rows), "epoch")
    return f"trained {epochs} in {minutes:.1f} min; last {'; '.join(parts)}"


def steps_of(run: Run) -> int:
    """How many steps its training made."""
    images = len(run.training_images)
    return run.config.epochs * (images // min(run.config.batch_size, images))
