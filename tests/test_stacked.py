"""Stacked operations against torch's plain ones, one network at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rlnas import stacked_convolution
from rlnas.graph import Add, AvgPool, Classifier, Constant, Conv, Dense, GlobalPool, MaxPool, Operation, Shape
from rlnas.network import parameter_shapes
from rlnas.stacked import Block, Rows, Statistics
from rlnas.stacked_operations import stack

OPERATIONS = [
    (Conv(1, 8), (8, 4, 3)),
    (Conv(1, 5), (3, 4, 4)),
    (Conv(3, 8), (1, 5, 4)),
    (Conv(3, 3), (2, 4, 4)),
    (Conv(5, 4), (4, 3, 3)),
    (Conv(3, 1), (1, 4, 4)),
    (MaxPool(), (3, 5, 4)),
    (AvgPool(), (3, 5, 4)),
    (AvgPool(3), (3, 4, 5)),
    (AvgPool(3), (1, 1, 2)),
    (GlobalPool(), (3, 2, 4)),
    (Dense(8), (8, 2, 2)),
    (Dense(1), (5,)),
    (Classifier(3), (4, 3, 2)),
    (Classifier(2), (8,)),
    (Add(), (3, 2, 2)),
]
LAYOUTS = {
    "one row each": (4, [4, 4, 4]),
    "one member": (4, [4]),
    "blanks": (4, [3, 2, 3]),
    "several tiles": (2, [4, 6, 2, 6]),
    "tiles and blanks": (3, [4, 2, 8, 3, 7]),
    "one member, blanks": (5, [3]),
}


@dataclass
class Result:
    """What one member gets of an operation: (images, C, H, W), and the gradients of its parameters."""

    out: Tensor
    g_x: Tensor
    weights: list[Tensor]
    statistics: tuple[Tensor, ...] = ()

    def tensors(self) -> list[Tensor]:
        return [self.out, self.g_x, *self.weights, *self.statistics]


def make_rows(counts: Sequence[int], tile: int) -> tuple[Rows, list[int]]:
    """The rows of members with so many images, and the first row of each."""
    tiles = [-(-count // tile) for count in counts]
    order = sorted(range(len(counts)), key=tiles.__getitem__)
    blocks, starts, row = [], [0] * len(counts), 0
    for number in sorted(set(tiles)):
        members = [member for member in order if tiles[member] == number]
        blocks.append(Block(number, slice(row, row + number * len(members)), torch.tensor(members)))
        for member in members:
            starts[member] = row
            row += number
    blank = [
        (image, starts[m] + tiles[m] - 1)
        for m, count in enumerate(counts)
        for image in range(count - (tiles[m] - 1) * tile, tile)
    ]
    return Rows(
        tile=tile,
        owner=torch.tensor([member for member in order for _ in range(tiles[member])]),
        blocks=tuple(blocks),
        images=torch.tensor(counts, dtype=torch.float64)[:, None],
        blanks=tuple(torch.tensor(column) for column in zip(*blank, strict=True)) if blank else None,
        simple=not blank and set(tiles) == {1},
    ), starts


def into_rows(images: Sequence[Tensor], tile: int, starts: Sequence[int]) -> Tensor:
    """(images, C, H, W) of each member to (P, R, C), with zeros for the blanks."""
    total = sum(-(-len(x) // tile) for x in images)
    rows = images[0].new_zeros(total * tile, *images[0].shape[1:])
    for x, start in zip(images, starts, strict=True):
        rows[start * tile : start * tile + len(x)] = x
    return rows.view(total, tile, *images[0].shape[1:]).permute(1, 3, 4, 0, 2).flatten(0, 2).contiguous()


def from_rows(rows: Tensor, counts: Sequence[int], tile: int, starts: Sequence[int], shape: Shape) -> list[Tensor]:
    """The inverse of :func:`into_rows`."""
    images = rows.view(tile, *shape[1:], -1, shape[0]).permute(3, 0, 4, 1, 2).flatten(0, 1)
    return [images[start * tile : start * tile + count] for start, count in zip(starts, counts, strict=True)]


def spatial(shape: Shape) -> Shape:
    return shape if len(shape) == 3 else (*shape, 1, 1)


Member = tuple[list[Tensor], Tensor, Tensor]
"""A member's parameters, its images and the gradient at their outputs."""


