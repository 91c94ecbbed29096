"""Comparisons: equal budgets, right numbers, nothing lost when killed, and refusals before anything is written."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from rlnas.agents import benchmark as benchmark_module
from rlnas.agents.agent import State
from rlnas.agents.benchmark import FRESH, FRESH_SEEDS, Benchmark
from rlnas.agents.benchmark_files import write_files
from rlnas.agents.problem import SearchProblem
from rlnas.agents.search_run import SearchRun, run_search
from rlnas.agents.searcher_agent import SearcherAgent
from rlnas.agents.searchers import RandomSearch
from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError, DataError, StoreError, UnknownNameError
from rlnas.results import Results
from rlnas.search_space import SearchSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.store import EpisodeStore

from .hidden import SPACE, HiddenEvaluator, HiddenSource, accuracy_of, hidden_env

TASKS, DESIGNS, SEEDS = 5, 6, (3, 8)
AGENTS = ["evolution", "first", "random"]


class First:
    """Always the first legal choice."""

    def __init__(self, problem: SearchProblem) -> None:
        self._legal = problem.layout["legal"]

    def predict(
        self, observation: Any, state: State = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, State]:
        return observation[..., self._legal].argmax(-1), state


def make_first(problem: SearchProblem, seed: int) -> First:
    return First(problem)


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


def make_benchmark(**changes: Any) -> Benchmark:
    arguments: dict[str, Any] = {
        "env": "rlnas/Small-v0",
        "tasks": (HiddenSource(test=TASKS), "test"),
        "agents": {"evolution": "evolution", "first": make_first},
        "seeds": SEEDS,
        "designs": DESIGNS,
        "evaluator": HiddenEvaluator(),
    }
    return Benchmark(**{**arguments, **changes})


def run_and_write(folder: Path, **changes: Any) -> dict[str, Any]:
    benchmark = make_benchmark(**changes)
    return write_files(benchmark, folder, benchmark.run(folder), ["rlnas", "bench"])


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, dict[str, Any], HiddenEvaluator]:
    evaluator = HiddenEvaluator()
    folder = tmp_path / "results"
    return folder, run_and_write(folder, evaluator=evaluator), evaluator


Finished = tuple[Path, dict[str, Any], HiddenEvaluator]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "evaluations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_random_search_always_takes_part() -> None:
    assert list(make_benchmark().contestants) == AGENTS
    assert list(make_benchmark(agents={}).contestants) == ["random"]
    assert list(make_benchmark(agents={"random": "random", "first": make_first}).contestants) == ["random", "first"]


def test_every_agent_has_the_same_number_of_evaluations_on_the_same_tasks(finished: Finished) -> None:
    folder, _, evaluator = finished
    rows = rows_of(folder)
    assert Counter(row["agent"] for row in rows) == dict.fromkeys(AGENTS, TASKS * DESIGNS * len(SEEDS))
    places = Counter((row["seed"], row["task"], row["design"]) for row in rows)
    assert len(places) == TASKS * DESIGNS * len(SEEDS)
    assert set(places.values()) == {len(AGENTS)}
    chosen = len(AGENTS) * TASKS * len(SEEDS) * len(FRESH_SEEDS)
    assert len(evaluator.asked) == len(rows) + chosen
    assert sum(p.seed in FRESH_SEEDS for p in evaluator.asked) == chosen


def test_the_csv_says_what_each_design_is_worth_and_the_store_has_it(finished: Finished) -> None:
    folder, _, _ = finished
    source = HiddenSource(test=TASKS)
    best: dict[tuple[str, ...], float] = {}
    with EpisodeStore(folder / "episodes.sqlite", "r") as store:
        recorded = {(e.agent, e.trial, e.design): e for e in store.episodes()}
    assert len(recorded) == len(rows_of(folder))
    for row in rows_of(folder):
        trial = int(row["seed"]) * TASKS + int(row["task"].rpartition("/")[2])
        episode = recorded[row["agent"], trial, int(row["design"])]
        assert (episode.task, episode.architecture) == (row["task"], row["architecture"])
        accuracy = accuracy_of(SPACE.decode(episode.actions), source.named(row["task"]))
        assert float(row["accuracy"]) == pytest.approx(accuracy, abs=1e-6)
        key = row["agent"], row["seed"], row["task"]
        best[key] = max(best.get(key, 0.0), accuracy)
        assert float(row["best_so_far"]) == pytest.approx(best[key], abs=1e-6)


def test_the_results_are_what_the_csv_says(finished: Finished) -> None:
    folder, summary, _ = finished
    assert json.loads((folder / "summary.json").read_text()) == summary
    results, rows = make_benchmark().collect(folder), rows_of(folder)
    assert results.shape == (len(SEEDS), TASKS, DESIGNS)
    assert results.tasks == tuple(f"hidden:test/{i}" for i in range(TASKS))
    assert not results.best_is_known
    for name in AGENTS:
        mine = [row for row in rows if row["agent"] == name]
        table = np.array([float(row["accuracy"]) for row in mine]).reshape(results.shape)
        np.testing.assert_allclose(results.accuracy[name], table, atol=1e-6)
        best_rows = table.argmax(2).ravel() + DESIGNS * np.arange(len(SEEDS) * TASKS)
        chosen = [SPACE.parse(mine[row]["architecture"]) for row in best_rows.tolist()]
        source = HiddenSource(test=TASKS)
        worth = [accuracy_of(a, source.task("test", i % TASKS)) for i, a in enumerate(chosen)]
        np.testing.assert_allclose(results.chosen[name][FRESH].ravel(), worth)  # this evaluator ignores seeds
    best = [max(float(row["accuracy"]) for row in rows if row["task"] == task) for task in results.tasks]
    np.testing.assert_allclose(results.best, best, atol=1e-6)
    np.testing.assert_allclose(results.mean, results.accuracy["random"].mean((0, 2)))


def test_run_again_it_finds_the_same(finished: Finished, tmp_path: Path) -> None:
    folder, summary, _ = finished
    assert run_and_write(tmp_path / "again") == summary
    assert (tmp_path / "again" / "evaluations.csv").read_bytes() == (folder / "evaluations.csv").read_bytes()
    assert run_and_write(tmp_path / "other", seeds=(4, 8)) != summary


def test_runs_do_not_share_their_randomness(finished: Finished) -> None:
    rows = [row for row in rows_of(finished[0]) if row["agent"] == "random"]
    trials: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        trials.setdefault((row["seed"], row["task"]), []).append(row["architecture"])
    assert len({tuple(designs) for designs in trials.values()}) == len(trials)


def test_an_agents_results_do_not_depend_on_whom_it_is_compared_with(finished: Finished, tmp_path: Path) -> None:
    run_and_write(tmp_path / "alone", agents={})
    assert rows_of(tmp_path / "alone") == [row for row in rows_of(finished[0]) if row["agent"] == "random"]


def test_more_agents_and_seeds_join_runs_that_are_there(tmp_path: Path) -> None:
    evaluator = HiddenEvaluator()
    run_and_write(tmp_path, agents={}, seeds=SEEDS[:1], evaluator=evaluator)
    first = len(evaluator.asked)
    run_and_write(tmp_path, evaluator=evaluator)
    assert len(evaluator.asked) == first * len(AGENTS) * len(SEEDS)  # nothing was done twice
    assert {row["agent"] for row in rows_of(tmp_path)} == set(AGENTS)


def test_more_trials_than_tasks_go_round_them_and_count_as_one_run(tmp_path: Path) -> None:
    benchmark = make_benchmark(trials=TASKS + 1)
    results = benchmark.run(tmp_path)
    assert benchmark.rounds == 2
    assert results.accuracy["random"].shape == (2 * len(SEEDS), TASKS, DESIGNS)
    assert results.shape == (len(SEEDS), TASKS, DESIGNS)
    best = np.maximum.accumulate(results.accuracy["random"], axis=2)
    np.testing.assert_allclose(results.best_so_far("random")[0], best[:2].mean(0))
    first, second = results.accuracy["random"][:2]
    assert (first != second).any()


def test_fewer_trials_than_tasks_search_the_first_ones(tmp_path: Path) -> None:
    assert make_benchmark(trials=2).run(tmp_path).tasks == ("hidden:test/0", "hidden:test/1")


def test_progress_counts_every_design(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []
    runs: list[tuple[str, int]] = []
    make_benchmark().run(
        tmp_path, on_run=lambda agent, seed, run: runs.append((agent, seed)), on_step=lambda n, b: seen.append((n, b))
    )
    assert sum(n for n, _ in seen) == len(AGENTS) * TASKS * DESIGNS * len(SEEDS)
    assert all(0 <= best <= 1 for _, best in seen)
    assert sorted(runs) == sorted((agent, seed) for agent in AGENTS for seed in SEEDS)


def test_real_networks_are_trained_compared_and_the_best_is_drawn(tmp_path: Path) -> None:
    from rlnas.adaptation import Adaptation
    from rlnas.datasets import parse_tasks

    evaluator = SequentialEvaluator(Adaptation(steps=1))
    changes: dict[str, Any] = {"tasks": parse_tasks("digits:test"), "trials": 2, "designs": 2, "seeds": [0]}
    summary = run_and_write(tmp_path, agents={"first": make_first}, evaluator=evaluator, **changes)
    best = summary["best_architecture"]
    assert best["agent"] == "first"
    assert best["task"] in ("digits:test/0", "digits:test/1")
    assert 0 < best["accuracy_on_fresh_seeds"] <= 1
    assert (tmp_path / "best_architecture.svg").read_text().startswith("<svg")
    assert "<svg" in (tmp_path / "report.html").read_text()
    with (tmp_path / "times.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert min(seconds) > 0
    assert all(second > first for first, second in zip(seconds[::2], seconds[1::2], strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agents": {"random": "evolution"}}, "must be random search"),
        ({"training": (HiddenSource(test=TASKS), "test")}, "has tasks that are to be searched"),
        ({"trials": 0}, "trials must be"),
        ({"designs": 0}, "designs must be"),
        ({"training_steps": 0}, "training_steps must be"),
        ({"seeds": []}, "number of seeds must be"),
        ({"seeds": [-1]}, "seed must be"),
        ({"seeds": [1, 1]}, "seeds must be distinct"),
        ({"tasks": (HiddenSource(), "tset")}, "did you mean 'test'"),
        ({"env": "rlnas/Smal-v0"}, "did you mean 'rlnas/Small-v0'"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_benchmark(**changes)


def test_an_unknown_agent_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'evolution'"):
        make_benchmark(agents={"one": "evolutoin"}).run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_agent_that_prepares_itself_needs_training_tasks(tmp_path: Path) -> None:
    class Unsplit(HiddenSource):
        @property
        def splits(self) -> dict[str, int]:
            return {"test": TASKS}

    with pytest.raises(ConfigurationError, match="training"):
        make_benchmark(agents={"portfolio": "portfolio"}, tasks=(Unsplit(), "test")).run(tmp_path)


class Interrupted(Exception):
    pass


def test_what_an_interrupted_comparison_left_is_gone_on_with(finished: Finished, tmp_path: Path) -> None:
    def on_step(designs: int, best: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 2 * DESIGNS + 3:
            raise Interrupted

    folder, summary, _ = finished
    steps, other = 0, tmp_path / "other"
    with pytest.raises(Interrupted):
        make_benchmark().run(other, on_step=on_step)
    left = len(list(other.glob("runs/*/*.npz")))
    assert left == 2
    evaluator = HiddenEvaluator()
    assert run_and_write(other, evaluator=evaluator) == summary
    assert len(evaluator.asked) == TASKS * (DESIGNS + len(FRESH_SEEDS)) * (len(AGENTS) * len(SEEDS) - left)
    assert rows_of(other) == rows_of(folder)


@pytest.mark.parametrize(
    "changes", [{"designs": DESIGNS + 1}, {"trials": 2}, {"tasks": (HiddenSource(test=9), "test")}]
)
def test_results_under_other_settings_are_not_mixed(finished: Finished, changes: dict[str, Any]) -> None:
    folder, _, _ = finished
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    with pytest.raises(ConfigurationError, match="holds a comparison with another"):
        make_benchmark(**changes).run(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_runs_of_another_agent_are_not_taken_for_those_of_one_with_its_name(finished: Finished, tmp_path: Path) -> None:
    folder, _, _ = finished
    with pytest.raises(ConfigurationError, match="holds runs of another 'evolution'"):
        make_benchmark(agents={"evolution": "local-search"}).run(folder)
    own = tmp_path / "own.py"
    benchmark = make_benchmark(agents={"mine": f"{own}:Own"})
    own.write_text("from rlnas.agents.searchers import RandomSearch as Own")
    benchmark.run(tmp_path / "out")
    own.write_text("from rlnas.agents.searchers import LocalSearch as Own")
    with pytest.raises(ConfigurationError, match="holds runs of another 'mine'"):
        benchmark.run(tmp_path / "out")


def test_what_is_searched_is_not_prepared_on(tmp_path: Path) -> None:
    benchmark = make_benchmark(tasks=(HiddenSource(train=TASKS), "train"), agents={"portfolio": "portfolio"})
    with pytest.raises(ConfigurationError, match="--training-tasks"):
        benchmark.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ['{"env"', "[]"])
def test_damaged_settings_are_named(finished: Finished, content: str) -> None:
    (finished[0] / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config\.json is damaged"):
        make_benchmark().run(finished[0])


def test_a_comparison_that_was_killed_while_its_settings_were_written_begins(tmp_path: Path) -> None:
    (tmp_path / ".config.json.123.part").write_text('{"en')
    make_benchmark(agents={}).run(tmp_path)


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_comparison_that_was_killed_as_it_began_goes_on(tmp_path: Path, written: int) -> None:
    write, done = benchmark_module.write_durably, 0

    def failing(path: Path, content: bytes) -> None:
        nonlocal done
        if done == written:
            raise Interrupted
        done += 1
        write(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_module, "write_durably", failing)
        with pytest.raises(Interrupted):
            make_benchmark().run(tmp_path)
    assert make_benchmark().run(tmp_path).agents == tuple(AGENTS)


class Restless(RandomSearch):
    """Searches otherwise each time that it is made."""

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        super().__init__(space, int.from_bytes(os.urandom(4), "little"))


def make_restless(problem: SearchProblem, seed: int) -> SearcherAgent:
    return SearcherAgent(lambda s: Restless(problem.space, s), problem.layout, seed)


def test_a_recorded_run_that_is_done_anew_takes_the_place_of_what_was_left_of_it(tmp_path: Path) -> None:
    benchmark = make_benchmark(agents={"restless": make_restless})
    benchmark.run(tmp_path)
    (tmp_path / "runs" / "restless" / f"{SEEDS[0]}.npz").unlink()
    benchmark.run(tmp_path)
    run = benchmark.runs(tmp_path, "restless")[0]
    with EpisodeStore(tmp_path / "episodes.sqlite", "r") as store:
        recorded = [[e.architecture for e in store.episodes("restless", SEEDS[0] * TASKS + t)] for t in range(TASKS)]
    assert recorded == run.architectures.tolist()


def test_a_comparison_is_recorded_by_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlnas.store_claim.PATIENCE", 0.0)
    benchmark = make_benchmark()

    def another(agent: str, seed: int, run: float) -> None:
        with pytest.raises(StoreError, match="is recording into"):
            benchmark.run(tmp_path)

    benchmark.run(tmp_path, on_run=another)


class Global(RandomSearch):
    """Draws from numpy's global generator, as users' own code may."""

    def ask(self) -> Architecture:
        return self.space.sample(np.random.default_rng(np.random.randint(2**31)))  # noqa: NPY002


def make_global(problem: SearchProblem, seed: int) -> SearcherAgent:
    return SearcherAgent(lambda s: Global(problem.space, s), problem.layout, seed)


def test_a_run_of_what_uses_global_generators_repeats_too(tmp_path: Path) -> None:
    alone = make_benchmark(agents={"global": make_global}, seeds=SEEDS[1:]).run(tmp_path / "alone")
    among = make_benchmark(agents={"first": make_first, "global": make_global}).run(tmp_path / "among")
    np.testing.assert_array_equal(alone.accuracy["global"][0], among.accuracy["global"][1])


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ConfigurationError, match="something else"):
        make_benchmark().run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_run_is_named(finished: Finished) -> None:
    file = next(finished[0].glob("runs/random*/*.npz"))
    content = file.read_bytes()
    for damaged in (content[:100], bytes([*content[:900], content[900] ^ 1, *content[901:]])):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="no run of a comparison"):
            make_benchmark().run(finished[0])


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A comparison of a few seconds over a table, as a person types it."""
    rng = np.random.default_rng(0)
    codes = np.stack(np.meshgrid(*[np.arange(4)] * 4, indexing="ij"), -1).reshape(-1, 4).astype(np.int8)
    tasks = np.array([f"task {i}" for i in range(6)])
    np.savez(tmp_path / "table.npz", ops=codes, tasks=tasks, val=rng.random((len(codes), 6)))
    agents = "evolution,local-search,genetic,portfolio,rl2"
    return [
        *(sys.executable, "-m", "rlnas.cli", "bench", "--env", "rlnas/Trial-v0", "--agents", agents),
        *("--tasks", f"table:{tmp_path / 'table.npz'}:test", "--task-option", "test=task 0,task 1"),
        *("--designs", "30", "--training-steps", "1000", "--seeds", "8", "--record"),
    ]


