"""Export: Run -> a folder that localizes photos without torch.

``model.onnx`` (or ``model.xml``, ``model.pt2``), ``config.json`` (as the run's), ``localize.py``
with its ``requirements.txt``, and ``README.md``, the card. The network's positions are relative to
the origin in ``config.json``: it answers in single precision, which holds no place on the Earth.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import UInt8

from relocal.errors import InputError, unknown
from relocal.exporting.card import card
from relocal.exporting.formats import (
    half,
    save_onnx,
    save_openvino,
    save_torch,
    to_onnx,
    traced,
)
from relocal.exporting.graph import PhotoToPose
from relocal.exporting.parity import Parity, parity, photo_of, spread_evenly
from relocal.exporting.quantised import quantised
from relocal.localizers.calibration import CALIBRATION
from relocal.localizers.exported import Runtime, onnx_runtime, openvino_runtime
from relocal.scene import Scene, load_scene
from relocal.scene.files import check_new, new_folder, write_json, write_text
from relocal.training.run import CONFIG, Run, environment, load_run, run_to_json

Format = Literal["onnx", "openvino", "torch"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]
Progress = Callable[[int, int, str], None]
_MODELS = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}
_STANDALONE = Path(__file__).with_name("standalone.py")
_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What a run is exported as."""

    format: Format = "onnx"
    """onnx, openvino (faster on processors by Intel) or torch (torch.export)."""
    precision: Precision = "float32"
    """float32; float16, half as large; int8, a quarter and faster, the answers move a little; or
    bfloat16 (openvino), where the processor multiplies it, the answers move more."""
    photos: int = 200
    """Photos of the scene on which its answers are compared with the run's."""
    calibration_photos: int = 100
    """Training photos from which int8 takes ranges and means."""
    most_change: float = 0.05
    """Nothing is written if a median error changes by more than this share of itself."""

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise unknown("--format", self.format, get_args(Format))
        if self.precision not in get_args(Precision):
            raise unknown("--precision", self.precision, get_args(Precision))
        if self.format == "torch" and self.precision != "float32":
            raise InputError(f"--precision {self.precision}: goes with --format onnx or openvino.")
        if self.format != "openvino" and self.precision == "bfloat16":
            raise InputError("--precision bfloat16: goes with --format openvino.")
        for name in ("photos", "calibration_photos"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')}: must be at least 1.")
        if not self.most_change > 0:
            raise InputError(f"--most-change: must be positive, not {self.most_change}.")


def export(
    run: Run | Path | str,
    scene: Scene | Path | str,
    out: Path | str,
    config: ExportConfig | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Parity:
    """Exports a run's network into a new folder, once it was seen to answer as the run does.

    Args:
        run: The run, or its folder.
        scene: The scene that it was trained on, for photos.
        out: The folder to make.
        config: Every option.
        progress: Called with steps done, steps in all, and what is being done.

    Returns:
        How its answers differ from the run's.

    Raises:
        InputError: If they do not belong together, a package is missing, or the answers differ.
    """
    config, out = config or ExportConfig(), Path(out)
    check_new(out)
    run = run if isinstance(run, Run) else load_run(run)
    scene = scene if isinstance(scene, Scene) else load_scene(scene)
    if run.scene != scene.name or not scene.has_anchors(run.anchors):
        raise InputError(f"{run.folder}: was not made of {scene.name!r} with these poses.")
    model = run.model()
    progress(0, 1, "exporting")
    with new_folder(out) as folder:
        answer = _write_model(run, scene, PhotoToPose(run, model).eval(), config, folder)
        found = parity(run, model, answer, scene, config.photos, progress)
        if not found.change <= config.most_change:  # also of answers that are no numbers
            raise InputError(
                f"--precision {config.precision}: the median errors of the run, "
                f"{_errors(found.errors, run.unit)}, would become "
                f"{_errors(found.exported_errors, run.unit)}; nothing was written (--most-change "
                "allows more)."
            )
        _write_rest(run, config, found, folder)
    return found


def _errors(errors: tuple[float, float], unit: str) -> str:
    return f"{errors[0]:.4g} {unit} and {errors[1]:.4g}°"


def _write_model(
    run: Run, scene: Scene, network: PhotoToPose, config: ExportConfig, folder: Path
) -> Runtime:
    """Writes the network, and gives what answers with it."""
    program = traced(network, run.photo_camera.height, run.photo_camera.width)
    file = folder / _MODELS[config.format]
    if config.format == "torch":
        save_torch(program, file)
        return partial(_torch_answer, program.module())
    made = to_onnx(program)
    if config.precision == "int8":
        rows = spread_evenly(scene.indices("train"), config.calibration_photos)
        made = quantised(made, (photo_of(run, scene, i) for i in rows))
    elif config.precision == "float16" and config.format == "onnx":
        made = half(made)
    if config.format == "onnx":
        save_onnx(made, file)
        return onnx_runtime(file)
    save_openvino(made, file, config.precision)
    return openvino_runtime(file)


def _torch_answer(module: Any, photos: UInt8[np.ndarray, "B H W 3"]) -> list[np.ndarray]:
    with torch.no_grad():
        return [part.numpy() for part in module(torch.from_numpy(photos))]


def _write_rest(run: Run, config: ExportConfig, found: Parity, folder: Path) -> None:
    about = {"options": asdict(config), "parity": asdict(found), "made_by": environment()}
    write_json(folder / CONFIG, {**run_to_json(run), "export": about})
    if (run.folder / CALIBRATION).is_file():
        shutil.copy(run.folder / CALIBRATION, folder / CALIBRATION)
    if config.format != "torch":
        shutil.copy(_STANDALONE, folder / "localize.py")
        needed = (_RUNTIMES[config.format], "numpy", "pillow")
        lines = [f"{name}=={version(name)}" for name in needed]
        write_text(folder / "requirements.txt", "\n".join(lines) + "\n")
    size = sum(file.stat().st_size for file in folder.glob("model.*"))
    write_text(folder / "README.md", card(run, config.format, config.precision, found, size))