def draw(operation: Operation, shape: Shape, counts: Sequence[int], dtype: torch.dtype = torch.float64) -> list[Member]:
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=dtype)

    given = spatial(operation.output_shape(shape))
    return [
        (
            [normal(*size) for size in parameter_shapes(operation, shape)],
            normal(count, *spatial(shape)),
            normal(count, *given),
        )
        for count in counts
    ]


def run(
    operation: Operation,
    shape: Shape,
    members: Sequence[Member],
    tile: int,
    fixed: Statistics | None = None,
    alone: bool = False,
) -> list[Result]:
    """The operation for all members at once."""
    counts = [len(images) for _, images, _ in members]
    rows, starts = make_rows(counts, tile)
    weights = [torch.stack(part) for part in zip(*(own for own, _, _ in members), strict=True)]
    x, gradient = (into_rows([m[i] for m in members], tile, starts) for i in (1, 2))
    out, g_x = torch.full_like(gradient, torch.nan), torch.full_like(x, torch.nan)
    operation_stacked = stack(operation, shape, alone=alone)
    saved = operation_stacked.forward(weights, x, out, rows, fixed)
    if isinstance(operation, Conv):  # what later convolutions read of blank images is zero
        without_blanks = out.clone()
        rows.erase_blanks(without_blanks)
        assert_equal([out], [without_blanks])
    statistics = operation_stacked.statistics(saved, rows) or ()
    gradients = operation_stacked.backward(weights, saved, gradient, g_x, rows)
    if gradients:  # they are the same if nobody asks for that of the input
        assert_equal(operation_stacked.backward(weights, saved, gradient, None, rows), gradients)
    given = spatial(operation.output_shape(shape))
    outs, g_xs = from_rows(out, counts, tile, starts, given), from_rows(g_x, counts, tile, starts, spatial(shape))
    return [
        Result(outs[m], g_xs[m], [g[m] for g in gradients], tuple(s[m] for s in statistics))
        for m in range(len(members))
    ]


