"""RL² as an agent of comparisons: trained once for each seed, without memory, on shuffled rewards, from a folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rlnas import task_prior
from rlnas.agents import learned
from rlnas.agents.agent import Agent, Likeliest
from rlnas.agents.controller import Controller
from rlnas.agents.learned import LEARNED_AGENTS, ShuffledEvaluator, controller_agent, wiped
from rlnas.agents.problem import SearchProblem
from rlnas.agents.rl2 import RL2
from rlnas.agents.search_run import run_search
from rlnas.agents.searcher_agent import MemoryWiped
from rlnas.episode import DesignEpisode
from rlnas.errors import CheckpointError, ConfigurationError
from rlnas.evaluator import Evaluator, Proposal
from rlnas.search_space import ChainSpace
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator

from .hidden import HIT, KINDS, SPACE, HiddenEvaluator, HiddenSource, hidden_env

DESIGNS = 3


@pytest.fixture(autouse=True)
def _nothing_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "_trained", {})


def problem(steps: int = 300, space: ChainSpace = SPACE, **options: Any) -> SearchProblem:
    layout = hidden_env(space=space).layout  # type: ignore[attr-defined]
    options, tasks = {"space": space, **options}, (HiddenSource(), "train")
    return SearchProblem("rlnas/Trial-v0", options, space, layout, DESIGNS, HiddenEvaluator(), tasks, steps)


def search(agent: Agent) -> NDArray[np.float64]:
    """Accuracies (48, designs) on the test tasks."""
    return run_search(agent, hidden_env(num_envs=48, designs=DESIGNS, split="test"), range(48), seed=0).accuracy


@pytest.mark.parametrize("name", [name for name in LEARNED_AGENTS if name != "rl2-cloned"])
def test_one_seed_makes_one_agent_whatever_was_trained_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make = LEARNED_AGENTS[name]
    found = [search(make(problem(), seed)) for seed in (0, 0, 1)]
    monkeypatch.setattr(learned, "_trained", {})
    found.append(search(make(problem(), 0)))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[3])
    assert (found[0] != found[2]).any()


def trained(steps: int = 300, seed: int = 0, **options: Any) -> Controller:
    known = problem(**options)
    env = known.training_env(learned.trials_at_a_time(known))
    return RL2(env, seed=seed, **learned.SETTINGS).learn(steps).controller


def test_it_is_trained_on_the_training_tasks_for_the_steps_of_the_problem() -> None:
    episodes: list[DesignEpisode] = []
    agent = learned.rl2_real(problem(500, recorder=episodes.extend), 3)
    trials = learned.trials_at_a_time(problem())
    rollout = trials * DESIGNS * 2
    assert sum(len(episode.actions) for episode in episodes) == 2 * rollout  # 500 rounded up
    assert {episode.task.split("/")[0] for episode in episodes} == {"hidden:train"}
    controller = trained(500, 3)
    controller.seed(3)
    np.testing.assert_array_equal(search(agent), search(controller))


def test_where_duplicates_are_refused_it_takes_its_likeliest_actions() -> None:
    agent = learned.rl2_real(problem(duplicates="refuse"), 3)
    np.testing.assert_array_equal(search(agent), search(Likeliest(trained(seed=3, duplicates="refuse"))))


def test_the_same_training_is_not_done_twice_in_a_process_and_another_is() -> None:
    def trains(name: str, seed: int, **changes: Any) -> bool:
        episodes: list[DesignEpisode] = []
        LEARNED_AGENTS[name](problem(**changes, recorder=episodes.extend), seed)
        return len(episodes) > 0

    assert trains("rl2", 0)
    assert not trains("rl2-wiped", 0)
    assert not trains("rl2", 0)
    assert trains("rl2-wiped", 1)
    assert trains("rl2-shuffled", 0)
    assert trains("rl2", 0, steps=600)
    assert trains("rl2", 0, reward="improvement")


def test_agents_of_one_training_do_not_disturb_each_other() -> None:
    first, second = (learned.rl2_real(problem(), 0) for _ in range(2))
    alone = search(first)
    np.testing.assert_array_equal(search(second), alone)  # the first one's draws are not its own
    np.testing.assert_array_equal(search(learned.rl2_real(problem(), 0)), alone)


def test_wiped_is_the_same_controller_without_memory() -> None:
    agent = wiped(learned.rl2_real)(problem(), 0)
    mine = search(agent)
    by_hand = search(MemoryWiped(learned.rl2_real(problem(), 0), problem().layout))
    np.testing.assert_array_equal(mine, by_hand)
    np.testing.assert_array_equal(mine[:, 0], search(learned.rl2_real(problem(), 0))[:, 0])
    assert (mine != search(learned.rl2_real(problem(), 0))).any()


# ---- cloned


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (task_prior, "STEPS", 10),
        (task_prior, "BASIS", 60),
        (learned, "SYNTHETIC_TASKS", 30),
        (learned, "CLONED_TRIALS", 24),
        (learned, "AT_A_TIME", 8),
    ):
        monkeypatch.setattr(module, name, value)


def table_problem(steps: int = 1, **options: Any) -> SearchProblem:
    table = Table.from_spec("digits")
    evaluator, tasks = TabularEvaluator(table), (TableSource(table), "train")
    layout = table_env().layout  # type: ignore[attr-defined]
    arguments = {"space": table.space, "duplicates": "refuse", **options}
    return SearchProblem("rlnas/DigitsTableTrial-v0", arguments, table.space, layout, DESIGNS, evaluator, tasks, steps)


def table_env() -> VectorEnv:
    options = {"tasks": "table:digits:val", "designs_per_trial": DESIGNS, "duplicates": "refuse"}
    return gym.make_vec("rlnas/DigitsTableTrial-v0", num_envs=16, **options)


@pytest.mark.usefixtures("quick")
def test_on_a_table_it_is_trained_or_taught_on_synthetic_tasks_and_draws_nothing_at_random() -> None:
    episodes: list[DesignEpisode] = []
    known = table_problem(recorder=episodes.extend)
    agents = {name: LEARNED_AGENTS[name](known, 3) for name in ("rl2-cloned", "rl2", "rl2-wiped", "rl2-cloned")}
    assert {episode.task.split("/")[0] for episode in episodes} == {"table:digits:synthetic"}
    assert len(episodes) == DESIGNS * (24 + learned.trials_at_a_time(known))  # each once
    found = {name: run_search(agent, table_env(), range(16), seed=0) for name, agent in agents.items()}
    again = run_search(agents["rl2"], table_env(), range(16), seed=5)
    np.testing.assert_array_equal(found["rl2"].architectures, again.architectures)
    assert (found["rl2"].architectures[:, 1:] != found["rl2-wiped"].architectures[:, 1:]).any()
    assert len(agents["rl2"].log) == 1
    assert "agreement" in agents["rl2-cloned"].log[0]
    other = LEARNED_AGENTS["rl2-cloned"](table_problem(), 4)
    assert (run_search(other, table_env(), range(16), 0).architectures != found["rl2-cloned"].architectures).any()


@pytest.mark.usefixtures("quick")
def test_on_a_table_the_shuffled_agent_is_trained_on_synthetic_tasks_of_shuffled_worth() -> None:
    episodes: list[DesignEpisode] = []
    LEARNED_AGENTS["rl2-shuffled"](table_problem(recorder=episodes.extend), 3)
    assert {episode.task.split("/")[0] for episode in episodes} == {"table:digits:synthetic"}
    assert {episode.env["evaluator"]["kind"] for episode in episodes} == {"shuffled"}


def test_where_there_is_no_table_nothing_can_be_cloned() -> None:
    with pytest.raises(ConfigurationError, match="table"):
        LEARNED_AGENTS["rl2-cloned"](problem(), 0)
    np.testing.assert_array_equal(
        search(LEARNED_AGENTS["rl2"](problem(), 0)), search(LEARNED_AGENTS["rl2-real"](problem(), 0))
    )


# ---- shuffled


def proposals(task: int = 0) -> list[Proposal]:
    return [Proposal(design, HiddenSource().task("train", task)) for design in SPACE.enumerate()]


def hit_rates(evaluator: Evaluator, task: int) -> NDArray[np.float64]:
    """How often a design is a hit, for each first choice."""
    asked = proposals(task)
    hits = np.array([e.accuracy >= HIT for e in evaluator.evaluate(asked)])
    first = np.array([p.architecture.choices[0] for p in asked])
    return np.array([hits[first == choice].mean() for choice in np.unique(first)])


def test_shuffled_rewards_say_nothing_of_the_choices() -> None:
    tasks = range(20)
    plain = np.array([hit_rates(HiddenEvaluator(), task) for task in tasks])
    shuffled = np.array([hit_rates(ShuffledEvaluator(HiddenEvaluator()), task) for task in tasks])
    assert plain.max(1).min() == 1.0
    assert shuffled.std(0).max() > 0  # drawn anew for each task
    assert np.abs(shuffled.mean(0) - shuffled.mean()).max() < 0.15
    samples = [SPACE.sample(np.random.default_rng(i)) for i in range(2000)]
    of_random = np.mean([design.choices[0] < KINDS for design in samples]) / KINDS
    assert shuffled.mean() == pytest.approx(of_random, abs=0.04)  # accuracies are those of random designs


def test_shuffled_accuracies_are_fixed_for_each_design_and_task() -> None:
    first, again = (ShuffledEvaluator(HiddenEvaluator()).evaluate(proposals()) for _ in range(2))
    other = ShuffledEvaluator(HiddenEvaluator()).evaluate(proposals(1))
    assert first == again
    assert first != other
    backwards = ShuffledEvaluator(HiddenEvaluator()).evaluate(proposals()[::-1])
    assert backwards[::-1] == first
    assert len(Counter(e.accuracy for e in first)) > 5


def test_the_shuffled_agent_never_sees_what_its_designs_are_worth() -> None:
    episodes: list[DesignEpisode] = []
    LEARNED_AGENTS["rl2-shuffled"](problem(recorder=episodes.extend), 0)
    shuffled = ShuffledEvaluator(HiddenEvaluator())
    source = HiddenSource()
    for episode in episodes[:20]:
        asked = Proposal(SPACE.decode(episode.actions), source.named(episode.task))
        assert shuffled.evaluate([asked])[0].accuracy == episode.evaluation.accuracy


# ---- from a folder


def test_a_saved_controller_takes_part_with_a_seed_of_its_own(tmp_path: Path) -> None:
    controller = trained()
    controller.save(tmp_path)
    for seed in (0, 5):
        controller.seed(seed)
        loaded = controller_agent(tmp_path)(problem(), seed)
        assert isinstance(loaded, Controller)
        np.testing.assert_array_equal(search(loaded), search(controller))
    controller.seed(0)
    np.testing.assert_array_equal(
        search(wiped(controller_agent(tmp_path))(problem(), 0)), search(MemoryWiped(controller, problem().layout))
    )


def test_a_controller_of_another_space_is_refused(tmp_path: Path) -> None:
    trained().save(tmp_path)
    other = ChainSpace(max_layers=2, input_size=4, widths=(8,), dense_widths=(8,))  # observations of equal size
    with pytest.raises(CheckpointError, match=r"was trained for the space .*widths.*4.* not for .*widths.*8"):
        controller_agent(tmp_path)(problem(space=other), 0)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        controller_agent(tmp_path / "nowhere")(problem(), 0)
