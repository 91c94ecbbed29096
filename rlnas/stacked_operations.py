"""Every operation of a graph in its stacked form."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rlnas.graph import Add, AvgPool, Classifier, Conv, Dense, GlobalPool, MaxPool, Operation, Shape
from rlnas.stacked import LANES, Block, Rows, Stacked, Statistics, Weights, as_images, flatten
from rlnas.stacked_convolution import LoneConv, StackedConv


class StackedPool(Stacked):
    """Pooling, which has no parameters and treats every channel alike."""

    def __init__(self, operation: MaxPool | AvgPool | GlobalPool, shape: Shape) -> None:
        super().__init__(shape)
        self.operation = operation
        self._ones: Tensor | None = None
        self._inverse: Tensor | None = None

    def forward(self, weights: Weights, x: Tensor, out: Tensor, rows: Rows, fixed: Statistics | None = None) -> Any:
        images, pooled, indices = as_images(x, self.shape), as_images(out, self._pooled_shape), None
        match self.operation:
            case MaxPool():
                maxima, indices = torch.ops.aten.max_pool2d_with_indices(images, [2, 2], [2, 2])
                pooled.copy_(maxima)
            case AvgPool(3):
                torch.mul(self._sum_3x3(images), self._inverse_counts(x), out=pooled)
            case AvgPool() if self._even:
                above, below = self._windows(x).unbind(2)
                left, right = (above + below).unbind(3)
                torch.add(left, right, out=out.view(left.shape)).mul_(0.25)
            case AvgPool():
                pooled.copy_(F.avg_pool2d(images, 2))
            case _:
                pooled.copy_(F.avg_pool2d(images, self.shape[1:]))
        return images, indices

    def backward(self, weights: Weights, saved: Any, gradient: Tensor, g_x: Tensor | None, rows: Rows) -> Weights:
        if g_x is None:
            return []
        images, indices = saved
        g = as_images(gradient, self._pooled_shape)
        match self.operation:
            case MaxPool():
                g = torch.ops.aten.max_pool2d_with_indices_backward(
                    g, images, [2, 2], [2, 2], [0, 0], [1, 1], False, indices
                )
            case AvgPool(3):
                g = self._sum_3x3(g * self._inverse_counts(gradient))
            case AvgPool() if self._even:
                _, height, width = self._pooled_shape
                quarter = (gradient * 0.25).view(-1, height, 1, width, 1, gradient[0].numel())
                self._windows(g_x).copy_(quarter)
                return []
            case AvgPool():
                g = torch.ops.aten.avg_pool2d_backward(g, images, [2, 2], [2, 2], [0, 0], False, True, None)
            case _:
                g = g / prod(self.shape[1:])
        as_images(g_x, self.shape).copy_(g)
        return []

    @property
    def _pooled_shape(self) -> Shape:
        return self.shape[0], *(self.operation.output_shape(self.shape)[1:] or (1, 1))

    @property
    def _even(self) -> bool:
        return self.shape[1] % 2 == self.shape[2] % 2 == 0

    def _windows(self, x: Tensor) -> Tensor:
        """(P, R, C) to (images, height / 2, 2, width / 2, 2, R * C)."""
        return x.view(-1, self.shape[1] // 2, 2, self.shape[2] // 2, 2, x[0].numel())

    def _sum_3x3(self, images: Tensor) -> Tensor:
        """The sum over each position's 3 x 3 neighbours, as a depthwise convolution: torch's own pooling is slow."""
        channels = images.shape[1]
        if channels == 1:  # else it would not be a depthwise convolution
            images = torch.cat([images, images], 1).contiguous(memory_format=torch.channels_last)
        groups = images.shape[1]
        if self._ones is None or len(self._ones) != groups:
            self._ones = images.new_ones(groups, 1, 3, 3)
        sums = torch.convolution(images, self._ones, None, [1, 1], [1, 1], [1, 1], False, [0, 0], groups)
        return sums if channels > 1 else sums[:, :1]

    def _inverse_counts(self, like: Tensor) -> Tensor:
        """One over the number of a position's 3 x 3 neighbours within the image, of shape (height, width)."""
        if self._inverse is not None:
            return self._inverse
        sides = []
        for size in self.shape[1:]:
            side = torch.full((size,), 3.0, dtype=torch.float64)
            side[0] -= 1
            side[-1] -= 1
            sides.append(side)
        self._inverse = (1 / torch.outer(*sides)).to(like)
        return self._inverse


