"""The verbs for localizers: make a map, measure, and say where photos were taken."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from relocal.camera import read_camera
from relocal.cli.asking import Warnings, asking, photos_in, photos_of
from relocal.cli.cameras import known_camera
from relocal.cli.console import NOTHING_DONE, SOME_FAILED, counted, progress_bar, warn
from relocal.cli.verbs import Modules
from relocal.errors import InputError
from relocal.evaluation import Report, evaluate, evaluate_estimates
from relocal.localizers import (
    Localizer,
    MapConfig,
    build_map,
    calibrate,
    open_localizer,
    open_localizers,
    save_map,
)
from relocal.notices import Notice
from relocal.report import Answer, Format, answer_texts, plain_table, save_report
from relocal.scene import load_scene
from relocal.scene.files import check_new

_NO_FOCAL = Notice(
    "focal-not-written", "no EXIF says its focal length, and nerfstudio needs it; give --camera."
)


@dataclass(frozen=True, kw_only=True)
class Map:
    """Make a map of a scene's training images, in which photos are localized by their features.

    Example: relocal map scenes/heads --out maps/heads
    """

    scene: Positional[Path]
    """The scene."""
    out: Path
    """The map to make."""
    config: Annotated[MapConfig, arg(name="")] = field(default_factory=MapConfig)

    def run(self) -> int:
        """Makes the map and says how large it is."""
        check_new(self.out)
        with progress_bar() as report:
            made = build_map(load_scene(self.scene), self.config, report)
            save_map(made, self.out)
        size = sum(file.stat().st_size for file in self.out.iterdir()) / 1e6
        print(
            f"{self.out}: {len(made)} points from {len(made.training_images)} training images, "
            f"mean track {float(made.track.float().mean()):.1f} images, {size:.1f} MB. "
            f"Next: relocal localize {shlex.quote(str(self.out))} PHOTO"
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Fit how sure a run or a map says it is to its errors on held-out training images.

    A run that was trained with --validate is asked about its validation blocks. Otherwise a twin is
    made without such blocks and asked, which takes as long as making the run or map did.

    Example: relocal calibrate runs/heads scenes/heads
    """

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """The run, or a map; the calibration is kept in it."""
    scene: Positional[Path]
    """The scene that it was made of."""

    def run(self) -> int:
        """Calibrates and says how sure the localizer may be."""
        scene = load_scene(self.scene)
        with progress_bar() as report:
            found = calibrate(self.folder, scene, report)
        for kind, one in found.items():
            usual = (
                f"it states {one.position:.3g} {scene.unit} and {one.rotation:.3g}° for every photo"
            )
            factors = f"{one.position:.3g} (position) and {one.rotation:.3g} (rotation)"
            stated = f"stated spreads are multiplied by {factors}" if one.tells_apart else usual
            images = counted(one.images, "held-out image")
            print(f"{self.folder}, {kind}: calibrated on {images}; {stated}.")
        folders = (shlex.quote(str(folder)) for folder in (self.folder, self.scene))
        print(f"Next: relocal evaluate {' '.join(folders)} --out REPORT")
        return 0


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a run or a map on a scene's test images, beside answers that need no training.

    Or measure what other systems estimated: --labels and --estimates instead of RUN and SCENE.

    Example: relocal evaluate runs/heads scenes/heads --out reports/heads --with maps/heads
    --localizer regressor,structure,hybrid
    """

    run_folder: Annotated[Positional[Path | None], arg(metavar="RUN")] = None
    """The run, or a map; needed but with --estimates."""
    scene: Annotated[Positional[Path | None], arg(metavar="SCENE")] = None
    """The scene; needed but with --estimates."""
    out: Path
    """The report to make."""
    also: Annotated[tuple[Path, ...], arg(name="with")] = ()
    """More runs and maps, measured on the same photos."""
    localizer: str | None = None
    """Ways to localize, with commas: regressor (each run), structure (each map), hybrid (the first
    run says where to look in the first map), retrieval (the training images that look most alike),
    ensemble (the mean of all runs), bayesian (samples of the first run). By default what each
    folder is by itself."""
    labels: Path | None = None
    """True poses of all images that other systems were asked about, in metres: lines
    name qw qx qy qz tx ty tz, cam_from_world."""
    estimates: tuple[Path, ...] = ()
    """Their estimates, a file each, in the same form, as hloc writes them."""
    corruptions: bool = False
    """Ask about every photo once more under noise, blur, poor light and the like, at five strengths
    each: 45 photos more for each."""
    reject: bool = False
    """Take no answer that is less sure than nearly all held-out ones were, of localizers that say
    so photo by photo; needs calibrate."""
    sequence: bool = False
    """Measure each calibrated localizer once more, its answers filtered: each block of images is a
    video."""
    others: Path | None = None
    """A folder with photos of other places: how many of them would be refused is told."""
    photos: bool = False
    """Show a few of the photos in report.html although nothing says that they may be shared: for
    private use."""
    modules: Modules = ()
    """A Python file or module to import first, with a backbone that the run needs; may be given
    again."""

    def run(self) -> int:
        """Evaluates, prints the table and says where the report is."""
        check_new(self.out)
        scene = None
        if self.labels is not None or self.estimates:
            result = self._estimates()
        elif self.run_folder is None or self.scene is None:
            raise InputError("RUN SCENE: give both, or --labels and --estimates.")
        else:
            scene = load_scene(self.scene)
            kinds = () if self.localizer is None else self.localizer.split(",")
            localizers = open_localizers([self.run_folder, *self.also], kinds, scene)
            with progress_bar() as report:
                result = evaluate(
                    localizers,
                    scene,
                    corruptions=self.corruptions,
                    reject=self.reject,
                    sequence=self.sequence,
                    others=() if self.others is None else photos_in(self.others),
                    progress=report,
                )
        print(plain_table(result), flush=True)
        print(f"Report: {save_report(result, self.out, scene, photos=self.photos)}")
        return 0

    def _estimates(self) -> Report:
        if self.labels is None or not self.estimates:
            raise InputError("--labels and --estimates belong together; give both.")
        given = {
            "RUN and SCENE": self.run_folder is not None,
            "--with": self.also,
            "--corruptions": self.corruptions,
            "--reject": self.reject,
            "--sequence": self.sequence,
            "--others": self.others is not None,
            "--photos": self.photos,
            "--localizer": self.localizer is not None,
        }
        if wrong := [name for name, there in given.items() if there]:
            raise InputError(f"--estimates: files of estimates go without {' and '.join(wrong)}.")
        return evaluate_estimates(self.labels, self.estimates)


@dataclass(frozen=True, kw_only=True)
class Localize:
    """Say where photos were taken, a line a photo (but for --format nerfstudio).

    Example: relocal localize runs/heads photo.jpg --format json
    """

    run_folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """The run, a map, or what export made."""
    photos: Positional[tuple[Path, ...]]
    """The photos; a video is its frames."""
    also: Annotated[tuple[Path, ...], arg(name="with")] = ()
    """More runs and maps, for ways to localize that need them."""
    localizer: str | None = None
    """The way to localize: regressor (a run), structure (a map), hybrid (the run says where to look
    in the map), ensemble (the mean of all runs), bayesian (samples of the run). By default what the
    folder is by itself."""
    reject: bool = False
    """Give no answer that is less sure than nearly all held-out ones were; needs calibrate."""
    sequence: bool = False
    """The photos are the frames of a video: each answer is filtered with those before it, and those
    that do not fit how the camera moved in training take no part; needs calibrate."""
    step: float = 1.0
    """With --sequence: how many frames of the recording that was learned from lie between two
    photos, 2 where every second frame was left out."""
    format: Format = "text"
    """text, tum, euroc and ros give world_from_cam; nerfstudio does, with OpenGL's axes, as one
    transforms.json; colmap and images.txt give cam_from_world; json gives both."""
    camera: str | None = None
    """The photos' camera: SIMPLE_PINHOLE,640,480,525,320,240 (MODEL, size, parameters as COLMAP has
    them), or a calibration in .yaml or .json (ROS camera_info, OpenCV, Kalibr, nerfstudio), scaled
    where a photo has another size; without it that of EXIF or the scene."""
    modules: Modules = ()
    """A Python file or module to import first, with a backbone that the run needs; may be given
    again."""

    def run(self) -> int:
        """Localizes photo by photo; what cannot be read is reported and skipped."""
        if not self.photos:
            raise InputError("PHOTO: give at least one photo.")
        camera = None if self.camera is None else read_camera(self.camera)
        localizer, called = self._localizer(), self.localizer or str(self.run_folder)
        step = self.step if self.sequence else None
        ask = asking(called, localizer, camera, reject=self.reject, step=step)
        asked = failed = 0

        def answers() -> Iterator[Answer]:
            nonlocal asked, failed
            warnings = Warnings()
            for index, (name, source) in enumerate(photos_of(self.photos)):
                asked = index + 1
                try:
                    estimate = ask(name, source)
                except InputError as error:
                    failed += 1
                    warn(str(error))
                    continue
                written = None  # the photo's camera, if the format writes it down
                if self.format == "nerfstudio":
                    written = known_camera(camera, source, name)
                    warnings.tell(name, () if written else (_NO_FOCAL,))
                warnings.tell(name, estimate.warnings)
                yield Answer(estimate, name, index, written)
            warnings.tell_rest(asked)

        for text in answer_texts(answers(), self.format):
            # Flushed, so that a pipe gets each answer when it is known.
            print(text, flush=True)
        if failed == asked:
            return NOTHING_DONE
        return SOME_FAILED if failed else 0

    def _localizer(self) -> Localizer:
        if self.localizer is None:
            if self.also:
                raise InputError("--with: say what to make of the folders with --localizer.")
            return open_localizer(self.run_folder)
        found = open_localizers([self.run_folder, *self.also], [self.localizer])
        if len(found) != 1:
            raise InputError(f"--localizer {self.localizer}: give one RUN, without --with.")
        return next(iter(found.values()))
