"""Baselines that carry designs over from the training tasks."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from rlnas.agents import portfolio as transfer
from rlnas.agents.portfolio import (
    best_first,
    greedy_portfolio,
    nearest_portfolio,
    nearest_tasks,
    training_record,
    warm_evolution,
    warm_tpe,
)
from rlnas.agents.problem import MakeAgent, SearchProblem
from rlnas.agents.registry import AGENTS
from rlnas.agents.search_run import run_search
from rlnas.envs.observation import ObservationLayout
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.search_space import ChainSpace, SearchSpace
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator

from .hidden import KINDS, SPACE, HiddenEvaluator, HiddenSource, HiddenTask, accuracy_of, hidden_env

REGRET = np.array(
    [
        [0.3, 0.3, 0.3],  # the best on average
        [0.0, 0.9, 0.9],
        [0.9, 0.0, 0.9],
        [0.9, 0.9, 0.0],
        [0.2, 0.8, 0.2],
        [1.5, 1.5, 1.5],
    ]
)


def test_the_best_on_average_come_in_order() -> None:
    assert best_first(REGRET, 3) == [0, 4, 1]
    assert best_first(REGRET, 10) == [0, 4, 1, 2, 3, 5]


def test_each_member_of_a_portfolio_is_what_helps_most_beside_those_before() -> None:
    # After 0: each specialist brings the mean from .3 to .2, design 4 to .233. Then the other specialists. After
    # them nothing helps, and the rest makes a portfolio of its own.
    assert greedy_portfolio(REGRET, 6) == [0, 1, 2, 3, 4, 5]
    assert greedy_portfolio(REGRET[[0, 4, 1, 2, 3]], 5) == [0, 2, 3, 4, 1]
    assert greedy_portfolio(REGRET, 2) == [0, 1]
    assert greedy_portfolio(REGRET, 99) == [0, 1, 2, 3, 4, 5]


def test_a_portfolio_is_greedily_the_best() -> None:
    regret = np.random.default_rng(0).random((40, 6))
    chosen = greedy_portfolio(regret, 4)
    for k in range(4):
        worth = [regret[[*chosen[:k], c]].min(0).mean() for c in range(40)]
        assert worth[chosen[k]] == min(worth)


def test_near_tasks_are_near_in_units_of_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "NEAREST", 2)
    descriptors = np.array([[0, 0.25, 5], [100, 0.25, 5], [0, 0.5, 5], [100, 0.5, 5]], dtype=np.float32)
    near = nearest_tasks(descriptors, np.array([0, 0.5, 5], dtype=np.float32))
    assert near.tolist() == [True, False, True, True]  # 0 and 3 are as near
    monkeypatch.setattr(transfer, "NEAREST", 1)
    assert nearest_tasks(descriptors, np.array([60, 0.25, 0], dtype=np.float32)).tolist() == [False, True, False, False]


def test_where_descriptors_say_nothing_every_task_is_near() -> None:
    assert nearest_tasks(np.zeros((30, 9), dtype=np.float32), np.zeros(9, dtype=np.float32)).all()


def hidden_problem(designs: int = 9, space: SearchSpace = SPACE, evaluator: Any = None) -> SearchProblem:
    return SearchProblem(
        "rlnas/Trial-v0",
        {},
        space,
        ObservationLayout(space),
        designs,
        evaluator or HiddenEvaluator(),
        (HiddenSource(), "train"),
        0,
    )


def test_live_candidates_are_evaluated_once_for_all_seeds_and_agents() -> None:
    problem = hidden_problem()
    evaluator = problem.evaluator
    assert isinstance(evaluator, HiddenEvaluator)
    record = training_record(problem)
    assert record.regret.shape == (32, 48)  # the whole space
    assert len(evaluator.asked) == 32 * 48
    for name in ("best-on-average", "portfolio", "nearest-portfolio", "evolution-warm", "tpe-warm"):
        for seed in range(2):
            AGENTS[name](problem, seed)
    assert len(evaluator.asked) == 32 * 48
    assert training_record(hidden_problem(5)) is not record  # another evaluator
    before = len(transfer._RECORDS)
    del problem, evaluator, record
    gc.collect()
    assert len(transfer._RECORDS) < before


def test_of_a_large_space_64_random_designs_are_evaluated() -> None:
    space, evaluator = ChainSpace(), HiddenEvaluator()
    record = training_record(hidden_problem(space=space, evaluator=evaluator))
    assert 60 <= len(record.designs) == len(set(record.designs)) <= 64
    again = training_record(hidden_problem(space=space))
    assert again.designs == record.designs


def test_at_most_64_live_tasks_are_asked_spread_over_all() -> None:
    source = HiddenSource(train=640)
    evaluator = HiddenEvaluator()
    problem = SearchProblem("rlnas/Trial-v0", {}, SPACE, ObservationLayout(SPACE), 5, evaluator, (source, "train"), 0)
    training_record(problem)
    numbers = sorted({int(proposal.task.name.split("/")[1]) for proposal in evaluator.asked})
    assert len(numbers) == 64
    assert numbers[0] == 0
    assert numbers[-1] == 639


def test_regret_is_normalised_by_task() -> None:
    problem = hidden_problem()
    record, tasks = training_record(problem), problem.training_tasks()
    accuracy = np.array([[accuracy_of(design, task) for task in tasks] for design in record.designs])
    np.testing.assert_allclose(
        record.regret, (accuracy.max(0) - accuracy) / (accuracy.max(0) - accuracy.mean(0)), atol=1e-12
    )


@pytest.mark.parametrize("name", ["portfolio", "nearest-portfolio"])
def test_a_portfolio_of_three_kinds_of_tasks_finds_each_in_three_designs(name: str) -> None:
    """Each hidden task wants one of three first choices; the first three of a portfolio are one for each."""
    env = hidden_env(48, 9, split="test")
    run = run_search(AGENTS[name](hidden_problem(), 0), env, range(48), 0)
    assert (run.best_so_far[:, 2] > 0.85).all()
    random = run_search(AGENTS["random"](hidden_problem(), 0), hidden_env(48, 9, split="test"), range(48), 0)
    assert (random.best_so_far[:, 2] > 0.85).mean() < 0.9
    assert len({tuple(designs) for designs in run.architectures.tolist()}) == 1  # every task gets the same designs


@pytest.mark.parametrize("make", [warm_evolution, warm_tpe])
def test_a_warm_start_begins_with_the_portfolio_and_goes_on_from_it(make: MakeAgent) -> None:
    problem = hidden_problem(30)
    record = training_record(problem)
    run = run_search(make(problem, 0), hidden_env(6, 30, split="test"), range(6), 0)
    opening = [record.designs[i] for i in greedy_portfolio(record.regret, 10)]
    assert all(designs[:10] == [design.text for design in opening] for designs in run.architectures.tolist())
    assert len({tuple(designs[10:]) for designs in run.architectures.tolist()}) == 6
    later, random = run.accuracy[:, 10:].mean(), training_mean(problem)
    assert later > random + 0.1


def training_mean(problem: SearchProblem) -> float:
    tasks = problem.training_tasks()
    return float(np.mean([accuracy_of(d, t) for d in problem.space.enumerate() for t in tasks]))


class Described(HiddenSource):
    """Tasks that say in their descriptor which first choice they want."""

    def _build(self, split: str, index: int) -> Any:
        return DescribedTask(f"hidden:{split}/{index}", "hidden")


class DescribedTask(HiddenTask):
    @property
    def descriptor(self) -> NDArray[np.float32]:
        found = np.zeros(9, dtype=np.float32)
        found[3] = int(self.digest, 16) % KINDS / 10
        return found


def test_the_nearest_portfolio_finds_in_one_design_what_descriptors_give_away() -> None:
    problem = SearchProblem(
        "rlnas/Trial-v0", {}, SPACE, ObservationLayout(SPACE), 4, HiddenEvaluator(), (Described(), "train"), 0
    )
    env = hidden_env(48, 4, tasks=(Described(), "test"))
    run = run_search(nearest_portfolio(problem, 0), env, range(48), 0)
    assert (run.accuracy[:, 0] > 0.85).all()


def test_past_the_last_candidate_a_portfolio_goes_on_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "LIVE_DESIGNS", 3)
    problem = hidden_problem(12)
    run = run_search(AGENTS["portfolio"](problem, 0), hidden_env(5, 12, split="test"), range(5), 0)
    known = {design.text for design in training_record(problem).designs}
    assert all(set(designs[:3]) == known for designs in run.architectures.tolist())
    assert len({tuple(designs[3:]) for designs in run.architectures.tolist()}) == 5


def write_table(path: Path) -> Path:
    codes = np.array([[a, b] for a in range(3) for b in range(3)])
    rng = np.random.default_rng(0)
    values = rng.random((9, 4))
    values[[2, 5], 1] = np.nan
    np.savez(path, ops=codes, tasks=np.array(list("abcd")), val=values)
    return path


def test_a_table_is_looked_up_whole_and_what_it_does_not_know_is_an_average_design(tmp_path: Path) -> None:
    table = Table.load(write_table(tmp_path / "t.npz"))
    source, evaluator = TableSource(table, test=["d"]), TabularEvaluator(table)
    problem = SearchProblem(
        "rlnas/Trial-v0", {}, table.space, ObservationLayout(table.space), 5, evaluator, (source, "train"), 0
    )
    record = training_record(problem)
    assert len(record.designs) == 9
    assert record.regret[[2, 5], 1].tolist() == [1.0, 1.0]
    known = [0, 1, 3, 4, 6, 7, 8]
    assert record.regret[known, 1].min() == 0.0
    assert record.regret[known, 1].mean() == pytest.approx(1.0)
    assert record.regret[:, 0].mean() == pytest.approx(1.0)
    env = gym.make_vec(
        "rlnas/Trial-v0",
        num_envs=1,
        space=table.space,
        tasks=(source, "test"),
        evaluator=evaluator,
        designs_per_trial=5,
    )
    run = run_search(AGENTS["best-on-average"](problem, 0), env, [0], 0)
    ranked = [record.designs[i] for i in np.argsort(record.regret.mean(1))]
    assert run.architectures[0].tolist() == [design.text for design in ranked[:5]]


class Failing(HiddenEvaluator):
    """Nothing can be evaluated."""

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        return [Evaluation(0.0, status=Status.INVALID) for _ in proposals]


def test_training_tasks_that_say_nothing_make_no_trouble() -> None:
    record = training_record(hidden_problem(space=ChainSpace(max_layers=2), evaluator=Failing()))
    assert (record.regret == 1.0).all()
    assert greedy_portfolio(record.regret, 3) == [0, 1, 2]
