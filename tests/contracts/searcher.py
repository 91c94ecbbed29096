"""What every searcher promises; a test class that subclasses the suite makes the searcher."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest

from rlnas.agents.searchers import Searcher
from rlnas.architecture import Architecture
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace

SPACES = [ChainSpace(max_layers=4), ChainSpace(max_layers=1, widths=(4,), dense_widths=(8,)), CellSpace()]


def worth(architecture: Architecture) -> float:
    """A made-up accuracy, different for most designs."""
    return sum((i + 1) * c for i, c in enumerate(architecture.choices)) % 101 / 101


class SearcherContract(ABC):
    """Subclass it as ``Test...`` and give :meth:`make`; no test here knows what kind of searcher it judges."""

    budget = 40
    """Designs in a search; fewer for searchers that take their time."""

    @abstractmethod
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        """A new searcher that has been told nothing."""

    @pytest.fixture(params=SPACES, ids=lambda space: space.name)
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        space: SearchSpace = request.param
        return space

    def search(self, space: SearchSpace, seed: int, designs: int | None = None) -> list[Architecture]:
        searcher, found = self.make(space, seed), []
        for _ in range(designs or self.budget):
            found.append(searcher.ask())
            searcher.tell(found[-1], worth(found[-1]))
        return found

    def test_every_design_is_legal_and_of_the_space(self, space: SearchSpace) -> None:
        for architecture in self.search(space, 0):
            assert architecture.space == space
            assert space.decode(architecture.choices) == architecture

    def test_equal_seeds_search_alike(self, space: SearchSpace) -> None:
        assert self.search(space, 7) == self.search(space, 7)

    def test_other_seeds_search_otherwise(self, space: SearchSpace) -> None:
        assert len({tuple(self.search(space, seed)) for seed in range(4)}) == 4

    def test_asking_before_anything_is_told_works(self, space: SearchSpace) -> None:
        searcher = self.make(space, 0)
        for _ in range(self.budget):
            assert space.is_legal(searcher.ask().choices)

    def test_being_told_of_foreign_designs_before_asking_works(self, space: SearchSpace) -> None:
        searcher, others = self.make(space, 0), self.search(space, 1, 3)
        for architecture in others:
            searcher.tell(architecture, 0.0)
        assert space.is_legal(searcher.ask().choices)

    def test_equal_accuracies_do_not_stop_the_search(self, space: SearchSpace) -> None:
        searcher = self.make(space, 0)
        designs = set()
        for _ in range(self.budget):
            design = searcher.ask()
            searcher.tell(design, 0.0)
            designs.add(design.choices)
        assert len(designs) > 1

    def test_two_searchers_do_not_disturb_each_other(self, space: SearchSpace) -> None:
        alone = self.search(space, 3)
        mine, other, found = self.make(space, 3), self.make(space, 4), []
        for _ in range(self.budget):
            found.append(mine.ask())
            mine.tell(found[-1], worth(found[-1]))
            other.tell(other.ask(), 1.0)
        assert found == alone
