"""Exported networks: a run's answers by other runtimes than torch (see ``relocal export``)."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from relocal.errors import InputError
from relocal.localizers.regressor import Answers, Regressor
from relocal.scene.files import read_json
from relocal.training.run import CONFIG, Run, run_from_json

Runtime = Callable[[UInt8[np.ndarray, "B H W 3"]], list[np.ndarray]]
"""Photos -> positions relative to the run's origin, unit quaternions w x y z, spreads of position
and rotation vector."""
OUTPUTS = ("position", "quaternion", "spread")
OPENVINO_HINT = ("relocal", "INFERENCE_PRECISION_HINT")
"""Where a network in OpenVINO's format says which numbers it is to multiply with."""


class Exported(Regressor):
    """Localizes photos with an exported network.

    Args:
        folder: What ``relocal export`` made.

    Raises:
        InputError: If it cannot be opened, or its runtime is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        file = next((file for file in RUNTIMES if (folder / file).is_file()), None)
        if file is None:
            known = " or ".join(RUNTIMES)
            raise InputError(f"{folder}: this is no exported network (it has no {known}).")
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder}: has no {CONFIG}; export the run once more.")
        self.run: Run = run_from_json(folder, read_json(folder / CONFIG))
        self.runtime = RUNTIMES[file](folder / file)
        self._open(self.run.seen_camera, self._run)

    def _run(self, views: UInt8[Tensor, "B 3 h w"]) -> Answers:
        photos = np.ascontiguousarray(views.permute(0, 2, 3, 1).numpy())
        position, quaternion, spread = map(torch.from_numpy, self.runtime(photos))
        return position, quaternion, spread


def is_exported(folder: Path) -> bool:
    """Whether a folder was made by ``relocal export``, and can be asked."""
    return any((folder / file).is_file() for file in RUNTIMES)


def open_regressor(run: Run | Path | str) -> Regressor:
    """What regresses poses: a run's network as torch runs it, or an exported one.

    Raises:
        InputError: If it cannot be opened.
    """
    if isinstance(run, Run) or not is_exported(Path(run)):
        return Regressor(run)
    return Exported(run)


def onnx_runtime(model: Path) -> Runtime:
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
    # Threads that wait for the next photo in a loop would take the cores from all else.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = onnxruntime.get_available_providers()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # its exceptions have no common base but this
        raise InputError(f"{model}: cannot be read ({_first_line(error)}).") from error

    def answer(photos: UInt8[np.ndarray, "B H W 3"]) -> list[np.ndarray]:
        return session.run(list(OUTPUTS), {"image": photos})

    return answer


def openvino_runtime(model: Path) -> Runtime:
    """A network in OpenVINO's format, in the numbers that it was exported for.

    Raises:
        InputError: If OpenVINO is not installed, or the files are damaged.
    """
    try:
        openvino: Any = import_module("openvino")
    except ImportError:
        raise InputError(f"{model}: needs pip install 'relocal[openvino]'.") from None
    settings = {"PERFORMANCE_HINT": "LATENCY"}
    try:
        core: Any = openvino.Core()
        network = core.read_model(model)
        # Left to itself, it takes bfloat16 wherever the processor has it.
        settings["INFERENCE_PRECISION_HINT"] = network.get_rt_info(list(OPENVINO_HINT)).value
        compiled: Any = core.compile_model(network, "CPU", settings)
    except RuntimeError as error:
        raise InputError(f"{model}: cannot be read ({_first_line(error)}).") from error

    def answer(photos: UInt8[np.ndarray, "B H W 3"]) -> list[np.ndarray]:
        said = compiled({"image": photos})
        return [said[name] for name in OUTPUTS]

    return answer


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


RUNTIMES: Mapping[str, Callable[[Path], Runtime]] = {
    "model.onnx": onnx_runtime,
    "model.xml": openvino_runtime,
}
"""By the file that an exported folder holds, what runs it."""
