"""A trained network as plain PyTorch code that a person can read and that needs no rlnas."""

from __future__ import annotations

from pprint import pformat

from rlnas.graph import INPUT, Add, AvgPool, Classifier, Conv, Dense, GlobalPool, MaxPool, Node, Operation, input_shapes
from rlnas.model import Model
from rlnas.preprocessing import LIGHTEST

WEIGHTS = "model.npz"

_SOURCE = '''"""A trained network, found and written by rlnas, in plain PyTorch.

    {text}

It needs torch, numpy and the file {weights} beside it.

    python model.py examples.npy        # prints the class of each example

or, from Python: predict_proba(load(), examples).
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

CLASSES = {classes}


class Net(nn.Module):
    """From {takes} to a logit for each class."""

    def __init__(self):
        super().__init__()
{layers}

    def forward(self, x):
{forward}


def load():
    """The network with its trained weights, ready to predict."""
    network = Net()
    with np.load(Path(__file__).with_name("{weights}"), allow_pickle=False) as weights:
        network.load_state_dict({{name: torch.from_numpy(weights[name]) for name in weights.files}})
    return network.eval()


{prepare}


@torch.no_grad()
def predict_proba(network, examples):
    """The probability of every class, of shape (N, {ways})."""
    some = [examples[start : start + 256] for start in range(0, max(1, len(examples)), 256)]
    return torch.cat([network(prepare(part)).softmax(1) for part in some]).numpy()


if __name__ == "__main__":
    for row in predict_proba(load(), np.load(sys.argv[1], allow_pickle=False)):
        print(CLASSES[row.argmax()])
'''

_PREPARE_IMAGES = '''def prepare(images):
    """{numbers} of shape (N, H, W) or (N, H, W, C), H x W = {height} x {width}, as the network sees them."""
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
{grey}    if images.shape[1:] != ({height}, {width}, {channels}):
        raise ValueError(f"images must be {height} x {width} with {channels} channel(s), got {{images.shape[1:]}}")
{scaled}
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)) / white'''

_SCALED_BYTES = """\
    if images.dtype.kind == "f" and images.size and images.max() > {lightest}:
        raise ValueError("images must be bytes, or floats in 0 .. 1")
    if images.dtype.kind != "f" and images.size and images.max() > {white:g}:
        raise ValueError("images must be at most {white:g}, as those trained on")
    white = {white!r} if images.dtype.kind in "iu" else 1.0"""

_SCALED_FLOATS = """\
    if images.dtype.kind != "f":
        raise ValueError("images must be floats up to {white:g}, as those trained on")
    white = {white!r}"""

_GREY = """    if images.shape[3] == 1:
        images = images.repeat(3, axis=3)
"""

_PREPARE_FEATURES = '''def prepare(features):
    """Features of shape (N, {channels}) as the network sees them."""
    features = np.asarray(features, dtype=np.float32)  # as they were trained on
    return torch.from_numpy(features.astype(np.float64))[:, :, None, None]'''


def model_source(model: Model) -> str:
    """The source of ``model.py``. Equal models have equal sources."""
    graph = model.architecture.graph(len(model.classes))
    channels, height, width = model.preprocessing.input_shape
    images = model.preprocessing.kind == "images"
    reads = input_shapes(graph, model.preprocessing.input_shape)
    dtype = "" if images else ", dtype=torch.float64"
    layers = [
        f'self.register_buffer("mean", torch.zeros({channels}, 1, 1{dtype}))',
        f'self.register_buffer("deviation", torch.ones({channels}, 1, 1{dtype}))',
    ]
    forward = [f"x = (x - self.mean) / self.deviation{'' if images else '  # in double precision'}"]
    if not images:
        forward.append("x = x.float()")
    chain = all(node.inputs == (index - 1,) for index, node in enumerate(graph))
    for index, (node, shape) in enumerate(zip(graph, reads, strict=True)):
        layers += _layers(index, node.operation, shape)
        value = _value(index, node, chain)
        last = index == len(graph) - 1
        forward.append(f"return {value}" if last else f"{_variable(index, chain)} = {value}")
    if images:
        numbers, scaled = ("Bytes", _SCALED_BYTES) if model.preprocessing.bytes else ("Floats", _SCALED_FLOATS)
        prepare = _PREPARE_IMAGES.format(
            height=height,
            width=width,
            channels=channels,
            grey=_GREY * (channels == 3),
            numbers=numbers,
            scaled=scaled.format(white=model.preprocessing.white, lightest=LIGHTEST),
        )
    else:
        prepare = _PREPARE_FEATURES.format(channels=channels)
    takes = (
        f"images of shape (N, {channels}, {height}, {width}) in 0 .. 1" if images else f"features (N, {channels}, 1, 1)"
    )
    return _SOURCE.format(
        text=model.architecture.text,
        weights=WEIGHTS,
        classes=pformat(list(model.classes), width=100, compact=True),
        takes=takes,
        layers=_indented(layers),
        forward=_indented(forward),
        prepare=prepare,
        ways=len(model.classes),
    )


def parameter_names(model: Model) -> dict[str, str]:
    """What the plain network calls each entry of the state of ``model.network``."""
    names = {}
    for index, node in enumerate(model.architecture.graph(len(model.classes))):
        inner = {Conv: ("conv", "norm"), Dense: ("", "dense"), Classifier: ("", "classifier")}
        for position, layer in enumerate(inner.get(type(node.operation), ())):
            names[f"nodes.{index}.{position}."] = f"{layer}{'' if layer == 'classifier' else index + 1}."
    state = model.network.state_dict()
    return {
        old: new + old.removeprefix(prefix) for prefix, new in names.items() for old in state if old.startswith(prefix)
    }


def _layers(index: int, operation: Operation, shape: tuple[int, ...]) -> list[str]:
    features = 1
    for size in shape:
        features *= size
    match operation:
        case Conv(kernel, width):
            padding = f", padding={kernel // 2}" if kernel > 1 else ""
            return [
                f"self.conv{index + 1} = nn.Conv2d({shape[0]}, {width}, {kernel}{padding}, bias=False)",
                f"self.norm{index + 1} = nn.BatchNorm2d({width})",
            ]
        case Dense(width):
            return [f"self.dense{index + 1} = nn.Linear({features}, {width})"]
        case Classifier(ways):
            return [f"self.classifier = nn.Linear({features}, {ways})"]
    return []


def _value(index: int, node: Node, chain: bool) -> str:
    read = " + ".join(_variable(source, chain) for source in node.inputs)
    one = read if len(node.inputs) == 1 else f"({read})"
    match node.operation:
        case Conv():
            return f"F.relu(self.norm{index + 1}(self.conv{index + 1}({read})))"
        case MaxPool():
            return f"F.max_pool2d({read}, 2)"
        case AvgPool(2):
            return f"F.avg_pool2d({read}, 2)"
        case AvgPool():
            return f"F.avg_pool2d({read}, 3, stride=1, padding=1, count_include_pad=False)"
        case Dense():
            return f"F.relu(self.dense{index + 1}({one}.flatten(1)))"
        case Classifier():
            return f"self.classifier({one}.flatten(1))"
        case GlobalPool():
            return f"{one}.mean((2, 3))"
        case Add():
            return read
    raise AssertionError(f"a trained network has no {node.operation}")


def _variable(index: int, chain: bool) -> str:
    return "x" if chain or index == INPUT else f"x{index + 1}"


def _indented(lines: list[str]) -> str:
    return "\n".join(f"        {line}" for line in lines)
