"""Reward forms: what an evaluation is worth to a learner.

Whatever the form, an agent *observes* the accuracy: that is what a search on a new task can see.

* ``accuracy``: the post-adaptation validation accuracy itself.
* ``improvement``: by how much it exceeds the best of the trial so far, never negative; summed over a trial it is the
  trial's best accuracy.
* ``normalised``: accuracy minus the mean of random designs on the same task, in units of their standard deviation, so
  that easy and hard tasks count alike. For meta-training: the random designs cost evaluations of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlnas.evaluator import Evaluator, Proposal
from rlnas.search_space import SearchSpace
from rlnas.task import Task

REWARDS = ("accuracy", "improvement", "normalised")
SMALLEST_DEVIATION = 0.02
"""Accuracies of random designs closer together than this say little but noise; deviations are not taken as smaller."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Mean and standard deviation of the accuracies of random designs on one task."""

    mean: float
    deviation: float


def reward_of(form: str, accuracy: float, best_before: float, reference: Reference | None = None) -> float:
    """The reward for an evaluation.

    Args:
        form: one of :data:`REWARDS`.
        accuracy: of the evaluation, in [0, 1].
        best_before: the best accuracy earlier in the trial; 0.0 if it is the first.
        reference: needed by ``normalised`` alone.
    """
    if form == "improvement":
        return max(0.0, accuracy - best_before)
    if form == "normalised":
        assert reference is not None
        return (accuracy - reference.mean) / max(reference.deviation, SMALLEST_DEVIATION)
    return accuracy


def random_reference(space: SearchSpace, task: Task, evaluator: Evaluator, designs: int) -> Reference:
    """Evaluate ``designs`` random architectures on a task; which ones follows from the task alone."""
    rng = np.random.default_rng(int(task.digest[:16], 16))
    evaluations = evaluator.evaluate([Proposal(space.sample(rng), task) for _ in range(designs)])
    accuracies = [e.accuracy for e in evaluations]
    return Reference(float(np.mean(accuracies)), float(np.std(accuracies)))
