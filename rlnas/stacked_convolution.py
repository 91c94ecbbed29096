"""Convolutions of many networks at once."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlnas.graph import Conv, Shape
from rlnas.stacked import LANES, Rows, Stacked, Statistics, Weights, as_images

BATCH_NORM_EPSILON = 1e-5
"""As in ``torch.nn.BatchNorm2d``."""

LONE_POSITIONS = 10_000
"""Positions from which, for a single row, torch's own batch norm and matrix product are slow."""


class _Normal(NamedTuple):
    """What a convolution's forward pass leaves: its input, kernels and output before and after batch norm and ReLU."""

    x: Tensor
    kernels: Tensor
    y: Tensor
    out: Tensor
    mean: Tensor
    variance: Tensor | None  # None: it follows from the inverse deviation
    inverse: Tensor
    fixed: bool


class StackedConv(Stacked):
    """Grouped convolution, batch norm with each member's own statistics, ReLU.

    Args:
        operation: kernel and width.
        shape: what it reads.
        half: whether to convolve in bfloat16; everything else stays as it is.
    """

    def __init__(self, operation: Conv, shape: Shape, half: bool = False) -> None:
        super().__init__(shape)
        self.half = half
        self.kernel, self.positions = operation.kernel, prod(shape[1:])
        self._whole = operation.width % LANES == 0
        self._product = self.kernel == 1 and self._whole and shape[0] % LANES == 0

    def forward(self, weights: Weights, x: Tensor, out: Tensor, rows: Rows, fixed: Statistics | None = None) -> Any:
        kernel, scale, shift = weights
        kernels = rows.spread(kernel)
        y = self._convolve(x, kernels)
        if rows.simple and self._whole and fixed is None:  # torch's own batch norm does it all
            normal, mean, inverse = torch.native_batch_norm(
                as_images(y, self.shape), scale.view(-1), shift.view(-1), None, None, True, 0.0, BATCH_NORM_EPSILON
            )
            torch.clamp_min(normal, 0, out=as_images(out, self.shape))
            mean, inverse = mean.view_as(scale), inverse.view_as(scale)
            return _Normal(x, kernels, y, out, mean, None, inverse, False)
        mean, variance = self._batch_statistics(y, rows) if fixed is None else fixed
        inverse = torch.rsqrt(variance + BATCH_NORM_EPSILON)
        factor = scale * inverse
        torch.addcmul(rows.spread(torch.addcmul(shift, mean, factor, value=-1)), y, rows.spread(factor), out=out)
        out.relu_()
        rows.erase_blanks(out)
        return _Normal(x, kernels, y, out, mean, variance, inverse, fixed is not None)

    def backward(self, weights: Weights, saved: _Normal, gradient: Tensor, g_x: Tensor | None, rows: Rows) -> Weights:
        g = torch.ops.aten.threshold_backward(gradient, saved.out, 0)
        at_once = rows.simple and self._whole and not saved.fixed
        backward = self._normalise_backward_at_once if at_once else self._normalise_backward
        g, g_scale, g_shift = backward(weights[1], saved, g, rows)
        return [rows.total(self._convolve_backward(g, saved.x, saved.kernels, g_x)), g_scale, g_shift]

    def _normalise_backward_at_once(
        self, scale: Tensor, saved: _Normal, g: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Where every member has one row without blanks; else like :meth:`_normalise_backward`."""
        g_images, g_scale, g_shift = torch.ops.aten.native_batch_norm_backward(
            as_images(g, self.shape),
            as_images(saved.y, self.shape),
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
        row_mean = _never_single(rows.spread(saved.mean)[None]).flatten()
        # In evaluation mode this gives the two sums over positions, and nothing else, in one pass.
        _, *sums = torch.ops.aten.native_batch_norm_backward(
            as_images(_never_single(g), self.shape),
            as_images(_never_single(saved.y), self.shape),
            row_mean,  # the scale, which plays no part here
            row_mean,
            _never_single(rows.spread(_variance(saved))[None]).flatten(),
            None,
            None,
            False,
            BATCH_NORM_EPSILON,
            [False, True, True],
        )
        g_scale, g_shift = (rows.total(each[: g[0].numel()].view(g.shape[1:])) for each in sums)
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
        unbiased = _variance(saved).clamp_min(0) * (count / (count - 1))
        return Statistics(saved.mean, unbiased.to(saved.mean.dtype))

    def _batch_statistics(self, y: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of each member's real images, (members, C), from those of its rows."""
        both = torch.batch_norm_update_stats(as_images(_never_single(y), self.shape), None, None, 0.0)
        row_mean, row_variance = (each[: y[0].numel()].view(y.shape[1:]) for each in both)
        if rows.simple:
            return row_mean, row_variance
        mean, variance = row_mean.double(), row_variance.double()
        ratio = y.shape[0] / (rows.images * self.positions)
        first = rows.total(mean) * ratio
        second = rows.total(variance + mean.square()) * ratio
        return first.to(y.dtype), (second - first.square()).clamp_min(0).to(y.dtype)

    def _convolve(self, x: Tensor, kernels: Tensor) -> Tensor:
        """(P, R, C) and (R, C', C, k, k) to (P, R, C')."""
        if self._product:
            y = x.new_empty(*x.shape[:2], kernels.shape[1])
            torch.bmm(x.transpose(0, 1), kernels.flatten(2).transpose(1, 2), out=y.transpose(0, 1))
            return y
        if x.shape[1] == 1:  # an ungrouped convolution is another algorithm, and gives other last bits
            return self._grouped(x.repeat(1, 2, 1), kernels.repeat(2, 1, 1, 1, 1))[:, :1].contiguous()
        return self._grouped(x, kernels)

    def _convolve_backward(self, gradient: Tensor, x: Tensor, kernels: Tensor, g_x: Tensor | None) -> Tensor:
        """Write the gradient at the input; return that of each row's kernel."""
        if self._product:
            if g_x is not None:
                torch.bmm(gradient.transpose(0, 1), kernels.flatten(2), out=g_x.transpose(0, 1))
            return torch.bmm(gradient.permute(1, 2, 0), x.transpose(0, 1)).view_as(kernels)
        if x.shape[1] == 1:
            twins = gradient.repeat(1, 2, 1), x.repeat(1, 2, 1), kernels.repeat(2, 1, 1, 1, 1)
            twin_g_x = None if g_x is None else torch.empty_like(twins[1])
            g_kernels = self._grouped_backward(*twins, twin_g_x)[:1]
            if g_x is not None and twin_g_x is not None:
                g_x.copy_(twin_g_x[:, :1])
            return g_kernels
        return self._grouped_backward(gradient, x, kernels, g_x)

    def _grouped(self, x: Tensor, kernels: Tensor) -> Tensor:
        y = torch.convolution(
            as_images(self._rounded(x.contiguous()), self.shape),
            self._rounded(kernels.flatten(0, 1)),
            None,
            [1, 1],
            self._padding,
            [1, 1],
            False,
            [0, 0],
            x.shape[1],
        ).to(x.dtype)
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:2], kernels.shape[1])

    def _grouped_backward(self, gradient: Tensor, x: Tensor, kernels: Tensor, g_x: Tensor | None) -> Tensor:
        g_images, g_kernels, _ = torch.ops.aten.convolution_backward(
            as_images(self._rounded(gradient.contiguous()), self.shape),
            as_images(self._rounded(x.contiguous()), self.shape),
            self._rounded(kernels.flatten(0, 1)),
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
            as_images(g_x, self.shape).copy_(g_images)
        return torch.reshape(g_kernels.to(kernels.dtype), kernels.shape)

    def _rounded(self, values: Tensor) -> Tensor:
        return values.to(torch.bfloat16) if self.half else values

    @property
    def _padding(self) -> list[int]:
        return [self.kernel // 2, self.kernel // 2]


class LoneConv(StackedConv):
    """The same for a single row without blank images, by itself: for large activations, on a CPU.

    Batch norm works on whole lines of an image as if they were channels: there are few true ones, and a CPU's vectors
    are long.
    """

    def forward(self, weights: Weights, x: Tensor, out: Tensor, rows: Rows, fixed: Statistics | None = None) -> Any:
        if len(x) < LONE_POSITIONS:
            return super().forward(weights, x, out, rows, fixed)
        kernel, scale, shift = weights
        y = self._convolve(x, kernel)
        mean, variance = self._batch_statistics(y, rows) if fixed is None else fixed
        inverse = torch.rsqrt(variance + BATCH_NORM_EPSILON)
        factor = scale * inverse
        offset = torch.addcmul(shift, mean, factor, value=-1)
        torch.addcmul(self._line(offset), self._lines(y), self._line(factor), out=self._lines(out)).relu_()
        return _Normal(x, kernel, y, out, mean, variance, inverse, fixed is not None)

    def backward(self, weights: Weights, saved: _Normal, gradient: Tensor, g_x: Tensor | None, rows: Rows) -> Weights:
        if len(saved.x) < LONE_POSITIONS:
            return super().backward(weights, saved, gradient, g_x, rows)
        g = torch.ops.aten.threshold_backward(gradient, saved.out, 0)
        wide, y = self._lines(g), self._lines(saved.y)
        mean = self._line(saved.mean)
        _, *sums = torch.ops.aten.native_batch_norm_backward(
            wide[..., None, None],
            y[..., None, None],
            mean,  # the scale, which plays no part here
            mean,
            self._line(_variance(saved)),
            None,
            None,
            False,
            BATCH_NORM_EPSILON,
            [False, True, True],
        )
        g_scale, g_shift = (each.view(-1, g.shape[2]).sum(0, keepdim=True) for each in sums)
        factor = weights[1] * saved.inverse
        if saved.fixed:
            wide.mul_(self._line(factor))
        else:
            share = factor / len(g)
            slope = share * saved.inverse * g_scale
            offset = torch.addcmul(slope * saved.mean, share, g_shift, value=-1)
            torch.addcmul(self._line(offset), wide, self._line(factor), out=wide)
            wide.addcmul_(y, self._line(slope), value=-1)
        return [self._convolve_backward(g, saved.x, saved.kernels, g_x), g_scale, g_shift]

    def _batch_statistics(self, y: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        if len(y) < LONE_POSITIONS:
            return super()._batch_statistics(y, rows)
        both = torch.batch_norm_update_stats(self._lines(y)[..., None, None], None, None, 0.0)
        means, variances = (each.view(-1, y.shape[2]) for each in both)
        between, mean = torch.var_mean(means, 0, correction=0, keepdim=True)
        return mean, between + variances.mean(0, keepdim=True)

    def _convolve(self, x: Tensor, kernels: Tensor) -> Tensor:
        return super()._convolve(x, kernels) if self._product and len(x) < LONE_POSITIONS else self._grouped(x, kernels)

    def _convolve_backward(self, gradient: Tensor, x: Tensor, kernels: Tensor, g_x: Tensor | None) -> Tensor:
        if self._product and len(x) < LONE_POSITIONS:
            return super()._convolve_backward(gradient, x, kernels, g_x)
        return self._grouped_backward(gradient, x, kernels, g_x)

    def _lines(self, y: Tensor) -> Tensor:
        """(P, 1, C) to (lines, width * C)."""
        return y.view(-1, self.shape[2] * y.shape[2])

    def _line(self, values: Tensor) -> Tensor:
        """(1, C) for every position of a line, (width * C,)."""
        return values.expand(self.shape[2], -1).contiguous().view(-1)  # reshape would leave strides of 0 for C = 1


def _variance(saved: _Normal) -> Tensor:
    return saved.inverse.square().reciprocal() - BATCH_NORM_EPSILON if saved.variance is None else saved.variance


def _never_single(x: Tensor) -> Tensor:
    """Twice side by side if it is one channel alone, which torch sums in another order than one among others."""
    return x.repeat(1, 2, 1) if x.shape[1:] == (1, 1) else x
