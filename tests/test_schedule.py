from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from rlnas.graph import INPUT, Add, Classifier, Constant, Conv, Dense, Graph, MaxPool, Node, Shape, input_shapes
from rlnas.schedule import Plan
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace

SIDES = (8, 12)


def random_graphs(space: SearchSpace, count: int, seed: int = 0) -> tuple[list[Graph], list[Shape]]:
    rng = np.random.default_rng(seed)
    graphs = [space.sample(rng).graph(int(rng.integers(3, 11))) for _ in range(count)]
    graphs = [graph for graph in graphs if not isinstance(graph[-1].operation, Constant)]
    sides = [SIDES[int(rng.integers(2))] for _ in graphs]
    return graphs, [(1, side, side) for side in sides]


def mixed_graphs() -> tuple[list[Graph], list[Shape]]:
    parts = [random_graphs(space, 40) for space in (ChainSpace(), CellSpace())]
    return parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]


def readers(graph: Graph, node: int) -> int:
    return sum(entry.inputs.count(node) for entry in graph)


def summands(graph: Graph, node: int) -> Counter[int]:
    """What a node reads, with the summands of the sums that it alone reads in their place."""
    found: Counter[int] = Counter()
    for source in graph[node].inputs:
        folded = source != INPUT and isinstance(graph[source].operation, Add) and readers(graph, source) == 1
        found += summands(graph, source) if folded else Counter([source])
    return found


def has_parameters_upstream(graph: Graph, image: Shape, node: int) -> bool:
    shapes = input_shapes(graph, image)
    return any(
        graph[source].operation.parameters(shapes[source]) > 0 or has_parameters_upstream(graph, image, source)
        for source in graph[node].inputs
        if source != INPUT
    )


def test_every_node_comes_once_and_after_what_it_reads() -> None:
    graphs, shapes = mixed_graphs()
    done = {(candidate, INPUT) for candidate in range(len(graphs))}
    for group in Plan(graphs, shapes).groups:
        for sources in group.sources:
            assert done.issuperset(sources)
        assert done.isdisjoint(group.members)
        done.update(group.members)
    expected = {
        (candidate, node)
        for candidate, graph in enumerate(graphs)
        for node, entry in enumerate(graph)
        if not (isinstance(entry.operation, Add) and readers(graph, node) == 1)
    }
    assert done == expected | {(candidate, INPUT) for candidate in range(len(graphs))}


def test_members_of_a_group_are_alike_and_read_what_their_networks_say() -> None:
    graphs, shapes = mixed_graphs()
    plan = Plan(graphs, shapes)
    reads = [input_shapes(graph, image) for graph, image in zip(graphs, shapes, strict=True)]
    for number, group in enumerate(plan.groups):
        for member, ((candidate, node), sources) in enumerate(zip(group.members, group.sources, strict=True)):
            assert graphs[candidate][node].operation == group.operation
            assert reads[candidate][node] == group.shape
            assert {owner for owner, _ in sources} == {candidate}
            assert Counter(source for _, source in sources) == summands(graphs[candidate], node)
            assert plan.place[candidate, node] == (number, member)
        assert group.trains == any(has_parameters_upstream(graphs[c], shapes[c], node) for c, node in group.members)
    assert len(plan) == len(graphs)
    for candidate, graph in enumerate(graphs):
        number, member = plan.last(candidate)
        assert plan.groups[number].members[member] == (candidate, len(graph) - 1)


def test_the_groups_of_many_cells_are_few() -> None:
    """On images of one size and with one number of classes, 670 nodes take 20 groups."""
    graphs, _ = random_graphs(CellSpace(), 64)
    graphs = [(*graph[:-1], Node(Classifier(5), graph[-1].inputs)) for graph in graphs]
    groups = Plan(graphs, [(1, 8, 8)] * len(graphs)).groups
    assert sum(len(group.members) for group in groups) > 600
    assert len(groups) < 30


def test_equal_networks_take_no_more_groups_than_one() -> None:
    (graph, *_), (shape, *_) = random_graphs(CellSpace(), 3)
    one = Plan([graph], [shape]).groups
    many = Plan([graph] * 7, [shape] * 7).groups
    assert [(g.operation, g.shape, 7 * len(g.members)) for g in one] == [
        (g.operation, g.shape, len(g.members)) for g in many
    ]


def test_a_plan_is_the_same_every_time() -> None:
    first, second = (Plan(*mixed_graphs()).groups for _ in range(2))
    assert [(g.operation, g.shape, g.members, g.sources, g.trains) for g in first] == [
        (g.operation, g.shape, g.members, g.sources, g.trains) for g in second
    ]


def test_sums_are_formed_by_their_only_reader() -> None:
    graph = (
        Node(Conv(3, 1), (INPUT,)),
        Node(Add(), (0, INPUT)),
        Node(Add(), (1, 0)),  # reads a sum that is folded into it, and is folded itself
        Node(Conv(3, 1), (2, 2)),  # reads it twice: not alone
        Node(Add(), (3, 3)),
        Node(Classifier(2), (4,)),
    )
    groups = Plan([graph], [(1, 4, 4)]).groups
    sources = {member: own for group in groups for member, own in zip(group.members, group.sources, strict=True)}
    assert set(sources) == {(0, 0), (0, 2), (0, 3), (0, 5)}
    assert Counter(sources[0, 2]) == Counter({(0, 0): 2, (0, INPUT): 1})
    assert Counter(sources[0, 3]) == Counter({(0, 2): 2})
    assert Counter(sources[0, 5]) == Counter({(0, 3): 2})


def test_a_group_waits_for_those_that_will_join_it() -> None:
    """One network pools at once and the other after a convolution: one pooling serves both."""
    early = (Node(MaxPool(), (INPUT,)), Node(Classifier(2), (0,)))
    late = (Node(Conv(3, 1), (INPUT,)), Node(MaxPool(), (0,)), Node(Classifier(2), (1,)))
    groups = Plan([early, late], [(1, 4, 4)] * 2).groups
    assert [(group.operation, group.members) for group in groups] == [
        (Conv(3, 1), [(1, 0)]),
        (MaxPool(), [(0, 0), (1, 1)]),
        (Classifier(2), [(0, 1), (1, 2)]),
    ]
    assert [group.trains for group in groups] == [False, True, True]


def test_networks_that_do_not_fit_are_refused() -> None:
    graph = (Node(MaxPool(), (INPUT,)), Node(Dense(2), (0,)), Node(Classifier(2), (1,)))
    with pytest.raises(ValueError, match="nothing left"):
        Plan([graph], [(1, 1, 1)])
