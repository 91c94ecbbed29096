"""Which nodes of many different networks are computed together, and in which order.

Nodes of different networks with the same operation and the same input shape form a *group*. An agenda orders the groups
so that every node comes after its inputs and the groups are few.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlnas.graph import INPUT, Add, Graph, Operation, Shape, input_shapes
from rlnas.stacked import Stacked, Weights
from rlnas.stacked_operations import stack

Place: TypeAlias = tuple[int, int]
"""A candidate and one of its nodes; node :data:`~rlnas.graph.INPUT` is its images."""

_Kind: TypeAlias = tuple[Operation, Shape, Place | None]
"""Nodes of one kind may be computed together."""


@dataclass(eq=False)
class Group:
    """Nodes that are computed together.

    Args:
        operation: what they compute.
        shape: what they read.
        members: the candidate and the node of each.
        sources: the places whose sum each member reads.
        trains: whether a parameter lies upstream of some member, so that the gradient at its input is of use.
        half: whether to convolve in bfloat16.
        alone: whether this is the one node of a network that is trained by itself.
    """

    operation: Operation
    shape: Shape
    members: list[Place]
    sources: list[tuple[Place, ...]]
    trains: bool
    half: bool = False
    alone: bool = False
    weights: Weights = field(default_factory=list)
    rates: Weights = field(default_factory=list)

    @cached_property
    def stacked(self) -> Stacked:
        return stack(self.operation, self.shape, self.half, self.alone)

    @cached_property
    def output_shape(self) -> Shape:
        return self.operation.output_shape(self.shape)

    @cached_property
    def candidates(self) -> NDArray[np.int64]:
        return np.array([candidate for candidate, _ in self.members])

    def per_candidate(self, values: Tensor, like: Tensor) -> Tensor:
        """Values of shape (candidates,) as one for each member, to be multiplied with a stacked parameter."""
        own = values[torch.from_numpy(self.candidates).to(values.device)]
        return own.view(-1, *[1] * (like.ndim - 1))


class Plan:
    """The groups of some networks, in the order of their computation.

    Args:
        graphs: one for each candidate; none may be a :class:`~rlnas.graph.Constant`.
        shapes: the image shape (C, H, W) of each candidate.
        alone: whether every node is a group of its own: for one candidate with large activations.
    """

    def __init__(self, graphs: Sequence[Graph], shapes: Sequence[Shape], alone: bool = False) -> None:
        self.graphs, self.shapes, self.alone = list(graphs), list(shapes), alone
        self.groups = _schedule(graphs, shapes, alone)
        self.place = {place: (g, m) for g, group in enumerate(self.groups) for m, place in enumerate(group.members)}

    def __len__(self) -> int:
        return len(self.graphs)

    def last(self, candidate: int) -> tuple[int, int]:
        """The group of a candidate's last node, and its member number there."""
        return self.place[candidate, len(self.graphs[candidate]) - 1]


def _schedule(graphs: Sequence[Graph], shapes: Sequence[Shape], alone: bool) -> list[Group]:
    """Groups in an order in which every node comes after its inputs: few of them.

    A group takes every node that is ready. Next comes the kind of node of which the smallest part still waits for
    something, and among those the kind with most nodes. A sum that one node alone reads is formed by its reader.
    """
    kinds: dict[Place, _Kind] = {}
    sources: dict[Place, tuple[Place, ...]] = {}
    readers: dict[Place, list[Place]] = defaultdict(list)
    trains: dict[Place, bool] = {}
    for candidate, (graph, image) in enumerate(zip(graphs, shapes, strict=True)):
        trains[candidate, INPUT] = False
        inputs = _without_sums(graph)
        for node, (entry, shape) in enumerate(zip(graph, input_shapes(graph, image), strict=True)):
            if node not in inputs:
                continue
            place = candidate, node
            kinds[place] = entry.operation, shape, place if alone else None
            sources[place] = tuple((candidate, source) for source in inputs[node])
            for source in set(sources[place]):
                readers[source].append(place)
            trains[place] = entry.operation.parameters(shape) > 0 or any(trains[s] for s in sources[place])
    missing = {place: len({s for s in own if s[1] != INPUT}) for place, own in sources.items()}
    ready: dict[_Kind, list[Place]] = defaultdict(list)
    waiting: dict[_Kind, int] = defaultdict(int)
    for place, kind in kinds.items():
        if missing[place]:
            waiting[kind] += 1
        else:
            ready[kind].append(place)
    groups = []
    while ready:
        kind = min(ready, key=lambda k: (waiting[k] / len(ready[k]), -len(ready[k]), repr(k)))
        members = sorted(ready.pop(kind))
        own = [sources[place] for place in members]
        trained = any(trains[s] for places in own for s in places)
        groups.append(Group(*kind[:2], members, own, trained, alone=alone))
        for reader in (r for place in members for r in readers[place]):
            missing[reader] -= 1
            if not missing[reader]:
                waiting[kinds[reader]] -= 1
                ready[kinds[reader]].append(reader)
    return groups


def _without_sums(graph: Graph) -> dict[int, tuple[int, ...]]:
    """The inputs of every node but the sums that a single node reads, whose inputs become that node's."""
    inputs = {node: entry.inputs for node, entry in enumerate(graph)}
    readers: dict[int, list[int]] = defaultdict(list)
    for node, entry in enumerate(graph):
        for source in entry.inputs:
            readers[source].append(node)
    for node, entry in enumerate(graph):
        if isinstance(entry.operation, Add) and len(readers[node]) == 1:
            (reader,) = readers[node]
            position = inputs[reader].index(node)
            inputs[reader] = (*inputs[reader][:position], *inputs.pop(node), *inputs[reader][position + 1 :])
    return inputs
