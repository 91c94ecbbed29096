"""Comparisons: equal budgets, right numbers, and refusals before anything is written."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray
from scipy.stats import bootstrap

from rlnas.agents.benchmark import FRESH_SEEDS, Comparison
from rlnas.agents.controller import ControllerConfig, LSTMController
from rlnas.agents.registry import SEARCHERS
from rlnas.agents.search_run import SearchRun, run_search
from rlnas.agents.searcher_agent import SearcherAgent
from rlnas.agents.statistics import bootstrap_interval, summarise
from rlnas.errors import CheckpointError, ConfigurationError, UnknownNameError
from rlnas.search_space import ChainSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.store import EpisodeStore

from .hidden import SPACE, HiddenEvaluator, HiddenSource, accuracy_of, hidden_env

TRIALS, DESIGNS, SEEDS = 5, 6, (3, 8)


@pytest.fixture(autouse=True)
def small_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register trials in the tests' own space: a comparison names its environment by id."""
    spec = gym.spec("rlnas/Trial-v0")
    small = EnvSpec(
        "rlnas/Small-v0",
        entry_point=spec.entry_point,
        vector_entry_point=spec.vector_entry_point,
        kwargs={**spec.kwargs, "env_id": "rlnas/Small-v0", "space": SPACE},
    )
    monkeypatch.setitem(gym.registry, "rlnas/Small-v0", small)


def make_controller(seed: int = 0, space: ChainSpace = SPACE) -> LSTMController:
    layout = hidden_env(1, space=space).layout
    shape = ControllerConfig(layout.size, space.num_choices, (layout["legal"].start, layout["legal"].stop), 8)
    controller = LSTMController(shape, seed)
    controller.about = {"space": json.loads(json.dumps(space.spec()))}
    return controller


def make_comparison(**changes: Any) -> Comparison:
    arguments: dict[str, Any] = {
        "env": "rlnas/Small-v0",
        "tasks": (HiddenSource(test=TRIALS + 1), "test"),
        "trials": TRIALS,
        "designs": DESIGNS,
        "seeds": SEEDS,
        "controllers": {"learned": make_controller()},
        "others": ["evolution", "wiped"],
    }
    return Comparison(**{**arguments, **changes})


AGENTS = ["learned", "evolution", "wiped", "random"]


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, dict[str, Any], HiddenEvaluator]:
    evaluator = HiddenEvaluator()
    folder = tmp_path / "results"
    return folder, make_comparison().run(folder, evaluator), evaluator


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "evaluations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


Finished = tuple[Path, dict[str, Any], HiddenEvaluator]


def test_random_search_is_always_among_the_agents_and_nobody_is_there_twice() -> None:
    assert make_comparison().agents == AGENTS
    assert make_comparison(controllers={}, others=[]).agents == ["random"]
    assert make_comparison(others=["random", "evolution", "random"]).agents == ["learned", "random", "evolution"]


def test_every_agent_has_the_same_number_of_evaluations_on_the_same_tasks(finished: Finished) -> None:
    folder, _, evaluator = finished
    rows = rows_of(folder)
    assert Counter(row["agent"] for row in rows) == dict.fromkeys(AGENTS, TRIALS * DESIGNS * len(SEEDS))
    places = Counter((row["seed"], row["task"], row["design"]) for row in rows)
    assert len(places) == TRIALS * DESIGNS * len(SEEDS)
    assert set(places.values()) == {len(AGENTS)}
    chosen = len(AGENTS) * TRIALS * len(SEEDS) * len(FRESH_SEEDS)
    assert len(evaluator.asked) == len(rows) + chosen
    assert {p.seed for p in evaluator.asked[-chosen:]} == set(FRESH_SEEDS)


