"""Reward forms: what an evaluation is worth to a learner.

Whatever the form, an agent *observes* accuracies: they are what a search on a new task can see.

* ``accuracy``: the post-adaptation validation accuracy itself.
* ``improvement``: by how much it exceeds the best of the trial so far, never negative; summed over a trial it is the
  trial's best accuracy.
* ``normalised``: accuracy minus the mean of random designs on the same task, in units of their standard deviation, so
  that easy and hard tasks count alike.
* ``log-percentile``: minus the logarithm of the fraction of random designs on the same task that are at least as good,
  see :meth:`Reference.fraction_at_least_as_good`. A random design gets an exponentially distributed reward, of mean
  and deviation 1, on every task; each halving of the fraction is worth log 2, so that the last steps towards the best
  design count as much as the first ones, however close their accuracies lie.

The last two are for meta-training: they compare with random designs, which a table knows and which cost evaluations of
their own elsewhere.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlnas.errors import ConfigurationError
from rlnas.evaluator import Evaluator, Proposal
from rlnas.search_space import SearchSpace
from rlnas.tabular_evaluator import TabularEvaluator
from rlnas.task import Task

REWARDS = ("accuracy", "improvement", "normalised", "log-percentile")
COMPARING = ("normalised", "log-percentile")
"""The forms that need a :class:`Reference`."""
SMALLEST_DEVIATION = 0.02
"""Accuracies of random designs closer together than this say little but noise; deviations are not taken as smaller."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The accuracies of random designs on one task; made by :meth:`of`.

    Args:
        accuracies: in ascending order.
        mean: of them.
        deviation: their standard deviation.
    """

    accuracies: tuple[float, ...]
    mean: float
    deviation: float

    @classmethod
    def of(cls, accuracies: Sequence[float]) -> Reference:
        """The reference that accuracies make, at least one, in any order."""
        return cls(tuple(sorted(accuracies)), float(np.mean(accuracies)), float(np.std(accuracies)))

    def fraction_at_least_as_good(self, accuracy: float) -> float:
        """The fraction of random designs that are at least as good, in (0, 1).

        Of ``n`` accuracies ``b`` are better and ``e`` equal: the fraction is ``(b + e/2 + 1/2) / (n + 1)``. Equal ones
        count half and the design that is judged counts half itself, so that the fraction is never 0 or 1, and the
        fractions of ``n`` different accuracies themselves are ``1/(n + 1), ..., n/(n + 1)``.
        """
        better_or_equal = len(self.accuracies) - bisect_left(self.accuracies, accuracy)
        better = len(self.accuracies) - bisect_right(self.accuracies, accuracy)
        return (better + better_or_equal + 1) / (2 * (len(self.accuracies) + 1))


def reward_of(form: str, accuracy: float, best_before: float, reference: Reference | None = None) -> float:
    """The reward for an evaluation.

    Args:
        form: one of :data:`REWARDS`.
        accuracy: of the evaluation, in [0, 1].
        best_before: the best accuracy earlier in the trial; 0.0 if it is the first.
        reference: needed by :data:`COMPARING` alone.
    """
    if form == "improvement":
        return max(0.0, accuracy - best_before)
    if form == "accuracy":
        return accuracy
    assert reference is not None
    if form == "normalised":
        return (accuracy - reference.mean) / max(reference.deviation, SMALLEST_DEVIATION)
    return -math.log(reference.fraction_at_least_as_good(accuracy))


def find_reference(space: SearchSpace, task: Task, evaluator: Evaluator, designs: int | None) -> Reference:
    """What random designs are worth on a task.

    Args:
        space: that they are drawn from.
        task: the task.
        evaluator: of the designs.
        designs: how many to draw and evaluate, which ones follows from the task alone; None for all that a table has
            for the task.

    Raises:
        ConfigurationError: if ``designs`` is None and the evaluator is no table.
    """
    if designs is not None:
        rng = np.random.default_rng(int(task.digest[:16], 16))
        evaluations = evaluator.evaluate([Proposal(space.sample(rng), task) for _ in range(designs)])
        return Reference.of([e.accuracy for e in evaluations])
    if not isinstance(evaluator, TabularEvaluator):
        raise ConfigurationError("reference_designs must be a number unless a table is the evaluator, got None")
    return Reference.of(evaluator.accuracies(task).tolist())
