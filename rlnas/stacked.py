"""Operations on many networks at once: what a node of a graph computes, forward and backward, for stacked candidates.

Different networks that share an operation and the shape it reads are its *members*; their parameters are stacked along
a first dimension, ``(members, ...)``. Members may have different numbers of images: each member's images are cut into
*tiles* of a fixed number of images, the last one filled up with blank ones, and one tile is one *row*. An activation of
``R`` rows is a tensor of shape (P, R, C), where P is the tile's images times positions (height x width) and C the
channels: channels-last, with the rows side by side, so that one grouped convolution serves them all.

What a row's numbers are does not depend on the rows beside it, to the last bit on a CPU: every operation here was
chosen so that it is computed in the same order whatever the number of rows. Blank images stay zero wherever
convolutions read, so they change neither statistics nor gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rlnas.graph import Add, AvgPool, Classifier, Conv, Dense, GlobalPool, MaxPool, Operation, Shape

BATCH_NORM_EPSILON = 1e-5
"""As in ``torch.nn.BatchNorm2d``."""

ALONE = 5_000_000
"""Multiply-accumulates from which a row is convolved by itself on a CPU: from there on grouping gains nothing."""


class Block(NamedTuple):
    """Consecutive rows whose members have equally many tiles."""

    tiles: int
    rows: slice
    members: slice | Tensor


@dataclass(frozen=True)
class Rows:
    """How the rows of one operation belong to its members.

    Args:
        tile: images in a row.
        owner: the member of each row, of shape (R,); a member's rows are consecutive.
        blocks: the rows by number of tiles.
        images: each member's real images, of shape (members, 1), float64.
        blanks: tile positions and rows of the blank images, two index tensors of equal length; None if there are none.
        simple: whether every member has one row, in the order of the members, without blank images.
    """

    tile: int
    owner: Tensor
    blocks: tuple[Block, ...]
    images: Tensor
    blanks: tuple[Tensor, Tensor] | None
    simple: bool

    def spread(self, values: Tensor) -> Tensor:
        """Each row's copy of its member's values: (members, ...) to (R, ...)."""
        return values if self.simple else values.index_select(0, self.owner)

    def total(self, values: Tensor) -> Tensor:
        """Each member's sum over its rows: (R, ...) to (members, ...)."""
        if self.simple:
            return values
        sums = values.new_empty(self.images.shape[0], *values.shape[1:])
        for tiles, rows, members in self.blocks:
            part = values[rows].view(-1, tiles, *values.shape[1:])
            total = part[:, 0]
            for tile in range(1, tiles):  # one after another, whatever the number of members
                total = total + part[:, tile]
            sums[members] = total
        return sums

    def erase_blanks(self, values: Tensor) -> None:
        """Set what a (P, R, C) activation says of blank images to zero."""
        if self.blanks is not None:
            images, rows = self.blanks
            values.view(self.tile, -1, *values.shape[1:])[images, :, rows] = 0


Weights = list[Tensor]
"""Stacked parameters of one operation, in the order of :data:`rlnas.network.Weights`."""


class Statistics(NamedTuple):
    """A batch norm's statistics by which images are normalised one by one: two tensors of shape (members, C)."""

    mean: Tensor
    variance: Tensor


class Stacked(ABC):
    """One operation for all its members. ``saved`` is what the backward pass needs of the forward pass."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    @abstractmethod
    def forward(self, weights: Weights, x: Tensor, out: Tensor, rows: Rows, fixed: Statistics | None = None) -> Any:
        """Write the operation's output; return ``saved``.

        Args:
            weights: stacked parameters.
            x: input of shape (P, R, C).
            out: where the output goes, of shape (P', R, C').
            rows: whose rows these are.
            fixed: statistics to normalise by, in place of those of the rows themselves.
        """

    @abstractmethod
    def backward(self, weights: Weights, saved: Any, gradient: Tensor, g_x: Tensor | None, rows: Rows) -> Weights:
        """Write the gradient at the input to ``g_x``, if it is asked for; return that of the stacked parameters.

        Args:
            weights: stacked parameters.
            saved: what :meth:`forward` returned.
            gradient: at the output, of shape (P', R, C').
            g_x: where the gradient at the input goes, of shape (P, R, C).
            rows: whose rows these are.
        """

    def statistics(self, saved: Any, rows: Rows) -> Statistics | None:
        """The statistics of the rows that were just computed, with unbiased variance, as batch norm keeps them."""
        return None


class _Normal(NamedTuple):
    """What a convolution's forward pass leaves: its input, kernels and output before and after batch norm and ReLU."""

    x: Tensor
    kernels: Tensor
    y: Tensor
    out: Tensor
    mean: Tensor
    variance: Tensor
    inverse: Tensor
    fixed: bool


