"""The ways to localize by name, and how folders become localizers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from relocal.camera import Camera
from relocal.errors import InputError, unknown
from relocal.images import Source
from relocal.localizers.bayesian import Bayesian
from relocal.localizers.ensemble import Ensemble
from relocal.localizers.exported import Exported, is_exported
from relocal.localizers.hybrid import Hybrid
from relocal.localizers.map_files import JSON as MAP_JSON
from relocal.localizers.map_files import load_map
from relocal.localizers.regressor import Regressor
from relocal.localizers.retrieval import NEIGHBOURS, Retrieval
from relocal.localizers.structure import Structure
from relocal.scene import Scene
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
    "retrieval": Retrieval,
    "structure": Structure,
    "hybrid": Hybrid,
    "bayesian": Bayesian,
    "ensemble": Ensemble,
}

_MADE_OF: dict[str, tuple[str, ...]] = {
    "regressor": ("a run",),
    "retrieval": ("a scene",),
    "structure": ("a map",),
    "hybrid": ("a run", "a map"),
    "bayesian": ("a run that is not exported",),
    "ensemble": ("a run that is not exported",),
}


def open_localizer(folder: Path | str) -> Any:
    """The localizer that a folder holds: of a run a regressor, of a map the structure.

    Raises:
        InputError: If it is neither, nor an exported network, or cannot be opened.
    """
    folder = Path(folder)
    if (folder / MAP_JSON).is_file():
        return Structure(load_map(folder))
    if is_exported(folder):
        return Exported(folder)
    if (folder / "model.pt2").is_file():
        raise InputError(
            f"{folder}: is exported for torch.export.load; give the run, or export it as onnx."
        )
    if folder.is_dir() and not (folder / RUN_JSON).is_file():
        raise InputError(
            f"{folder}: this is no run and no map (it has neither {RUN_JSON} nor {MAP_JSON}); make "
            "one with train or map."
        )
    return Regressor(folder)


def _opened(folders: Sequence[Path | str]) -> dict[str, Any]:
    """What each folder is by itself, by the names that tell them apart."""
    found: dict[str, Any] = {}
    resolved = [Path(folder).resolve() for folder in folders]
    for folder in resolved:
        name = _own_name(folder, resolved)
        if resolved.count(folder) > 1:
            raise InputError(f"{folder}: is given twice.")
        if name in found or name in LOCALIZERS:
            raise InputError(f"{folder}: {name} is the name of another; rename the folder.")
        found[name] = open_localizer(folder)
    return found


def _own_name(folder: Path, all_folders: Sequence[Path]) -> str:
    """A folder's name, after its parent's where another folder has the same: maps/kitchen."""
    same = [other for other in all_folders if other.name == folder.name]
    return f"{folder.parent.name}/{folder.name}" if len(same) > 1 else folder.name


def open_localizers(
    folders: Sequence[Path | str], kinds: Sequence[str] = (), scene: Scene | None = None
) -> dict[str, Localizer]:
    """The localizers of runs and maps, by name.

    Args:
        folders: Runs, exported networks and maps of one scene.
        kinds: Entries of ``LOCALIZERS``: of each run a regressor, of each map a structure, under
            the folder's name, its parent's before it where two are equal; of the first run or
            exported network and the first map a hybrid; samples of the first run (bayesian); the
            mean of all runs (ensemble); of the scene's training images retrieval.
            By default what each folder is by itself.
        scene: The scene, for retrieval.

    Raises:
        InputError: If a folder is neither or cannot be opened, two cannot be told apart, or a
            kind is unknown or lacks what it is made of.
    """
    by_name = _opened(folders)
    networks = [one for one in by_name.values() if isinstance(one, Regressor)]
    runs = [one.run for one in networks if not isinstance(one, Exported)]
    parts = {
        "a run": networks,
        "a run that is not exported": runs,
        "a map": [one.map for one in by_name.values() if isinstance(one, Structure)],
        "a scene": [] if scene is None else [scene],
    }
    found: dict[str, Localizer] = {} if kinds else by_name
    for kind in kinds:
        if kind not in LOCALIZERS:
            raise unknown("--localizer", kind, LOCALIZERS)
        if missing := [part for part in _MADE_OF[kind] if not parts[part]]:
            where = "is for evaluate alone" if kind == "retrieval" else "--with"
            raise InputError(f"--localizer {kind}: needs {' and '.join(missing)} ({where}).")
        made = LOCALIZERS[kind]
        if kind == "retrieval":
            found[f"retrieval of {NEIGHBOURS}"] = made(scene)  # the baseline takes the nearest
        elif kind == "hybrid":
            found[kind] = made(networks[0], parts["a map"][0])
        elif kind == "bayesian":
            found[kind] = made(runs[0])
        elif kind == "ensemble":
            found[f"ensemble of {len(runs)}"] = made(runs)
        else:
            kept = Regressor if kind == "regressor" else Structure
            found |= {name: one for name, one in by_name.items() if isinstance(one, kept)}
    return found
