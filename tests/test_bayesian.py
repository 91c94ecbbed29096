"""Bayesian optimisation."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from rlnas.agents.bayesian import TPE, GaussianProcess, gaussian_process_for, tpe_for
from rlnas.agents.registry import SEARCHERS
from rlnas.agents.searchers import RandomSearch, Searcher
from rlnas.architecture import Architecture
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace

from .contracts.searcher import SearcherContract, worth


class TestTPE(SearcherContract):
    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return TPE(space, seed)


class TestGaussianProcess(SearcherContract):
    budget = 14

    def make(self, space: SearchSpace, seed: int) -> Searcher:
        return GaussianProcess(space, seed, startup=6, candidates=20)


def smooth(architecture: Architecture) -> float:
    return sum(c == 3 for c in architecture.choices) / len(architecture.choices)


@pytest.mark.parametrize("name", ["tpe", "gp"])
@pytest.mark.parametrize("space", [ChainSpace(max_layers=6), CellSpace()], ids=lambda space: space.kind)
def test_on_a_smooth_landscape_a_model_beats_random_search_at_30_evaluations(space: SearchSpace, name: str) -> None:
    def best_of(searcher: Searcher) -> float:
        best = 0.0
        for _ in range(30):
            design = searcher.ask()
            best = max(best, smooth(design))
            searcher.tell(design, smooth(design))
        return best

    modelled = [best_of(SEARCHERS[name](space, 30, seed)) for seed in range(4)]
    assert np.mean(modelled) > np.mean([best_of(RandomSearch(space, seed)) for seed in range(40)]) + 0.1


def test_tpe_says_nothing_and_leaves_optunas_voice_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    search = TPE(CellSpace(), 0, startup=2)
    for _ in range(5):
        search.tell(search.ask(), 0.5)
    assert optuna.logging.get_verbosity() == before
    assert capsys.readouterr() == ("", "")


def test_tpe_is_told_what_was_built_in_place_of_an_illegal_design() -> None:
    """A chain cannot go on with convolutions after a fully connected layer; most wishes of a new model are illegal."""
    space = ChainSpace(max_layers=6, input_size=2)
    search = TPE(space, 0, startup=3)
    told = []
    for _ in range(12):
        told.append(search.ask())
        search.tell(told[-1], worth(told[-1]))
    complete = search._study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    assert [tuple(trial.params.values()) for trial in complete] == [design.choices for design in told]


def test_the_process_never_asks_for_a_design_again_until_there_is_no_other() -> None:
    space = ChainSpace(max_layers=1)
    search = GaussianProcess(space, 0, startup=1)
    asked = []
    for _ in range(space.size):
        asked.append(search.ask())
        search.tell(asked[-1], worth(asked[-1]))
    assert len(set(asked)) == space.size
    assert search.ask() in asked


def test_the_process_expects_most_of_designs_like_the_best() -> None:
    space = CellSpace()
    search = GaussianProcess(space, 0)
    rng = np.random.default_rng(0)
    for _ in range(40):
        design = space.sample(rng)
        search.tell(design, smooth(design))
    good, bad = space.decode([3] * 6), space.decode([1] * 6)
    first, second = search._expected_improvement([good, bad])
    assert first > 10 * second


@pytest.mark.parametrize("settings", [tpe_for, gaussian_process_for])
def test_random_designs_are_a_third_of_a_small_budget(settings: object) -> None:
    assert callable(settings)
    assert [settings(designs)["startup"] for designs in (1, 12, 1000)] == [2, 4, 10]
