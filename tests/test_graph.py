from __future__ import annotations

import pytest

from rlnas.graph import (
    INPUT,
    Add,
    AvgPool,
    Classifier,
    Constant,
    Conv,
    Dense,
    GlobalPool,
    Graph,
    MaxPool,
    Node,
    Operation,
    Shape,
    count_flops,
    count_parameters,
    input_shapes,
)


def chain(*operations: Operation) -> Graph:
    return tuple(Node(operation, (i - 1,)) for i, operation in enumerate(operations))


@pytest.mark.parametrize(
    ("operation", "reads", "gives", "parameters", "flops"),
    [
        (Conv(3, 8), (2, 5, 7), (8, 5, 7), 8 * 2 * 9 + 16, 8 * 2 * 9 * 35),
        (Conv(1, 4), (3, 2, 2), (4, 2, 2), 4 * 3 + 8, 4 * 3 * 4),
        (MaxPool(), (4, 5, 7), (4, 2, 3), 0, 0),
        (AvgPool(2), (4, 5, 7), (4, 2, 3), 0, 0),
        (AvgPool(3), (4, 5, 7), (4, 5, 7), 0, 0),
        (Dense(10), (4, 3, 2), (10,), 250, 240),
        (Dense(10), (6,), (10,), 70, 60),
        (Add(), (4, 3, 2), (4, 3, 2), 0, 0),
        (GlobalPool(), (4, 3, 2), (4,), 0, 0),
        (Classifier(5), (4, 3, 2), (5,), 125, 120),
        (Constant(5), (4, 3, 2), (5,), 0, 0),
    ],
)
def test_what_each_operation_costs(
    operation: Operation, reads: Shape, gives: Shape, parameters: int, flops: int
) -> None:
    assert operation.output_shape(reads) == gives
    assert operation.parameters(reads) == parameters
    assert operation.flops(reads) == flops


def test_a_chain_by_hand() -> None:
    graph = chain(Conv(3, 4), MaxPool(), Dense(6), Classifier(3))
    assert input_shapes(graph, (1, 8, 8)) == [(1, 8, 8), (4, 8, 8), (4, 4, 4), (6,)]
    assert count_parameters(graph, (1, 8, 8)) == (4 * 9 + 8) + (6 * 64 + 6) + (3 * 6 + 3)
    assert count_flops(graph, (1, 8, 8)) == 4 * 9 * 64 + 6 * 64 + 3 * 6


def test_branches_are_summed() -> None:
    graph = (
        Node(Conv(3, 4), (INPUT,)),
        Node(Conv(1, 4), (0,)),
        Node(Add(), (0, 1, 1)),
        Node(GlobalPool(), (2,)),
        Node(Classifier(2), (3,)),
    )
    assert input_shapes(graph, (3, 5, 5)) == [(3, 5, 5), (4, 5, 5), (4, 5, 5), (4, 5, 5), (4,)]
    assert count_parameters(graph, (3, 5, 5)) == (4 * 27 + 8) + (16 + 8) + 10


def test_different_shapes_cannot_be_summed() -> None:
    graph = (Node(Conv(3, 4), (INPUT,)), Node(Add(), (0, INPUT)))
    with pytest.raises(ValueError, match=r"node 1 .* different shapes \[\(3, 5, 5\), \(4, 5, 5\)\]"):
        input_shapes(graph, (3, 5, 5))


@pytest.mark.parametrize("image", [(1, 1, 4), (1, 4, 1)])
def test_nothing_left_to_pool(image: Shape) -> None:
    with pytest.raises(ValueError, match=r"node 0 \(MaxPool\(\)\) has nothing left of an input of shape"):
        count_flops(chain(MaxPool(), Classifier(2)), image)
