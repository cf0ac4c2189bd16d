"""The verb that makes a scene ready to be given to others."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from relocal.cli.console import progress_bar
from relocal.publishing import PublishConfig, publish


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Make a scene ready to be given to others: card, licence, splits, checksums, Croissant.

    Example: relocal publish scenes/office --license CC-BY-4.0 --author "Ada Doe" --out office-v1
    """

    scene: Positional[Path]
    """The scene."""
    out: Path
    """The folder to make."""
    config: Annotated[PublishConfig, arg(name="")]

    def run(self) -> int:
        """Publishes and says what the folder is for."""
        with progress_bar() as report:
            publish(self.scene, self.out, self.config, report)
        again = shlex.join(["relocal", "import", "published", str(self.out)])
        print(f"{self.out}: ready; look at {self.out / 'README.md'} first.")
        print(f"It is a scene itself, and is checked and copied by: {again} --out SCENE")
        return 0
