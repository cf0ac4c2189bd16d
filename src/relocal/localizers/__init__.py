"""Localizers: ``localize(photo, camera=None) -> Estimate | None``, one file a way."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from relocal.camera import Camera
from relocal.errors import InputError, unknown
from relocal.images import Source
from relocal.localizers.feature_map import FeatureMap, MapConfig, build_map
from relocal.localizers.hybrid import Hybrid
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
    "hybrid": Hybrid,
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


def open_localizers(
    folders: Sequence[Path | str], kinds: Sequence[str] = ()
) -> dict[str, Localizer]:
    """The localizers of runs and maps, by name.

    Args:
        folders: Runs and maps of one scene.
        kinds: Entries of ``LOCALIZERS``: of each run a regressor, of each map a structure, under
            the folder's name; and of the first run and the first map a hybrid. By default what
            each folder is by itself.

    Raises:
        InputError: If a folder is neither or cannot be opened, two have the same name, or a kind is
            unknown or lacks what it is made of.
    """
    by_name: dict[str, Any] = {}
    for folder in map(Path, folders):
        name = folder.resolve().name
        if name in by_name or name in LOCALIZERS:
            raise InputError(f"{folder}: {name} is the name of another; rename the folder.")
        by_name[name] = open_localizer(folder)
    runs = [one.run for one in by_name.values() if isinstance(one, Regressor)]
    maps = [one.map for one in by_name.values() if isinstance(one, Structure)]
    found: dict[str, Localizer] = {} if kinds else by_name
    for kind in kinds:
        if kind not in LOCALIZERS:
            raise unknown("--localizer", kind, LOCALIZERS)
        if (kind != "structure" and not runs) or (kind != "regressor" and not maps):
            needed = {"regressor": "a run", "structure": "a map", "hybrid": "a run and a map"}
            raise InputError(f"--localizer {kind}: needs {needed[kind]}; give it with --with.")
        if kind == "hybrid":
            found[kind] = Hybrid(runs[0], maps[0])
        else:
            part = Regressor if kind == "regressor" else Structure
            found |= {name: one for name, one in by_name.items() if isinstance(one, part)}
    return found


__all__ = [
    "LOCALIZERS",
    "FeatureMap",
    "Hybrid",
    "Localizer",
    "MapConfig",
    "Regressor",
    "Structure",
    "build_map",
    "load_map",
    "open_localizer",
    "open_localizers",
    "save_map",
]
