"""Searchers that let designs have offspring."""

from __future__ import annotations

from collections import deque

from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError, at_least
from rlnas.search_space import SearchSpace

from .searchers import Searcher, first_designs


class RegularizedEvolution(Searcher):
    """Evolution in which the oldest dies (Real et al. 2019, https://arxiv.org/abs/1802.01548).

    The first ``population_size`` designs are random; each later one is a mutation of the best of ``sample_size`` random
    members (drawn with replacement), and replaces the oldest member.

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
        drawn = self.rng.integers(len(self.population), size=self.sample_size)
        parent, _ = max((self.population[int(i)] for i in drawn), key=lambda member: member[1])
        return self.space.mutate(parent, self.rng)

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        self.population.append((architecture, accuracy))


def evolution_for(designs: int) -> dict[str, int]:
    """Evolution's population and sample for a budget of ``designs``: 10 and 3, at most a third of a small budget."""
    population = first_designs(designs)
    return {"population_size": population, "sample_size": min(3, population)}


class GeneticAlgorithm(Searcher):
    """A genetic algorithm of generations with truncation selection.

    The first generation is random. The parents of each later one are the best of those before it and of their
    offspring, so that the best is never lost. A child is a uniform crossover of two parents with probability
    ``crossover``, otherwise it takes after one; with probability ``mutation`` one of its choices is changed, and
    always where it would be a copy of its parent, which has been evaluated already.

    Args:
        space: what to search.
        seed: of everything random.
        population_size: designs in a generation. A search with a smaller budget never leaves its first, random
            generation; :func:`genetic_for` makes generations that fit.
        crossover: probability that a child has two parents.
        mutation: probability that a child is mutated.
        selected: share of the population that become parents, at least 2.

    Raises:
        ConfigurationError: if a probability or share is not in 0 .. 1.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        population_size: int = 100,
        crossover: float = 0.7,
        mutation: float = 0.2,
        selected: float = 0.1,
    ) -> None:
        super().__init__(space, seed)
        for field, share in (("crossover", crossover), ("mutation", mutation), ("selected", selected)):
            if not 0.0 <= share <= 1.0:
                raise ConfigurationError(f"{field} must be in 0 .. 1, got {share!r}")
        self.population_size = at_least("population_size", population_size, 2)
        self.crossover, self.mutation = crossover, mutation
        self.num_parents = max(2, round(selected * population_size))
        self.parents: list[tuple[Architecture, float]] = []
        self._generation: list[tuple[Architecture, float]] = []

    def ask(self) -> Architecture:
        if not self.parents:
            return self.space.sample(self.rng)
        first, second = (
            self.parents[int(i)][0] for i in self.rng.choice(len(self.parents), 2, replace=len(self.parents) < 2)
        )
        child = first
        if self.rng.random() < self.crossover:
            child = self.space.crossover(first, second, self.rng)
        if self.rng.random() < self.mutation or child in (first, second):
            child = self.space.mutate(child, self.rng)
        return child

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        self._generation.append((architecture, accuracy))
        if len(self._generation) >= self.population_size:
            best: dict[Architecture, float] = {}  # equal designs are one parent
            for design, worth in sorted([*self.parents, *self._generation], key=lambda member: -member[1]):
                best.setdefault(design, worth)
            self.parents = list(best.items())[: self.num_parents]
            self._generation = []


def genetic_for(designs: int) -> dict[str, int]:
    """The genetic algorithm's population for a budget of ``designs``: 100, at most a fifth of a small budget."""
    return {"population_size": min(100, max(4, designs // 5))}
