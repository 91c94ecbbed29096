"""Designs in the making, as boxes to draw: the choices so far by their names, compared with an earlier design."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from rlnas.cell import EDGES
from rlnas.layered import Box
from rlnas.search_space import CellSpace, SearchSpace

Names: TypeAlias = Sequence[str | None]
"""The choice of each decision by its name; None where it is not taken yet."""


def sketch(space: SearchSpace, names: Names, before: Names = ()) -> tuple[Box, ...]:
    """A design in the making.

    Args:
        space: whose decisions.
        names: the choices so far.
        before: those of the design to compare with, if any; what it had not decided is not compared.
    """
    if isinstance(space, CellSpace):
        return _cell(names, before)
    return _BY_TABLE.get(getattr(space, "known_as", None), _chain)(names, before)


def sketch_layers(layers: Sequence[str], before: Sequence[str] | None = None) -> tuple[Box, ...]:
    """A chain of layers, compared with another that may have more or fewer.

    Args:
        layers: names, in order.
        before: those of the design to compare with.
    """
    if before is None:
        return _chain(layers)
    names, olds = _aligned(layers, before)
    return _chain(names, olds)


def named(choice: str | None) -> tuple[str, str]:
    """Kind and label of the layer that a choice's name stands for."""
    if choice is None:
        return "open", "?"
    if found := re.fullmatch(r"(?:nor_)?conv_?(\d+)x\1(?:-(\d+))?", choice):
        return "conv", f"conv {found[1]}×{found[1]}" + (f", {found[2]}" if found[2] else "")
    if found := re.fullmatch(r"(max|avg)[-_]pool(?:_(\d+)x\2)?", choice):
        return "pool", f"{found[1]} pool" + (f" {found[2]}×{found[2]}" if found[2] else "")
    if found := re.fullmatch(r"dense-(\d+)", choice):
        return "dense", f"dense {found[1]}"
    if choice in ("identity", "skip", "skip_connect"):
        return "pass", choice.replace("_connect", "")
    return ("none", "none") if choice == "none" else ("other", choice)


def _chain(names: Names, before: Names = ()) -> tuple[Box, ...]:
    """Layers one after the other."""
    layers = [_compared(name, _at(before, i), (i,), "pass") for i, name in enumerate(names)]
    return (Box("input", "input"), *layers, Box("output", "output", (len(layers),)))


def _cell(names: Names, before: Names = ()) -> tuple[Box, ...]:
    """A cell of 4 nodes (Dong & Yang 2020): each choice is the operation of one of :data:`~rlnas.cell.EDGES`."""
    boxes, nodes = [Box("input", "input")], [0]
    for target in range(1, 4):
        reads = []
        for i, (source, end) in enumerate(EDGES):
            if end == target:
                reads.append(len(boxes))
                boxes.append(_compared(names[i], _at(before, i), (nodes[source],), "none"))
        nodes.append(len(boxes))
        boxes.append(Box("add", "+", tuple(reads)))
    return (*boxes, Box("output", "output", (nodes[-1],)))


def _linked(names: Names, before: Names = ()) -> tuple[Box, ...]:
    """Nodes that read one earlier node each (Qin et al. 2022): first what each reads, then its operation."""
    count = len(names) // 2
    boxes, read = [Box("input", "input")], set[int]()
    for i, (link, name) in enumerate(zip(names, names[count:], strict=False)):
        inputs = (int(link),) if link is not None and link.isdecimal() and int(link) <= i else ()
        old_link, old = _at(before, i), _at(before, count + i)
        box = _compared(name, old, inputs, "none")
        if name is not None and name == old and link != old_link is not None:
            box = Box(box.kind, box.label, inputs, "changed", "another input")
        read.update(inputs)
        boxes.append(box)
    leaves = tuple(i for i in range(1, count + 1) if i not in read)
    return (*boxes, Box("output", "output", leaves))


_BY_TABLE: dict[str | None, Callable[[Names, Names], tuple[Box, ...]]] = {
    "nasbench201": _cell,
    "transnas": _cell,
    "nbgraph": _linked,
}
"""What the designs of known tables look like; those of others are drawn as chains."""


def _at(names: Names, place: int) -> str | None:
    return names[place] if place < len(names) else None


def _compared(name: str | None, old: str | None, inputs: tuple[int, ...], nothing: str) -> Box:
    """The box of a choice that was another before, where a kind of layer is as good as none."""
    (kind, label), (old_kind, old_label) = named(name), named(old)
    if name is None or old is None or name == old:
        return Box(kind, label, inputs)
    if old_kind == nothing:
        return Box(kind, label, inputs, "added")
    return Box(kind, label, inputs, "removed" if kind == nothing else "changed", old_label)


def _aligned(now: Sequence[str], before: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both with identities put in so that as few layers as can be differ; of two equal ways the one that changes."""
    costs = [[abs(i - j) * 2 for j in range(len(before) + 1)] for i in range(len(now) + 1)]
    for i, new in enumerate(now, start=1):
        for j, old in enumerate(before, start=1):
            same = costs[i - 1][j - 1] + (0 if new == old else 3)
            costs[i][j] = min(same, costs[i - 1][j] + 2, costs[i][j - 1] + 2)
    names, olds, i, j = [], [], len(now), len(before)
    while i or j:
        matched = i and j and costs[i][j] == costs[i - 1][j - 1] + (0 if now[i - 1] == before[j - 1] else 3)
        added = not matched and i and costs[i][j] == costs[i - 1][j] + 2
        names.append("identity" if not (matched or added) else now[i - 1])
        olds.append("identity" if added else before[j - 1])
        i, j = i - bool(matched or added), j - (not added)
    return names[::-1], olds[::-1]
