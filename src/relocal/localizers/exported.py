"""Exported networks: a run's answers without torch's speed to wait for (see ``relocal export``)."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.images import Source, camera_of_photo, load_view
from relocal.localizers.calibration import read_held_out
from relocal.localizers.regressor import Regressor
from relocal.pose import Pose
from relocal.precision import bf16_is_fast_on_cpu
from relocal.scene.files import read_json
from relocal.training.run import CONFIG, Run, run_from_json
from relocal.types import Estimate

Answers = tuple[Float[np.ndarray, "B 3"], Float[np.ndarray, "B 4"], Float[np.ndarray, "B 2"]]
Runtime = Callable[[UInt8[np.ndarray, "B H W 3"]], Answers]
"""Photos -> positions, unit quaternions w x y z, spreads of position and rotation vector."""
OUTPUTS = ("position", "quaternion", "spread")


def is_exported(folder: Path) -> bool:
    """Whether a folder was made by ``relocal export``, and can be asked."""
    return any((folder / file).is_file() for file in MODELS)


class Exported:
    """Localizes photos with an exported network.

    Args:
        folder: What ``relocal export`` made.

    Raises:
        InputError: If it cannot be opened, or its runtime is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        file = next((file for file in MODELS if (folder / file).is_file()), None)
        if file is None:
            known = " or ".join(MODELS)
            raise InputError(f"{folder}: this is no exported network (it has no {known}).")
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder}: has no {CONFIG}; export the run once more.")
        self.run: Run = run_from_json(folder, read_json(folder / CONFIG))
        self.method = self.run.config.model.name
        self.answer: Runtime = MODELS[file](folder / file)
        held = read_held_out(folder)
        self.calibration = None if held is None else held.calibration("regressor")

    def localize(self, image: Source | str, camera: Camera | None = None) -> Estimate:
        """Says where a photo was taken.

        Args:
            image: A file, or the bytes of one.
            camera: Its camera. Without it the focal length comes from EXIF, and failing that from
                the scene, with a warning in the estimate.

        Raises:
            InputError: If the photo cannot be read or does not fit the camera.
        """
        start = time.perf_counter()
        source = Path(image) if isinstance(image, str) else image
        warning = None
        if camera is None:
            camera, warning = camera_of_photo(source, self.run.photo_camera)
        view = load_view(source, camera, self.run.seen_camera).permute(1, 2, 0).contiguous()
        position, quaternion, spread = self.answer(view.numpy()[None])
        pose = Pose(torch.from_numpy(position[0]), torch.from_numpy(quaternion[0]))
        says = self.run.config.model.log_variance
        estimate = Estimate(
            pose=pose.to(torch.float64).canonical(),
            unit=self.run.unit,
            method=self.method,
            time_ms=1000 * (time.perf_counter() - start),
            sigma_m=float(spread[0, 0]) if says else None,
            sigma_deg=float(np.rad2deg(spread[0, 1])) if says else None,
            warnings=() if warning is None else (warning,),
        )
        if self.calibration is None:
            return estimate
        return replace(self.calibration.of(estimate), time_ms=estimate.time_ms)


def open_regressor(run: Run | Path | str) -> Regressor | Exported:
    """What regresses poses: a run's network as torch runs it, or an exported one.

    Raises:
        InputError: If it cannot be opened.
    """
    if isinstance(run, Run) or not is_exported(Path(run)):
        return Regressor(run)
    return Exported(run)


def onnx_runtime(model: Path | bytes) -> Runtime:
    """An ONNX network, run by onnxruntime.

    Raises:
        InputError: If onnxruntime is not installed, or the file is damaged.
    """
    try:
        onnxruntime: Any = import_module("onnxruntime")  # which comes without types
    except ImportError:
        raise InputError("an exported network needs pip install 'relocal[export]'.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=onnxruntime.get_available_providers()
        )
    except Exception as error:  # its exceptions have no common base but this
        raise InputError(f"{_name(model)}: cannot be read ({_first_line(error)}).") from error

    def answer(photos: UInt8[np.ndarray, "B H W 3"]) -> Answers:
        position, quaternion, spread = session.run(list(OUTPUTS), {"image": photos})
        return position, quaternion, spread

    return answer


def openvino_runtime(model: Path) -> Runtime:
    """A network in OpenVINO's format, in bfloat16 where the processor multiplies it itself.

    Raises:
        InputError: If OpenVINO is not installed, or the files are damaged.
    """
    try:
        import openvino
    except ImportError:
        raise InputError(f"{model}: needs pip install 'relocal[openvino]'.") from None
    precision = "bf16" if bf16_is_fast_on_cpu() else "f32"
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    try:
        compiled: Any = openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise InputError(f"{model}: cannot be read ({_first_line(error)}).") from error

    def answer(photos: UInt8[np.ndarray, "B H W 3"]) -> Answers:
        said = compiled({"image": photos})
        return said["position"], said["quaternion"], said["spread"]

    return answer


def _name(model: Path | bytes) -> str:
    return "the network" if isinstance(model, bytes) else str(model)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


MODELS: Mapping[str, Callable[[Path], Runtime]] = {
    "model.onnx": onnx_runtime,
    "model.xml": openvino_runtime,
}
"""By the file that an exported folder holds, what runs it."""
