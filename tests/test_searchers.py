"""Searchers without a model or a population."""

from __future__ import annotations

import pytest

from rlnas.agents.searchers import LocalSearch, RandomSearch, Searcher, StartWith, first_designs
from rlnas.architecture import Architecture
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace

from .contracts.searcher import SearcherContract, worth


class TestRandomSearch(SearcherContract):
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return RandomSearch(space, seed)


class TestLocalSearch(SearcherContract):
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return LocalSearch(space, seed)


class TestLocalSearchByBestImprovement(SearcherContract):
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return LocalSearch(space, seed, first_improvement=False)


class TestStartWith(SearcherContract):
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return StartWith(list(space.enumerate())[:3], RandomSearch(space, seed))


def height(architecture: Architecture) -> float:
    """A smooth landscape with one summit, where every choice is the last one."""
    return sum(architecture.choices) / 100


def climb(search: LocalSearch, designs: int) -> list[Architecture]:
    found = []
    for _ in range(designs):
        found.append(search.ask())
        search.tell(found[-1], height(found[-1]))
    return found


def test_by_best_improvement_it_evaluates_every_neighbour_and_goes_on_from_the_best() -> None:
    space = ChainSpace(max_layers=3)
    search = LocalSearch(space, 0, first_improvement=False)
    start = climb(search, 1)[0]
    near = space.neighbours(start)
    assert set(climb(search, len(near))) == set(near)
    following = search.ask()
    best = max(near, key=height)
    if height(best) > height(start):
        assert search.current is not None
        assert height(search.current) == height(best)
        assert following in space.neighbours(search.current)


def test_by_first_improvement_it_goes_on_from_the_first_better_neighbour() -> None:
    search = LocalSearch(CellSpace(), 0)
    before = climb(search, 1)[0]
    for _ in range(60):
        design = climb(search, 1)[0]
        assert search.current is not None
        if height(design) > height(before):
            assert search.current == design
        before = search.current


@pytest.mark.parametrize("first_improvement", [False, True])
def test_local_search_starts_anew_on_the_summit_and_tries_no_neighbour_twice(
    first_improvement: bool,
) -> None:
    search = LocalSearch(CellSpace(), 3, first_improvement)
    found = climb(search, 250)
    assert max(map(height, found)) == 24 / 100
    summit = [height(design) for design in found].index(24 / 100)
    restarts = [design for design in found[summit + 25 :] if design not in CellSpace().neighbours(found[summit])]
    assert restarts
    assert len(set(found)) >= len(found) - 2  # only a restart can fall on a known design, and hardly ever does


def test_told_of_a_better_design_than_it_has_local_search_goes_on_from_there() -> None:
    space = CellSpace()
    search, summit = LocalSearch(space, 0), space.decode([4] * 6)
    search.tell(space.decode([1] * 6), 0.1)
    search.tell(summit, 0.9)
    assert search.ask() in space.neighbours(summit)


def test_given_designs_come_first_and_the_searcher_is_told_of_them() -> None:
    space = CellSpace()
    inner = LocalSearch(space, 0)
    search = StartWith([space.decode([i] * 6) for i in range(3)], inner)
    for i in range(3):
        design = search.ask()
        assert design.choices == (i,) * 6
        search.tell(design, worth(design))
    assert {design.choices[0] for design in inner.known} == {0, 1, 2}
    assert search.ask() in space.neighbours(max(inner.known, key=lambda design: inner.known[design]))


def test_a_third_of_a_budget_and_at_most_ten_designs_come_first() -> None:
    assert [first_designs(n) for n in (1, 5, 10, 29, 30, 1000)] == [2, 2, 3, 9, 10, 10]
