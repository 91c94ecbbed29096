"""Transfer baselines: what designs are worth on the training tasks decides which are tried first on another.

On a table every design is looked up on every training task. Where networks are trained, :data:`LIVE_DESIGNS` random
ones, or all of a smaller space, are evaluated on each of at most :data:`LIVE_TASKS` training tasks, the same ones
whatever the agent's seed. None of this counts against the budget of a search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.canonical import canonical_json
from rlnas.evaluator import Evaluator, Proposal, Status
from rlnas.reward import SMALLEST_DEVIATION
from rlnas.search_space import SearchSpace
from rlnas.tabular_evaluator import TabularEvaluator
from rlnas.task import Task

from .agent import Agent
from .bayesian import TPE, tpe_for
from .evolution import RegularizedEvolution, evolution_for
from .problem import SearchProblem
from .searcher_agent import SearcherAgent, first_seed, refuses_duplicates, searcher_agent
from .searchers import RandomSearch, Searcher, StartWith, first_designs

Floats: TypeAlias = NDArray[np.float64]

LIVE_DESIGNS = 64
"""Random designs that are evaluated on each training task where networks are trained."""

LIVE_TASKS = 64
"""Training tasks at most where networks are trained, spread evenly over all."""

NEAREST = 10
"""How many of the nearest training tasks :func:`nearest_portfolio` looks at."""


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """What ``C`` candidate designs are worth on ``T`` training tasks.

    Args:
        designs: the candidates.
        regret: normalised, (C, T): 0 for the best candidate of a task, 1 for one as good as the mean of all; 1, too,
            where a table says nothing.
        accuracy: likewise, NaN where a table says nothing.
        descriptors: of the tasks, (T, len(DESCRIPTOR)).
    """

    designs: list[Architecture]
    regret: Floats
    accuracy: Floats
    descriptors: NDArray[np.float32]


_RECORDS: WeakKeyDictionary[Any, dict[tuple[SearchSpace, str, str], TrainingRecord]] = WeakKeyDictionary()


def training_record(problem: SearchProblem) -> TrainingRecord:
    """Evaluates candidates on the problem's training tasks; remembered for as long as its evaluator lives."""
    source, split = problem.training_source()
    key = (problem.space, canonical_json(source.spec()), split)
    records = _RECORDS.setdefault(problem.evaluator, {})
    if key not in records:
        records[key] = _evaluate_candidates(problem)
    return records[key]


def _evaluate_candidates(problem: SearchProblem) -> TrainingRecord:
    source, split = problem.training_source()
    numbers = np.arange(source.splits[split])
    table = isinstance(problem.evaluator, TabularEvaluator)
    if not table and len(numbers) > LIVE_TASKS:
        numbers = np.linspace(0, len(numbers) - 1, LIVE_TASKS).round().astype(np.int64)
    if table or problem.space.size <= LIVE_DESIGNS:
        designs = list(problem.space.enumerate())
    else:
        rng = np.random.default_rng(0)
        designs = list(dict.fromkeys(problem.space.sample(rng) for _ in range(LIVE_DESIGNS)))
    tasks = (source.task(split, number) for number in numbers.tolist())  # one at a time: some hold many images
    found = [(*_worth(problem.evaluator, designs, task), task.descriptor) for task in tasks]
    regrets, accuracies, descriptors = zip(*found, strict=True)
    return TrainingRecord(designs, np.stack(regrets, axis=1), np.stack(accuracies, axis=1), np.stack(descriptors))


def _worth(evaluator: Evaluator, designs: list[Architecture], task: Task) -> tuple[Floats, Floats]:
    """Normalised regret and accuracy of each design on a task, both (C,)."""
    evaluations = evaluator.evaluate([Proposal(design, task) for design in designs])
    known = np.array([e.status is not Status.INVALID for e in evaluations])
    accuracy = np.array([e.accuracy for e in evaluations])
    regret = np.ones(len(designs))
    if known.any():
        best, mean = accuracy[known].max(), accuracy[known].mean()
        regret[known] = (best - accuracy[known]) / max(best - mean, SMALLEST_DEVIATION)
    return regret, np.where(known, accuracy, np.nan)


def best_first(regret: Floats, count: int) -> list[int]:
    """The ``count`` candidates of least mean regret, the best first.

    Args:
        regret: normalised, (C, T).
        count: how many; all where there are fewer.
    """
    return [int(i) for i in regret.mean(1).argsort(kind="stable")[:count]]


