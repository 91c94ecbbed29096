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
from typing import Any, NamedTuple

from torch import Tensor

from rlnas.graph import Shape

LANES = 8
"""Numbers of channels or features that are a multiple of this fill whole vectors. Others leave a rest, which some of
torch's CPU kernels compute in an order that depends on what lies beside it; those are not used there."""


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


def flatten(x: Tensor, tile: int) -> Tensor:
    """(P, R, C) to (tile, R, features), features in the order channel, row, column."""
    return x.view(tile, -1, *x.shape[1:]).permute(0, 2, 3, 1).flatten(2)


def as_images(x: Tensor, shape: Shape) -> Tensor:
    """(P, R, C) as channels-last images of shape (tile, R * C, height, width)."""
    return x.view(-1, *shape[1:], x.shape[1] * x.shape[2]).permute(0, 3, 1, 2)
