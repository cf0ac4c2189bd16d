"""The verb that shows a place in three dimensions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from relocal.cli.console import check_address, progress_bar
from relocal.cli.verbs import Modules
from relocal.errors import InputError, unknown
from relocal.report import draw_reconstruction
from relocal.viewer import gather, methods_of, view
from relocal.viewer.place import stop_viser


@dataclass(frozen=True, kw_only=True)
class View:
    """Look at a scene, a report, or the answers of runs and maps, in three dimensions.

    Shown in the browser: map points, true (orange) and predicted (purple) cameras, lines between
    them by their error, every frame's photo beside its nearest training photo. Give the scene with
    a report to see its photos. Ctrl-C ends it.

    Example: relocal view reports/heads scenes/heads
    """

    folders: Annotated[Positional[tuple[Path, ...]], arg(metavar="FOLDER [FOLDER ...]")]
    """A scene, a report, or runs and maps with their scene, in any order."""
    screenshot: Path | None = None
    """Draw the picture into this PNG file instead, without browser or display; points and poses
    only, no photo."""
    method: str | None = None
    """Whose answers are shown first; by default the first localizer's."""
    host: str = "127.0.0.1"
    """The address to listen at; 0.0.0.0 is all of this machine's."""
    port: int = 8080
    """The port to listen at."""
    modules: Modules = ()
    """A Python file or module to import first, with a backbone that a run needs; may be given
    again."""

    def run(self) -> int:
        """Shows it until it is stopped, or draws the picture."""
        if self.screenshot is None:
            check_address(self.host, self.port)
        elif self.screenshot.suffix.lower() != ".png":
            raise InputError(f"--screenshot {self.screenshot}: must end in .png.")
        elif not self.screenshot.parent.is_dir():
            raise InputError(f"--screenshot: there is no folder {self.screenshot.parent}.")
        with progress_bar() as report:
            gathered = gather(self.folders, report)
        methods = methods_of(gathered)
        if self.method is not None and self.method not in methods:
            raise unknown("--method", self.method, methods)
        if self.screenshot is not None:
            draw_reconstruction(gathered.report, self.screenshot, self.method)
            print(self.screenshot)
            return 0
        server = view(gathered, host=self.host, port=self.port, method=self.method)
        print(f"Open http://{self.host}:{self.port} in a browser; Ctrl-C ends it.", flush=True)
        try:
            server.sleep_forever()
        finally:
            stop_viser(server)
        return 0
