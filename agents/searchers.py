"""Searchers that ask and tell, and the adapter that lets them act in a design environment like any agent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError, at_least
from rlnas.search_space import SearchSpace

from .agent import State


class Searcher(ABC):
    """Searches one task: :meth:`ask` for a design, :meth:`tell` what it was worth, and again.

    Args:
        space: what to search.
        seed: of everything random.
    """

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        self.space = space
        self.rng = np.random.default_rng(seed)

    @abstractmethod
    def ask(self) -> Architecture:
        """The next design to evaluate."""

    @abstractmethod
    def tell(self, architecture: Architecture, accuracy: float) -> None:
        """Learn what a design that was asked for is worth."""


class RandomSearch(Searcher):
    """Every decision uniform over its legal choices."""

    def ask(self) -> Architecture:
        return self.space.sample(self.rng)

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        pass


class RegularizedEvolution(Searcher):
    """Evolution in which the oldest dies (Real et al. 2019, https://arxiv.org/abs/1802.01548).

    The first ``population_size`` designs are random; each later one is a mutation of the best of ``sample_size`` random
    members, and replaces the oldest member.

    Args:
        space: what to search.
        seed: of everything random.
        population_size: members alive at a time.
        sample_size: members among which a parent is chosen.

    Raises:
        ConfigurationError: if a sample is larger than the population.
    """

    def __init__(self, space: SearchSpace, seed: int = 0, population_size: int = 10, sample_size: int = 3) -> None:
        super().__init__(space, seed)
        self.population_size = at_least("population_size", population_size, 1)
        self.sample_size = at_least("sample_size", sample_size, 1)
        if sample_size > population_size:
            raise ConfigurationError(f"sample_size ({sample_size}) must not exceed population_size ({population_size})")
        self.population: deque[tuple[Architecture, float]] = deque(maxlen=population_size)

    def ask(self) -> Architecture:
        if len(self.population) < self.population_size:
            return self.space.sample(self.rng)
        drawn = self.rng.choice(len(self.population), self.sample_size, replace=False)
        parent, _ = max((self.population[int(i)] for i in drawn), key=lambda member: member[1])
        return self.space.mutate(parent, self.rng)

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        self.population.append((architecture, accuracy))


def evolution_for(designs: int) -> dict[str, int]:
    """Evolution's population and sample for a budget of ``designs``: 10 and 3, at most a third of a small budget."""
    population = min(10, max(2, designs // 3))
    return {"population_size": population, "sample_size": min(3, population)}


class _Layout(Protocol):
    def split(self, observation: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]: ...


class SearcherAgent:
    """Lets searchers act in a design environment: a searcher for each trial, told by its observations.

    Args:
        make: makes a searcher for a trial, given a seed.
        layout: of the environment's observations.
        seed: of the first searcher; each later one has the next.
    """

    def __init__(self, make: Callable[[int], Searcher], layout: _Layout, seed: int = 0) -> None:
        self._make = make
        self._layout = layout
        self._next_seed = seed
        self._searchers: dict[int, Searcher] = {}
        self._designs: dict[int, Architecture] = {}

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`; what is remembered stays in this object."""
        parts = self._layout.split(np.atleast_2d(observation))
        positions = parts["position"].argmax(1)
        actions = np.zeros(len(positions), dtype=np.int64)
        for row, position in enumerate(positions.tolist()):
            if row not in self._searchers or (episode_start is not None and np.atleast_1d(episode_start)[row]):
                self._searchers[row] = self._make(self._next_seed)
                self._next_seed += 1
            elif parts["design_ended"][row, 0] > 0:
                self._searchers[row].tell(self._designs[row], float(parts["reward"][row, 0]))
            if position == 0:
                self._designs[row] = self._searchers[row].ask()
            actions[row] = self._designs[row].choices[position]
        return (actions if observation.ndim == 2 else actions[0]), state


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
        begins = observation[..., self._layout["position"].start] > 0
        wiped = observation.copy()
        for name in self._layout.MEMORY:
            part = wiped[..., self._layout[name]]
            if name == "action":
                part[begins] = 0.0
            else:
                part[...] = 1.0 if name == "designs_left" else 0.0
        return self._agent.predict(wiped, state, begins, deterministic)  # type: ignore[no-any-return]


SEARCHERS: dict[str, Callable[[SearchSpace, int, int], Searcher]] = {
    "random": lambda space, designs, seed: RandomSearch(space, seed),
    "evolution": lambda space, designs, seed: RegularizedEvolution(space, seed, **evolution_for(designs)),
}
"""How to make each searcher for a space, a budget of designs and a seed; add your own here."""
