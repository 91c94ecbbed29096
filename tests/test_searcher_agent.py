"""The adapters that let searchers, and a controller without memory, act in an environment."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from rlnas.agents.agent import Agent, State
from rlnas.agents.controller import Controller, ControllerConfig
from rlnas.agents.searcher_agent import MemoryWiped, SearcherAgent
from rlnas.agents.searchers import RandomSearch, Searcher
from rlnas.architecture import Architecture
from rlnas.episode import DesignEpisode
from rlnas.search_space import SearchSpace

from .hidden import SPACE, hidden_env


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


class Stubborn(RandomSearch):
    """Asks for one design for ever."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(space, seed)
        self.design = super().ask()
        self.told: list[tuple[int, ...]] = []

    def ask(self) -> Architecture:
        return self.design

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        self.told.append(architecture.choices)


def refusing_trial(
    make: Callable[[SearchSpace, int], Searcher], designs: int, refuse: bool = True
) -> tuple[list[tuple[int, ...]], list[Searcher]]:
    """The designs of one trial whose mask leaves out what was evaluated, and the searchers that were made."""
    episodes: list[DesignEpisode] = []
    env = hidden_env(1, designs, recorder=episodes.extend)
    made: list[Searcher] = []

    def remember(seed: int) -> Searcher:
        made.append(make(SPACE, seed))
        return made[-1]

    agent = SearcherAgent(remember, env.layout, 3, refuse_duplicates=refuse)
    observation, _ = env.reset(seed=1)
    start, prefix = np.ones(1, dtype=np.bool_), ()
    for _ in range(designs * 2):
        if refuse:
            evaluated = {episode.actions for episode in episodes}
            left = [d.choices for d in SPACE.enumerate() if d.choices not in evaluated]
            possible = {choices[len(prefix)] for choices in left if choices[: len(prefix)] == prefix}
            observation[0, env.layout["legal"]] = [choice in possible for choice in range(SPACE.num_choices)]
        action, _ = agent.predict(observation, None, start)
        prefix = (*prefix, int(action[0])) if len(prefix) < 1 else ()
        observation, _, start, _, _ = env.step(action)
    return [episode.actions for episode in episodes], made


def test_where_duplicates_are_refused_a_searcher_that_repeats_itself_gets_designs_that_are_new() -> None:
    built, (searcher,) = refusing_trial(Stubborn, SPACE.size)
    assert len(set(built)) == len(built) == SPACE.size
    assert isinstance(searcher, Stubborn)
    assert searcher.told == built[:-1]  # what was built, not what was asked for
    assert built[0] == searcher.design.choices
    assert len({choices[0] for choices in built[1:6]}) > 1  # random designs, not variations of the one asked for


def test_where_duplicates_are_refused_a_searcher_is_asked_again_first() -> None:
    built, _ = refusing_trial(RandomSearch, 6)
    expected: dict[tuple[int, ...], None] = {}
    again = RandomSearch(SPACE, 3)
    while len(expected) < 6:
        expected[again.ask().choices] = None
    assert built == list(expected)


def test_where_duplicates_count_they_are_built_and_told() -> None:
    built, (searcher,) = refusing_trial(Stubborn, 5, refuse=False)
    assert isinstance(searcher, Stubborn)
    assert built == [searcher.design.choices] * 5
    assert searcher.told == built[:-1]


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
    shape = ControllerConfig(env.layout.size, (int(env.single_action_space.n),), (slices.start, slices.stop), 8)
    agent = MemoryWiped(Controller(shape, seed=1), env.layout)
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
    shape = ControllerConfig(env.layout.size, (int(env.single_action_space.n),), (slices.start, slices.stop), 8)
    agent = MemoryWiped(Controller(shape), env.layout)
    observation, _ = env.reset(seed=0)
    state = None
    for _ in range(4):
        action, state = agent.predict(observation[0], state, deterministic=True)
        assert action.shape == ()
        observation, *_ = env.step(np.array([action]))
