"""Searchers, and the adapters that let them, and a controller without memory, act in an environment."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from rlnas.agents.agent import Agent, State
from rlnas.agents.controller import ControllerConfig, LSTMController
from rlnas.agents.searchers import (
    SEARCHERS,
    MemoryWiped,
    RandomSearch,
    RegularizedEvolution,
    Searcher,
    SearcherAgent,
    evolution_for,
)
from rlnas.architecture import Architecture
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace

from .contracts.searcher import SearcherContract, worth
from .hidden import SPACE, hidden_env


class TestRandomSearch(SearcherContract):
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return RandomSearch(space, seed)


class TestRegularizedEvolution(SearcherContract):
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return RegularizedEvolution(space, seed, population_size=6, sample_size=3)


@pytest.mark.parametrize("name", SEARCHERS)
def test_searchers_by_name_are_made_for_a_space_a_budget_and_a_seed(name: str) -> None:
    for designs in (1, 2, 10, 100):
        searcher = SEARCHERS[name](SPACE, designs, 5)
        assert searcher.space == SPACE
        assert searcher.ask() == SEARCHERS[name](SPACE, designs, 5).ask()


def told(population: int, sample: int, seed: int = 0) -> tuple[RegularizedEvolution, list[Architecture]]:
    """Evolution whose first generation has been told, and that generation."""
    evolution = RegularizedEvolution(CellSpace(), seed, population, sample)
    first = []
    for _ in range(population):
        first.append(evolution.ask())
        evolution.tell(first[-1], worth(first[-1]))
    return evolution, first


def distance(one: Architecture, other: Architecture) -> int:
    return sum(a != b for a, b in zip(one.choices, other.choices, strict=True))


def test_the_oldest_member_dies_however_good_it_is() -> None:
    evolution, first = told(population=5, sample=2)
    evolution.tell(first[0], 1.0)
    assert [a for a, _ in evolution.population] == [*first[1:], first[0]]
    for _ in range(4):
        evolution.tell(first[1], 0.0)
    assert [accuracy for _, accuracy in evolution.population] == [1.0, 0.0, 0.0, 0.0, 0.0]
    evolution.tell(first[1], 0.0)
    assert max(accuracy for _, accuracy in evolution.population) == 0.0


def test_a_mutation_differs_from_its_parent_in_one_choice_and_is_another_network() -> None:
    evolution, _ = told(population=6, sample=6)  # the sample is everyone: the parent is the best alive
    for _ in range(60):
        best = max(accuracy for _, accuracy in evolution.population)
        child = evolution.ask()
        parents = [a for a, accuracy in evolution.population if accuracy == best and distance(a, child) == 1]
        assert parents
        assert all(child.key != parent.key for parent in parents)
        evolution.tell(child, worth(child))


def test_parents_are_the_best_of_a_sample_and_not_always_the_best_of_all() -> None:
    space = ChainSpace(max_layers=6)
    members = [space.decode([choice] * 6) for choice in range(6)]  # six convolutions, all alike: any parent is plain
    parents = []
    for seed in range(300):
        evolution = RegularizedEvolution(space, seed, population_size=6, sample_size=3)
        for rank, member in enumerate(members):
            evolution.tell(member, rank / 10)
        child = evolution.ask()
        parents.append(min(range(6), key=lambda i: distance(members[i], child)))
    # The best of 3 out of 6, all different, has rank r (from 0) with probability C(r, 2) / C(6, 3).
    found = np.bincount(parents, minlength=6) / 300
    np.testing.assert_allclose(found, [0, 0, 1 / 20, 3 / 20, 6 / 20, 10 / 20], atol=0.08)
    assert found[:2].tolist() == [0, 0]


def test_the_first_generation_is_random_as_random_search_is() -> None:
    evolution, random = RegularizedEvolution(CellSpace(), 3, 8, 3), RandomSearch(CellSpace(), 3)
    for _ in range(8):
        design = evolution.ask()
        assert design == random.ask()
        evolution.tell(design, 0.5)


@pytest.mark.parametrize("space", [ChainSpace(max_layers=8), CellSpace()], ids=lambda space: space.kind)
def test_on_a_smooth_landscape_evolution_beats_random_search_at_100_evaluations(space: SearchSpace) -> None:
    def smooth(architecture: Architecture) -> float:
        return sum(c == 3 for c in architecture.choices) / len(architecture.choices)

    def best_of(searcher: Searcher) -> float:
        best = 0.0
        for _ in range(100):
            design = searcher.ask()
            best = max(best, smooth(design))
            searcher.tell(design, smooth(design))
        return best

    evolution, random = (
        [best_of(SEARCHERS[name](space, 100, seed)) for seed in range(10)] for name in ("evolution", "random")
    )
    assert np.mean(evolution) > np.mean(random) + 0.1
    assert all(e >= r for e, r in zip(sorted(evolution), sorted(random), strict=True))


def test_a_sample_larger_than_the_population_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"sample_size \(4\) must not exceed population_size \(3\)"):
        RegularizedEvolution(SPACE, 0, population_size=3, sample_size=4)


@pytest.mark.parametrize(("field", "value"), [("population_size", 0), ("sample_size", 0), ("sample_size", 1.5)])
def test_a_setting_of_evolution_that_is_not_allowed_is_named(field: str, value: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} must be"):
        RegularizedEvolution(SPACE, 0, **{field: value})


@pytest.mark.parametrize("designs", [1, 2, 5, 10, 29, 30, 1000])
def test_evolution_fits_its_budget(designs: int) -> None:
    settings = evolution_for(designs)
    RegularizedEvolution(SPACE, 0, **settings)
    assert settings["population_size"] <= max(2, designs // 3)
    assert evolution_for(1000) == {"population_size": 10, "sample_size": 3}


class Probe(RandomSearch):
    """Random search that notes what it is told."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(space, seed)
        self.seed = seed
        self.asked: list[Architecture] = []
        self.told: list[tuple[Architecture, float]] = []

    def ask(self) -> Architecture:
        self.asked.append(super().ask())
        return self.asked[-1]

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        self.told.append((architecture, accuracy))


