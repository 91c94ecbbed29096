from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rlnas.errors import ConfigurationError
from rlnas.graph import count_flops, count_parameters
from rlnas.network import Network, build_network
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace
from rlnas.task import FewShotTask

CHAIN = ChainSpace(max_layers=4, input_size=6, widths=(3, 5), dense_widths=(7,))
CELL = CellSpace(width=4, cells=2)
seeds = st.integers(0, 2**32)


def make_task(seed: int = 0, side: int = 6, ways: int = 3) -> FewShotTask:
    rng = np.random.default_rng(seed)
    images, labels = rng.random((4 * ways, 2, side, side)), np.arange(4 * ways) % ways
    half = 2 * ways
    return FewShotTask(f"t:train/{seed}", "noise", images[:half], labels[:half], images[half:], labels[half:])


TASK = make_task()


def weights(network: Network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()] or [torch.zeros(0)])


@settings(deadline=None)
@given(st.sampled_from([CHAIN, CELL]), seeds)
def test_counted_and_built_parameters_agree(space: SearchSpace, seed: int) -> None:
    architecture = space.sample(np.random.default_rng(seed))
    network = build_network(architecture, TASK)
    built = sum(p.numel() for p in network.parameters())
    assert built == count_parameters(architecture.graph(3), TASK.image_shape)


@settings(deadline=None)
@given(st.sampled_from([CHAIN, CELL]), seeds)
def test_counted_flops_are_those_of_the_layers_that_run(space: SearchSpace, seed: int) -> None:
    architecture = space.sample(np.random.default_rng(seed))
    network = build_network(architecture, TASK)
    counted = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Conv2d | nn.Linear):
            counted += output[0].numel() * math.prod(module.weight.shape[1:])

    for module in network.modules():
        module.register_forward_hook(count)
    network.eval()(torch.from_numpy(TASK.query_x[:1].copy()))
    assert counted == count_flops(architecture.graph(3), TASK.image_shape)


def test_a_network_by_hand() -> None:
    architecture = CHAIN.parse("conv3x3-5 > max-pool > dense-7")
    assert count_parameters(architecture.graph(3), (2, 6, 6)) == (5 * 2 * 9 + 10) + (7 * 45 + 7) + (21 + 3)
    network = build_network(architecture, TASK)
    assert [tuple(p.shape) for p in network.parameters()] == [(5, 2, 3, 3), (5,), (5,), (7, 45), (7,), (3, 7), (3,)]


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([CHAIN, CELL]), seeds, seeds)
def test_weights_follow_from_the_proposal_alone(space: SearchSpace, which: int, seed: int) -> None:
    architecture = space.sample(np.random.default_rng(which))
    first = build_network(architecture, TASK, seed)
    torch.rand(3)
    second = build_network(space.decode(architecture.choices), make_task(), seed)
    assert torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("text", ["conv3x3-5 > conv3x3-5", "identity", "dense-7"])
def test_seed_task_and_architecture_each_change_the_weights(text: str) -> None:
    architecture = CHAIN.parse(text)
    base = weights(build_network(architecture, TASK, 0))
    assert not torch.equal(base, weights(build_network(architecture, TASK, 1)))
    assert not torch.equal(base, weights(build_network(architecture, make_task(1), 0)))
    deeper = build_network(CHAIN.parse("avg-pool > conv3x3-5 > conv3x3-5"), TASK, 0)
    same = build_network(CHAIN.parse("conv3x3-5 > conv3x3-5"), TASK, 0)
    assert not torch.equal(deeper.nodes[1][0].weight, same.nodes[0][0].weight)


def test_equal_layers_of_one_network_start_apart() -> None:
    network = build_network(CHAIN.parse("conv3x3-5 > conv3x3-5 > conv3x3-5"), TASK)
    assert not torch.equal(network.nodes[1][0].weight, network.nodes[2][0].weight)


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    for text in ("conv3x3-5 > max-pool > dense-7", "avg-pool"):
        build_network(CHAIN.parse(text), TASK)
    build_network(CELL.decode([3, 2, 4, 1, 3, 2]), TASK)
    assert torch.equal(torch.get_rng_state(), before)


def test_starting_values() -> None:
    space = ChainSpace(max_layers=3, input_size=6, widths=(64,), dense_widths=(256,))
    network = build_network(space.parse("conv3x3-64 > conv5x5-64 > dense-256"), TASK)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = math.prod(module.weight.shape[1:])
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.1)
            assert abs(module.weight.mean().item()) < 0.1 * math.sqrt(2 / fan_in)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
            assert not module.running_mean.any()
            assert (module.running_var == 1).all()


def test_a_network_that_was_not_drawn_is_zero() -> None:
    network = Network(CHAIN.parse("conv3x3-5 > dense-7").graph(3), TASK.image_shape)
    assert all(not m.weight.any() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def test_batch_norm_keeps_the_last_batch_alone() -> None:
    network = build_network(CHAIN.parse("conv3x3-5"), TASK)
    images = torch.from_numpy(TASK.support_x.copy())
    norm = network.nodes[0][1]
    for batch in (images * 3, images):
        network.train()(batch)
        seen = network.nodes[0][0](batch)
        assert torch.allclose(norm.running_mean, seen.mean((0, 2, 3)), atol=1e-5)


def test_the_disconnected_cell_is_constant() -> None:
    network = build_network(CELL.decode([0] * 6), TASK)
    assert list(network.parameters()) == []
    assert torch.equal(network(torch.from_numpy(TASK.query_x.copy())), torch.zeros(6, 3))


def test_average_pooling_does_not_count_the_border() -> None:
    network = build_network(CELL.decode([0, 0, 0, 4, 0, 0]), TASK)
    pool = network.nodes[1]
    assert torch.allclose(pool(torch.ones(1, 4, 5, 5)), torch.ones(1, 4, 5, 5))


@pytest.mark.parametrize("space", [CHAIN, CellSpace(cells=3)], ids=["chain", "cell"])
def test_too_small_images_are_a_configuration_error(space: SearchSpace) -> None:
    architecture = CHAIN.parse("max-pool > max-pool") if space == CHAIN else space.decode([1] * 6)
    with pytest.raises(ConfigurationError, match=r"does not fit \(2, 3, 3\) images: node \d"):
        build_network(architecture, make_task(side=3))


def test_larger_images_always_fit() -> None:
    assert build_network(CHAIN.parse("max-pool > max-pool > dense-7"), make_task(side=11)) is not None
