"""The algebra of NAS-Bench-201 cells: which of them are the same network, and what that network computes.

A cell has 4 nodes; node 0 is the input, node 3 the output, and each of the 6 edges carries one of 5 operations (Dong &
Yang 2020, https://arxiv.org/abs/2001.00326). A node is the sum of its incoming edges. Writing every node as a multiset
of *terms* (the input, or the output of one convolution or pooling) makes ``none`` vanish and ``skip_connect`` a union
of multisets; what the output does not use is dropped; equal poolings of equal nodes are one term; and two cells are
isomorphic when their terms can be numbered alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, permutations, product
from typing import TypeAlias

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
CELL_INPUT = -1

Terms: TypeAlias = tuple[int, ...]
"""A node as a sorted multiset of terms: :data:`CELL_INPUT`, or indices into the cell's list of applied operations."""

Cell: TypeAlias = tuple[tuple[tuple[str, Terms], ...], Terms]
"""Applied operations in an order of use, each with the terms it reads, and the terms that the output sums."""


@lru_cache(maxsize=2**15)
def canonical_cell(choices: Sequence[int]) -> Cell:
    """The network of a cell in the form that all cells isomorphic to it share.

    Args:
        choices: for each of :data:`EDGES` an index into :data:`OPERATIONS`, as a tuple.

    Returns:
        The applied operations and the output's terms; ``((), ())`` when no path joins input and output.
    """
    applied, output = _terms(choices)
    used = _used(applied, output)
    return min(_numberings(applied, output, used))


def cell_text(choices: Sequence[int]) -> str:
    """The cell in NAS-Bench-201's notation, ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""
    names = iter(OPERATIONS[c] for c in choices)
    return "+".join("|" + "|".join(f"{next(names)}~{i}" for i in range(node)) + "|" for node in (1, 2, 3))


def _terms(choices: Sequence[int]) -> tuple[list[tuple[str, Terms]], Terms]:
    applied: list[tuple[str, Terms]] = []
    nodes: list[Terms] = [(CELL_INPUT,), (), (), ()]
    for (source, target), choice in zip(EDGES, choices, strict=True):
        name, reads = OPERATIONS[choice], nodes[source]
        if name == "none" or not reads:
            continue
        if name == "skip_connect":
            nodes[target] = tuple(sorted(nodes[target] + reads))
            continue
        if name == "avg_pool_3x3" and (name, reads) in applied:
            term = applied.index((name, reads))
        else:
            term = len(applied)
            applied.append((name, reads))
        nodes[target] = tuple(sorted((*nodes[target], term)))
    return applied, nodes[3]


def _used(applied: list[tuple[str, Terms]], output: Terms) -> list[int]:
    wanted, used = list(output), set[int]()
    while wanted:
        term = wanted.pop()
        if term != CELL_INPUT and term not in used:
            used.add(term)
            wanted.extend(applied[term][1])
    return sorted(used)


def _numberings(applied: list[tuple[str, Terms]], output: Terms, used: list[int]) -> Iterator[Cell]:
    """Every numbering of the used terms that differs only among terms that look alike."""
    labels: dict[int, str] = {CELL_INPUT: "x"}
    for term in used:
        name, reads = applied[term]
        labels[term] = f"{name}({'+'.join(sorted(labels[r] for r in reads))})"

    def depth_first(term: int) -> tuple[int, str]:
        return len(labels[term]), labels[term]  # what a term reads has a shorter label, so it comes earlier

    alike = [list(group) for _, group in groupby(sorted(used, key=depth_first), key=depth_first)]
    for orders in product(*(permutations(group) for group in alike)):
        number = {CELL_INPUT: CELL_INPUT}
        for term in (t for order in orders for t in order):
            number[term] = len(number) - 1
        ordered = sorted(used, key=number.__getitem__)
        yield (
            tuple((applied[t][0], tuple(sorted(number[r] for r in applied[t][1]))) for t in ordered),
            tuple(sorted(number[t] for t in output)),
        )
