"""Regularised evolution and the genetic algorithm."""

from __future__ import annotations

import numpy as np
import pytest

from rlnas.agents.evolution import GeneticAlgorithm, RegularizedEvolution, evolution_for, genetic_for
from rlnas.agents.registry import SEARCHERS
from rlnas.agents.searchers import RandomSearch, Searcher
from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace

from .contracts.searcher import SearcherContract, worth
from .hidden import SPACE


class TestRegularizedEvolution(SearcherContract):
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return RegularizedEvolution(space, seed, population_size=6, sample_size=3)


class TestGeneticAlgorithm(SearcherContract):
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return GeneticAlgorithm(space, seed, population_size=8)


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
    evolution, _ = told(population=6, sample=6)
    for _ in range(60):
        child = evolution.ask()
        parents = [a for a, _ in evolution.population if distance(a, child) == 1]
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
    # The best of 3 drawn from 6 with replacement has rank r (from 0) with probability ((r + 1)^3 - r^3) / 6^3.
    found = np.bincount(parents, minlength=6) / 300
    np.testing.assert_allclose(found, np.diff(np.arange(7) ** 3) / 6**3, atol=0.08)


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


def generations(genetic: GeneticAlgorithm, count: int) -> list[list[Architecture]]:
    """Designs of the first generations, each design told its :func:`worth`."""
    found: list[list[Architecture]] = []
    for _ in range(count):
        found.append([])
        for _ in range(genetic.population_size):
            found[-1].append(genetic.ask())
            genetic.tell(found[-1][-1], worth(found[-1][-1]))
    return found


def test_the_default_settings_of_the_genetic_algorithm() -> None:
    genetic = GeneticAlgorithm(SPACE)
    assert (genetic.population_size, genetic.crossover, genetic.mutation, genetic.num_parents) == (100, 0.7, 0.2, 10)


def test_parents_are_the_best_tenth_of_parents_and_offspring() -> None:
    genetic = GeneticAlgorithm(CellSpace(), 0, population_size=40)
    told: list[Architecture] = []
    for _ in range(3):
        told += generations(genetic, 1)[0]
        best = sorted({worth(design) for design in told}, reverse=True)[:4]
        assert [accuracy for _, accuracy in genetic.parents] == sorted((worth(d) for d in set(told)), reverse=True)[:4]
        assert genetic.parents[0][1] == best[0]


def test_without_mutation_children_are_made_of_their_parents() -> None:
    genetic = GeneticAlgorithm(CellSpace(), 1, population_size=20, crossover=1.0, mutation=0.0, selected=0.2)
    generations(genetic, 1)
    parents = [design for design, _ in genetic.parents]
    for _ in range(100):
        child = genetic.ask()
        # Nothing but what some parent has, or, where two parents would have had a copy, one other choice.
        strange = sum(all(child.choices[i] != parent.choices[i] for parent in parents) for i in range(6))
        assert strange <= 1


def test_a_child_is_never_a_copy_of_its_parents() -> None:
    genetic = GeneticAlgorithm(CellSpace(), 2, population_size=20, crossover=0.0, mutation=0.0, selected=0.1)
    generations(genetic, 1)
    parents = [design for design, _ in genetic.parents]
    for _ in range(50):
        child = genetic.ask()
        assert min(distance(child, parent) for parent in parents) == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"crossover": 1.5}, r"crossover must be in 0 .. 1, got 1.5"),
        ({"mutation": -0.1}, r"mutation must be in 0 .. 1"),
        ({"selected": float("nan")}, r"selected must be in 0 .. 1"),
        ({"population_size": 1}, r"population_size must be an integer >= 2"),
    ],
)
def test_a_setting_of_the_genetic_algorithm_that_is_not_allowed_is_named(
    option: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        GeneticAlgorithm(SPACE, 0, **option)  # type: ignore[arg-type]


@pytest.mark.parametrize("designs", [1, 10, 30, 100, 5000])
def test_the_genetic_algorithm_fits_its_budget(designs: int) -> None:
    settings = genetic_for(designs)
    GeneticAlgorithm(SPACE, 0, **settings)
    assert settings["population_size"] <= max(4, designs // 5)
    assert genetic_for(5000) == {"population_size": 100}
