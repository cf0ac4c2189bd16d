"""The verb that compares losses."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from relocal.cli.console import INTERRUPTED, NOTHING_DONE, SOME_FAILED, progress_bar, warn
from relocal.cli.verbs import Modules
from relocal.errors import InputError
from relocal.report import save_study, study_table
from relocal.studies import StudyConfig, study
from relocal.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Study:
    """Compare losses on scenes with everything else equal: tuned alike, several seeds, intervals.

    Finished trainings are small files under --out and never made again: the same command goes on.

    Example: relocal study scenes/heads --losses default,posenet+frustum --folds all --out study
    """

    scenes: Positional[tuple[Path, ...]]
    """The scenes."""
    out: Path
    """Folder of the study, new or begun."""
    study: Annotated[StudyConfig, arg(name="")] = field(default_factory=StudyConfig)
    config: Annotated[TrainConfig, arg(name="")] = field(default_factory=TrainConfig)
    workers: int = 1
    """Processes on this machine; they share the cores out."""
    ray: str | None = None
    """Run the trainings as tasks of Ray: local, or the address of a cluster."""
    modules: Modules = ()
    """A Python file or module to import first, with losses of your own; may be given again."""

    def run(self) -> int:
        """Runs the study, prints its tables and says where the page is."""
        if not self.scenes:
            raise InputError("SCENE: give at least one scene.")
        if self.workers < 1:
            raise InputError(f"--workers: must be at least 1, not {self.workers}.")
        try:
            with progress_bar() as report:
                result = study(
                    list(self.scenes),
                    self.out,
                    self.study,
                    self.config,
                    workers=self.workers,
                    ray=self.ray,
                    modules=self.modules,
                    progress=report,
                )
        except KeyboardInterrupt:
            warn("stopped; finished trainings are kept, and the same command goes on with them.")
            return INTERRUPTED
        page = save_study(result, self.out)
        print(study_table(result), flush=True)
        print(f"Study: {page}")
        for line in result.failed:
            warn(f"failed: {line}")
        if not any(scene.methods for scene in result.scenes.values()):
            return NOTHING_DONE
        return SOME_FAILED if result.failed else 0
