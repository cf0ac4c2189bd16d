"""The verbs for public datasets: get one as a scene, and repeat the source paper's experiment."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from relocal.cli.console import INTERRUPTED, progress_bar, warn
from relocal.cli.verbs import print_scene
from relocal.datasets.downloads import Labels, downloads_table, get_scene, known_download
from relocal.paper import SCENES, needs, paper_config, repeat_paper


@dataclass(frozen=True, kw_only=True)
class Get:
    """Download a scene of a public dataset and import it; without a name, list what there is.

    Example: relocal get 7scenes/heads --out scenes/heads --accept-licence
    """

    name: Positional[str | None] = None
    """The scene, such as 7scenes/heads or cambridge/kings_college."""
    out: Path | None = None
    """The scene's folder, to be made; scenes/NAME by default."""
    labels: Labels | None = None
    """7-Scenes: its own poses of the depth camera (slam), or the pseudo ground truth of the colour
    camera (sfm, Brachmann et al. 2021); slam by default."""
    accept_licence: bool = False
    """Accept the dataset's licence, which is shown without this."""
    list: bool = False
    """List the names, sizes and licences."""
    downloads: Path = Path("downloads")
    """Folder for what is downloaded and unpacked; files that you fetch by hand belong there too."""
    keep: bool = False
    """Keep the archive when it is unpacked."""

    def run(self) -> int:
        """Gets the scene and says what was found."""
        if self.list or self.name is None:
            print(downloads_table())
            return 0
        out = Path("scenes", self.name) if self.out is None else self.out
        download = known_download(self.name, self.labels)
        if self.accept_licence:
            print(download.about(), flush=True)
        try:
            with progress_bar() as report:
                scene = get_scene(
                    self.name,
                    out,
                    labels=self.labels,
                    accept_licence=self.accept_licence,
                    downloads=self.downloads,
                    keep=self.keep,
                    progress=report,
                    say=warn,
                )
        except KeyboardInterrupt:
            warn("stopped; the same command goes on with what is there.")
            return INTERRUPTED
        print_scene(scene, out)
        return 0


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Repeat the source paper's experiment: its losses on 7-Scenes in the official splits.

    Downloads, trains and evaluates; parts that are finished in --out are kept, so that the same
    command goes on after an interruption.

    Example: relocal paper --out paper --accept-licence --googlenet googlenet.safetensors
    """

    out: Path = Path("paper")
    """Folder for everything that it makes."""
    accept_licence: bool = False
    """Accept the licence of 7-Scenes, which is shown without this."""
    googlenet: Path | None = None
    """ImageNet weights of GoogLeNet (safetensors), to train as the 2015 paper did; without them
    efficientnet_lite0 with relocal's own defaults."""
    epochs: int | None = None
    """Passes over the training images, instead of the default."""
    scenes: tuple[str, ...] = SCENES
    """Which scenes."""
    downloads: Path = Path("downloads")
    """Folder for what is downloaded and unpacked."""

    def run(self) -> int:
        """Runs what is not finished, prints the table and says where the page is."""
        config = paper_config(self.googlenet, self.epochs)
        warn(needs(self.out, self.scenes, config, self.downloads))
        try:
            with progress_bar() as report:
                page = repeat_paper(
                    self.out,
                    scenes=self.scenes,
                    config=config,
                    accept_licence=self.accept_licence,
                    downloads=self.downloads,
                    progress=report,
                    say=warn,
                )
        except KeyboardInterrupt:
            warn("stopped; the same command goes on with what is there.")
            return INTERRUPTED
        print(page.read_text("utf-8"))
        print(f"Page: {page}")
        return 0
