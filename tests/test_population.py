"""Networks in lock-step against the readable reference, one network at a time, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rlnas import stacked_convolution
from rlnas.adaptation import Adaptation, adapt
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
    Shape,
    input_shapes,
)
from rlnas.network import Network, Weights, draw_parameters
from rlnas.population import Population
from rlnas.routes import Images
from rlnas.search_space import CellSpace, ChainSpace

CPU = torch.device("cpu")
TILES = [2, 5, 25]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def by_hand() -> list[Graph]:
    """What the search spaces never make, or seldom: sums of one thing, of the image, of sums; nothing but pooling."""
    return [
        (
            Node(Conv(3, 2), (INPUT,)),
            Node(Add(), (0, 0)),
            Node(Conv(1, 2), (1, 1)),
            Node(Add(), (0, 1, 2, 2)),
            Node(Add(), (3, 3, 0)),
            Node(Classifier(3), (4,)),
        ),
        (
            Node(Conv(3, 1), (INPUT,)),
            Node(Add(), (0, INPUT, INPUT)),
            Node(MaxPool(), (1,)),
            Node(MaxPool(), (INPUT,)),
            Node(Conv(1, 1), (2, 3)),
            Node(Classifier(3), (4, 3)),
        ),
        (Node(AvgPool(3), (INPUT,)), Node(GlobalPool(), (0,)), Node(Classifier(3), (1,))),
        (Node(Add(), (INPUT, INPUT)), Node(Dense(4), (0,)), Node(Dense(4), (1,)), Node(Classifier(3), (1, 2, 2))),
        (Node(Classifier(3), (INPUT, INPUT)),),
    ]


class Candidates:
    """Networks on tasks of their own, as a population takes them and as the reference does.

    Args:
        graphs: the networks; the first classifies into 3 classes and the others into as many as they say.
        dtype: of everything.
    """

    def __init__(self, graphs: Sequence[Graph], dtype: torch.dtype = torch.float64) -> None:
        self.graphs, self.dtype = list(graphs), dtype
        generator = torch.Generator().manual_seed(0)
        self.support: list[tuple[Tensor, Tensor]] = []
        self.query: list[tuple[Tensor, Tensor]] = []
        for number, graph in enumerate(self.graphs):
            ways = graph[-1].operation.output_shape((1,))[0]
            side = (8, 12)[number % 2]
            for sets, count in ((self.support, ways * (1 + number % 3)), (self.query, 7)):
                images = torch.randn(count, 1, side, side, generator=generator).to(dtype)
                sets.append((images, torch.arange(count) % ways))
        self.shapes: list[Shape] = [tuple(images.shape[1:]) for images, _ in self.support]
        self.weights = [self._draw(number) for number in range(len(self.graphs))]

    def _draw(self, number: int) -> Weights:
        """As a network starts, but with scales and shifts and biases that are not 1 and 0."""
        graph = self.graphs[number]
        shapes = input_shapes(graph, self.shapes[number])
        drawn = [
            draw_parameters(n.operation, s, (number, i)) for i, (n, s) in enumerate(zip(graph, shapes, strict=True))
        ]
        generator = torch.Generator().manual_seed(number)
        return tuple(
            tuple(
                (p + 0.1 * torch.randn(p.shape, generator=generator) if p.ndim == 1 else p).to(self.dtype) for p in node
            )
            for node in drawn
        )

    def rates(self, number: int) -> Weights:
        """A rate for each number, between 0 and 0.05."""
        generator = torch.Generator().manual_seed(number)
        return tuple(
            tuple(torch.rand(p.shape, generator=generator).to(self.dtype) * 0.05 for p in node)
            for node in self.weights[number]
        )

    def network(self, number: int) -> Network:
        network = Network(self.graphs[number], self.shapes[number]).to(self.dtype)
        network.load_weights(self.weights[number])
        return network

    def population(self, chosen: Sequence[int] | None = None) -> Population:
        chosen = range(len(self.graphs)) if chosen is None else chosen
        population = Population([self.graphs[c] for c in chosen], [self.shapes[c] for c in chosen], CPU, self.dtype)
        population.load([self.weights[c] for c in chosen], 0.05)
        return population

    def images(self, population: Population, tile: int, chosen: Sequence[int] | None = None) -> tuple[Images, Images]:
        """Support and query images, both with their labels."""
        chosen = range(len(self.graphs)) if chosen is None else chosen
        support, query = ([sets[c] for c in chosen] for sets in (self.support, self.query))
        first, second = (
            population.images([images for images, _ in each], [labels for _, labels in each], tile)
            for each in (support, query)
        )
        return first, second


@lru_cache
def candidates() -> Candidates:
    rng = np.random.default_rng(0)
    chains = ChainSpace(max_layers=4, widths=(3, 8), dense_widths=(6, 16))
    found = [chains.sample(rng).graph(3 + i % 3) for i in range(7)]
    found += [CellSpace(width).sample(rng).graph(3) for width in (4, 8, 8, 4, 8, 8, 1)]
    return Candidates([*(g for g in found if not isinstance(g[-1].operation, Constant)), *by_hand()])


def flat(weights: Weights) -> list[Tensor]:
    return [part for node in weights for part in node]


def assert_close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    torch.testing.assert_close(list(found), list(expected), rtol=1e-9, atol=1e-9)


def assert_equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """To the last bit."""
    torch.testing.assert_close(list(found), list(expected), rtol=0, atol=0, equal_nan=True)


def test_weights_come_out_as_they_went_in() -> None:
    them = candidates()
    population = them.population()
    assert len(population) == len(them.graphs)
    for number, weights in enumerate(them.weights):
        found = population.weights_of(number)
        assert list(map(len, found)) == list(map(len, weights))
        assert_equal(flat(found), flat(weights))


@pytest.mark.parametrize("tile", TILES)
def test_logits_and_gradients_are_those_of_autograd(tile: int) -> None:
    them = candidates()
    population = them.population()
    logits, gradients = population.gradients(them.images(population, tile)[0])
    for number, (images, labels) in enumerate(them.support):
        network = them.network(number).train()
        expected = network(images)
        assert_close([logits[number]], [expected.detach()])
        assert_close(
            flat(gradients[number]), torch.autograd.grad(F.cross_entropy(expected, labels), list(network.parameters()))
        )


@pytest.mark.parametrize("positions", [1, 10_000], ids=["large", "small"])
def test_a_network_may_be_trained_by_itself(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacked_convolution, "LONE_POSITIONS", positions)
    them, adaptation = candidates(), Adaptation(4, 0.05)
    for number, (graph, shape) in enumerate(zip(them.graphs, them.shapes, strict=True)):
        (images, labels), network = them.support[number], them.network(number)
        population = Population([graph], [shape], CPU, torch.float64, alone=True)
        assert all(len(group.members) == 1 for group in population.groups)
        population.load([them.weights[number]], 0.05)
        support = population.images([images], [labels], len(images))
        _, (gradients,) = population.gradients(support)
        loss = F.cross_entropy(network.train()(images), labels)
        assert_close(flat(gradients), torch.autograd.grad(loss, list(network.parameters())))
        population.adapt(support, adaptation)
        adapt(network, images, labels, adaptation)
        assert_close(flat(population.weights_of(0)), [p.detach() for p in network.parameters()])
        query, _ = them.query[number]
        (logits,) = population.logits(population.images([query], tile=len(query)), population.statistics(support))
        assert_close([logits], [network.eval()(query).detach()])


@pytest.mark.parametrize("tile", TILES)
def test_fixed_statistics_are_those_of_a_network_in_evaluation_mode(tile: int) -> None:
    them = candidates()
    population = them.population()
    support, query = them.images(population, tile)
    statistics = population.statistics(support)
    logits, gradients = population.gradients(query, statistics)
    assert_equal(population.logits(query, statistics), logits)
    embeddings = population.embeddings(query, statistics)
    for number, (images, labels) in enumerate(them.query):
        network = them.network(number).train()
        network(them.support[number][0])
        network.eval()
        expected = network(images)
        assert_close([logits[number]], [expected.detach()])
        assert_close([embeddings[number]], [network.embed(images).detach()])
        assert_close(
            flat(gradients[number]), torch.autograd.grad(F.cross_entropy(expected, labels), list(network.parameters()))
        )


@pytest.mark.parametrize("tile", [5, 25])
@pytest.mark.parametrize(
    "adaptation",
    [
        Adaptation(6, 0.05),
        Adaptation(6, 0.05, clip=0.5),
        Adaptation(6, 0.05, 0.5, "anil", clip=2.0),
        Adaptation(6, 0.05, method="meta-sgd"),
        Adaptation(6, 0.05, method="prototype"),
    ],
    ids=str,
)
def test_adaptation_is_that_of_each_network_by_itself(adaptation: Adaptation, tile: int) -> None:
    them = candidates()
    population = them.population()
    learned = adaptation.method == "meta-sgd"
    numbers = range(len(them.graphs))
    population.load(them.weights, [them.rates(n) for n in numbers] if learned else adaptation.learning_rate)
    support, query = them.images(population, tile)
    steps = np.arange(len(them.graphs)) % 7
    population.adapt(support, adaptation, steps)
    logits = population.logits(query, population.statistics(support))
    for number in numbers:
        network, own = them.network(number), adaptation.with_steps(int(steps[number]))
        adapt(network, *them.support[number], own, them.rates(number) if learned else ())
        assert_close(flat(population.weights_of(number)), [p.detach() for p in network.parameters()])
        assert_close([logits[number]], [network.eval()(them.query[number][0]).detach()])


def test_every_candidate_takes_the_adaptations_steps_unless_told_otherwise() -> None:
    them = candidates()
    found = []
    for steps in (None, np.full(len(them.graphs), 3)):
        population = them.population()
        population.adapt(them.images(population, 25)[0], Adaptation(3), steps)
        found.append([part for number in range(len(population)) for part in flat(population.weights_of(number))])
    assert_equal(*found)


def test_a_rate_may_be_a_whole_number() -> None:
    them = candidates()
    found = []
    for rate in (1, 1.0):
        population = them.population()
        population.load(them.weights, rate)
        population.adapt(them.images(population, 25)[0], Adaptation(1))
        found.append([part for number in range(len(population)) for part in flat(population.weights_of(number))])
    assert_equal(*found)


def results(population: Population, images: tuple[Images, Images], adaptation: Adaptation) -> list[list[Tensor]]:
    """Of each candidate everything that adaptation leaves."""
    support, query = images
    population.adapt(support, adaptation)
    logits = population.logits(query, population.statistics(support))
    return [[*flat(population.weights_of(number)), logits[number]] for number in range(len(population))]


@pytest.mark.parametrize("tile", [5, 25])
def test_a_poisoned_candidate_harms_no_other(tile: int) -> None:
    them = Candidates(candidates().graphs, torch.float32)
    adaptation = Adaptation(3, 0.05, clip=0.5)
    population = them.population()
    expected = results(population, them.images(population, tile), adaptation)
    for first in range(2):
        poisoned = range(first, len(them.graphs), 2)
        weights = list(them.weights)
        for number in poisoned:
            weights[number] = tuple(tuple(torch.full_like(p, torch.nan) for p in node) for node in weights[number])
        population = them.population()
        population.load(weights, 0.05)
        for number, found in enumerate(results(population, them.images(population, tile), adaptation)):
            if number in poisoned:
                assert not found[-1].isfinite().any()
            else:
                assert_equal(found, expected[number])


@pytest.mark.parametrize("tile", [5, 25])
def test_nothing_of_a_candidate_depends_on_its_neighbours(tile: int) -> None:
    """Among those who may share a population: with sets of exactly one tile, or none of those."""
    them = Candidates(candidates().graphs, torch.float32)
    numbers = [n for n in range(len(them.graphs)) if len(them.support[n][0]) != tile]
    adaptation = Adaptation(3, 0.05, clip=1.0)

    def train(chosen: Sequence[int]) -> list[list[Tensor]]:
        population = them.population(chosen)
        return results(population, them.images(population, tile, chosen), adaptation)

    together = dict(zip(numbers, train(numbers), strict=True))
    order = np.random.default_rng(0).permutation(numbers).tolist()
    for chosen in (*([n] for n in numbers), numbers[::2], order, [*numbers, *numbers]):
        for number, found in zip(chosen, train(chosen), strict=True):
            assert_equal(found, together[number])


def test_one_that_is_done_is_left_alone_even_if_its_gradient_is_infinite() -> None:
    graph = (Node(Dense(8), (INPUT,)), Node(Dense(8), (0,)), Node(Classifier(3), (1,)))
    them = Candidates([graph, graph], torch.float32)
    (matrix, bias), *others = them.weights[0]
    small = torch.zeros_like(matrix), torch.full_like(bias, 1e-30)
    huge = (small, *(tuple(p * 1e20 if p.ndim == 2 else p * 0 for p in node) for node in others))
    population = them.population()
    population.load([huge, them.weights[1]], 0.05)
    support, _ = them.images(population, 25)
    logits, gradients = population.gradients(support)
    assert logits[0].isfinite().all()
    assert not all(part.isfinite().all() for part in flat(gradients[0]))
    population.adapt(support, Adaptation(5), np.array([0, 5]))
    assert_equal(flat(population.weights_of(0)), flat(huge))
    assert not torch.equal(flat(population.weights_of(1))[0], flat(them.weights[1])[0])


def test_what_was_said_stays_said() -> None:
    them = candidates()
    population = them.population()
    support, query = them.images(population, 25)
    logits, embeddings = population.logits(query), population.embeddings(query)
    before = [each.clone() for each in (*logits, *embeddings)]
    population.adapt(support, Adaptation(2))
    population.logits(query)
    assert_equal([*logits, *embeddings], before)


def test_images_may_be_taken_in_turn() -> None:
    them = candidates()
    population = them.population()
    _, images = them.images(population, 5)
    first = population.logits(images)
    images.fill([x.flip(0) for x, _ in them.query])
    assert_close(population.logits(images), [logits.flip(0) for logits in first])
    images.fill([x for x, _ in them.query])
    assert_equal(population.logits(images), first)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_nothing_is_recorded_for_autograd(mode: type[torch.no_grad]) -> None:
    them = candidates()
    with mode():
        population = them.population()
        support, query = them.images(population, 25)
        population.adapt(support, Adaptation(1))
        said = [*population.logits(query), *population.embeddings(query), *flat(population.gradients(support)[1][0])]
    assert not any(each.requires_grad for each in (*said, *flat(population.weights_of(0))))


def test_the_order_in_which_readers_are_computed_makes_no_difference() -> None:
    """Beside a network of 5 x 5 convolutions these come first; one node's three gradients are summed all the same."""
    kernels = 1, 3, 5
    three = (
        Node(Conv(3, 8), (INPUT,)),
        *(Node(Conv(kernel, 8), (0,)) for kernel in kernels),
        Node(Classifier(3), (1, 2, 3)),
    )
    fives = (Node(Conv(3, 8), (INPUT,)), *(Node(Conv(5, 8), (0,)) for _ in range(3)), Node(Classifier(3), (1, 2, 3)))
    them = Candidates([three, three, fives], torch.float32)
    found = []
    for chosen, first in ([0], 1), ([0, 2], 5):
        population = them.population(chosen)
        operations = [group.operation for group in population.groups]
        assert operations[:2] == [Conv(3, 8), Conv(first, 8)]
        support, _ = them.images(population, 25, chosen)
        found.append(flat(population.gradients(support)[1][0]))
    assert_equal(*found)


def test_rows_that_lie_side_by_side_may_be_of_two_groups() -> None:
    """With tiles of one image, a classifier reads the last of one group's outputs and the first of the next's."""
    graphs = [(Node(Dense(16), (INPUT,)), Node(Classifier(ways), (0,))) for ways in (3, 5, 5, 3)]
    generator = torch.Generator().manual_seed(0)
    shapes: list[Shape] = [(1, side, side) for side in (12, 12, 8, 8)]
    images = [torch.randn(1, *shape, generator=generator) for shape in shapes]
    networks, weights = [], []
    for number, (graph, shape) in enumerate(zip(graphs, shapes, strict=True)):
        drawn = [
            draw_parameters(n.operation, s, (number, i))
            for i, (n, s) in enumerate(zip(graph, input_shapes(graph, shape), strict=True))
        ]
        networks.append(Network(graph, shape))
        networks[-1].load_weights(tuple(drawn))
        weights.append(tuple(drawn))
    population = Population(graphs, shapes, CPU)
    population.load(weights, 0.05)
    found = population.logits(population.images(images, tile=1))
    torch.testing.assert_close(found, [network(x).detach() for network, x in zip(networks, images, strict=True)])
