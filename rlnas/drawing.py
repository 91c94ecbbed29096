"""Architectures as layered SVG drawings."""

from __future__ import annotations

from html import escape
from itertools import pairwise
from statistics import fmean
from typing import TypeAlias

from rlnas.architecture import Architecture
from rlnas.graph import INPUT, Add, AvgPool, Classifier, Constant, Conv, Dense, GlobalPool, Graph, MaxPool, Operation

BOX = (150, 34)
GAP = (26, 30)
MARGIN = 20
Slot: TypeAlias = tuple[int, ...]
"""A box, (node,), or a place that a long edge passes, (source, target, row)."""

STYLE = """
text{font:13px system-ui,sans-serif;text-anchor:middle;dominant-baseline:central;fill:#1c2430}
rect{stroke:#1c2430;stroke-width:1.2;rx:7}
path{fill:none;stroke:#66707f;stroke-width:1.4}
.image,.answer{fill:#fff}.conv{fill:#cfe3ff}.pool{fill:#d9f2dc}.dense{fill:#ffe6bf}.add{fill:#eceef2}
@media (prefers-color-scheme:dark){svg{background:#14181f}path{stroke:#aab3c0}}
"""


def draw_svg(architecture: Architecture, ways: int) -> str:
    """A self-contained SVG of the network, image at the top, with a text alternative.

    Args:
        architecture: what to draw.
        ways: classes of its classifier.
    """
    graph = architecture.graph(ways)
    routes = _routes(graph)
    rows = _rows(graph, routes)
    places = _places(rows, routes)
    widest = max(len(row) for row in rows)
    width = 2 * MARGIN + widest * BOX[0] + (widest - 1) * GAP[0]
    height = 2 * MARGIN + len(rows) * BOX[1] + (len(rows) - 1) * GAP[1]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-width / 2:g} 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img"><title>{escape(architecture.text)}</title><style>{STYLE}</style>'
    ]
    parts += [_arrow([places[slot] for slot in route]) for route in routes]
    for index in range(INPUT, len(graph)):
        x, y = places[index,]
        kind, label = ("image", "image") if index == INPUT else _label(graph[index].operation)
        left, top = x - BOX[0] / 2, y - BOX[1] / 2
        parts.append(f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{BOX[0]}" height="{BOX[1]}"/>')
        parts.append(f'<text x="{x:g}" y="{y:g}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _depths(graph: Graph) -> dict[int, int]:
    """The row of each node: below everything it reads."""
    depth = {INPUT: 0}
    for index, node in enumerate(graph):
        depth[index] = 1 + max(depth[source] for source in node.inputs)
    return depth


def _routes(graph: Graph) -> list[list[Slot]]:
    """For each edge the slots it passes, from box to box: a long edge has a place of its own in the rows between."""
    depth = _depths(graph)
    return [
        [(source,), *((source, target, level) for level in range(depth[source] + 1, depth[target])), (target,)]
        for target, node in enumerate(graph)
        for source in node.inputs
    ]


def _rows(graph: Graph, routes: list[list[Slot]]) -> list[list[Slot]]:
    depth = _depths(graph)
    rows: list[list[Slot]] = [[] for _ in range(max(depth.values()) + 1)]
    for slot in dict.fromkeys([(INPUT,), *(slot for route in routes for slot in route)]):
        rows[depth[slot[0]] if len(slot) == 1 else slot[2]].append(slot)
    return rows


def _places(rows: list[list[Slot]], routes: list[list[Slot]]) -> dict[Slot, tuple[float, float]]:
    """Centres of the slots: x from the middle, y from the top. A slot stands as near as it can below what it reads."""
    above: dict[Slot, list[Slot]] = {}
    for route in routes:
        for upper, lower in pairwise(route):
            above.setdefault(lower, []).append(upper)
    places: dict[Slot, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        wanted = {slot: fmean(places[up][0] for up in above[slot]) if level else 0.0 for slot in row}
        for column, slot in enumerate(sorted(row, key=wanted.__getitem__)):
            x = (column - (len(row) - 1) / 2) * (BOX[0] + GAP[0])
            places[slot] = (x, MARGIN + BOX[1] / 2 + level * (BOX[1] + GAP[1]))
    return places


def _arrow(places: list[tuple[float, float]]) -> str:
    (x, y), half, bend = places[0], BOX[1] / 2, GAP[1] / 2
    path = f"M{x:g} {y + half:g}"
    for number, (x1, y1) in enumerate(places[1:], start=1):
        path += f" C{x:g} {y + half + bend:g} {x1:g} {y1 - half - bend:g} {x1:g} {y1 - half:g}"
        if number < len(places) - 1:
            path += f" V{y1 + half:g}"
        x, y = x1, y1
    return f'<path d="{path}"/>'


def _label(operation: Operation) -> tuple[str, str]:
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
        case Classifier(ways):
            return "answer", f"classifier, {ways} classes"
        case Constant(ways):
            return "answer", f"constant, {ways} classes"
