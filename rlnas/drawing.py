"""Architectures as layered SVG drawings."""

from __future__ import annotations

from html import escape

from rlnas.architecture import Architecture
from rlnas.graph import INPUT, Add, AvgPool, Classifier, Constant, Conv, Dense, GlobalPool, Graph, MaxPool, Operation

BOX = (150, 34)
GAP = (26, 30)
MARGIN = 20
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
    rows = _rows(graph)
    places = _places(rows)
    widest = max(len(row) for row in rows)
    width = 2 * MARGIN + widest * BOX[0] + (widest - 1) * GAP[0]
    height = 2 * MARGIN + len(rows) * BOX[1] + (len(rows) - 1) * GAP[1]
    centre = width / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>{escape(architecture.text)}</title><style>{STYLE}</style>'
    ]
    for index, node in enumerate(graph):
        parts += [_arrow(places[source], places[index], centre) for source in node.inputs]
    for index, (x, y) in places.items():
        kind, label = ("image", "image") if index == INPUT else _label(graph[index].operation)
        left, top = centre + x - BOX[0] / 2, y - BOX[1] / 2
        parts.append(f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{BOX[0]}" height="{BOX[1]}"/>')
        parts.append(f'<text x="{centre + x:g}" y="{y:g}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _rows(graph: Graph) -> list[list[int]]:
    """Nodes by depth: each lies below everything it reads."""
    depth = {INPUT: 0}
    for index, node in enumerate(graph):
        depth[index] = 1 + max(depth[source] for source in node.inputs)
    rows: list[list[int]] = [[] for _ in range(max(depth.values()) + 1)]
    for index, level in depth.items():
        rows[level].append(index)
    return rows


def _places(rows: list[list[int]]) -> dict[int, tuple[float, float]]:
    """Centres of the boxes: x from the middle of the drawing, y from its top."""
    places = {}
    for level, row in enumerate(rows):
        for column, index in enumerate(row):
            x = (column - (len(row) - 1) / 2) * (BOX[0] + GAP[0])
            places[index] = (x, MARGIN + BOX[1] / 2 + level * (BOX[1] + GAP[1]))
    return places


def _arrow(start: tuple[float, float], end: tuple[float, float], centre: float) -> str:
    (x0, y0), (x1, y1) = start, end
    y0, y1 = y0 + BOX[1] / 2, y1 - BOX[1] / 2
    skips = y1 - y0 > GAP[1] + 1
    bend = BOX[0] * 0.75 if skips and x0 == x1 else 0  # a long edge swings round the boxes between
    a, b = centre + x0, centre + x1
    return f'<path d="M{a:g} {y0:g} C{a + bend:g} {y0 + GAP[1]:g} {b + bend:g} {y1 - GAP[1]:g} {b:g} {y1:g}"/>'


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