def test_the_csv_says_what_each_design_is_worth(finished: Finished) -> None:
    folder, _, _ = finished
    source = HiddenSource(test=TRIALS + 1)
    best: dict[tuple[str, ...], float] = {}
    with EpisodeStore(folder / "episodes.sqlite", "r") as store:
        recorded = {(e.agent, e.trial, e.design): e for e in store.episodes()}
    assert len(recorded) == len(rows_of(folder))
    for row in rows_of(folder):
        trial = SEEDS.index(int(row["seed"])) * TRIALS + int(row["task"].rpartition("/")[2])
        episode = recorded[row["agent"], trial, int(row["design"])]
        assert (episode.task, episode.architecture) == (row["task"], row["architecture"])
        accuracy = accuracy_of(SPACE.decode(episode.actions), source.named(row["task"]))
        assert float(row["accuracy"]) == pytest.approx(accuracy, abs=1e-6)
        key = row["agent"], row["seed"], row["task"]
        best[key] = max(best.get(key, 0.0), accuracy)
        assert float(row["best_so_far"]) == pytest.approx(best[key], abs=1e-6)


def test_the_summary_is_what_the_csv_says(finished: Finished) -> None:
    folder, result, _ = finished
    assert json.loads((folder / "summary.json").read_text()) == result
    assert {k: result[k] for k in ("env", "tasks", "trials", "designs", "seeds")} == {
        "env": "rlnas/Small-v0",
        "tasks": "hidden:test",
        "trials": TRIALS,
        "designs": DESIGNS,
        "seeds": list(SEEDS),
    }
    rows = rows_of(folder)
    best_on = {t: max(float(r["accuracy"]) for r in rows if r["task"] == t) for t in {r["task"] for r in rows}}
    for name in AGENTS:
        table = np.array(
            [[float(r["accuracy"]), float(r["best_so_far"]), best_on[r["task"]]] for r in rows if r["agent"] == name]
        )
        table = table.reshape(-1, DESIGNS, 3)
        row = result["agents"][name]
        np.testing.assert_allclose(row["accuracy"], table[..., 0].mean(0), atol=1e-6)
        np.testing.assert_allclose(row["best_so_far"], table[..., 1].mean(0), atol=1e-6)
        np.testing.assert_allclose(row["regret"], (table[..., 2] - table[..., 1]).mean(0), atol=1e-6)
        assert row["first_design"] == pytest.approx(table[:, 0, 0].mean(), abs=1e-6)
        assert row["last_design"] == pytest.approx(table[:, -1, 0].mean(), abs=1e-6)
        assert row["last_minus_first"]["mean"] == pytest.approx(row["last_design"] - row["first_design"])


def test_curves_never_fall_and_regret_is_never_negative(finished: Finished) -> None:
    _, result, _ = finished
    for row in result["agents"].values():
        assert (np.diff(row["best_so_far"]) >= 0).all()
        assert (np.diff(row["regret"]) <= 0).all()
        assert min(row["regret"]) >= 0
        assert min(row["normalised_regret"]) >= 0
        for mean, (low, high) in zip(row["best_so_far"], row["best_so_far_interval"], strict=True):
            assert low <= mean + 1e-12
            assert high >= mean - 1e-12
    assert result["agents"]["random"]["chosen_minus_random"] == {"mean": 0, "low": 0, "high": 0}


def test_run_again_it_finds_the_same(finished: Finished, tmp_path: Path) -> None:
    folder, result, _ = finished
    assert make_comparison().run(tmp_path / "again", HiddenEvaluator()) == result
    assert (tmp_path / "again" / "evaluations.csv").read_bytes() == (folder / "evaluations.csv").read_bytes()
    other = make_comparison(seeds=(4, 8)).run(tmp_path / "other", HiddenEvaluator())
    assert other["agents"] != result["agents"]


def test_an_agents_results_do_not_depend_on_whom_it_is_compared_with(finished: Finished, tmp_path: Path) -> None:
    folder, _, _ = finished
    make_comparison(controllers={}, others=[]).run(tmp_path / "alone", HiddenEvaluator())
    assert rows_of(tmp_path / "alone") == [row for row in rows_of(folder) if row["agent"] == "random"]


