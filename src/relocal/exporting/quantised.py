"""A graph in int8: weights and products of whole numbers, chosen so that answers stay."""

import tempfile
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

_LAST_ROWS = 9  # no layer that gives the pose has more outputs
_FINE = 8  # maps of more rows than the view's by this are computed in floating point
_LEVELS = 127


def quantised(model: Any, photos: Iterable[UInt8[np.ndarray, "1 H W 3"]]) -> Any:
    """The same with int8 weights and products, but for the photo's resize and the pose.

    In floating point stay also the first convolutions, while their maps have more than an eighth of
    the photo's rows: they are a quarter of the work, and most of the loss. What rounded weights add
    to a channel in the mean is taken from its bias (Nagel et al. 2019, "Data-free quantization
    through weight equalization and bias correction"). A range is taken behind the activation that
    follows a convolution, not before, where it is many times as wide.

    Args:
        model: In float32, an ``onnx.ModelProto``.
        photos: From which ranges and means of what layers give are taken: training images.
    """
    import onnx

    quantization: Any = import_module("onnxruntime.quantization")
    kinds, photos = quantization.QuantType, list(photos)
    with tempfile.TemporaryDirectory() as temporary:
        plain, whole, out = (
            Path(temporary) / f"{name}.onnx" for name in ("float", "whole", "int8")
        )
        onnx.save(model, plain)
        quantization.shape_inference.quant_pre_process(plain, whole, skip_symbolic_shape=True)
        ready = onnx.load(whole)
        fine, coarse = _convolutions(ready)
        _correct_biases(ready, coarse, photos)
        quantization.quantize_static(
            ready,
            out,
            _Photos(photos),
            op_types_to_quantize=["Conv", "Gemm", "Relu", "Clip"],
            nodes_to_exclude=[*exact_nodes(ready), *(node.name for node in fine)],
            per_channel=True,
            activation_type=kinds.QUInt8,
            weight_type=kinds.QInt8,
        )
        return onnx.load(out)


def exact_nodes(model: Any) -> list[str]:
    """Names of the nodes before the first convolution and from the layers that give the pose on."""
    nodes = list(model.graph.node)
    size = {one.name: list(one.dims) for one in model.graph.initializer}
    kinds = [node.op_type for node in nodes]
    first = kinds.index("Conv")
    last = next(
        i
        for i, node in enumerate(nodes)
        if i > first
        and node.op_type == "Gemm"
        and min(size.get(node.input[1], [_LAST_ROWS + 1])) <= _LAST_ROWS
    )
    return [node.name for node in (*nodes[:first], *nodes[last:])]


def _convolutions(model: Any) -> tuple[list[Any], list[Any]]:
    """The convolutions whose maps are larger than an eighth of the view, and the others."""
    rows = {
        value.name: value.type.tensor_type.shape.dim[2].dim_value
        for value in model.graph.value_info
        if len(value.type.tensor_type.shape.dim) == 4
    }
    found = [node for node in model.graph.node if node.op_type == "Conv"]
    view = rows[found[0].input[0]]
    fine = [node for node in found if round(view / rows[node.output[0]]) < _FINE]
    return fine, [node for node in found if node not in fine]


def _correct_biases(
    model: Any, nodes: Sequence[Any], photos: Sequence[UInt8[np.ndarray, "1 H W 3"]]
) -> None:
    """Takes from the biases of convolutions what their rounded weights will add in the mean."""
    from onnx import numpy_helper

    held = {one.name: one for one in model.graph.initializer}
    means = _input_means(model, nodes, photos)
    for node in nodes:
        if len(node.input) < 3:
            continue
        weight, bias = (numpy_helper.to_array(held[name]) for name in node.input[1:])
        step = np.abs(weight).max((1, 2, 3), keepdims=True).clip(1e-12) / _LEVELS
        off = (np.round(weight / step) * step - weight).sum((2, 3))  # (out, in of a group)
        groups = means[node.input[0]].reshape(-1, weight.shape[1])
        seen = np.repeat(groups, len(weight) // len(groups), axis=0)
        corrected = bias - (off * seen).sum(1)
        held[node.input[2]].CopyFrom(
            numpy_helper.from_array(corrected.astype(np.float32), node.input[2])
        )


def _input_means(
    model: Any, nodes: Sequence[Any], photos: Sequence[UInt8[np.ndarray, "1 H W 3"]]
) -> dict[str, np.ndarray]:
    """Means of the channels of what goes into convolutions, over photos: (C,) by tensor."""
    from onnx import ModelProto, helper

    runtime: Any = import_module("onnxruntime")
    names = list(dict.fromkeys(node.input[0] for node in nodes))
    probe = ModelProto()
    probe.CopyFrom(model)
    for name in names:
        probe.graph.node.append(
            helper.make_node("GlobalAveragePool", [name], [f"{name} mean"], f"{name} mean")
        )
        probe.graph.output.append(helper.make_tensor_value_info(f"{name} mean", 1, None))
    session = runtime.InferenceSession(
        probe.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    wanted = [f"{name} mean" for name in names]
    said = [session.run(wanted, {"image": photo}) for photo in photos]
    return {
        name: np.mean([each[i][0, :, 0, 0] for each in said], axis=0)
        for i, name in enumerate(names)
    }


class _Photos:
    """What onnxruntime asks for a photo after the other."""

    def __init__(self, photos: Iterable[UInt8[np.ndarray, "1 H W 3"]]) -> None:
        self.photos = iter(photos)

    def get_next(self) -> dict[str, np.ndarray] | None:
        photo = next(self.photos, None)
        return None if photo is None else {"image": photo}