class StackedDense(Stacked):
    """Flatten, one matrix product for all members with equally many tiles, and ReLU unless it is the classifier."""

    def __init__(self, operation: Dense | Classifier, shape: Shape) -> None:
        super().__init__(shape)
        self.relu = isinstance(operation, Dense)
        self.features, self.outputs = prod(shape), operation.output_shape(shape)[0]
        # Zeros are added to the features until they fill whole vectors, and to an output that is alone.
        self._padding = (0, -self.features % LANES, 0, int(self.outputs == 1))

    def forward(self, weights: Weights, x: Tensor, out: Tensor, rows: Rows, fixed: Statistics | None = None) -> Any:
        features, matrix = F.pad(flatten(x, rows.tile), self._padding[:2]), F.pad(weights[0], self._padding)
        for block in rows.blocks:
            product = torch.bmm(_by_member(features, block), matrix[block.members].transpose(1, 2))
            product = product[..., : self.outputs] + weights[1][block.members, None]
            out[:, block.rows] = _by_row(product, block, rows.tile)
        if self.relu:
            out.relu_()
        return features, matrix, out

    def backward(self, weights: Weights, saved: Any, gradient: Tensor, g_x: Tensor | None, rows: Rows) -> Weights:
        features, matrix, out = saved
        g = torch.ops.aten.threshold_backward(gradient, out, 0) if self.relu else gradient
        g = F.pad(g, self._padding[2:])
        g_matrix, g_bias = torch.empty_like(matrix), torch.empty_like(matrix[..., 0])
        g_features = None if g_x is None else torch.empty_like(features)
        for block in rows.blocks:
            part = _by_member(g, block)
            g_matrix[block.members] = torch.bmm(part.transpose(1, 2), _by_member(features, block))
            g_bias[block.members] = part.cumsum(1)[:, -1]  # in which order sum() adds, depends on the members
            if g_features is not None:
                g_features[:, block.rows] = _by_row(torch.bmm(part, matrix[block.members]), block, rows.tile)
        if g_x is not None and g_features is not None:
            positions = g_x.view(rows.tile, -1, *g_x.shape[1:]).permute(0, 2, 3, 1)
            positions.copy_(g_features[..., : self.features].view(positions.shape))
        return [g_matrix[:, : self.outputs, : self.features], g_bias[:, : self.outputs]]


class StackedSum(Stacked):
    """The sum of its inputs, which whoever gathers them has formed already."""

    def forward(self, weights: Weights, x: Tensor, out: Tensor, rows: Rows, fixed: Statistics | None = None) -> Any:
        out.copy_(x)

    def backward(self, weights: Weights, saved: Any, gradient: Tensor, g_x: Tensor | None, rows: Rows) -> Weights:
        if g_x is not None:
            g_x.copy_(gradient)
        return []


def stack(operation: Operation, shape: Shape, half: bool = False, alone: bool = False) -> Stacked:
    """The stacked form of an operation that reads ``shape``.

    With ``half`` convolutions are done in bfloat16; with ``alone`` there is one row, without blank images.
    """
    match operation:
        case Conv():
            return (LoneConv if alone else StackedConv)(operation, shape, half)
        case MaxPool() | AvgPool() | GlobalPool():
            return StackedPool(operation, shape)
        case Dense() | Classifier():
            return StackedDense(operation, shape)
        case Add():
            return StackedSum(shape)
        case _:
            raise TypeError(f"{operation} is not computed: nothing about it depends on the image")


def _by_member(x: Tensor, block: Block) -> Tensor:
    """(tile, R, F) to (members of the block, their images, F)."""
    part = x[:, block.rows]
    return part.reshape(x.shape[0], -1, block.tiles, x.shape[2]).permute(1, 2, 0, 3).flatten(1, 2)


def _by_row(x: Tensor, block: Block, tile: int) -> Tensor:
    """The inverse of :func:`_by_member`."""
    return x.view(-1, block.tiles, tile, x.shape[2]).permute(2, 0, 1, 3).flatten(1, 2)