def test_progress_counts_every_design(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []
    make_comparison().run(tmp_path / "results", HiddenEvaluator(), lambda n, best: seen.append((n, best)))
    assert sum(n for n, _ in seen) == len(AGENTS) * TRIALS * DESIGNS * len(SEEDS)
    assert all(0 < best <= 1 for _, best in seen)


def test_real_networks_are_trained_compared_and_the_best_is_drawn(tmp_path: Path) -> None:
    from rlnas.adaptation import Adaptation
    from rlnas.datasets import parse_tasks

    comparison = make_comparison(tasks=parse_tasks("digits:test"), trials=2, designs=2, seeds=[0], others=[])
    result = comparison.run(tmp_path / "results", SequentialEvaluator(Adaptation(steps=1)))
    best = result["best_architecture"]
    assert best["agent"] == "learned"
    assert best["task"] in ("digits:test/0", "digits:test/1")
    assert 0 < best["accuracy_on_fresh_seeds"] <= 1
    assert (tmp_path / "results" / "best_architecture.svg").read_text().startswith("<svg")
    assert "<svg" in (tmp_path / "results" / "curves.svg").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"others": ["evolutoin"]}, "did you mean 'evolution'"),
        ({"others": ["wiped"], "controllers": {}}, "unknown agent 'wiped'"),
        ({"trials": TRIALS + 2}, f"trials must be at most {TRIALS + 1}"),
        ({"trials": 0}, "trials must be"),
        ({"designs": 0}, "designs must be"),
        ({"seeds": []}, "number of seeds must be"),
        ({"seeds": [-1]}, "seed must be"),
        ({"tasks": (HiddenSource(), "tset")}, "did you mean 'test'"),
        ({"controllers": {"random": None}}, "must not be called 'random'"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_comparison(**changes)


def test_an_unknown_agent_is_an_unknown_name() -> None:
    with pytest.raises(UnknownNameError):
        make_comparison(others=["nobody"])


def test_what_an_interrupted_comparison_left_is_gone_on_with(finished: Finished, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def on_step(designs: int, best: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:
            raise Interrupted

    folder, result, _ = finished
    steps, other = 0, tmp_path / "other"
    with pytest.raises(Interrupted):
        make_comparison().run(other, HiddenEvaluator(), on_step)
    assert (other / "episodes.sqlite").exists()
    assert make_comparison().run(other, HiddenEvaluator()) == result
    assert rows_of(other) == rows_of(folder)


def test_results_that_are_there_are_not_overwritten(finished: Finished) -> None:
    folder, _, _ = finished
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ConfigurationError, match="already holds results"):
        make_comparison().run(folder, HiddenEvaluator())
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("about", [{}, {"space": None}, {"space": ChainSpace(max_layers=3).spec()}])
def test_a_controller_of_another_space_is_refused_before_anything_is_done(
    tmp_path: Path, about: dict[str, Any]
) -> None:
    stranger, evaluator = make_controller(), HiddenEvaluator()
    stranger.about = about
    comparison = make_comparison(controllers={"fine": make_controller(), "stranger": stranger})
    with pytest.raises(CheckpointError, match="'stranger' was trained for the space") as caught:
        comparison.run(tmp_path / "results", evaluator)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()
    assert evaluator.asked == []


def test_a_search_returns_what_the_environment_evaluated() -> None:
    evaluator = HiddenEvaluator()
    env = hidden_env(4, 3, "test", evaluator=evaluator)
    agent = SearcherAgent(lambda seed: SEARCHERS["random"](SPACE, 3, seed), env.layout)
    run = run_search(agent, env, [7, 1, 1, 0], seed=0)
    assert run.tasks == [f"hidden:test/{i}" for i in (7, 1, 1, 0)]
    for design in range(3):
        proposals = evaluator.asked[4 * design : 4 * design + 4]
        assert [trial[design] for trial in run.architectures] == [p.architecture for p in proposals]
        expected = [accuracy_of(p.architecture, p.task) for p in proposals]
        np.testing.assert_array_equal(run.accuracy[:, design], expected)


def make_run(accuracy: list[list[float]], tasks: list[str]) -> SearchRun:
    designs = [[SPACE.decode([i % 4, 5]) for i in range(len(row))] for row in accuracy]
    return SearchRun(tasks, np.array(accuracy), designs)


def test_the_chosen_design_is_the_earliest_of_the_best() -> None:
    run = make_run([[0.1, 0.7, 0.7], [0.5, 0.2, 0.3]], ["a", "b"])
    assert [a.choices[0] for a in run.chosen] == [1, 0]
    np.testing.assert_array_equal(run.best_so_far, [[0.1, 0.7, 0.7], [0.5, 0.5, 0.5]])


def summary_of(runs: dict[str, SearchRun]) -> dict[str, Any]:
    return summarise(runs, "random", {name: run.accuracy.max(1) for name, run in runs.items()})


def test_regret_matches_the_numbers_worked_out_by_hand() -> None:
    random = make_run([[0.2, 0.4], [0.5, 0.5]], ["a", "b"])
    other = make_run([[0.3, 0.8], [0.6, 0.4]], ["a", "b"])
    summary = summary_of({"random": random, "other": other})
    # Best: .8 and .6; random means: .3 and .5.
    assert summary["random"]["regret"] == pytest.approx([(0.6 + 0.1) / 2, (0.4 + 0.1) / 2])
    assert summary["random"]["normalised_regret"] == pytest.approx([(0.6 / 0.5 + 1) / 2, (0.4 / 0.5 + 1) / 2])
    assert summary["other"]["regret"] == pytest.approx([0.25, 0])
    assert summary["other"]["normalised_regret"] == pytest.approx([0.5, 0])


def test_regret_is_to_the_best_found_on_a_task_with_any_seed() -> None:
    random = make_run([[0.2], [0.4]], ["a", "a"])
    other = make_run([[0.9], [0.3]], ["a", "a"])
    summary = summary_of({"random": random, "other": other})
    assert summary["random"]["regret"] == pytest.approx([(0.7 + 0.5) / 2])
    assert summary["other"]["regret"] == pytest.approx([(0.0 + 0.6) / 2])
    assert summary["other"]["normalised_regret"] == pytest.approx([0.3 / (0.9 - 0.3)])


def test_where_random_designs_are_as_good_as_any_normalised_regret_stays_small() -> None:
    random, other = make_run([[0.5]], ["a"]), make_run([[0.49]], ["a"])
    summary = summary_of({"random": random, "other": other})
    assert summary["other"]["normalised_regret"] == pytest.approx([0.5])


def test_differences_are_paired() -> None:
    """Task by task the gain is always .1; intervals of the two means, taken alone, would overlap."""
    first = np.linspace(0.1, 0.8, 8)
    run = make_run(np.stack([first, first + 0.1], axis=1).tolist(), [str(i) for i in range(8)])
    difference = summary_of({"random": run})["random"]["last_minus_first"]
    assert difference == pytest.approx({"mean": 0.1, "low": 0.1, "high": 0.1})


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_bootstrap_intervals_agree_with_scipys(level: float) -> None:
    values: NDArray[np.float64] = np.random.default_rng(0).beta(2, 5, size=40)
    mine = bootstrap_interval(values, resamples=20_000, level=level)
    its = bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose(mine, (its.low, its.high), atol=0.003)
    assert mine[1] - mine[0] > 0.02


def test_bootstrap_intervals_follow_from_their_seed() -> None:
    values = np.random.default_rng(0).random(10)
    assert bootstrap_interval(values, 1) == bootstrap_interval(values, 1) != bootstrap_interval(values, 2)


def test_the_bootstrap_interval_of_two_values_is_worked_out_by_hand() -> None:
    # Means of two draws from {0, 1} are 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    values = np.array([0.0, 1.0])
    assert bootstrap_interval(values, level=0.9) == (0.0, 1.0)
    assert bootstrap_interval(values, level=0.3) == (0.5, 0.5)
    assert bootstrap_interval(np.full(5, 0.25)) == (0.25, 0.25)