def bench(command: list[str], out: Path, *options: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, "--out", str(out), *options], env=environment, start_new_session=True)


def test_killed_three_times_and_resumed_it_ends_as_if_nothing_had_happened(command: list[str], tmp_path: Path) -> None:
    """The workers are killed with the command once; the other times they have to notice by themselves."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert bench(command, whole).wait() == 0
    total = len(list(whole.glob("runs/*/*.npz")))
    kills = 0
    for wanted, kill in ((total // 5, os.kill), (total // 2, os.killpg), (4 * total // 5, os.kill)):
        process = bench(command, killed, "--workers", "2")
        while process.poll() is None and len(list(killed.glob("runs/*/*.npz"))) < wanted:
            time.sleep(0.01)
        kills += process.poll() is None
        kill(process.pid, signal.SIGKILL)
        process.wait()
        for _ in range(600):
            if not group_lives(process.pid):
                break
            time.sleep(0.05)
        assert not group_lives(process.pid)
    assert kills == 3
    assert bench(command, killed, "--workers", "2").wait() == 0
    for name in ("evaluations.csv", "summary.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_search_returns_what_the_environment_evaluated() -> None:
    evaluator = HiddenEvaluator()
    env = hidden_env(4, 3, "test", evaluator=evaluator)
    agent = SearcherAgent(lambda seed: RandomSearch(SPACE, seed), env.layout)
    run = run_search(agent, env, [7, 1, 1, 0], seed=0)
    assert run.tasks.tolist() == [f"hidden:test/{i}" for i in (7, 1, 1, 0)]
    for design in range(3):
        proposals = evaluator.asked[4 * design : 4 * design + 4]
        assert run.architectures[:, design].tolist() == [p.architecture.text for p in proposals]
        expected = [accuracy_of(p.architecture, p.task) for p in proposals]
        np.testing.assert_array_equal(run.accuracy[:, design], expected)


def test_the_chosen_design_is_the_earliest_of_the_best() -> None:
    accuracy = np.array([[0.1, 0.7, 0.7], [0.5, 0.2, 0.3]])
    run = SearchRun(np.array(["a", "b"]), accuracy, accuracy, np.array([["x", "y", "z"], ["u", "v", "w"]]))
    assert run.chosen.tolist() == ["y", "u"]
    np.testing.assert_array_equal(run.best_so_far, [[0.1, 0.7, 0.7], [0.5, 0.5, 0.5]])


def make_results(accuracy: dict[str, Any], best: list[float], mean: list[float], **more: Any) -> Results:
    arrays = {name: np.array(values, dtype=float) for name, values in accuracy.items()}
    tasks = tuple(f"task {i}" for i in range(len(best)))
    return Results(tasks, arrays, arrays, np.array(best), np.array(mean), True, **more)


def test_regret_matches_the_numbers_worked_out_by_hand() -> None:
    results = make_results({"a": [[[0.3, 0.8], [0.6, 0.4]]]}, best=[0.8, 0.9], mean=[0.3, 0.5])
    np.testing.assert_allclose(results.regret("a"), [[[0.5, 0.0], [0.3, 0.3]]])
    np.testing.assert_allclose(results.normalised_regret("a"), [[[1.0, 0.0], [0.75, 0.75]]])
    np.testing.assert_allclose(results.score("a"), [[[0.0, 1.0], [0.25, 0.25]]])


def test_where_random_designs_are_as_good_as_any_normalised_regret_stays_small() -> None:
    results = make_results({"a": [[[0.49]]]}, best=[0.5], mean=[0.5])
    np.testing.assert_allclose(results.normalised_regret("a"), [[[0.5]]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"best": [0.8]}, "best must have the shape"),
        ({"chosen": {"a": {"m": np.zeros((2, 2))}}}, "chosen m must have the shape"),
        ({"rounds": 2}, "no multiple of 2 rounds"),
    ],
)
def test_results_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"best": [0.8, 0.9], "mean": [0.3, 0.5], **changes}
    with pytest.raises(ConfigurationError, match=message):
        make_results({"a": [[[0.3, 0.8], [0.6, 0.4]]]}, **arguments)
