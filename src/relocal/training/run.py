"""A Run on disk: what a training leaves, and how to open it again.

``config.json`` (every option and what the network must know of its scene), ``weights.safetensors``,
``metrics.jsonl`` (a row an epoch), ``environment.json``, and ``checkpoint/`` while training.
"""

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from relocal.backbones import build_backbone
from relocal.camera import Camera
from relocal.errors import InputError, unknown
from relocal.models import MODELS, PoseNet
from relocal.scene.files import read_json, write_json
from relocal.scene.scene import UNITS
from relocal.training.config import TrainConfig

CONFIG, WEIGHTS, METRICS = "config.json", "weights.safetensors", "metrics.jsonl"
ENVIRONMENT, CHECKPOINT = "environment.json", "checkpoint"


M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Run:
    """A finished training."""

    folder: Path
    config: TrainConfig
    """Every option, as it was resolved."""
    scene: str
    """Name of the scene."""
    unit: str
    """Unit of its positions."""
    camera: Camera
    """The training camera, which photos are resampled to."""
    window: Camera
    """Its central part, which the network sees."""
    photo_camera: Camera
    """The camera of the scene's photos, taken for a photo whose own is not known."""
    depth: tuple[float, float, float] | None
    """Near, median and far depth of the scene, where known."""
    training_images: tuple[str, ...]
    """Names of the images that it was trained on."""
    world: str
    """Digest of their poses: labels of another ground truth are another world."""

    def model(self) -> PoseNet:
        """The trained network, in evaluation mode.

        Raises:
            InputError: If the weights are missing, damaged or of another network.
        """
        model = build_model(self.config, pretrained=False)
        state = read_tensors(self.folder / WEIGHTS)
        weights = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        wanted = model.state_dict()
        wrong = sorted(wanted.keys() ^ weights.keys())
        wrong += [k for k in wanted.keys() & weights.keys() if wanted[k].shape != weights[k].shape]
        if wrong:
            raise InputError(
                f"{self.folder / WEIGHTS}: does not fit its config.json at {len(wrong)} tensors, "
                f"such as {wrong[0]}."
            )
        model.load_state_dict(weights)
        return channels_last(model.eval())

    def epochs(self) -> list[dict[str, float]]:
        """A row an epoch of what training measured; empty when ``metrics.jsonl`` is not there.

        Raises:
            InputError: If the file is damaged.
        """
        path = self.folder / METRICS
        rows = path.read_text("utf-8").splitlines() if path.is_file() else []
        try:
            return [{key: float(value) for key, value in json.loads(row).items()} for row in rows]
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(f"{path}: is not what training wrote ({error}).") from error

    def training_seconds(self) -> float | None:
        """Time that the epochs took; None when it is not known."""
        rows = self.epochs()
        return sum(row.get("seconds", math.nan) for row in rows) if rows else None


def build_model(config: TrainConfig, pretrained: bool = True) -> PoseNet:
    """Builds the network of a configuration.

    Args:
        config: The configuration.
        pretrained: Whether the backbone's starting weights are loaded; False when a run's own
            weights are to follow.
    """
    backbone = config.backbone if pretrained else replace(config.backbone, weights="none")
    return MODELS[config.model.name](build_backbone(backbone), config.model)


def channels_last(model: M) -> M:
    """Lays the weights out as the image cache is, which convolutions like best; in place."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def load_run(folder: Path | str) -> Run:
    """Opens a run.

    Raises:
        InputError: If the folder is no run, or its training is not finished.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: this is no run (it has no {CONFIG}); make one with train.")
    if not (folder / WEIGHTS).is_file():
        hint = "go on with train --resume" if (folder / CHECKPOINT).is_dir() else "train again"
        raise InputError(f"{folder}: the run has no {WEIGHTS}; {hint}.")
    return run_from_json(folder, read_json(folder / CONFIG))


def stored_config(folder: Path) -> TrainConfig | None:
    """The options of a run, finished or not; None when the folder holds none.

    Raises:
        InputError: If its ``config.json`` is damaged.
    """
    if not (folder / CONFIG).is_file():
        return None
    return run_from_json(folder, read_json(folder / CONFIG)).config


def run_to_json(run: Run) -> dict[str, Any]:
    """What ``config.json`` holds; near and far depths that are not known are null."""
    depth = None if run.depth is None else [d if math.isfinite(d) else None for d in run.depth]
    return {
        "format": 1,
        "scene": run.scene,
        "unit": run.unit,
        "camera": run.camera.to_json(),
        "window": run.window.to_json(),
        "photo_camera": run.photo_camera.to_json(),
        "depth": depth,
        "train": run.config.to_json(),
        "training_images": list(run.training_images),
        "world": run.world,
    }


def run_from_json(folder: Path, content: Mapping[str, Any]) -> Run:
    """Reads what ``run_to_json`` made.

    Raises:
        InputError: If a key is missing or unknown, or a value refused.
    """
    try:
        near, median, far = content["depth"] or (None, None, None)
        camera, window, photo_camera = (
            Camera.from_json(content[key]).checked(key)
            for key in ("camera", "window", "photo_camera")
        )
        if window.width > camera.width or window.height > camera.height:
            raise InputError("the window is larger than the camera's image.")
        if content["unit"] not in UNITS:
            raise unknown("unit", str(content["unit"]), UNITS)
        return Run(
            folder=folder,
            config=TrainConfig.from_json(content["train"]),
            scene=content["scene"],
            unit=content["unit"],
            camera=camera,
            window=window,
            photo_camera=photo_camera,
            depth=None if median is None else (_or_nan(near), median, _or_nan(far)),
            training_images=tuple(content["training_images"]),
            world=content["world"],
        )
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        reason = str(error) if isinstance(error, InputError) else repr(error)
        raise InputError(f"{folder / CONFIG}: is not what a run has ({reason}).") from error


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def check_same_run(run: Run) -> None:
    """Refuses to go on with a run that was begun on other images, poses or cameras."""
    stored, now = read_json(run.folder / CONFIG), json.loads(json.dumps(run_to_json(run)))
    # The depth follows from the poses, but its last digit also from the order of the points.
    if {**stored, "depth": None} != {**now, "depth": None}:
        raise InputError(
            f"{run.folder}: --resume needs the scene, split and poses that the run was begun "
            "with; they are others now."
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        InputError: If it is missing, cut short or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: these weights cannot be read ({error}).") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file aside and renames it."""
    partial = path.with_name(f".{path.name}.partial")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial)
    partial.chmod(0o644)  # safetensors makes it private, unlike the other files of a run
    partial.replace(path)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a line to a JSON-lines file."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def keep_rows(path: Path, epochs: int) -> None:
    """Drops the rows of epochs that are about to be trained again, and what a kill cut short."""
    if path.exists():
        rows = path.read_text().splitlines()[:epochs]
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text("".join(f"{row}\n" for row in rows))
        partial.replace(path)


def write_environment(folder: Path) -> None:
    """Records what the run was made with."""
    write_json(folder / ENVIRONMENT, environment())


def environment() -> dict[str, Any]:
    """Versions, machine and, in a checkout, the commit."""
    from importlib.metadata import version

    packages = ("relocal", "torch", "numpy", "pillow", "pycolmap", "lightning-fabric")
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": _commit(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    """The commit of this package's own checkout; None when it is installed from a wheel."""
    here = Path(__file__).parent
    try:
        out = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip()