def greedy_portfolio(regret: Floats, count: int) -> list[int]:
    """Candidates that complement each other, in the order in which they should be tried.

    Each next one minimises the mean over tasks of the least regret so far, as in auto-sklearn 2.0 (Feurer et al. 2022,
    https://arxiv.org/abs/2007.04074); so the first is the best on average. Once no candidate improves on any task, the
    portfolio begins anew with the candidates that are left.

    Args:
        regret: normalised, (C, T).
        count: how many; all where there are fewer.
    """
    chosen: list[int] = []
    free = np.ones(len(regret), dtype=np.bool_)
    so_far = np.full(regret.shape[1], np.inf)
    while len(chosen) < min(count, len(regret)):
        means = np.where(free, np.minimum(regret, so_far).mean(1), np.inf)
        best = int(means.argmin())
        if means[best] >= so_far.mean() and np.isfinite(so_far).all():
            so_far[:] = np.inf
            continue
        chosen.append(best)
        free[best] = False
        so_far = np.minimum(so_far, regret[best])
    return chosen


def nearest_tasks(descriptors: NDArray[np.float32], to: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which tasks are the :data:`NEAREST` to a descriptor, in units of their standard deviations; (T,).

    All that are equally near are among them: where descriptors say nothing, every task.

    Args:
        descriptors: of the tasks, (T, D).
        to: (D,).
    """
    deviation = descriptors.std(0)
    distances = (((descriptors - to)[:, deviation > 0] / deviation[deviation > 0]) ** 2).sum(1)
    return np.asarray(distances <= np.sort(distances)[:NEAREST].max())


def _opening(
    problem: SearchProblem,
    seed: int,
    order: Callable[[Floats, int], Iterable[int]],
    count: int,
    then: Callable[[SearchSpace, int, int], Searcher],
) -> Agent:
    """An agent that begins with ``count`` training designs in an order, and goes on with a searcher."""
    record = training_record(problem)
    designs = [record.designs[i] for i in order(record.regret, count)]
    return searcher_agent(lambda space, budget, s: StartWith(designs, then(space, budget, s)))(problem, seed)


def _random(space: SearchSpace, designs: int, seed: int) -> Searcher:
    return RandomSearch(space, seed)


def best_on_average(problem: SearchProblem, seed: int) -> Agent:
    """The design that is best on average over the training tasks, then the second best, and so on."""
    return _opening(problem, seed, best_first, problem.designs, _random)


def portfolio(problem: SearchProblem, seed: int) -> Agent:
    """The greedy portfolio of the training tasks, as long as the budget; random designs where there are no more."""
    return _opening(problem, seed, greedy_portfolio, problem.designs, _random)


def warm_evolution(problem: SearchProblem, seed: int) -> Agent:
    """Regularised evolution whose first population is the greedy portfolio."""

    def evolution(space: SearchSpace, designs: int, s: int) -> Searcher:
        return RegularizedEvolution(space, s, **evolution_for(designs))

    return _opening(problem, seed, greedy_portfolio, first_designs(problem.designs), evolution)


def warm_tpe(problem: SearchProblem, seed: int) -> Agent:
    """TPE whose start-up designs are the greedy portfolio."""

    def tpe(space: SearchSpace, designs: int, s: int) -> Searcher:
        return TPE(space, s, **tpe_for(designs))

    return _opening(problem, seed, greedy_portfolio, first_designs(problem.designs), tpe)


class _NearestPortfolio(SearcherAgent):
    def __init__(self, problem: SearchProblem, seed: int) -> None:
        self._record, self._designs = training_record(problem), problem.designs
        self._openings: dict[bytes, list[Architecture]] = {}
        super().__init__(
            lambda s: RandomSearch(problem.space, s), problem.layout, first_seed(seed), refuses_duplicates(problem)
        )

    def _searcher(self, descriptor: NDArray[np.float32], seed: int) -> Searcher:
        near = nearest_tasks(self._record.descriptors, descriptor)
        if near.tobytes() not in self._openings:
            order = greedy_portfolio(self._record.regret[:, near], self._designs)
            self._openings[near.tobytes()] = [self._record.designs[i] for i in order]
        return StartWith(self._openings[near.tobytes()], super()._searcher(descriptor, seed))


def nearest_portfolio(problem: SearchProblem, seed: int) -> Agent:
    """For each task the greedy portfolio of the training tasks whose descriptors are nearest to its own."""
    return _NearestPortfolio(problem, seed)
