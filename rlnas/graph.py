"""What an architecture computes: a list of operations, each fed by the sum of some earlier ones.

This is the one form in which every search space hands its networks to whoever builds, draws or counts them. It knows
shapes, parameters and multiply-accumulates, and nothing of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
"""Shape of one example: ``(channels, height, width)`` before flattening, ``(features,)`` after it."""

INPUT = -1
"""The index that stands for the image in a node's inputs."""


@dataclass(frozen=True, slots=True)
class Conv:
    """``kernel`` x ``kernel`` convolution (stride 1, same size, no bias), batch norm, ReLU."""

    kernel: int
    width: int

    def output_shape(self, shape: Shape) -> Shape:
        return (self.width, *shape[1:])

    def parameters(self, shape: Shape) -> int:
        return self.width * (shape[0] * self.kernel**2 + 2)

    def flops(self, shape: Shape) -> int:
        return self.width * shape[0] * self.kernel**2 * shape[1] * shape[2]


@dataclass(frozen=True, slots=True)
class MaxPool:
    """2 x 2 maximum, stride 2."""

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], shape[1] // 2, shape[2] // 2)

    def parameters(self, shape: Shape) -> int:
        return 0

    def flops(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class AvgPool:
    """Mean over ``kernel`` x ``kernel``; for 2 with stride 2, for 3 with stride 1, same size, borders not counted."""

    kernel: int = 2

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], shape[1] // 2, shape[2] // 2) if self.kernel == 2 else shape

    def parameters(self, shape: Shape) -> int:
        return 0

    def flops(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Dense:
    """Flatten, fully connected layer with bias, ReLU."""

    width: int

    def output_shape(self, shape: Shape) -> Shape:
        return (self.width,)

    def parameters(self, shape: Shape) -> int:
        return self.width * (prod(shape) + 1)

    def flops(self, shape: Shape) -> int:
        return self.width * prod(shape)


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of its inputs, and nothing more."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def parameters(self, shape: Shape) -> int:
        return 0

    def flops(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class GlobalPool:
    """Mean over all positions."""

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0],)

    def parameters(self, shape: Shape) -> int:
        return 0

    def flops(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Classifier:
    """Flatten, fully connected layer with bias to one logit a class; always the last node."""

    ways: int

    def output_shape(self, shape: Shape) -> Shape:
        return (self.ways,)

    def parameters(self, shape: Shape) -> int:
        return self.ways * (prod(shape) + 1)

    def flops(self, shape: Shape) -> int:
        return self.ways * prod(shape)


@dataclass(frozen=True, slots=True)
class Constant:
    """A classifier that no path from the image reaches: equal logits, chance accuracy, nothing to train."""

    ways: int

    def output_shape(self, shape: Shape) -> Shape:
        return (self.ways,)

    def parameters(self, shape: Shape) -> int:
        return 0

    def flops(self, shape: Shape) -> int:
        return 0


Operation: TypeAlias = Conv | MaxPool | AvgPool | Dense | Add | GlobalPool | Classifier | Constant


@dataclass(frozen=True, slots=True)
class Node:
    """One operation and the indices of the nodes whose sum it reads (:data:`INPUT` is the image)."""

    operation: Operation
    inputs: tuple[int, ...]


Graph: TypeAlias = tuple[Node, ...]


def input_shapes(graph: Graph, image: Shape) -> list[Shape]:
    """The shape that each node of ``graph`` reads when the network is given images of shape ``(C, H, W)``.

    Raises:
        ValueError: if the inputs of a node differ in shape or a pooling has nothing left to pool.
    """
    reads: list[Shape] = []
    gives: dict[int, Shape] = {INPUT: image}
    for index, node in enumerate(graph):
        shapes = {gives[source] for source in node.inputs}
        if len(shapes) != 1:
            raise ValueError(f"node {index} ({node.operation}) sums inputs of different shapes {sorted(shapes)}")
        shape = shapes.pop()
        reads.append(shape)
        gives[index] = node.operation.output_shape(shape)
        if 0 in gives[index]:
            raise ValueError(f"node {index} ({node.operation}) has nothing left of an input of shape {shape}")
    return reads


def count_parameters(graph: Graph, image: Shape) -> int:
    """Number of trainable parameters of the network."""
    return sum(n.operation.parameters(s) for n, s in zip(graph, input_shapes(graph, image), strict=True))


def count_flops(graph: Graph, image: Shape) -> int:
    """Multiply-accumulates of one forward pass of one image, convolutions and fully connected layers only."""
    return sum(n.operation.flops(s) for n, s in zip(graph, input_shapes(graph, image), strict=True))