def plain(operation: Operation, member: Member, fixed: tuple[Tensor, Tensor] | None = None) -> Result:
    """The operation for one member, by torch's own means."""
    weights, images, gradient = member
    weights = [w.clone().requires_grad_() for w in weights]
    x = images.clone().requires_grad_()
    statistics: tuple[Tensor, ...] = ()
    match operation:
        case Conv(kernel):
            y = F.conv2d(x, weights[0], padding=kernel // 2)
            statistics = fixed or (y.mean((0, 2, 3)).detach(), y.var((0, 2, 3)).detach())
            mean, variance = (s.clone() for s in statistics)
            out = F.relu(F.batch_norm(y, mean, variance, weights[1], weights[2], training=fixed is None, momentum=0.0))
        case MaxPool():
            out = F.max_pool2d(x, 2)
        case AvgPool(2):
            out = F.avg_pool2d(x, 2)
        case AvgPool():
            out = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        case GlobalPool():
            out = x.mean((2, 3), keepdim=True)
        case Dense():
            out = F.relu(F.linear(x.flatten(1), *weights))[..., None, None]
        case Classifier():
            out = F.linear(x.flatten(1), *weights)[..., None, None]
        case _:
            out = x * 1
    g_x, *gradients = torch.autograd.grad(out, [x, *weights], gradient)
    return Result(out.detach(), g_x, gradients, statistics)


def assert_equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """To the last bit."""
    torch.testing.assert_close(list(found), list(expected), rtol=0, atol=0, equal_nan=True)


def assert_close(found: Sequence[Result], expected: Sequence[Result]) -> None:
    for mine, its in zip(found, expected, strict=True):
        for a, b in zip(mine.tensors(), its.tensors(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("operation", "shape"), OPERATIONS, ids=str)
def test_every_member_gets_what_torchs_own_operations_give(operation: Operation, shape: Shape, layout: str) -> None:
    tile, counts = LAYOUTS[layout]
    members = draw(operation, shape, counts)
    assert_close(run(operation, shape, members, tile), [plain(operation, member) for member in members])


@pytest.mark.parametrize("fixed", [False, True], ids=["own statistics", "fixed statistics"])
@pytest.mark.parametrize("positions", [1, 10_000], ids=["large", "small"])
@pytest.mark.parametrize(("operation", "shape"), [pair for pair in OPERATIONS if isinstance(pair[0], Conv)], ids=str)
def test_a_row_may_be_convolved_by_itself(
    operation: Operation, shape: Shape, positions: int, fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked_convolution, "LONE_POSITIONS", positions)
    (member,) = draw(operation, shape, [4])
    generator = torch.Generator().manual_seed(1)
    size = 1, operation.output_shape(shape)[0]
    mean, variance = (torch.rand(size, generator=generator, dtype=torch.float64) + 0.5 for _ in range(2))
    (found,) = run(operation, shape, [member], 4, Statistics(mean, variance) if fixed else None, alone=True)
    expected = plain(operation, member, (mean[0], variance[0]) if fixed else None)
    if fixed:
        found.statistics = expected.statistics = ()
    assert_close([found], [expected])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("operation", "shape"), [pair for pair in OPERATIONS if isinstance(pair[0], Conv)], ids=str)
def test_fixed_statistics_are_constants(operation: Operation, shape: Shape, layout: str) -> None:
    tile, counts = LAYOUTS[layout]
    members = draw(operation, shape, counts)
    generator = torch.Generator().manual_seed(1)
    size = len(counts), operation.output_shape(shape)[0]
    mean, variance = (torch.rand(size, generator=generator, dtype=torch.float64) + 0.5 for _ in range(2))
    found = run(operation, shape, members, tile, Statistics(mean, variance))
    expected = [plain(operation, member, (mean[m], variance[m])) for m, member in enumerate(members)]
    for result in (*found, *expected):
        result.statistics = ()
    assert_close(found, expected)


@pytest.mark.parametrize("mode", ["exact", "cut and filled up"])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 6, 8, 12, 16])
@pytest.mark.parametrize("kind", ["conv1x1", "conv3x3", "avg-pool", "global-pool", "dense", "classifier"])
def test_a_members_numbers_do_not_depend_on_the_members_beside_it(kind: str, width: int, mode: str) -> None:
    """To the last bit, whatever the numbers of channels: those are what torch's kernels divide among vectors."""
    tile, counts = (10, [10] * 5) if mode == "exact" else (7, [5, 9, 16, 6, 8])
    for given, size in ((width, 6), (width % 5 + 1, 4), (8, 1), (10, 2)):
        operations: dict[str, Operation] = {
            "conv1x1": Conv(1, given),
            "conv3x3": Conv(3, given),
            "avg-pool": AvgPool(3),
            "global-pool": GlobalPool(),
            "dense": Dense(given),
            "classifier": Classifier(given),
        }
        operation, shape = operations[kind], (width, size, size)
        members = draw(operation, shape, counts, torch.float32)
        together = run(operation, shape, members, tile)
        for chosen in ([0], [1], [2], [4], [3, 1], [4, 3, 2, 1]):
            for member, result in zip(chosen, run(operation, shape, [members[m] for m in chosen], tile), strict=True):
                assert_equal(result.tensors(), together[member].tensors())


@pytest.mark.parametrize(("operation", "shape"), OPERATIONS, ids=str)
def test_into_which_tiles_images_are_cut_makes_no_difference(operation: Operation, shape: Shape) -> None:
    members = draw(operation, shape, [6, 5, 2])
    expected = run(operation, shape, members, 1)
    for tile in (2, 4, 5, 6, 9):
        assert_close(run(operation, shape, members, tile), expected)


