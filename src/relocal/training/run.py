"""A Run on disk: what a training leaves, and how to open it again.

``config.json`` (every option and what the network must know of its scene), ``weights.safetensors``,
``metrics.jsonl`` (a row an epoch), ``environment.json``, and ``checkpoint/`` while training.
"""

import json
import math
import os
import platform
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from relocal.backbones import build_backbone, weight_faults
from relocal.camera import Camera
from relocal.errors import InputError, unknown
from relocal.models import MODELS, PoseNet
from relocal.pose import Pose
from relocal.scene import Scene
from relocal.scene.files import read_json, write_json, write_text
from relocal.scene.scene import UNITS
from relocal.training.config import TrainConfig

CONFIG, WEIGHTS, METRICS = "config.json", "weights.safetensors", "metrics.jsonl"
ENVIRONMENT, CHECKPOINT = "environment.json", "checkpoint"
DEPTH_TOLERANCE = 0.01


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
    anchors: Mapping[str, Sequence[float]]
    """Poses of some of them, as ``Scene.anchors`` gives: another ground truth has others."""
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """What the network's positions are relative to, in the world: single precision keeps seven
    digits, which coordinates of a map of the Earth have before the point. Zeros in runs of before
    there were origins."""

    def in_world(self, poses: Pose) -> Pose:
        """The network's poses, which are relative to the origin, in the world; float64."""
        return poses.to(torch.float64).shifted(torch.tensor(self.origin, dtype=torch.float64))

    @property
    def seen_camera(self) -> Camera:
        """The camera of the scene's photos, scaled to the size of the training camera."""
        return self.photo_camera.resized(self.camera.width, self.camera.height)

    def model(self) -> PoseNet:
        """The trained network, in evaluation mode.

        Raises:
            InputError: If the weights are missing, damaged or of another network.
        """
        model = build_model(self.config, pretrained=False)
        state = read_tensors(self.folder / WEIGHTS)
        weights = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        wanted = model.state_dict()
        wrong = weight_faults(weights, wanted)
        wrong += [f"{name} is too many" for name in sorted(weights.keys() - wanted.keys())]
        if wrong:
            raise InputError(
                f"{self.folder / WEIGHTS}: does not fit its config.json at {len(wrong)} tensors, "
                f"such as that {wrong[0]}."
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
        raise InputError(f"{folder}: the run has no {WEIGHTS}; go on with train --resume.")
    return run_from_json(folder, read_json(folder / CONFIG))


def stored_run(folder: Path) -> Run | None:
    """A run, finished or not; None when the folder holds none.

    Raises:
        InputError: If its ``config.json`` is damaged.
    """
    if not (folder / CONFIG).is_file():
        return None
    return run_from_json(folder, read_json(folder / CONFIG))


def stored_config(folder: Path) -> TrainConfig | None:
    """The options of a run, as ``stored_run`` finds it."""
    run = stored_run(folder)
    return None if run is None else run.config


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
        "anchors": {name: list(pose) for name, pose in run.anchors.items()},
        "origin": list(run.origin),
    }


def run_from_json(folder: Path, content: Mapping[str, Any]) -> Run:
    """Reads what ``run_to_json`` made.

    Raises:
        InputError: If a key is missing or unknown, or a value refused.
    """
    try:
        near, median, far = content["depth"] or (None, None, None)
        camera, window, photo_camera = (
            Camera.from_json(content[key], key) for key in ("camera", "window", "photo_camera")
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
            anchors={str(k): [float(v) for v in pose] for k, pose in content["anchors"].items()},
            origin=_origin(content),
        )
    except (
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        ValueError,
        InputError,
    ) as error:
        reason = str(error) if isinstance(error, InputError) else repr(error)
        raise InputError(f"{folder / CONFIG}: is not what a run has ({reason}).") from error


def _origin(content: Mapping[str, Any]) -> tuple[float, float, float]:
    """The origin that a run was made with; runs of before there were origins have none."""
    x, y, z = map(float, content.get("origin", Run.origin))
    if not all(map(math.isfinite, (x, y, z))):
        raise InputError("its origin is no place.")
    return x, y, z


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def begin(run: Run, scene: Scene) -> None:
    """Writes what a run is, or checks that it goes on as it was begun.

    Raises:
        InputError: If it was begun on other images, poses, cameras or depths.
    """
    if (run.folder / CONFIG).is_file():
        _check_same(run, scene)
    else:
        write_json(run.folder / CONFIG, run_to_json(run))
    if not (run.folder / ENVIRONMENT).is_file():
        write_json(run.folder / ENVIRONMENT, environment())


def _check_same(run: Run, scene: Scene) -> None:
    stored, now = read_json(run.folder / CONFIG), json.loads(json.dumps(run_to_json(run)))
    # Poses are compared with a tolerance, and so is the depth: map points may have been made anew.
    apart = {"depth": None, "anchors": None}
    known = {"origin": list(Run.origin), **stored}
    if {**known, **apart} != {**now, **apart} or not scene.has_anchors(stored["anchors"]):
        raise InputError(
            f"{run.folder}: --resume needs the scene, split and poses that the run was begun "
            "with; they are others now."
        )
    old, new = stored["depth"], now["depth"]
    # A run that began without a depth has no use for one.
    if old is not None and not _near_depths(old, new):
        raise InputError(
            f"{run.folder}: --resume needs the map points that the run was begun with; the scene's "
            f"near, median and far depth are {new} now, and were {old}."
        )


def _near_depths(old: Sequence[float | None], new: Sequence[float | None] | None) -> bool:
    """Whether depths are the same to 1 %; null ones are not known."""
    return new is not None and all(
        a is b if a is None or b is None else math.isclose(a, b, rel_tol=DEPTH_TOLERANCE)
        for a, b in zip(old, new, strict=True)
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
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial)
        partial.chmod(0o644)  # safetensors makes it private, unlike the other files of a run
        partial.replace(path)
    except SafetensorError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{path}: cannot be written ({error}); make room, and run it again (train goes on with "
            "--resume)."
        ) from error


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Keeps other processes from training in the same folder meanwhile.

    Raises:
        InputError: If one is at it already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
            return
    except Timeout as error:
        raise InputError(f"{folder}: another training is at work in this folder.") from error
    except BaseException:
        # A training that could not begin leaves nothing that another would stumble over.
        if not (folder / CONFIG).exists():
            (folder / ".lock").unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()
        raise


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a line to a JSON-lines file."""
    try:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def keep_rows(path: Path, epochs: int) -> None:
    """Drops the rows of epochs that are about to be trained again, and what a kill cut short."""
    if path.exists():
        rows = path.read_text().splitlines()[:epochs]
        write_text(path, "".join(f"{row}\n" for row in rows))


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
