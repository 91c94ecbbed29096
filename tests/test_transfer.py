"""The Bayesian searcher that begins with what other tasks teach."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import VectorEnv

import rlnas  # noqa: F401 - registers the environments
from rlnas import task_prior
from rlnas.agents.search_run import run_search
from rlnas.agents.transfer import Posterior, TransferAgent, transfer_gp
from rlnas.errors import ConfigurationError
from rlnas.synthetic_tasks import prior_of_table
from rlnas.table import Table
from rlnas.task_prior import Belief

from .test_registry import problem, search

TASKS, DESIGNS = 16, 10


@pytest.fixture(scope="module")
def table() -> Table:
    return Table.from_spec("digits")


@pytest.fixture(scope="module")
def agent(table: Table) -> TransferAgent:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_prior, "STEPS", 30)
        patch.setattr(task_prior, "BASIS", 150)
        prior = prior_of_table(
            table, [c for c, split in zip(table.tasks, table.splits or (), strict=True) if split == "train"]
        )
    return TransferAgent(prior, table.space.codes, make_env().layout)  # type: ignore[attr-defined]


def make_env(**options: object) -> VectorEnv:
    tasks = {"tasks": "table:digits:val", "designs_per_trial": DESIGNS, **options}
    return gym.make_vec("rlnas/DigitsTableTrial-v0", num_envs=TASKS, **tasks)  # type: ignore[arg-type]


def test_the_posterior_is_that_of_linear_regression() -> None:
    """Three designs, two basis functions, an unknown level: compared with the joint normal distribution itself."""
    basis = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    belief = Belief(
        np.array([0.1, 0.0, -0.1]), basis, np.array([1.0, 0.5]), (0.4, 0.2), (np.log(0.3), 0.1), np.full(3, 0.05)
    )
    posterior = Posterior(belief)
    posterior.tell(2, 0.9)
    covariance = 0.09 * basis @ np.diag([1.0, 0.5]) @ basis.T + 0.04
    mean = 0.4 + 0.3 * belief.mean
    gain = covariance[:, 2] / (covariance[2, 2] + 0.05**2)
    found, deviation = posterior.predict()
    np.testing.assert_allclose(found, mean + gain * (0.9 - mean[2]))
    np.testing.assert_allclose(deviation**2, np.diag(covariance) - gain * covariance[:, 2] + 0.05**2)
    assert posterior.expected_improvement()[2] == 0


def test_it_searches_unseen_tasks_better_than_at_random_and_repeats_nothing(agent: TransferAgent, table: Table) -> None:
    run = run_search(agent, make_env(), range(TASKS), seed=0)
    best = np.array([table.best(name) for name in table.tasks if "val" in name])
    mean = np.array([table.mean(name) for name in table.tasks if "val" in name])
    regret = ((best - run.best_so_far[:, -1]) / (best - mean)).mean()
    assert regret < 0.3  # random search has .38
    assert all(len(set(designs)) == DESIGNS for designs in run.architectures.tolist())


def test_advice_goes_on_from_whatever_was_chosen(agent: TransferAgent, table: Table) -> None:
    env, rng = make_env(duplicates="refuse"), np.random.default_rng(0)
    observation, _ = env.reset(seed=0, options={"task": list(range(TASKS))})
    start = np.ones(TASKS, dtype=np.bool_)
    told = []
    for _ in range(12):
        advice = agent.advise(observation, start)
        start = np.zeros(TASKS, dtype=np.bool_)
        legal = observation[:, env.layout["legal"]] > 0  # type: ignore[attr-defined]
        np.testing.assert_allclose(advice.sum(1), 1, rtol=1e-5)
        assert (advice[~legal] == 0).all()
        told.append(advice)
        observation, *_ = env.step(np.array([rng.choice(np.flatnonzero(row)) for row in legal]))
    assert max(advice.max(1).min() for advice in told) > 1 / table.space.num_choices


def test_advice_and_proposals_agree(agent: TransferAgent) -> None:
    env = make_env()
    observation, _ = env.reset(seed=0)
    start = np.ones(TASKS, dtype=np.bool_)
    # A proposal is of the one best design, advice weighs all that are nearly as good: they may differ now and then.
    same = agent.predict(observation, None, start)[0] == agent.advise(observation, start).argmax(1)
    assert same.mean() > 0.5


def test_where_networks_are_trained_it_learns_from_the_portfolios_record() -> None:
    run = search(transfer_gp(problem(8), 0), 8, trials=12)
    assert run.best_so_far[:, -1].mean() > search_at_random(8)


def search_at_random(designs: int) -> float:
    from rlnas.agents.registry import resolve_agent

    return float(search(resolve_agent("random")(problem(designs), 0), designs, trials=12).best_so_far[:, -1].mean())


def test_it_does_not_search_by_edits(agent: TransferAgent) -> None:
    layout = gym.make_vec("rlnas/EditTrial-v0", num_envs=1).layout  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="where networks are edited"):
        TransferAgent(agent._prior, agent._codes, layout)
