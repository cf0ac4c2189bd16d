"""Localizers: ``localize(photo, camera=None) -> Estimate | None``, one file a way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import Source
from relocal.localizers.feature_map import FeatureMap, MapConfig, build_map
from relocal.localizers.map_files import JSON as MAP_JSON
from relocal.localizers.map_files import load_map, save_map
from relocal.localizers.regressor import Regressor
from relocal.localizers.structure import Structure
from relocal.training.run import CONFIG as RUN_JSON
from relocal.types import Estimate


@runtime_checkable
class Localizer(Protocol):
    """What evaluation, serving and the command line ask of every way to localize."""

    method: str

    def localize(self, image: Source, camera: Camera | None = None) -> Estimate | None:
        """The pose of a photo, or None when it cannot tell."""
        ...


LOCALIZERS: dict[str, Callable[..., Localizer]] = {
    "regressor": Regressor,
    "structure": Structure,
}


def open_localizer(folder: Path | str) -> Any:
    """The localizer that a folder holds: of a run a regressor, of a map the structure.

    Raises:
        InputError: If it is neither, or cannot be opened.
    """
    folder = Path(folder)
    if (folder / MAP_JSON).is_file():
        return Structure(load_map(folder))
    if folder.is_dir() and not (folder / RUN_JSON).is_file():
        raise InputError(
            f"{folder}: this is no run and no map (it has neither {RUN_JSON} nor {MAP_JSON}); make "
            "one with train or map."
        )
    return Regressor(folder)


__all__ = [
    "LOCALIZERS",
    "FeatureMap",
    "Localizer",
    "MapConfig",
    "Regressor",
    "Structure",
    "build_map",
    "load_map",
    "open_localizer",
    "save_map",
]
