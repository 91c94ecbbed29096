"""Isomorphism of cells, checked against definitions that share no code with the canonical form."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from itertools import permutations, product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rlnas.cell import EDGES, OPERATIONS, canonical_cell, cell_text
from rlnas.errors import IllegalChoiceError, UnknownNameError
from rlnas.network import build_network
from rlnas.search_space import CellSpace
from rlnas.task import FewShotTask

Choices = tuple[int, ...]
ALL_CELLS: list[Choices] = list(product(range(5), repeat=6))
NONE, SKIP, CONV1, CONV3, POOL = range(5)


def _live_edges(choices: Choices) -> list[int]:
    """Numbers of the edges that lie on a path from input to output."""
    open_edges = [edge for edge, choice in zip(EDGES, choices, strict=True) if choice != NONE]
    from_input, to_output = {0}, {3}
    for source, target in sorted(open_edges):
        if source in from_input:
            from_input.add(target)
    for source, target in sorted(open_edges, reverse=True):
        if target in to_output:
            to_output.add(source)
    live = [e for e in open_edges if e[0] in from_input and e[1] in to_output]
    return [EDGES.index(edge) for edge in live]


@cache
def _assignments(choices: Choices) -> list[dict[int, int]]:
    """Every way to give the live 1x1 convolutions weights 0, 1, ... of their kind, and the 3x3 ones theirs."""
    live = _live_edges(choices)
    first, second = ([e for e in live if choices[e] == kind] for kind in (CONV1, CONV3))
    return [
        {**dict(zip(first, one, strict=True)), **dict(zip(second, other, strict=True))}
        for one in permutations(range(len(first)))
        for other in permutations(range(len(second)))
    ]


def _signature(choices: Choices) -> tuple[float, ...]:
    """Outputs of the cell for all assignments of one list of random weights to its live convolutions, as a multiset.

    Convolutions are random nonlinear maps of a number, each weight another one, and pooling is one fixed map. Two cells
    have equal multisets exactly if some correspondence of their weights makes them the same function.
    """
    rng = np.random.default_rng(3)
    scale, shift = rng.uniform(0.5, 2, (2, 6)), rng.uniform(-1, 1, (2, 6))
    assignments = _assignments(choices)
    nodes: list[NDArray[np.float64]] = [np.zeros(len(assignments)) for _ in range(4)]
    nodes[0] += 0.7315
    reached = {0}
    for number, ((source, target), choice) in enumerate(zip(EDGES, choices, strict=True)):
        if choice == NONE or source not in reached:
            continue  # what the input does not reach is no operation on zeros, but absent
        reached.add(target)
        x = nodes[source]
        if choice == SKIP:
            nodes[target] = nodes[target] + x
        elif choice == POOL:
            nodes[target] = nodes[target] + np.cos(1.7 * x + 0.3)
        elif number in assignments[0]:
            weights = [a[number] for a in assignments]
            kind = choice - CONV1
            nodes[target] = nodes[target] + np.sin(scale[kind, weights] * x + shift[kind, weights])
    kinds = sorted(choices[e] for e in assignments[0])
    return (*kinds, *np.sort(nodes[3]).round(9).tolist())


def test_equal_forms_exactly_where_a_correspondence_of_weights_makes_equal_functions() -> None:
    by_signature: dict[object, set[object]] = defaultdict(set)
    by_form: dict[object, set[object]] = defaultdict(set)
    for choices in ALL_CELLS:
        signature, form = _signature(choices), canonical_cell(choices)
        by_signature[signature].add(form)
        by_form[form].add(signature)
    assert all(len(forms) == 1 for forms in by_signature.values())
    assert all(len(signatures) == 1 for signatures in by_form.values())
    # Fewer than the 6,466 of the benchmark, which compares expressions: those keep some dead edges and tell a branch
    # that two nodes share from two branches alike.
    assert len(by_form) == len(by_signature) == 5_260


def test_cells_without_a_path_are_one_network() -> None:
    unreached = [c for c in ALL_CELLS if not _live_edges(c)]
    assert len(unreached) == 341
    assert {canonical_cell(c) for c in unreached} == {((), ())}
    assert sum(canonical_cell(c) == ((), ()) for c in ALL_CELLS) == 341


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ((SKIP, CONV3, NONE, NONE, NONE, SKIP), (CONV3, NONE, NONE, NONE, SKIP, NONE), True),  # one branch, two places
        ((CONV3, NONE, NONE, NONE, CONV3, POOL), (CONV3, NONE, NONE, NONE, CONV3, NONE), True),  # a dead pooling
        ((CONV3, NONE, NONE, CONV3, SKIP, NONE), (CONV3, CONV3, NONE, NONE, SKIP, SKIP), True),  # two convolutions
        ((CONV3, NONE, NONE, NONE, SKIP, NONE), (CONV3, NONE, NONE, CONV3, SKIP, NONE), False),  # one or two of them
        ((CONV3, SKIP, NONE, NONE, SKIP, NONE), (CONV3, SKIP, SKIP, NONE, NONE, SKIP), False),  # x is added or not
        ((CONV3, NONE, SKIP, NONE, SKIP, SKIP), (CONV3, CONV3, NONE, NONE, SKIP, SKIP), False),  # twice one, or two
        ((POOL, NONE, SKIP, NONE, SKIP, SKIP), (POOL, POOL, NONE, NONE, SKIP, SKIP), True),  # poolings have no weights
        ((CONV1, NONE, NONE, NONE, CONV3, NONE), (CONV3, NONE, NONE, NONE, CONV1, NONE), False),  # order matters
    ],
)
def test_isomorphism_by_hand(first: Choices, second: Choices, same: bool) -> None:
    assert (canonical_cell(first) == canonical_cell(second)) is same


def test_keys_are_equal_exactly_where_forms_are() -> None:
    space = CellSpace()
    keys = {(canonical_cell(c), space.decode(c).key) for c in ALL_CELLS}
    assert len(keys) == len({key for _, key in keys}) == 5_260


def test_a_canonical_text_is_a_cell_of_its_own_class() -> None:
    space = CellSpace()
    rng = np.random.default_rng(0)
    for number in rng.choice(len(ALL_CELLS), 300, replace=False):
        architecture = space.decode(ALL_CELLS[number])
        again = space.parse(architecture.text)
        assert canonical_cell(again.choices) == canonical_cell(architecture.choices)
        assert again.choices <= architecture.choices
        assert cell_text(again.choices) == architecture.text


def test_benchmark_notation() -> None:
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
    choices = (CONV3, NONE, SKIP, POOL, CONV1, NONE)
    assert cell_text(choices) == text
    assert CellSpace().parse(text).choices == choices


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "|none~0|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~1|",
        "|none~0|none~0|none~1|none~0|none~1|none~2|",
    ],
)
def test_other_notations_are_refused(text: str) -> None:
    with pytest.raises((IllegalChoiceError, UnknownNameError)):
        CellSpace().parse(text)


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(UnknownNameError, match="'nor_conv_5x5'; did you mean"):
        CellSpace().parse("|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|")


# ---- the built network against a naive one that walks the edges


def _tiny_task() -> FewShotTask:
    rng = np.random.default_rng(0)
    images = rng.random((8, 2, 4, 4))
    labels = np.arange(8) % 2
    return FewShotTask("t:train/0", "noise", images[:4], labels[:4], images[4:], labels[4:])


def _naive_cell(choices: Choices, weights: dict[int, nn.Module], x: Tensor) -> Tensor | None:
    """Node by node, edge by edge; ``weights`` gives each live convolution's edge its module."""
    nodes: list[Tensor | None] = [x, None, None, None]
    for number, ((source, target), choice) in enumerate(zip(EDGES, choices, strict=True)):
        read = nodes[source]
        if choice == NONE or read is None or (choice in (CONV1, CONV3) and number not in weights):
            continue
        if choice == POOL:
            read = F.avg_pool2d(read, 3, stride=1, padding=1, count_include_pad=False)
        elif choice != SKIP:
            read = weights[number](read)
        nodes[target] = read if nodes[target] is None else nodes[target] + read
    return nodes[3]


