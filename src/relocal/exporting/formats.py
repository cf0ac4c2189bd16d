"""An exported graph in the formats of runtimes, and in the numbers that it multiplies with."""

import tempfile
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relocal.errors import InputError
from relocal.exporting.quantised import exact_nodes
from relocal.localizers.exported import OPENVINO_HINT, OUTPUTS


def traced(network: nn.Module, height: int, width: int) -> Any:
    """The network as a ``torch.export.ExportedProgram`` for photos of any number and size."""
    photos = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    free = torch.export.Dim.AUTO
    with torch.no_grad(), _quiet():
        return torch.export.export(
            network, (photos,), dynamic_shapes=({0: free, 1: free, 2: free},)
        )


def to_onnx(program: Any) -> Any:
    """The program as an ``onnx.ModelProto`` in float32."""
    try:
        with _quiet():
            made: Any = torch.onnx.export(
                program,
                (),
                input_names=["image"],
                output_names=list(OUTPUTS),
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:
        raise InputError(f"export needs pip install 'relocal[export]' ({error}).") from None
    model = made.model_proto
    for value, axes in zip(
        (*model.graph.input, *model.graph.output),
        (("batch", "height", "width"), *[("batch",)] * len(OUTPUTS)),
        strict=True,
    ):
        for axis, name in zip(value.type.tensor_type.shape.dim, axes, strict=False):
            axis.dim_param = name
    return model


@contextmanager
def _quiet() -> Generator[None]:
    """Exporters warn of their own innards, of which a user can change nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save_torch(program: Any, file: Path) -> None:
    """Writes a ``torch.export.ExportedProgram``."""
    with _quiet():
        torch.export.save(program, file)


def save_onnx(model: Any, file: Path) -> None:
    """Writes an ONNX network as one file."""
    import onnx

    onnx.save(model, file)


def save_openvino(model: Any, file: Path, precision: str) -> None:
    """Writes an ONNX network in OpenVINO's format, with the numbers that it is to multiply with.

    Args:
        model: An ``onnx.ModelProto``, in float32 or int8.
        file: To write, ``.xml``; a ``.bin`` beside it holds the weights.
        precision: ``float32`` and ``int8`` keep the weights as they are, ``float16`` and
            ``bfloat16`` halve them; with ``bfloat16`` also the products are in it.

    Raises:
        InputError: If OpenVINO is not installed.
    """
    try:
        openvino: Any = import_module("openvino")
    except ImportError:
        raise InputError("--format openvino: needs pip install 'relocal[openvino]'.") from None
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / "plain.onnx"
        save_onnx(model, plain)
        with _quiet():
            made = openvino.convert_model(plain)
            made.set_rt_info("bf16" if precision == "bfloat16" else "f32", list(OPENVINO_HINT))
            openvino.save_model(made, file, compress_to_fp16=precision in ("float16", "bfloat16"))


def half(model: Any) -> Any:
    """The same with float16 weights and products, but for the photo's resize and the pose."""
    tools: Any = import_module("onnxruntime.transformers.float16")  # which comes without types
    return tools.convert_float_to_float16(
        model, keep_io_types=True, node_block_list=exact_nodes(model)
    )