class StackedConv(Stacked):
    """Grouped convolution, batch norm with each member's own statistics, ReLU."""

    def __init__(self, operation: Conv, shape: Shape) -> None:
        super().__init__(shape)
        self.kernel, self.positions = operation.kernel, prod(shape[1:])

    def forward(self, weights: Weights, x: Tensor, out: Tensor, rows: Rows, fixed: Statistics | None = None) -> Any:
        kernel, scale, shift = weights
        kernels = rows.spread(kernel)
        y = self._convolve(x, kernels)
        if rows.simple and fixed is None:  # torch's own batch norm does it all
            normal, mean, inverse = torch.native_batch_norm(
                _images(y, self.shape), scale.view(-1), shift.view(-1), None, None, True, 0.0, BATCH_NORM_EPSILON
            )
            torch.clamp_min(normal, 0, out=_images(out, self.shape))
            mean, inverse = mean.view_as(scale), inverse.view_as(scale)
            return _Normal(x, kernels, y, out, mean, inverse.square().reciprocal() - BATCH_NORM_EPSILON, inverse, False)
        mean, variance = self._batch_statistics(y, rows) if fixed is None else fixed
        inverse = torch.rsqrt(variance + BATCH_NORM_EPSILON)
        factor = scale * inverse
        torch.addcmul(rows.spread(torch.addcmul(shift, mean, factor, value=-1)), y, rows.spread(factor), out=out)
        out.relu_()
        rows.erase_blanks(out)
        return _Normal(x, kernels, y, out, mean, variance, inverse, fixed is not None)

    def backward(self, weights: Weights, saved: _Normal, gradient: Tensor, g_x: Tensor | None, rows: Rows) -> Weights:
        g = torch.ops.aten.threshold_backward(gradient, saved.out, 0)
        backward = self._normalise_backward_at_once if rows.simple and not saved.fixed else self._normalise_backward
        g, g_scale, g_shift = backward(weights[1], saved, g, rows)
        return [rows.total(self._convolve_backward(g, saved.x, saved.kernels, g_x)), g_scale, g_shift]

    def _normalise_backward_at_once(
        self, scale: Tensor, saved: _Normal, g: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Where every member has one row without blanks; else like :meth:`_normalise_backward`."""
        g_images, g_scale, g_shift = torch.ops.aten.native_batch_norm_backward(
            _images(g, self.shape),
            _images(saved.y, self.shape),
            scale.view(-1),
            None,
            None,
            saved.mean.view(-1),
            saved.inverse.view(-1),
            True,
            BATCH_NORM_EPSILON,
            [True, True, True],
        )
        return g_images.permute(0, 2, 3, 1).view(g.shape), g_scale.view_as(scale), g_shift.view_as(scale)

    def _normalise_backward(
        self, scale: Tensor, saved: _Normal, g: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients at the convolution's output, (P, R, C), and at scale and shift, (members, C)."""
        row_mean = rows.spread(saved.mean).flatten()
        # In evaluation mode this gives the two sums over positions, and nothing else, in one pass.
        _, g_scale, g_shift = torch.ops.aten.native_batch_norm_backward(
            _images(g, self.shape),
            _images(saved.y, self.shape),
            row_mean,  # the scale, which plays no part here
            row_mean,
            rows.spread(saved.variance).flatten(),
            None,
            None,
            False,
            BATCH_NORM_EPSILON,
            [False, True, True],
        )
        g_scale, g_shift = rows.total(g_scale.view(g.shape[1:])), rows.total(g_shift.view(g.shape[1:]))
        factor = scale * saved.inverse
        if saved.fixed:
            return g * rows.spread(factor), g_scale, g_shift
        share = factor * (1 / (rows.images * self.positions)).to(g.dtype)
        slope = share * saved.inverse * g_scale
        offset = torch.addcmul(slope * saved.mean, share, g_shift, value=-1)
        g = torch.addcmul(rows.spread(offset), g, rows.spread(factor)).addcmul_(saved.y, rows.spread(slope), value=-1)
        return g, g_scale, g_shift

    def statistics(self, saved: _Normal, rows: Rows) -> Statistics:
        count = rows.images * self.positions
        unbiased = saved.variance.clamp_min(0) * (count / (count - 1))
        return Statistics(saved.mean, unbiased.to(saved.mean.dtype))

    def _batch_statistics(self, y: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of each member's real images, (members, C), from those of its rows."""
        row_mean, row_variance = (
            v.view(y.shape[1:]) for v in torch.batch_norm_update_stats(_images(y, self.shape), None, None, 0.0)
        )
        if rows.simple:
            return row_mean, row_variance
        mean, variance = row_mean.double(), row_variance.double()
        ratio = y.shape[0] / (rows.images * self.positions)
        first = rows.total(mean) * ratio
        second = rows.total(variance + mean.square()) * ratio
        return first.to(y.dtype), (second - first.square()).clamp_min(0).to(y.dtype)

    def _convolve(self, x: Tensor, kernels: Tensor) -> Tensor:
        """(P, R, C) and (R, C', C, k, k) to (P, R, C')."""
        if self.kernel == 1:
            y = x.new_empty(*x.shape[:2], kernels.shape[1])
            torch.bmm(x.transpose(0, 1), kernels.flatten(2).transpose(1, 2), out=y.transpose(0, 1))
            return y
        if self._alone(x, kernels):
            parts = [self._grouped(x[:, r : r + 1], kernels[r : r + 1]) for r in range(x.shape[1])]
            return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        if x.shape[1] == 1:  # an ungrouped convolution is another algorithm, and gives other last bits
            return self._grouped(x.repeat(1, 2, 1), kernels.repeat(2, 1, 1, 1, 1))[:, :1].contiguous()
        return self._grouped(x, kernels)

    def _convolve_backward(self, gradient: Tensor, x: Tensor, kernels: Tensor, g_x: Tensor | None) -> Tensor:
        """Write the gradient at the input; return that of each row's kernel."""
        if self.kernel == 1:
            if g_x is not None:
                torch.bmm(gradient.transpose(0, 1), kernels.flatten(2), out=g_x.transpose(0, 1))
            return torch.bmm(gradient.permute(1, 2, 0), x.transpose(0, 1)).view_as(kernels)
        count = x.shape[1]
        if self._alone(x, kernels):
            if count == 1:
                return self._grouped_backward(gradient, x, kernels, g_x)
            g_kernels = torch.empty_like(kernels)
            for r in range(count):
                row = slice(r, r + 1)
                own = None if g_x is None else torch.empty_like(x[:, row])
                g_kernels[row] = self._grouped_backward(gradient[:, row], x[:, row], kernels[row], own)
                if g_x is not None and own is not None:
                    g_x[:, row] = own
            return g_kernels
        if count == 1:
            twins = gradient.repeat(1, 2, 1), x.repeat(1, 2, 1), kernels.repeat(2, 1, 1, 1, 1)
            twin_g_x = None if g_x is None else torch.empty_like(twins[1])
            g_kernels = self._grouped_backward(*twins, twin_g_x)[:1]
            if g_x is not None and twin_g_x is not None:
                g_x.copy_(twin_g_x[:, :1])
            return g_kernels
        return self._grouped_backward(gradient, x, kernels, g_x)

    def _alone(self, x: Tensor, kernels: Tensor) -> bool:
        """Whether rows are so large on a CPU that each is convolved by itself; follows from a row's size alone."""
        return not x.is_cuda and x.shape[0] * kernels[0].numel() >= ALONE

    def _grouped(self, x: Tensor, kernels: Tensor) -> Tensor:
        y = torch.convolution(
            _images(x.contiguous(), self.shape),
            kernels.flatten(0, 1),
            None,
            [1, 1],
            self._padding,
            [1, 1],
            False,
            [0, 0],
            x.shape[1],
        )
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:2], kernels.shape[1])

    def _grouped_backward(self, gradient: Tensor, x: Tensor, kernels: Tensor, g_x: Tensor | None) -> Tensor:
        g_images, g_kernels, _ = torch.ops.aten.convolution_backward(
            _images(gradient.contiguous(), self.shape),
            _images(x.contiguous(), self.shape),
            kernels.flatten(0, 1),
            None,
            [1, 1],
            self._padding,
            [1, 1],
            False,
            [0, 0],
            x.shape[1],
            [g_x is not None, True, False],
        )
        if g_x is not None:
            _images(g_x, self.shape).copy_(g_images)
        return torch.reshape(g_kernels, kernels.shape)

    @property
    def _padding(self) -> list[int]:
        return [self.kernel // 2, self.kernel // 2]


class StackedPool(Stacked):
    """Pooling, which has no parameters and treats every channel alike."""

    def __init__(self, operation: MaxPool | AvgPool | GlobalPool, shape: Shape) -> None:
        super().__init__(shape)
        self.operation = operation

    def forward(self, weights: Weights, x: Tensor, out: Tensor, rows: Rows, fixed: Statistics | None = None) -> Any:
        images, indices = _images(x, self.shape), None
        match self.operation:
            case MaxPool():
                pooled, indices = torch.ops.aten.max_pool2d_with_indices(images, [2, 2], [2, 2])
            case AvgPool(3):
                pooled = self._sum_3x3(images).mul_(self._inverse_counts.to(x))
            case AvgPool():
                pooled = F.avg_pool2d(images, 2)
            case _:
                pooled = F.avg_pool2d(images, self.shape[1:])
        _images(out, self._pooled_shape).copy_(pooled)
        return images, indices

    def backward(self, weights: Weights, saved: Any, gradient: Tensor, g_x: Tensor | None, rows: Rows) -> Weights:
        if g_x is None:
            return []
        images, indices = saved
        g = _images(gradient, self._pooled_shape)
        match self.operation:
            case MaxPool():
                g = torch.ops.aten.max_pool2d_with_indices_backward(
                    g, images, [2, 2], [2, 2], [0, 0], [1, 1], False, indices
                )
            case AvgPool(3):
                g = self._sum_3x3(g * self._inverse_counts.to(gradient))
            case AvgPool():
                g = torch.ops.aten.avg_pool2d_backward(g, images, [2, 2], [2, 2], [0, 0], False, True, None)
            case _:
                g = g / prod(self.shape[1:])
        _images(g_x, self.shape).copy_(g)
        return []

    @property
    def _pooled_shape(self) -> Shape:
        return self.shape[0], *(self.operation.output_shape(self.shape)[1:] or (1, 1))

    @staticmethod
    def _sum_3x3(images: Tensor) -> Tensor:
        """The sum over each position's 3 x 3 neighbours, as a depthwise convolution: torch's own pooling is slow."""
        channels = images.shape[1]
        return F.conv2d(images, images.new_ones(channels, 1, 3, 3), padding=1, groups=channels)

    @cached_property
    def _inverse_counts(self) -> Tensor:
        """One over the number of a position's 3 x 3 neighbours within the image, of shape (height, width)."""
        sides = []
        for size in self.shape[1:]:
            side = torch.full((size,), 3.0, dtype=torch.float64)
            side[0] -= 1
            side[-1] -= 1
            sides.append(side)
        return 1 / torch.outer(*sides)


class StackedDense(Stacked):
    """Flatten, one matrix product for all members with equally many tiles, and ReLU unless it is the classifier."""

    def __init__(self, operation: Dense | Classifier, shape: Shape) -> None:
        super().__init__(shape)
        self.relu = isinstance(operation, Dense)

    def forward(self, weights: Weights, x: Tensor, out: Tensor, rows: Rows, fixed: Statistics | None = None) -> Any:
        matrix, bias = weights
        features = flatten(x, rows.tile)
        for block in rows.blocks:
            product = torch.baddbmm(
                bias[block.members, None], _by_member(features, block), matrix[block.members].transpose(1, 2)
            )
            out[:, block.rows] = _by_row(product, block, rows.tile)
        if self.relu:
            out.relu_()
        return features, out

    def backward(self, weights: Weights, saved: Any, gradient: Tensor, g_x: Tensor | None, rows: Rows) -> Weights:
        matrix, bias = weights
        features, out = saved
        g = torch.ops.aten.threshold_backward(gradient, out, 0) if self.relu else gradient
        g_matrix, g_bias = torch.empty_like(matrix), torch.empty_like(bias)
        g_features = None if g_x is None else torch.empty_like(features)
        for block in rows.blocks:
            part = _by_member(g, block)
            g_matrix[block.members] = torch.bmm(part.transpose(1, 2), _by_member(features, block))
            g_bias[block.members] = part.cumsum(1)[:, -1]  # in which order sum() adds, depends on the members
            if g_features is not None:
                g_features[:, block.rows] = _by_row(torch.bmm(part, matrix[block.members]), block, rows.tile)
        if g_x is not None and g_features is not None:
            positions = g_x.view(rows.tile, -1, *g_x.shape[1:]).permute(0, 2, 3, 1)
            positions.copy_(g_features.view(positions.shape))
        return [g_matrix, g_bias]


class StackedSum(Stacked):
    """The sum of its inputs, which whoever gathers them has formed already."""

    def forward(self, weights: Weights, x: Tensor, out: Tensor, rows: Rows, fixed: Statistics | None = None) -> Any:
        out.copy_(x)

    def backward(self, weights: Weights, saved: Any, gradient: Tensor, g_x: Tensor | None, rows: Rows) -> Weights:
        if g_x is not None:
            g_x.copy_(gradient)
        return []


def stack(operation: Operation, shape: Shape) -> Stacked:
    """The stacked form of an operation that reads ``shape``."""
    match operation:
        case Conv():
            return StackedConv(operation, shape)
        case MaxPool() | AvgPool() | GlobalPool():
            return StackedPool(operation, shape)
        case Dense() | Classifier():
            return StackedDense(operation, shape)
        case Add():
            return StackedSum(shape)
        case _:
            raise TypeError(f"{operation} is not computed: nothing about it depends on the image")


def flatten(x: Tensor, tile: int) -> Tensor:
    """(P, R, C) to (tile, R, features), features in the order channel, row, column."""
    return x.view(tile, -1, *x.shape[1:]).permute(0, 2, 3, 1).flatten(2)


def _by_member(x: Tensor, block: Block) -> Tensor:
    """(tile, R, F) to (members of the block, their images, F)."""
    part = x[:, block.rows]
    return part.reshape(x.shape[0], -1, block.tiles, x.shape[2]).permute(1, 2, 0, 3).flatten(1, 2)


def _by_row(x: Tensor, block: Block, tile: int) -> Tensor:
    """The inverse of :func:`_by_member`."""
    return x.view(-1, block.tiles, tile, x.shape[2]).permute(2, 0, 1, 3).flatten(1, 2)


def _images(x: Tensor, shape: Shape) -> Tensor:
    """(P, R, C) as channels-last images of shape (tile, R * C, height, width)."""
    return x.view(-1, *shape[1:], x.shape[1] * x.shape[2]).permute(0, 3, 1, 2)