def test_the_network_computes_what_the_edges_say() -> None:
    """For each random cell, some assignment of the network's convolutions to the cell's edges gives its logits."""
    space, task, rng = CellSpace(width=3, cells=1), _tiny_task(), np.random.default_rng(5)
    images = torch.from_numpy(task.query_x.copy())
    checked = 0
    while checked < 120:
        choices = tuple(rng.integers(0, 5, 6).tolist())
        if not _live_edges(choices):
            continue
        network = build_network(space.decode(choices), task).eval()
        stem, head = network.nodes[0], network.nodes[-1]
        convolutions = {
            kind: [m for m in list(network.nodes)[1:] if isinstance(m, nn.Sequential) and _kernel(m) == size]
            for kind, size in ((CONV1, 1), (CONV3, 3))
        }
        with torch.no_grad():
            logits, found = network(images), False
            for assignment in _assignments(choices):
                weights = {edge: convolutions[choices[edge]][number] for edge, number in assignment.items()}
                output = _naive_cell(choices, weights, stem(images))
                assert output is not None
                found |= torch.allclose(head(output.mean((2, 3))), logits, atol=1e-5)
        assert sum(map(len, convolutions.values())) == len(_assignments(choices)[0])
        assert found, choices
        checked += 1


def _kernel(module: nn.Sequential) -> int:
    first = module[0]
    return first.kernel_size[0] if isinstance(first, nn.Conv2d) else 0


def test_isomorphic_cells_are_the_same_network() -> None:
    space, task, rng = CellSpace(width=3), _tiny_task(), np.random.default_rng(6)
    classes = defaultdict(list)
    for choices in ALL_CELLS:
        classes[canonical_cell(choices)].append(choices)
    several = [members for members in classes.values() if len(members) > 1]
    images = torch.from_numpy(task.query_x.copy())
    for number in rng.choice(len(several), 60, replace=False):
        members = [space.decode(c) for c in rng.permutation(several[number])[:3]]
        networks = [build_network(m, task, seed=1).eval() for m in members]
        assert len({m.graph(2) for m in members}) == 1
        with torch.no_grad():
            logits = [network(images) for network in networks]
        assert all(torch.equal(logits[0], other) for other in logits)


def test_operations_are_the_benchmarks_in_its_order() -> None:
    assert OPERATIONS == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    assert EDGES == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