def probes() -> tuple[SearcherAgent, list[Probe]]:
    made: list[Probe] = []

    def make(seed: int) -> Probe:
        made.append(Probe(SPACE, seed))
        return made[-1]

    return SearcherAgent(make, hidden_env().layout, seed=40), made


@pytest.mark.parametrize("reward", ["accuracy", "normalised", "improvement"])
def test_each_searcher_is_told_what_its_own_designs_were_worth(reward: str) -> None:
    """Through several trials in one vector environment that resets by itself, whatever the reward form."""
    trials, designs, envs = 3, 4, 3
    episodes: list[DesignEpisode] = []
    env = hidden_env(envs, designs, recorder=episodes.extend, reward=reward)
    agent, made = probes()
    observation, _ = env.reset(seed=1)
    start, state = np.ones(envs, dtype=np.bool_), None
    for _ in range(trials * designs * 2):
        action, state = agent.predict(observation, state, start)
        observation, _, start, _, _ = env.step(action)
    assert len(made) == trials * envs
    for trial, searcher in enumerate(made):
        mine = sorted((e for e in episodes if e.trial == trial), key=lambda e: e.design)
        assert [a.choices for a in searcher.asked] == [e.actions for e in mine]
        # A trial's last design is told to nobody: there is nothing left to ask.
        assert [a for a, _ in searcher.told] == searcher.asked[:-1]
        expected = [e.evaluation.accuracy for e in mine[:-1]]
        np.testing.assert_allclose([accuracy for _, accuracy in searcher.told], expected, rtol=1e-6)
    assert len({accuracy for s in made for _, accuracy in s.told}) > 2  # so that a mix-up would show
    assert [s.seed for s in made] == list(range(40, 40 + len(made)))


