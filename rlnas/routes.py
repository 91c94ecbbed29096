"""The routes of images through a population: where each group's rows lie, what they read, and who reads them.

Everything here is bookkeeping that is done once for a batch; what is done at every step is :meth:`Route.gather`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rlnas.graph import INPUT, Shape
from rlnas.schedule import Group, Place, Plan
from rlnas.stacked import Block, Rows, flatten

Integers: TypeAlias = NDArray[np.int64]


class Sums(NamedTuple):
    """What rows read, if it is not another group's output as it is: for each line a sum of lines of a buffer.

    Args:
        buffer: lines of channels, (lines, C).
        read: the lines to add, those of one sum after those of another.
        begin: where in ``read`` each sum begins, and where the last one ends, (P * R + 1,).
    """

    buffer: Tensor
    read: Tensor
    begin: Tensor


Source: TypeAlias = Tensor | Sums | tuple[Tensor, ...]
"""What rows read: rows that lie side by side, sums of lines, or the sum of rows of (P, R, C)."""


@dataclass(frozen=True, eq=False)
class Route:
    """Where a group's rows come from and go to.

    Args:
        rows: how they belong to members.
        inputs: another group's output, if the group reads all of its rows as they are; else sums, or outputs to add.
        out: the group's output, a view of (P', R, C').
        g_x: its gradient at the input, a view of (P, R, C); None if that is of no use.
        readers: as ``inputs``, of the gradients at the readers' inputs; None if there are none.
    """

    rows: Rows
    inputs: Source
    out: Tensor
    g_x: Tensor | None
    readers: Source | None

    def gather(self) -> Tensor:
        """What the group reads, (P, R, C)."""
        return _gather(self.inputs, self.out.shape[1])

    def gather_gradient(self) -> Tensor:
        """The gradient at the group's output, (P', R, C')."""
        return _gather(self.readers, self.out.shape[1])


