"""The readable reference: an architecture as a ``torch.nn.Module``.

Every weight is drawn from a generator of its own, seeded by the architecture, the task, the seed and the node it
belongs to. A network therefore depends on its proposal alone, and two isomorphic architectures are the same network.
"""

from __future__ import annotations

import hashlib
from math import prod, sqrt
from typing import TypeAlias

import torch
from torch import Tensor, nn

from rlnas.architecture import Architecture, misfit
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
    input_shapes,
)
from rlnas.task import FewShotTask

Weights: TypeAlias = tuple[tuple[Tensor, ...], ...]
"""For each node of a graph its parameters: of a convolution the kernel (out, in, k, k), the scale and the shift of its
batch norm; of a fully connected layer the matrix (out, in) and the bias; of the others none."""


class Network(nn.Module):
    """Runs a graph node by node; a node reads the sum of its inputs.

    Maps images of shape (N, C, H, W) to logits of shape (N, ways). All weights are 0 until :func:`build_network` draws
    them.
    """

    def __init__(self, graph: Graph, image_shape: Shape) -> None:
        super().__init__()
        self.graph = graph
        shapes = input_shapes(graph, image_shape)
        self.nodes = nn.ModuleList(_module(n.operation, s) for n, s in zip(graph, shapes, strict=True))

    def forward(self, images: Tensor) -> Tensor:
        return self._outputs(images, len(self.graph))[len(self.graph) - 1]

    def embed(self, images: Tensor) -> Tensor:
        """What the classifier reads, of shape (N, features); a single 0 where no path from the image reaches it."""
        last = self.graph[-1]
        if isinstance(last.operation, Constant):
            return images.new_zeros(len(images), 1)
        outputs = self._outputs(images, len(self.graph) - 1)
        return _sum(outputs, last).flatten(1)

    def _outputs(self, images: Tensor, count: int) -> dict[int, Tensor]:
        """What each of the first ``count`` nodes gives."""
        outputs = {INPUT: images}
        for index in range(count):
            outputs[index] = self.nodes[index](_sum(outputs, self.graph[index]))
        return outputs

    @torch.no_grad()
    def load_weights(self, weights: Weights) -> None:
        """Copy ``weights`` into the parameters."""
        for node, values in zip(self.nodes, weights, strict=True):
            for parameter, value in zip(node.parameters(), values, strict=True):
                parameter.copy_(value)


def build_network(architecture: Architecture, task: FewShotTask, seed: int = 0) -> Network:
    """The network of an architecture for a task, with the weights that ``seed`` draws.

    Args:
        architecture: what to build.
        task: gives the image shape and the number of classes.
        seed: which replicate of the random weights (He et al. 2015 scaling; biases 0).

    Raises:
        ConfigurationError: if the task's images are too small for the architecture.
    """
    graph = architecture.graph(task.ways)
    try:
        network = Network(graph, task.image_shape)
    except ValueError as error:
        raise misfit(architecture, task.image_shape, error) from None
    network.load_weights(random_weights(architecture, task, seed))
    return network


def random_weights(architecture: Architecture, task: FewShotTask, seed: int = 0) -> Weights:
    """The weights that ``seed`` draws for a network: He et al. 2015 scaling, biases 0, on the CPU.

    Raises:
        ValueError: if the task's images are too small for the architecture.
    """
    graph = architecture.graph(task.ways)
    nodes = enumerate(zip(graph, input_shapes(graph, task.image_shape), strict=True))
    replicate = architecture.key, task.digest, seed
    return tuple(draw_parameters(node.operation, shape, (*replicate, index)) for index, (node, shape) in nodes)


def draw_parameters(operation: Operation, shape: Shape, seed: tuple[object, ...]) -> tuple[Tensor, ...]:
    """An operation's parameters where it reads ``shape``, as ``seed`` draws them; see :func:`random_weights`."""
    kernel, *vectors = parameter_shapes(operation, shape) or [()]
    if not kernel:
        return ()
    generator = torch.Generator().manual_seed(_seed_of(seed))
    drawn = torch.randn(kernel, generator=generator) * sqrt(2 / prod(kernel[1:]))
    # A batch norm has a scale, which starts at 1, before its shift.
    rest = [torch.full(size, float(i == 0 and len(vectors) == 2)) for i, size in enumerate(vectors)]
    return (drawn, *rest)


def parameter_shapes(operation: Operation, shape: Shape) -> tuple[tuple[int, ...], ...]:
    """The shapes of an operation's parameters, as :data:`Weights` orders them, where it reads ``shape``."""
    match operation:
        case Conv(kernel, width):
            return (width, shape[0], kernel, kernel), (width,), (width,)
        case Dense(width) | Classifier(width):
            return (width, prod(shape)), (width,)
        case _:
            return ()


def _sum(outputs: dict[int, Tensor], node: Node) -> Tensor:
    """What a node reads."""
    total = outputs[node.inputs[0]]
    for source in node.inputs[1:]:
        total = total + outputs[source]
    return total


def _seed_of(parts: tuple[object, ...]) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


def _module(operation: Operation, shape: Shape) -> nn.Module:
    match operation:
        case Conv(kernel, width):
            convolution = _Convolution(shape[0], width, kernel, padding=kernel // 2, bias=False)
            # Momentum 1: the running statistics are those of the last training batch, the whole support set.
            return nn.Sequential(convolution, nn.BatchNorm2d(width, momentum=1.0), nn.ReLU())
        case MaxPool():
            return nn.MaxPool2d(2)
        case AvgPool(kernel):
            return nn.AvgPool2d(2) if kernel == 2 else nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        case Dense(width):
            return nn.Sequential(nn.Flatten(), _Linear(prod(shape), width), nn.ReLU())
        case Classifier(ways):
            return nn.Sequential(nn.Flatten(), _Linear(prod(shape), ways))
        case GlobalPool():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case Add():
            return nn.Identity()
        case Constant(ways):
            return _Constant(ways)


class _Convolution(nn.Conv2d):
    """Starts at zero: torch's own random start would cost time, and draws from the global generator."""

    def reset_parameters(self) -> None:
        _zero(self)


class _Linear(nn.Linear):
    """Starts at zero, as :class:`_Convolution` does."""

    def reset_parameters(self) -> None:
        _zero(self)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class _Constant(nn.Module):
    def __init__(self, ways: int) -> None:
        super().__init__()
        self.ways = ways

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), self.ways)
