"""Architectures as layered SVG drawings."""

from __future__ import annotations

from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError
from rlnas.graph import Add, AvgPool, Classifier, Constant, Conv, Dense, GlobalPool, MaxPool, Operation
from rlnas.layered import Box, draw_boxes
from rlnas.sketch import sketch


def draw_svg(architecture: Architecture, ways: int | None = None) -> str:
    """A self-contained SVG of the network, image at the top, with a text alternative.

    Networks that cannot be built, such as those of some tables, are drawn as the choices that they are made of.

    Args:
        architecture: what to draw.
        ways: classes of its classifier; None leaves their number out.
    """
    try:
        graph = architecture.graph(ways or 1)
    except ConfigurationError:
        space = architecture.space
        names = [d.choices[c] for d, c in zip(space.decisions, architecture.choices, strict=True)]
        return draw_boxes(sketch(space, names), architecture.text)
    boxes = [Box("input", "image")]
    for node in graph:
        kind, label = _operation(node.operation, ways)
        boxes.append(Box(kind, label, tuple(source + 1 for source in node.inputs)))
    return draw_boxes(boxes, architecture.text)


def _operation(operation: Operation, ways: int | None) -> tuple[str, str]:
    classes = "" if ways is None else f", {ways} classes"
    match operation:
        case Conv(kernel, width):
            return "conv", f"conv {kernel}×{kernel}, {width}"
        case MaxPool():
            return "pool", "max pool 2×2"
        case AvgPool(kernel):
            return "pool", f"avg pool {kernel}×{kernel}"
        case Dense(width):
            return "dense", f"dense {width}"
        case Add():
            return "add", "+"
        case GlobalPool():
            return "pool", "global avg pool"
        case Classifier():
            return "output", f"classifier{classes}"
        case Constant():
            return "output", f"constant{classes}"
