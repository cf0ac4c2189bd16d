"""The verb that exports a run's network."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from relocal.cli.console import progress_bar
from relocal.exporting import ExportConfig, export


@dataclass(frozen=True, kw_only=True)
class Export:
    """Export a run's network, with all that happens to a photo before, so that it runs anywhere.

    Its answers are compared with the run's on photos of the scene before anything is written.

    Example: relocal export runs/heads scenes/heads --out exported/heads
    """

    run_folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """The run."""
    scene: Positional[Path]
    """The scene that it was trained on, for photos."""
    out: Path
    """The folder to make."""
    config: Annotated[ExportConfig, arg(name="")] = field(default_factory=ExportConfig)

    def run(self) -> int:
        """Exports and says how the answers differ."""
        with progress_bar() as report:
            found = export(self.run_folder, self.scene, self.out, self.config, report)
        size = sum(file.stat().st_size for file in self.out.glob("model.*")) / 1e6
        unit = found.unit
        print(
            f"{self.out}: {size:.1f} MB. On {found.photos} {found.split} photos its answers differ "
            f"from the run's by {found.median_position:.2g} {unit} and {found.median_deg:.2g}° in "
            f"the median, {found.worst_position:.2g} {unit} and {found.worst_deg:.2g}° at most; "
            f"median errors {found.exported_errors[0]:.3g} {unit}, {found.exported_errors[1]:.3g}° "
            f"(the run's: {found.errors[0]:.3g} {unit}, {found.errors[1]:.3g}°)."
        )
        if self.config.format != "torch":
            print(f"Next: relocal localize {shlex.quote(str(self.out))} PHOTO")
        return 0