@pytest.mark.parametrize(("operation", "shape"), OPERATIONS, ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e300])
def test_what_one_member_suffers_no_other_feels(operation: Operation, shape: Shape, value: float) -> None:
    members = draw(operation, shape, [4, 5, 4, 2])
    expected = run(operation, shape, members, 4)
    weights, images, gradient = members[1]
    members[1] = [w * value for w in weights], images * value, gradient
    found = run(operation, shape, members, 4)
    for member in (0, 2, 3):
        assert_equal(found[member].tensors(), expected[member].tensors())


def test_a_border_has_fewer_neighbours() -> None:
    image = torch.arange(9.0, dtype=torch.float64).view(1, 1, 3, 3)
    (found,) = run(AvgPool(3), (1, 3, 3), [([], image, torch.ones_like(image))], 1)
    assert found.out[0, 0].tolist() == [[2.0, 2.5, 3.0], [3.5, 4.0, 4.5], [5.0, 5.5, 6.0]]
    corner = 1 / 4 + 1 / 6 + 1 / 6 + 1 / 9  # what the four windows that contain the corner make of it
    assert found.g_x[0, 0, 0, 0].item() == pytest.approx(corner)


def test_a_batch_norm_by_hand() -> None:
    """Values 1, 2, 3, 6: mean 3, variance 3.5, unbiased 14/3; the third tile is half blank."""
    image = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64).view(4, 1, 1, 1)
    weights = [torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.tensor([2.0]).double(), torch.tensor([1.0]).double()]
    for tile in (2, 3, 4, 8):
        (found,) = run(Conv(1, 1), (1, 1, 1), [(weights, image, torch.ones_like(image))], tile)
        expected = [max(0.0, 1 + 2 * (v - 3) / np.sqrt(3.5 + 1e-5)) for v in (1, 2, 3, 6)]
        assert found.out.flatten().tolist() == pytest.approx(expected)
        assert [s.item() for s in found.statistics] == pytest.approx([3, 14 / 3])
        assert found.weights[2].item() == sum(v > 0 for v in expected)


def test_the_first_of_equal_maxima_gets_the_gradient() -> None:
    image = torch.tensor([[1.0, 3.0], [3.0, 2.0]], dtype=torch.float64).view(1, 1, 2, 2)
    (found,) = run(MaxPool(), (1, 2, 2), [([], image, torch.full((1, 1, 1, 1), 7.0).double())], 1)
    assert found.out.item() == 3
    assert found.g_x[0, 0].tolist() == [[0.0, 7.0], [0.0, 0.0]]


def test_features_are_in_the_order_channel_row_column() -> None:
    image = torch.arange(8.0, dtype=torch.float64).view(1, 2, 2, 2)
    weights = [torch.eye(8, dtype=torch.float64)[[0, 1, 2, 4]], torch.tensor([0.0, 10.0, 0.0, -9.0]).double()]
    gradient = torch.tensor([1.0, 2.0, 3.0, 4.0]).double().view(1, 4, 1, 1)
    (found,) = run(Dense(4), (2, 2, 2), [(weights, image, gradient)], 1)
    assert found.out.flatten().tolist() == [0.0, 11.0, 2.0, 0.0]  # 4 - 9 is below zero
    assert found.g_x.flatten().tolist() == [0.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert found.weights[1].tolist() == [0.0, 2.0, 3.0, 0.0]


def test_totals_and_copies_by_hand() -> None:
    rows, starts = make_rows([5, 1, 2], 2)
    assert starts == [2, 0, 1]
    assert rows.spread(torch.tensor([1.0, 2.0, 3.0])).tolist() == [2, 3, 1, 1, 1]
    assert rows.total(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])).tolist() == [28, 1, 2]
    values = torch.ones(2 * prod((3,)), 5, 1)
    rows.erase_blanks(values)
    assert values.view(2, 3, 5).sum(1).tolist() == [[3, 3, 3, 3, 3], [0, 3, 3, 3, 0]]


def test_a_constant_is_not_computed() -> None:
    with pytest.raises(TypeError, match="nothing about it depends on the image"):
        stack(Constant(3), (1, 2, 2))
