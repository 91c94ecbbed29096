"""REINFORCE, and the hybrid of evolution and REINFORCE."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlnas.agents.reinforce import Hybrid, Reinforce, reinforce_for
from rlnas.agents.searchers import Searcher
from rlnas.errors import ConfigurationError
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace

from .contracts.searcher import SearcherContract, worth
from .hidden import SPACE

CHAIN = ChainSpace(max_layers=4)


class TestReinforce(SearcherContract):
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return Reinforce(space, seed, learning_rate=0.1)


class TestHybrid(SearcherContract):
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return Hybrid(space, seed, evolution_designs=15, elite=3)


def test_the_published_settings_are_the_defaults() -> None:
    policy = Reinforce(SPACE)
    assert (policy.learning_rate, policy.momentum) == (0.001, 0.9)


def test_a_new_policy_is_uniform_over_legal_choices() -> None:
    policy = Reinforce(CHAIN, 0)
    dense = CHAIN.decisions[0].choices.index("dense-32")
    for prefix in ((), (0,), (dense,), (dense, dense)):
        legal = CHAIN.legal_choices(prefix)
        np.testing.assert_allclose(policy.probabilities(prefix), legal / legal.sum())


def test_its_steps_are_those_of_adam_on_the_policy_gradient_with_a_moving_average_baseline() -> None:
    """Against PyTorch, masks and all."""
    policy = Reinforce(CHAIN, 0, learning_rate=0.05)
    logits = torch.zeros(policy.logits.shape, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    rng = np.random.default_rng(1)
    accuracies: list[float] = []
    for _ in range(12):
        design = policy.ask()
        accuracies.append(float(rng.random()))
        weights = 0.9 ** np.arange(len(accuracies))[::-1]
        advantage = accuracies[-1] - np.average(accuracies, weights=weights)
        log_p = torch.zeros((), dtype=torch.float64)
        for position, choice in enumerate(design.choices):
            legal = torch.from_numpy(CHAIN.legal_choices(design.choices[:position]))
            log_p = log_p + logits[position].masked_fill(~legal, -torch.inf).log_softmax(0)[choice]
        optimiser.zero_grad()
        (-advantage * log_p).backward()
        optimiser.step()
        policy.tell(design, accuracies[-1])
        np.testing.assert_allclose(policy.logits, logits.detach().numpy(), atol=1e-9)


def test_it_learns_which_choices_pay() -> None:
    policy = Reinforce(CellSpace(), 0, learning_rate=0.1)
    for _ in range(150):
        design = policy.ask()
        policy.tell(design, design.choices.count(3) / 6)
    assert np.mean([policy.probabilities((3,) * i)[3] for i in range(6)]) > 0.6


def test_started_from_designs_their_choices_are_likely() -> None:
    space = CellSpace()
    policy = Reinforce(space, 0)
    policy.start_from([(space.decode([2] * 6), 0.8), (space.decode([2] * 5 + [1]), 0.6)])
    np.testing.assert_allclose(policy.probabilities(), [1 / 15, 1 / 15, 11 / 15, 1 / 15, 1 / 15])
    np.testing.assert_allclose(policy.probabilities((2,) * 5), [1 / 15, 6 / 15, 6 / 15, 1 / 15, 1 / 15])


def test_the_hybrid_goes_on_from_the_best_that_evolution_found() -> None:
    search = Hybrid(CellSpace(), 0, evolution_designs=20, elite=1)
    told = []
    for _ in range(20):
        design = search.ask()
        told.append(design)
        search.tell(design, worth(design))
    best = max(told, key=worth)
    likeliest = [int(search.policy.probabilities(best.choices[:i]).argmax()) for i in range(6)]
    assert likeliest == list(best.choices)
    before = search.policy.logits.copy()
    population = list(search.evolution.population)
    search.tell(search.ask(), 0.5)
    assert (search.policy.logits != before).any()
    assert list(search.evolution.population) == population


def test_the_learning_rate_follows_the_budget() -> None:
    rates = [reinforce_for(designs)["learning_rate"] for designs in (1, 100, 1000, 10_000, 10**6)]
    assert rates == [0.1, 0.1, 0.01, 0.001, 0.001]


@pytest.mark.parametrize(("option", "value"), [("learning_rate", 0.0), ("learning_rate", np.nan), ("momentum", 1.0)])
def test_a_setting_that_is_not_allowed_is_named(option: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be"):
        Reinforce(SPACE, 0, **{option: value})  # type: ignore[arg-type]
