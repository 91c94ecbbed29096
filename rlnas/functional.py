"""A graph as a pure function of its weights: differentiable as often as one likes, in any floating-point type.

:class:`~rlnas.network.Network` is the readable reference; this is the same network for whoever must differentiate
through its training, as meta-learning does. ``N`` images of shape (C, H, W), the first of them the ``support`` images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rlnas.graph import INPUT, AvgPool, Classifier, Constant, Conv, Dense, GlobalPool, Graph, MaxPool, Operation
from rlnas.network import Weights

_EPSILON = 1e-5
"""That of torch's batch norm, which the reference uses."""


def run(graph: Graph, weights: Weights, images: Tensor, support: int | None = None) -> Tensor:
    """The logits of a network.

    Args:
        graph: what to compute.
        weights: its parameters, on the images' device.
        images: (N, C, H, W).
        support: number of leading images that batch norm measures. They are normalised by their own mean and (biased)
            variance, those that follow by the same mean and the unbiased variance: what the reference does when it is
            adapted on the one and scored on the other. None: all images are measured together (the *transductive*
            convention of the literature on MAML, where a query image's prediction depends on its neighbours).

    Returns:
        Of shape (N, ways). Gradients flow through the measured statistics too.
    """
    operation = graph[-1].operation
    if isinstance(operation, Constant):
        return images.new_zeros(len(images), operation.ways)
    return F.linear(embed(graph, weights, images, support), *weights[-1])


def embed(graph: Graph, weights: Weights, images: Tensor, support: int | None = None) -> Tensor:
    """What the classifier of a network reads: see :func:`run`.

    Returns:
        Of shape (N, features); a single 0 for each image where no path from the image reaches the classifier.
    """
    if isinstance(graph[-1].operation, Constant):
        return images.new_zeros(len(images), 1)
    outputs = {INPUT: images}
    for index, (node, values) in enumerate(zip(graph, weights, strict=True)):
        total = outputs[node.inputs[0]]
        for source in node.inputs[1:]:
            total = total + outputs[source]
        if isinstance(node.operation, Classifier):
            return total.flatten(1)
        outputs[index] = _apply(node.operation, values, total, support)
    raise ValueError("the graph ends in no classifier")


def _apply(operation: Operation, values: tuple[Tensor, ...], inputs: Tensor, support: int | None) -> Tensor:
    match operation:
        case Conv(kernel):
            convolved = F.conv2d(inputs, values[0], padding=kernel // 2)
            return F.relu(_normalise(convolved, values[1], values[2], support))
        case Dense():
            return F.relu(F.linear(inputs.flatten(1), *values))
        case MaxPool():
            return F.max_pool2d(inputs, 2)
        case AvgPool(2):
            return F.avg_pool2d(inputs, 2)
        case AvgPool():
            return F.avg_pool2d(inputs, 3, stride=1, padding=1, count_include_pad=False)
        case GlobalPool():
            return inputs.mean((2, 3))
        case _:
            return inputs


def _normalise(inputs: Tensor, scale: Tensor, shift: Tensor, support: int | None) -> Tensor:
    if support is None:
        return F.batch_norm(inputs, None, None, scale, shift, training=True, eps=_EPSILON)
    first = F.batch_norm(inputs[:support], None, None, scale, shift, training=True, eps=_EPSILON)
    if support == len(inputs):
        return first
    variance, mean = torch.var_mean(inputs[:support], (0, 2, 3))
    gain = scale * torch.rsqrt(variance + _EPSILON)
    rest = inputs[support:] * gain[:, None, None] + (shift - mean * gain)[:, None, None]
    return torch.cat([first, rest])
