"""Searchers that ask and tell: what they promise, and those without a model or a population."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from rlnas.architecture import Architecture
from rlnas.search_space import SearchSpace


class Searcher(ABC):
    """Searches one task: :meth:`ask` for a design, :meth:`tell` what it was worth, and again.

    A searcher may be told of designs that it never asked for: those of a portfolio to start from, or what came of its
    own design where an environment refused it.

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
        """Learn what a design is worth."""


def first_designs(designs: int) -> int:
    """How much of a budget goes to designs that a model-based or evolving search starts from: a third, 2 to 10."""
    return min(10, max(2, designs // 3))


class RandomSearch(Searcher):
    """Every decision uniform over its legal choices."""

    def ask(self) -> Architecture:
        return self.space.sample(self.rng)

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        pass


class StartWith(Searcher):
    """Given designs first, in order; then what another searcher asks for, which is told of all of them.

    Args:
        designs: to begin with.
        searcher: goes on from them.
    """

    def __init__(self, designs: list[Architecture], searcher: Searcher) -> None:
        super().__init__(searcher.space)
        self.searcher = searcher
        self._designs = iter(designs)

    def ask(self) -> Architecture:
        return next(self._designs, None) or self.searcher.ask()

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        self.searcher.tell(architecture, accuracy)


class LocalSearch(Searcher):
    """Climbs from neighbour to better neighbour (White et al. 2021, https://arxiv.org/abs/2005.02960).

    Starts from a random design and tries its neighbours in random order; where none is better it starts again from a
    new random design. No neighbour is evaluated twice.

    Args:
        space: what to search.
        seed: of everything random.
        first_improvement: go on from the first better neighbour ("query until lower"), which is the better choice where
            a budget is no more than a few neighbourhoods; else from the best one, when all have been evaluated.
    """

    def __init__(self, space: SearchSpace, seed: int = 0, first_improvement: bool = True) -> None:
        super().__init__(space, seed)
        self.first_improvement = first_improvement
        self.known: dict[Architecture, float] = {}
        self.current: Architecture | None = None
        self._near: set[Architecture] = set()
        self._untried: list[Architecture] = []

    def ask(self) -> Architecture:
        while self.current is not None:
            if self._untried:
                return self._untried.pop()
            best = max(self._near & self.known.keys(), key=self._rank, default=self.current)
            self._move(best if self.known[best] > self.known[self.current] else None)
        return self.space.sample(self.rng)

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        self.known[architecture] = accuracy
        if self.current is None or (
            accuracy > self.known[self.current] and (self.first_improvement or architecture not in self._near)
        ):
            self._move(architecture)

    def _rank(self, architecture: Architecture) -> tuple[float, tuple[int, ...]]:
        return self.known[architecture], architecture.choices  # sets have no order of their own to break ties by

    def _move(self, to: Architecture | None) -> None:
        self.current = to
        near = [] if to is None else self.space.neighbours(to)
        untried = [architecture for architecture in near if architecture not in self.known]
        self._near = set(near)
        self._untried = [untried[i] for i in self.rng.permutation(len(untried))]
