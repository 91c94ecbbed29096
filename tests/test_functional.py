"""The functional forward is the reference network, and can be differentiated through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from rlnas.adaptation import standardise
from rlnas.digits import DigitsSource
from rlnas.functional import embed, run
from rlnas.graph import INPUT, Classifier, Conv, Node
from rlnas.network import Network, Weights, random_weights
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace

CHAIN = ChainSpace(max_layers=4, widths=(3, 5), dense_widths=(7,))
CELL = CellSpace(width=4)
TASK = DigitsSource().task("train", 0)
SUPPORT, _, QUERY, _ = (part.double() for part in standardise(TASK, torch.device("cpu")))
BOTH = torch.cat([SUPPORT, QUERY])


def double_weights(space: SearchSpace, seed: int) -> tuple[Network, Weights]:
    """A random architecture's reference in float64, and its weights; scales and shifts are not left at 1 and 0."""
    architecture = space.sample(np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(seed)
    drawn = random_weights(architecture, TASK, seed)
    weights = tuple(tuple(t.double() + 0.1 * torch.randn(t.shape, generator=generator) for t in node) for node in drawn)
    network = Network(architecture.graph(TASK.ways), TASK.image_shape).double()
    network.load_weights(weights)
    return network, weights


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([CHAIN, CELL]), st.integers(0, 2**32))
def test_it_computes_what_the_reference_computes(space: SearchSpace, seed: int) -> None:
    network, weights = double_weights(space, seed)
    with torch.no_grad():
        support, support_embedding = network.train()(SUPPORT), network.embed(SUPPORT)
        query, query_embedding = network.eval()(QUERY), network.embed(QUERY)
    count = len(SUPPORT)
    assert torch.allclose(run(network.graph, weights, BOTH, count), torch.cat([support, query]), atol=1e-10)
    expected = torch.cat([support_embedding, query_embedding])
    assert torch.allclose(embed(network.graph, weights, BOTH, count), expected, atol=1e-10)
    assert torch.allclose(run(network.graph, weights, SUPPORT, count), support, atol=1e-10)
    assert torch.allclose(run(network.graph, weights, SUPPORT), support, atol=1e-10)


def test_without_support_all_images_are_measured_together() -> None:
    graph = CHAIN.parse("conv3x3-5 > max-pool").graph(TASK.ways)
    weights = random_weights(CHAIN.parse("conv3x3-5 > max-pool"), TASK)
    together, alone = run(graph, weights, BOTH.float()), run(graph, weights, BOTH.float()[:5])
    assert not torch.allclose(together[:5], alone, atol=1e-2)


def test_batch_norm_by_hand() -> None:
    images = torch.tensor([[1.0, 3.0], [5.0, 7.0], [11.0, 1.0]], dtype=torch.float64).reshape(3, 1, 1, 2)
    weights = (tuple(torch.tensor(v, dtype=torch.float64) for v in ([[[[1.0]]]], [2.0], [0.5])), ())
    graph = Node(Conv(1, 1), (INPUT,)), Node(Classifier(2), (0,))
    seen = embed(graph, weights, images, 2).flatten()
    # The support's mean is 4, its variance 5 (biased) and 20/3 (unbiased).
    biased = [2 * (x - 4) / np.sqrt(5 + 1e-5) + 0.5 for x in (1, 3, 5, 7)]
    unbiased = [2 * (x - 4) / np.sqrt(20 / 3 + 1e-5) + 0.5 for x in (11, 1)]
    assert np.allclose(seen, np.maximum([*biased, *unbiased], 0))


@pytest.mark.parametrize("support", [None, 4])
def test_gradients_flow_through_the_measured_statistics(support: int | None) -> None:
    images, generator = BOTH[:9].clone().requires_grad_(), torch.Generator().manual_seed(0)
    graph = CHAIN.parse("max-pool > conv3x3-3").graph(2)
    kernel, scale, shift, matrix = (
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in ((3, 1, 3, 3), (3,), (3,), (2, 3 * BOTH[0].numel() // 4))
    )

    def loss(kernel: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        logits = run(graph, ((), (kernel, scale, shift), (matrix, matrix[:, 0])), images, support)
        return F.cross_entropy(logits[-3:], torch.tensor([0, 1, 0]))

    assert torch.autograd.gradcheck(loss, (kernel, scale, shift))
    assert torch.autograd.gradgradcheck(loss, (kernel, scale, shift))
    if support:
        (gradient,) = torch.autograd.grad(loss(kernel, scale, shift), images)
        assert gradient[:support].abs().max() > 0  # what a query image is told depends on the support images
        assert gradient[support:-3].abs().max() == 0


def test_a_constant_network_gives_zeros() -> None:
    graph = CELL.decode([0] * 6).graph(3)
    assert torch.equal(run(graph, ((),), QUERY, 2), torch.zeros(len(QUERY), 3))
    assert torch.equal(embed(graph, ((),), QUERY), torch.zeros(len(QUERY), 1))