def test_a_searcher_agent_starts_a_new_search_only_in_the_rows_that_start() -> None:
    env = hidden_env(2, 3)
    agent, made = probes()
    observation, _ = env.reset(seed=0)
    agent.predict(observation, None, np.array([True, True]))
    agent.predict(observation, None, np.array([False, True]))
    assert len(made) == 3
    assert [len(s.asked) for s in made] == [2, 1, 1]


def test_a_searcher_agent_answers_a_single_observation() -> None:
    env = hidden_env(1, 2)
    agent, made = probes()
    assert isinstance(agent, Agent)
    observation, _ = env.reset(seed=0)
    action, _ = agent.predict(observation[0], None, np.array([True]))
    assert action.shape == ()
    assert action == made[0].asked[0].choices[0]


class Note:
    """An agent that notes what it is given and acts by the clock: each design takes the same actions."""

    def __init__(self, actions: list[int]) -> None:
        self.actions = actions
        self.seen: list[NDArray[np.float32]] = []
        self.starts: list[list[bool]] = []

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        assert episode_start is not None
        action = self.actions[len(self.seen) % len(self.actions)]
        self.seen.append(observation.copy())
        self.starts.append(np.atleast_1d(episode_start).tolist())
        return np.full(len(observation), action, dtype=np.int64), state


def note_a_trial(wiped: bool, designs: int = 4) -> list[Note]:
    env = hidden_env(3, designs)
    note = Note([1, 5])
    agent = MemoryWiped(note, env.layout) if wiped else note
    observation, _ = env.reset(seed=2)
    start, state = np.ones(3, dtype=np.bool_), None
    for _ in range(designs * 2):
        given = observation.copy()
        action, state = agent.predict(observation, state, start)
        np.testing.assert_array_equal(observation, given)  # what the environment holds is left alone
        observation, _, start, _, _ = env.step(action)
    return [note]


def test_with_its_memory_wiped_an_agent_sees_every_design_as_it_saw_the_first() -> None:
    (note,) = note_a_trial(wiped=True)
    for step, seen in enumerate(note.seen):
        np.testing.assert_array_equal(seen, note.seen[step % 2])
    assert note.starts == [[step % 2 == 0] * 3 for step in range(8)]


def test_a_trial_begins_for_a_wiped_agent_as_it_begins_for_any() -> None:
    (wiped,), (plain,) = note_a_trial(wiped=True), note_a_trial(wiped=False)
    for step in range(2):
        np.testing.assert_array_equal(wiped.seen[step], plain.seen[step])
    assert any(not np.array_equal(a, b) for a, b in pairwise(plain.seen[::2]))  # without wiping, designs differ


def test_a_wiped_controller_acts_in_later_designs_as_in_the_first() -> None:
    env = hidden_env(4, 5)
    slices = env.layout["legal"]
    shape = ControllerConfig(env.layout.size, int(env.single_action_space.n), (slices.start, slices.stop), 8)
    agent = MemoryWiped(LSTMController(shape, seed=1), env.layout)
    observation, _ = env.reset(seed=0)
    start, state, actions = np.ones(4, dtype=np.bool_), None, []
    for _ in range(10):
        action, state = agent.predict(observation, state, start, deterministic=True)
        actions.append(action)
        observation, _, start, _, _ = env.step(action)
    for step in range(10):
        np.testing.assert_array_equal(actions[step], actions[step % 2])


def test_a_wiped_controller_answers_a_single_observation() -> None:
    env = hidden_env(1, 2)
    slices = env.layout["legal"]
    shape = ControllerConfig(env.layout.size, int(env.single_action_space.n), (slices.start, slices.stop), 8)
    agent = MemoryWiped(LSTMController(shape), env.layout)
    observation, _ = env.reset(seed=0)
    state = None
    for _ in range(4):
        action, state = agent.predict(observation[0], state, deterministic=True)
        assert action.shape == ()
        observation, *_ = env.step(np.array([action]))