class Images:
    """Images for every candidate of a population, cut into tiles, and the buffers they pass through.

    Args:
        plan: of the population whose candidates they are for.
        images: for each candidate a tensor of shape (N, C, H, W).
        labels: for each candidate its classes, of shape (N,), if gradients are asked for.
        tile: images in a row.
        device: where the buffers are.
        dtype: of the activations.
    """

    def __init__(
        self,
        plan: Plan,
        images: Sequence[Tensor],
        labels: Sequence[Tensor] | None,
        tile: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.tile, self.device, self.dtype = tile, device, dtype
        self._plan, self._trains = plan, labels is not None
        self.counts = np.array([len(x) for x in images])
        self.tiles = -(-self.counts // tile)
        self._lay_out()
        self.fill(images)
        self.last = {plan.last(candidate)[0] for candidate in range(len(plan))}
        self._targets = {} if labels is None else self._find_targets(labels)

    def fill(self, images: Sequence[Tensor]) -> None:
        """Take other images, as many for each candidate as before."""
        for view, candidates in self._inputs:
            tiles, shape = self.tiles[candidates], images[candidates[0]].shape[1:]
            rows = torch.zeros(int(tiles.sum()) * self.tile, *shape, dtype=self.dtype)  # blank behind each one's own
            starts = (np.cumsum(tiles) - tiles) * self.tile
            for candidate, start in zip(candidates, starts.tolist(), strict=True):
                rows[start : start + len(images[candidate])] = images[candidate]
            view.copy_(rows.view(-1, self.tile, *shape).permute(1, 3, 4, 0, 2).flatten(0, 2))

    def logits(self) -> list[Tensor]:
        """Each candidate's logits after a forward pass, (images, ways)."""
        return self._by_candidate({group: self.routes[group].out for group in self.last})

    def embeddings(self) -> list[Tensor]:
        """What each candidate's classifier reads after a forward pass, (images, features)."""
        return self._by_candidate({group: flatten(self.routes[group].gather(), self.tile) for group in self.last})

    def loss_gradient(self, group: int) -> Tensor:
        """The gradient of each candidate's mean cross-entropy at its logits, for a group of last nodes."""
        one_hot, weight = self._targets[group]
        return (self.routes[group].out.softmax(2) - one_hot) * weight

    def _by_candidate(self, values: dict[int, Tensor]) -> list[Tensor]:
        """Copies of each candidate's part, (images, F), of the (tile, R, F) of the groups of last nodes."""
        by_row = {g: v.transpose(0, 1).clone(memory_format=torch.contiguous_format) for g, v in values.items()}
        found = []
        for candidate, (count, tiles) in enumerate(zip(self.counts.tolist(), self.tiles.tolist(), strict=True)):
            group, row = self._last_row(candidate)
            found.append(by_row[group][row : row + tiles].flatten(0, 1)[:count])
        return found

    def _last_row(self, candidate: int) -> tuple[int, int]:
        group, member = self._plan.last(candidate)
        return group, int(self._starts[group][member])

    def _positions(self, shape: Shape) -> int:
        return self.tile * prod(shape[1:])

    def _lay_out(self) -> None:
        """Give every group its place in the buffers, and find the routes between them."""
        groups = self._plan.groups
        sizes, g_sizes = defaultdict[Shape, int](int), defaultdict[Shape, int](int)
        outputs = _Lines()  # by place, in the buffer of its shape
        by_shape: dict[Shape, list[int]] = defaultdict(list)
        for candidate, shape in enumerate(self._plan.shapes):
            by_shape[shape].append(candidate)
        for shape, candidates in by_shape.items():
            tiles = self.tiles[candidates]
            places = [(candidate, INPUT) for candidate in candidates]
            sizes[shape] += outputs.add(places, np.cumsum(tiles) - tiles, 0, int(tiles.sum()), self._positions(shape))
        g_inputs = _Lines()  # by (reader, which of its inputs), in the buffer of gradients of that shape
        slots = self._reused_slots() if self._plan.alone else {}
        blocks, g_blocks = [], []
        self._starts, rows = [], []
        for index, group in enumerate(groups):
            tiles = self.tiles[group.candidates]
            order = np.argsort(tiles, kind="stable")
            starts = np.empty_like(tiles)
            starts[order] = np.cumsum(tiles[order]) - tiles[order]
            total = int(tiles.sum())
            self._starts.append(starts)
            rows.append(self._make_rows(group, tiles, order))
            shape, given = group.shape, group.output_shape
            blocks.append((sizes[given], total))
            g_start = slots.get(index, g_sizes[shape])
            g_blocks.append((g_start, total))
            sizes[given] += outputs.add(group.members, starts, sizes[given], total, self._positions(given))
            if group.trains:
                g_inputs.add(group.members, starts, g_start, total, self._positions(shape))
                g_sizes[shape] = max(g_sizes[shape], g_start + total)
        buffers = self._make_buffers(sizes)
        g_buffers = self._make_buffers(g_sizes) if self._trains else {}
        self._inputs = [
            (self._view(buffers[shape], 0, int(self.tiles[candidates].sum()), shape), candidates)
            for shape, candidates in by_shape.items()
        ]
        # Readers in the order of their nodes: the order of the groups depends on who else is in the population.
        readers: dict[Place, list[Place]] = defaultdict(list)
        reading = [pair for g in groups if g.trains for pair in zip(g.members, g.sources, strict=True)]
        for member, sources in sorted(reading):
            for source in sources:
                readers[source].append(member)
        self.routes: list[Route] = []
        for index, group in enumerate(groups):
            (start, total), (g_start, _) = blocks[index], g_blocks[index]
            shape, given = group.shape, group.output_shape
            used = self._trains and given in g_buffers
            read_by = [readers[member] for member in group.members]
            self.routes.append(
                Route(
                    rows=rows[index],
                    inputs=self._find(index, outputs, group.sources, buffers[shape], shape),
                    out=self._view(buffers[given], start, total, given),
                    g_x=self._view(g_buffers[shape], g_start, total, shape) if group.trains and self._trains else None,
                    readers=self._find(index, g_inputs, read_by, g_buffers[given], given) if used else None,
                )
            )

    def _reused_slots(self) -> dict[int, int]:
        """For each group of one row, where its gradient goes: where one was that nobody needs any more."""
        free: dict[Shape, list[int]] = defaultdict(list)
        made: dict[Shape, int] = defaultdict(int)
        done: dict[int, list[int]] = defaultdict(list)  # by the last group that needs their gradient
        slots: dict[int, int] = {}
        for index in range(len(self._plan.groups) - 1, -1, -1):
            group = self._plan.groups[index]
            if group.trains:
                if free[group.shape]:
                    slots[index] = free[group.shape].pop()
                else:
                    slots[index] = made[group.shape]
                    made[group.shape] += 1
                done[min(self._plan.place.get(source, (0, 0))[0] for source in group.sources[0])].append(index)
            for other in done.pop(index, ()):
                free[self._plan.groups[other].shape].append(slots[other])
        return slots

    def _make_buffers(self, sizes: dict[Shape, int]) -> dict[Shape, Tensor]:
        return {
            shape: torch.empty(rows * self._positions(shape), shape[0], dtype=self.dtype, device=self.device)
            for shape, rows in sizes.items()
        }

    def _view(self, buffer: Tensor, start: int, total: int, shape: Shape) -> Tensor:
        """Rows ``start`` to ``start + total`` of a buffer, (P, total, C)."""
        positions = self._positions(shape)
        return buffer[start * positions : (start + total) * positions].view(positions, total, -1)

    def _make_rows(self, group: Group, tiles: Integers, order: Integers) -> Rows:
        blocks, row = [], 0
        for count in np.unique(tiles).tolist():
            chosen = order[tiles[order] == count]
            together = len(chosen) == chosen[-1] - chosen[0] + 1
            members = slice(int(chosen[0]), int(chosen[-1]) + 1) if together else self._tensor(chosen)
            blocks.append(Block(count, slice(row, row + count * len(chosen)), members))
            row += count * len(chosen)
        counts = self.counts[group.candidates]
        blank = (tiles * self.tile - counts)[order]
        ends = np.cumsum(tiles[order]) - 1
        return Rows(
            tile=self.tile,
            owner=self._tensor(np.repeat(order, tiles[order])),
            blocks=tuple(blocks),
            images=self._tensor(counts[:, None].astype(np.float64)),
            blanks=(self._tensor(_ranges(self.tile - blank, blank)), self._tensor(np.repeat(ends, blank)))
            if blank.any()
            else None,
            simple=bool((tiles == 1).all() and not blank.any()),
        )

    def _find(
        self, index: int, lines: _Lines, sources: Sequence[Sequence[Place]], buffer: Tensor, shape: Shape
    ) -> Source:
        """How the members of group ``index`` read the sums of ``sources`` from a buffer."""
        tiles, order = self.tiles[self._plan.groups[index].candidates], np.argsort(self._starts[index])
        many = np.array([len(sources[m]) for m in order])
        first, stride, block = lines.of([source for m in order for source in sources[m]])
        # Of each row in turn, where its summands begin: a row is a tile of a member.
        tile = _ranges(np.zeros_like(tiles), tiles[order])
        count = np.repeat(many, tiles[order])
        summand = _ranges(np.repeat(np.cumsum(many) - many, tiles[order]), count)
        begin = first[summand] + np.repeat(tile, count)
        total, positions = len(tile), self._positions(shape)
        if (count == 1).all() and (block == block[0]).all() and np.array_equal(begin, begin[0] + np.arange(stride[0])):
            return self._view(buffer, int(block[0]), total, shape)
        if self._plan.alone:
            return tuple(self._view(buffer, row, 1, shape) for row in block.tolist())
        read = begin + np.arange(positions)[:, None] * stride[summand]
        ends = np.cumsum(count) + np.arange(positions)[:, None] * len(begin)
        return Sums(
            buffer,
            self._tensor(read.ravel().astype(np.int32)),
            self._tensor(np.concatenate([[0], ends.ravel()]).astype(np.int32)),
        )

    def _find_targets(self, labels: Sequence[Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
        """For each group of last nodes the one-hot labels (tile, R, ways) and each image's weight (tile, R, 1)."""
        made: dict[int, Tensor] = {}
        for candidate, count in enumerate(self.counts.tolist()):
            group, row = self._last_row(candidate)
            if group not in made:
                _, total, ways = self.routes[group].out.shape
                made[group] = torch.zeros(self.tile, total, ways + 1, dtype=self.dtype)
            number = torch.arange(count)
            made[group][number % self.tile, row + number // self.tile, labels[candidate].cpu()] = 1
            made[group][number % self.tile, row + number // self.tile, -1] = 1 / count
        return {g: (t[..., :-1].to(self.device), t[..., -1:].to(self.device)) for g, t in made.items()}

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


class _Lines:
    """Where the rows of places begin in a buffer of lines, and how far their positions lie apart."""

    def __init__(self) -> None:
        self._blocks: dict[Place, tuple[int, int, int]] = {}

    def add(self, places: Sequence[Place], starts: Integers, block: int, total: int, positions: int) -> int:
        """Add a block of ``total`` rows that begins after ``block`` rows; return ``total``."""
        for place, start in zip(places, starts.tolist(), strict=True):
            self._blocks[place] = block * positions + start, total, block
        return total

    def of(self, places: Sequence[Place]) -> tuple[Integers, Integers, Integers]:
        """The first line of each place, its stride, and the first row of its block."""
        first, stride, block = np.array([self._blocks[place] for place in places], dtype=np.int64).reshape(-1, 3).T
        return first, stride, block


def _ranges(starts: Integers, lengths: Integers) -> Integers:
    """The concatenation of ``starts[i] .. starts[i] + lengths[i] - 1``."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _gather(what: Source | None, rows: int) -> Tensor:
    """What ``rows`` rows read, (P, rows, C)."""
    assert what is not None
    if isinstance(what, Tensor):
        return what
    if not isinstance(what, Sums):
        total = torch.add(*what[:2])
        for each in what[2:]:
            total += each
        return total
    buffer, read, begin = what
    return F.embedding_bag(read, buffer, begin, mode="sum", include_last_offset=True).view(-1, rows, buffer.shape[1])
