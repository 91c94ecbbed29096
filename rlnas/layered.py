"""Layered SVG drawings of boxes that read each other, the first at the top."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from statistics import fmean
from typing import TypeAlias

HEIGHT, NARROW, LANE = 36, 36, 12
"""Pixels: the height of a box, the width of a sum, and that of a place which an arrow passes."""
GAP = (18, 26)
MARGIN = 12
LONGEST = 26
"""Characters of a label that are shown."""
ROUND = ("input", "output", "add")
"""Kinds of boxes with round ends."""
Slot: TypeAlias = tuple[int, ...]
"""A box, (number,), or a place that a long edge passes, (source, target, row)."""

STYLE = """
.net { --text: #1c2430; --faint: #5b6570; --edge: #7d8795; --plain: #ffffff; --conv: #d3e5ff;
  --pool: #d9f2dc; --dense: #ffe8c4; --other: #ece4fb; --add: #eceef2;
  --added: #15803d; --changed: #b45309; --removed: #b91c1c; }
@media (prefers-color-scheme: dark) {
  .net { --text: #e8ecf2; --faint: #a3aebc; --edge: #76818f; --plain: #1d232c; --conv: #1f3f6b;
    --pool: #1f4a2b; --dense: #5a4016; --other: #43326b; --add: #323a46;
    --added: #4ade80; --changed: #fbbf24; --removed: #f87171; }
}
.net text { font: 13px system-ui, sans-serif; text-anchor: middle; dominant-baseline: central; fill: var(--text); }
.net rect { fill: var(--plain); stroke: var(--text); stroke-width: 1; }
.net path { fill: none; stroke: var(--edge); stroke-width: 1.4; }
.net .conv rect { fill: var(--conv); } .net .pool rect { fill: var(--pool); } .net .dense rect { fill: var(--dense); }
.net .other rect { fill: var(--other); } .net .add rect { fill: var(--add); }
.net .open rect, .net .pass rect, .net .none rect { fill: none; stroke: var(--edge); stroke-dasharray: 4 4; }
.net .open text, .net .pass text, .net .none text { fill: var(--faint); }
.net path.open, .net path.off { stroke-dasharray: 3 5; } .net path.off { opacity: .45; }
.net .was, .net .sign { font-size: 10.5px; }
.net .sign { font-size: 13px; font-weight: 700; fill: var(--plain); }
.net .added rect { stroke: var(--added); stroke-width: 2.2; } .net .added circle { fill: var(--added); }
.net .changed rect { stroke: var(--changed); stroke-width: 2.2; } .net .changed circle { fill: var(--changed); }
.net .removed rect { stroke: var(--removed); stroke-width: 1.6; } .net .removed circle { fill: var(--removed); }
.net .removed .was { text-decoration: line-through; }
"""
SIGNS = {"": "", "added": "+", "changed": "~", "removed": "−"}


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a drawing.

    Args:
        kind: what the layer is, which decides its colour: ``input``, ``output``, ``conv``, ``pool``, ``dense``,
            ``other``, ``add`` (a sum), ``pass`` (an identity), ``none`` (no connection) or ``open`` (not decided yet).
        label: what stands in it.
        inputs: the numbers of the earlier boxes that it reads.
        change: against an earlier design: ``added``, ``changed``, ``removed``, or "" where there is none.
        was: what stood there then, where that is something else.
    """

    kind: str
    label: str
    inputs: tuple[int, ...] = ()
    change: str = ""
    was: str = ""


def draw_boxes(boxes: Sequence[Box], title: str, width: int | None = None, style: str = STYLE) -> str:
    """The SVG of a drawing. Where boxes lie is decided by their inputs, and by which of them are sums, alone.

    Args:
        boxes: each after those that it reads.
        title: the text alternative.
        width: of a box in pixels; by default as the longest label needs it.
        style: CSS to bring along, none where the page has it.
    """
    width = width or box_width(text for box in boxes for text in (box.label, box.was))
    sizes = [NARROW if box.kind == "add" else width for box in boxes]
    routes = _routes(boxes)
    places = _places(boxes, routes, sizes)
    left = min(places[i,][0] - size / 2 for i, size in enumerate(sizes)) - MARGIN
    right = max(places[i,][0] + size / 2 for i, size in enumerate(sizes)) + MARGIN
    left, right = min(left, *(x for x, _ in places.values())), max(right, *(x for x, _ in places.values()))
    bottom = max(y for _, y in places.values()) + HEIGHT / 2 + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="net" viewBox="{left:g} 0 {right - left:g} {bottom:g}" '
        f'width="{right - left:g}" height="{bottom:g}" role="img"><title>{escape(title)}</title>'
    ]
    if style:
        parts.append(f"<style>{style}</style>")
    parts += [_arrow(boxes, route, [places[slot] for slot in route]) for route in routes]
    parts += [_drawn(box, *places[i,], sizes[i]) for i, box in enumerate(boxes)]
    return "\n".join([*parts, "</svg>\n"])


def box_width(labels: Iterable[str]) -> int:
    """Pixels that a box needs for the longest of these labels."""
    return 28 + round(7.2 * max((min(len(label), LONGEST) for label in labels), default=0))


def shortened(label: str) -> str:
    """A label as it is shown."""
    return label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"


def _depths(boxes: Sequence[Box]) -> list[int]:
    """The row of each box: below everything it reads."""
    depths: list[int] = []
    for number, box in enumerate(boxes):
        depths.append(1 + max((depths[source] for source in box.inputs), default=0) if number else 0)
    return depths


def _routes(boxes: Sequence[Box]) -> list[list[Slot]]:
    """For each edge the slots it passes, from box to box: a long edge has a place of its own in the rows between."""
    depths = _depths(boxes)
    return [
        [(source,), *((source, target, row) for row in range(depths[source] + 1, depths[target])), (target,)]
        for target, box in enumerate(boxes)
        for source in box.inputs
    ]


def _places(boxes: Sequence[Box], routes: list[list[Slot]], sizes: list[int]) -> dict[Slot, tuple[float, float]]:
    """Centres of the slots, the first at x = 0. A slot stands as near as it can below what it reads."""
    depths = _depths(boxes)
    rows: list[list[Slot]] = [[] for _ in range(max(depths) + 1)]
    for slot in dict.fromkeys([*((i,) for i in range(len(boxes))), *(slot for route in routes for slot in route)]):
        rows[depths[slot[0]] if len(slot) == 1 else slot[2]].append(slot)
    above: dict[Slot, list[Slot]] = {}
    for route in routes:
        for upper, lower in pairwise(route):
            above.setdefault(lower, []).append(upper)
    places: dict[Slot, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        wanted = {slot: fmean(places[up][0] for up in above[slot]) if slot in above else 0.0 for slot in row}
        ordered = sorted(row, key=wanted.__getitem__)
        widths = [float(sizes[slot[0]] if len(slot) == 1 else LANE) for slot in ordered]
        xs = _spread([wanted[slot] for slot in ordered], widths)
        places |= {
            slot: (x, MARGIN + HEIGHT / 2 + level * (HEIGHT + GAP[1])) for slot, x in zip(ordered, xs, strict=True)
        }
    return places


def _spread(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """Places as near to those wanted (in least squares) as things of these widths can stand beside each other."""
    offsets = [0.0]
    for one, other in pairwise(widths):
        offsets.append(offsets[-1] + (one + other) / 2 + GAP[0])
    blocks: list[list[float]] = []  # things that touch: the wanted place of the block's origin, and how many
    for place, offset in zip(wanted, offsets, strict=True):
        blocks.append([place - offset, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, count = blocks.pop()
            before, number = blocks[-1]
            blocks[-1] = [(mean * count + before * number) / (count + number), count + number]
    origins = [origin for origin, count in blocks for _ in range(int(count))]
    return [origin + offset for origin, offset in zip(origins, offsets, strict=True)]


def _arrow(boxes: Sequence[Box], route: list[Slot], places: list[tuple[float, float]]) -> str:
    (x, y), half, bend = places[0], HEIGHT / 2, GAP[1] / 2
    path = f"M{x:g} {y + half:g}"
    for number, (x1, y1) in enumerate(places[1:], start=1):
        path += f"C{x:g} {y + half + bend:g} {x1:g} {y1 - half - bend:g} {x1:g} {y1 - half:g}"
        if number < len(places) - 1:
            path += f"V{y1 + half:g}"
        x, y = x1, y1
    ends = (route[0][0], route[-1][0])
    kinds = {boxes[end].kind for end in ends}
    style = ' class="off"' if "none" in kinds else ' class="open"' if "open" in kinds else ""
    return f'<path{style} data-ends="{ends[0]} {ends[1]}" d="{path}"/>'


def _drawn(box: Box, x: float, y: float, width: float) -> str:
    """A box; the middle of it is its label's, the top is the label's where what it was stands below."""
    two = box.was and box.change != "removed"
    lines = {"label": "" if box.change == "removed" else box.label, "was": f"was {box.was}" if two else box.was}
    heights = {"label": y - 6 if two else y, "was": y + 9 if two else y}
    texts = [
        f'<text class="{name}" x="{x:g}" y="{heights[name]:g}">{escape(shortened(text))}</text>'
        for name, text in lines.items()
        if text
    ]
    if box.change:
        corner, top = x + width / 2 - 3, y - HEIGHT / 2 + 2
        texts.append(f'<circle cx="{corner:g}" cy="{top:g}" r="7.5"/>')
        texts.append(f'<text class="sign" x="{corner:g}" y="{top:g}">{SIGNS[box.change]}</text>')
    radius = HEIGHT / 2 if box.kind in ROUND else 7
    return (
        f'<g class="{" ".join(filter(None, (box.kind, box.change)))}"><rect x="{x - width / 2:g}" '
        f'y="{y - HEIGHT / 2:g}" width="{width:g}" height="{HEIGHT}" rx="{radius:g}"/>{"".join(texts)}</g>'
    )
