"""What a study found, in memory and in ``study.json``."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from relocal.errors import InputError
from relocal.metrics import PoseErrors
from relocal.scene.files import read_json
from relocal.studies.config import StudyConfig
from relocal.training import TrainConfig

STUDY = "study.json"
VALIDATION = "validation blocks of the training images"
"""The regime of a scene whose test images were not asked."""


@dataclass(frozen=True)
class MethodErrors:
    """Errors of one method on a scene's images, a row a seed."""

    position: Float[np.ndarray, "seeds images"]
    rotation_deg: Float[np.ndarray, "seeds images"]
    curve: Float[np.ndarray, "epochs 3"]
    """Mean over folds and seeds of loss, training position and rotation error, by epoch."""
    seconds: float
    """Median time of a cell."""
    images_per_s: float
    """Median speed of training."""
    tuned: Mapping[str, str] = field(default_factory=dict)
    """By fold, the setting that validation chose."""
    validation: float | None = None
    """Product of median position and rotation error on validation, geometric mean over folds."""


@dataclass(frozen=True)
class SceneErrors:
    """What a study measured on one scene; every image was asked once, by the fold that tests it."""

    name: str
    unit: str
    regime: str
    labels: str
    """Where the poses come from."""
    split: str
    images: tuple[str, ...]
    block: Int[np.ndarray, " images"]
    """The block of each image, ascending along the recording."""
    nearest: Float[np.ndarray, " images"]
    """Distance to the nearest training pose's centre, in the scene's unit."""
    baselines: Mapping[str, PoseErrors]
    methods: Mapping[str, MethodErrors]


@dataclass(frozen=True)
class Study:
    """A finished study, or what is finished of it."""

    config: StudyConfig
    base: TrainConfig
    scenes: Mapping[str, SceneErrors]
    failed: tuple[str, ...] = ()
    """Cells that failed, and why."""
    looks: tuple[Mapping[str, Any], ...] = ()
    """When the test images were read (``date``), at which ``commit``, and the ``primary`` and
    ``secondary`` contrasts that were fixed by then."""
    made_by: Mapping[str, Any] = field(default_factory=dict)


def study_to_json(study: Study) -> dict[str, Any]:
    """A plain dict for JSON; infinite errors are null."""
    return {
        "format": 1,
        "config": asdict(study.config),
        "train": study.base.to_json(),
        "scenes": {name: _plain(asdict(scene)) for name, scene in study.scenes.items()},
        "failed": list(study.failed),
        "looks": [dict(look) for look in study.looks],
        "made_by": dict(study.made_by),
    }


def _plain(value: Any) -> Any:
    """Arrays as lists, and what is not finite as null."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def load_study(path: Path | str) -> Study:
    """Reads a study from its folder or its ``study.json``.

    Raises:
        InputError: If it is not there, or damaged.
    """
    path = Path(path)
    path = path / STUDY if path.is_dir() else path
    content = read_json(path)
    try:
        return Study(
            config=StudyConfig(**content["config"]),
            base=TrainConfig.from_json(content["train"]),
            scenes={name: _scene(scene) for name, scene in content["scenes"].items()},
            failed=tuple(content["failed"]),
            looks=tuple(content["looks"]),
            made_by=content["made_by"],
        )
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: is not what a study has ({error!r}).") from error


def _scene(content: Mapping[str, Any]) -> SceneErrors:
    arrays: dict[str, Any] = {
        "images": tuple(content["images"]),
        "block": np.array(content["block"], dtype=np.int64),
        "nearest": _errors(content["nearest"]),
        "baselines": {
            name: PoseErrors(_errors(errors["position"]), _errors(errors["rotation_deg"]))
            for name, errors in content["baselines"].items()
        },
        "methods": {name: _method(row) for name, row in content["methods"].items()},
    }
    return SceneErrors(**{**content, **arrays})


def _method(content: Mapping[str, Any]) -> MethodErrors:
    arrays: dict[str, Any] = {
        "position": _errors(content["position"]),
        "rotation_deg": _errors(content["rotation_deg"]),
        "curve": np.array(content["curve"], dtype=np.float64).reshape(-1, 3),
    }
    return MethodErrors(**{**content, **arrays})


def _errors(values: Any) -> np.ndarray:
    """Null is an infinite error."""
    array = np.array(values, dtype=np.float64)  # None becomes NaN
    return np.where(np.isnan(array), np.inf, array)
