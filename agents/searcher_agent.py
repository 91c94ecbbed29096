"""The adapters that let searchers, and an agent without memory, act in a design environment like any agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError
from rlnas.search_space import SearchSpace

from .agent import Agent, State, Thinking, think
from .problem import MakeAgent, SearchProblem
from .searchers import Searcher

ASKS = 100
"""How often a searcher is asked for a design that its trial has not evaluated yet before a random one is taken."""


class _Layout(Protocol):
    ACTIONS_ARE_CHOICES: bool

    def split(self, observation: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]: ...

    def action_towards(self, observation: NDArray[np.float32], target: Architecture) -> int: ...


class SearcherAgent:
    """Lets searchers act in a design environment: a searcher for each trial, told by its observations.

    Args:
        make: makes a searcher for a trial, given a seed.
        layout: of the environment's observations.
        seed: of the first searcher; each later one has the next.
        refuse_duplicates: whether the environment refuses designs that the trial has evaluated. A searcher is then
            asked again, at most :data:`ASKS` times, for a design that is new; otherwise it gets a random one. Where the
            legal mask forbids a choice, a random legal one is taken; the searcher is told of the design that was built.
    """

    def __init__(
        self, make: Callable[[int], Searcher], layout: _Layout, seed: int = 0, refuse_duplicates: bool = False
    ) -> None:
        self._make = make
        self._layout = layout
        self._next_seed = seed
        self._refuse_duplicates = refuse_duplicates
        self._trials: dict[int, _Trial] = {}

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`; what is remembered stays in this object."""
        rows = np.atleast_2d(observation)
        parts = self._layout.split(rows)
        positions = parts["position"].argmax(1)
        actions = np.zeros(len(positions), dtype=np.int64)
        for row, position in enumerate(positions.tolist()):
            if row not in self._trials or (episode_start is not None and np.atleast_1d(episode_start)[row]):
                searcher = self._searcher(parts["descriptor"][row], self._next_seed)
                self._trials[row] = _Trial(searcher, self._layout, self._next_seed, self._refuse_duplicates)
                self._next_seed += 1
            elif parts["design_ended"][row, 0] > 0:
                self._trials[row].tell(float(parts["reward"][row, 0]))
            if position == 0:
                self._trials[row].plan()
            actions[row] = self._trials[row].act(rows[row], parts["legal"][row])
        return (actions if observation.ndim == 2 else actions[0]), state

    def _searcher(self, descriptor: NDArray[np.float32], seed: int) -> Searcher:
        """A searcher for a trial on a task with this descriptor."""
        return self._make(seed)


class _Trial:
    """One searcher's trial: the design that it plans and what is built of it."""

    def __init__(self, searcher: Searcher, layout: _Layout, seed: int, refuse_duplicates: bool) -> None:
        self._searcher = searcher
        self._layout = layout
        self._refuse = refuse_duplicates
        self._rng = np.random.default_rng([seed, 1])
        self._planned: Architecture
        self._actions: list[int] = []
        self._strayed = False
        self._evaluated: set[str] = set()

    def tell(self, accuracy: float) -> None:
        built = self._built()
        if built is not None:
            self._evaluated.add(built.text)
            self._searcher.tell(built, accuracy)

    def plan(self) -> None:
        self._actions, self._strayed = [], False
        for _ in range(ASKS if self._refuse else 1):
            self._planned = self._searcher.ask()
            if not isinstance(self._planned, Architecture):
                kind = type(self._searcher).__name__
                raise ConfigurationError(f"{kind}.ask must return an Architecture, got {self._planned!r}")
            if not self._refuse or self._planned.text not in self._evaluated:
                return
        self._planned = self._searcher.space.sample(self._rng)

    def act(self, observation: NDArray[np.float32], legal: NDArray[np.float32]) -> int:
        action = self._layout.action_towards(observation, self._planned)
        if self._refuse and legal[action] <= 0:
            action, self._strayed = int(self._rng.choice(np.flatnonzero(legal > 0))), True
        self._actions.append(action)
        return action

    def _built(self) -> Architecture | None:
        """The design that just ended; None if edits other than those planned made it, which do not say what it is."""
        if not self._strayed:
            return self._planned
        return self._searcher.space.decode(self._actions) if self._layout.ACTIONS_ARE_CHOICES else None


def searcher_agent(make: Callable[[SearchSpace, int, int], Searcher]) -> MakeAgent:
    """Lets a searcher take part in comparisons.

    Args:
        make: makes the searcher for a space, a budget of designs and a seed.
    """

    def make_agent(problem: SearchProblem, seed: int) -> Agent:
        return SearcherAgent(
            lambda s: make(problem.space, problem.designs, s),
            problem.layout,
            first_seed(seed),
            refuses_duplicates(problem),
        )

    return make_agent


def first_seed(seed: int) -> int:
    """The seed of the first trial's searcher; far from those of other runs, whose seeds are often consecutive."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])


def refuses_duplicates(problem: SearchProblem) -> bool:
    """Whether the problem's environment refuses designs that a trial has evaluated."""
    return bool(problem.env_options.get("duplicates") == "refuse")


class MemoryWiped:
    """The same agent, made to forget at the end of each design: the control that shows what memory does.

    Its state is dropped and the observation's slices that carry anything from one design to the next are put back to
    what they are when a trial begins, so that it designs for the same task as if for the first time.

    Args:
        agent: the agent to wipe.
        layout: of the environment's observations.
    """

    def __init__(self, agent: Any, layout: Any) -> None:
        self._agent = agent
        self._layout = layout

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`."""
        wiped, begins = self._wiped(observation)
        return self._agent.predict(wiped, state, begins, deterministic)  # type: ignore[no-any-return]

    def think(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> Thinking:
        """See :func:`rlnas.agents.agent.think`."""
        wiped, begins = self._wiped(observation)
        return think(self._agent, wiped, state, begins, deterministic)

    def _wiped(self, observation: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Observations without what came before, and where designs begin."""
        begins = observation[..., self._layout["position"].start] > 0
        wiped = observation.copy()
        for name in self._layout.MEMORY:
            part = wiped[..., self._layout[name]]
            if name == "action":
                part[begins] = 0.0
            else:
                part[...] = 1.0 if name == "designs_left" else 0.0
        return wiped, begins
