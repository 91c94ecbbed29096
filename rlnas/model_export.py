"""A trained network for those who have no rlnas: as an ONNX file and as plain PyTorch code."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.checkpoint import write_durably
from rlnas.graph import INPUT, Add, AvgPool, Classifier, Conv, Dense, GlobalPool, MaxPool, Operation
from rlnas.model import Model
from rlnas.model_code import WEIGHTS, model_source, parameter_names
from rlnas.optional import imported

OPSET, IR_VERSION = 17, 8
"""Versions of ONNX that have all we need and that runtimes since 2022 read."""

NORM_EPSILON = 1e-5


def export_onnx(model: Model, path: str | Path) -> None:
    """Write a model as an ONNX file; equal models give equal bytes.

    The file's input is ``images``, float32 of shape (N, C, H, W) in [0, 1], or ``features``, float32 of shape (N, F) as
    they came; its output ``probabilities``, float32 of shape (N, ways). Shifting and scaling are inside; resizing is
    not. The classes' names and the architecture are in its metadata, as JSON.

    It is written operation by operation from the graph: torch's exporter to ONNX needs more packages and a minute.

    Raises:
        ConfigurationError: if the package onnx is not installed.
    """
    onnx = imported("onnx", "the export to ONNX", "export")
    write_durably(Path(path), _Onnx(onnx, model).serialised())


def write_model_py(model: Model, folder: str | Path) -> None:
    """Write ``model.py``, plain PyTorch of this very network, and its weights beside it; equal models, equal bytes.

    The code needs torch and numpy alone, and reads the weights (``model.npz``) without pickle. It takes what the model
    takes, but resizes nothing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mean, deviation = _scaling(model)
    state = model.network.state_dict()
    weights = {new: state[old].cpu().numpy() for old, new in parameter_names(model).items()}
    content = io.BytesIO()
    arrays: dict[str, Any] = {"mean": mean, "deviation": deviation, **weights}
    np.savez(content, **arrays)
    write_durably(folder / WEIGHTS, content.getvalue())
    write_durably(folder / "model.py", model_source(model).encode())


def _scaling(model: Model) -> tuple[NDArray[Any], NDArray[Any]]:
    """What a channel's mean and deviation are before any preprocessing but images' division by white: (C, 1, 1).

    Float32 for images; float64 for features, which may be large. An infinite deviation makes every value 0.
    """
    if model.preprocessing.kind == "images":
        return model.mean[:, None, None], model.deviation[:, None, None]
    raw = model.preprocessing.deviation
    return model.preprocessing.mean[:, None, None], np.where(raw > 0, raw, np.inf)[:, None, None]


class _Onnx:
    """Collects nodes and their weights."""

    def __init__(self, onnx: Any, model: Model) -> None:
        self.onnx, self.model = onnx, model
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.state = {name: value.cpu().contiguous().numpy() for name, value in model.network.state_dict().items()}

    def serialised(self) -> bytes:
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        images, ways = self.model.preprocessing.kind == "images", len(self.model.classes)
        shape = self.model.preprocessing.input_shape
        name, form = ("images", shape) if images else ("features", shape[:1])
        outputs = {INPUT: self._standardised(name)}
        for index, node in enumerate(self.model.architecture.graph(ways)):
            reads = [outputs[source] for source in node.inputs]
            value = reads[0] if len(reads) == 1 else self._node("Sum", reads, f"layer{index + 1}.sum")
            outputs[index] = self._layer(index, node.operation, value)
        self._node("Softmax", [outputs[max(outputs)]], "probabilities", axis=1)
        graph = helper.make_graph(
            self.nodes,
            "rlnas",
            [helper.make_tensor_value_info(name, kinds.FLOAT, ["N", *form])],
            [helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["N", ways])],
            self.weights,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        proto = helper.make_model(graph, producer_name="rlnas", opset_imports=opsets, ir_version=IR_VERSION)
        known = {"classes": json.dumps(list(self.model.classes)), "architecture": self.model.architecture.text}
        helper.set_model_props(proto, known)
        self.onnx.checker.check_model(proto, full_check=True)
        return bytes(proto.SerializeToString(deterministic=True))

    def _standardised(self, name: str) -> str:
        mean, deviation = _scaling(self.model)
        if self.model.preprocessing.kind == "images":
            centred = self._node("Sub", [name, self._weight("mean", mean)], "centred")
            return self._node("Div", [centred, self._weight("deviation", deviation)], "standardised")
        kinds, axes = self.onnx.TensorProto, self._weight("axes", np.array([2, 3]))
        spatial = self._node("Unsqueeze", [name, axes], "spatial")
        precise = self._node("Cast", [spatial], "precise", to=kinds.DOUBLE)
        centred = self._node("Sub", [precise, self._weight("mean", mean)], "centred")
        scaled = self._node("Div", [centred, self._weight("deviation", deviation)], "scaled")
        return self._node("Cast", [scaled], "standardised", to=kinds.FLOAT)

    def _layer(self, index: int, operation: Operation, value: str) -> str:
        name, place = f"layer{index + 1}", f"nodes.{index}"
        match operation:
            case Conv(kernel):
                reads = [value, *self._weights(f"{place}.0", "weight")]
                value = self._node("Conv", reads, f"{name}.conv", kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)
                reads = [value, *self._weights(f"{place}.1", "weight", "bias", "running_mean", "running_var")]
                value = self._node("BatchNormalization", reads, f"{name}.norm", epsilon=NORM_EPSILON)
                return self._node("Relu", [value], name)
            case MaxPool():
                return self._node("MaxPool", [value], name, kernel_shape=[2, 2], strides=[2, 2])
            case AvgPool(2):
                return self._node("AveragePool", [value], name, kernel_shape=[2, 2], strides=[2, 2])
            case AvgPool():
                return self._node("AveragePool", [value], name, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0)
            case Dense():
                return self._node("Relu", [self._linear(name, f"{place}.1", value)], name)
            case Classifier():
                return self._linear(name, f"{place}.1", value)
            case GlobalPool():
                return self._node("GlobalAveragePool", [value], name)
            case Add():
                return value
        raise AssertionError(f"a trained network has no {operation}")

    def _linear(self, name: str, place: str, value: str) -> str:
        flat = self._node("Flatten", [value], f"{name}.flat")
        return self._node("Gemm", [flat, *self._weights(place, "weight", "bias")], f"{name}.linear", transB=1)

    def _weights(self, place: str, *names: str) -> list[str]:
        return [self._weight(f"{place}.{name}", self.state[f"{place}.{name}"]) for name in names]

    def _weight(self, name: str, value: NDArray[Any]) -> str:
        self.weights.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _node(self, kind: str, reads: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(kind, reads, [name], name=name, **attributes))
        return name
