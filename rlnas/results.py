"""What agents found on the same tasks with equally many evaluations: plain arrays, ready for statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError
from rlnas.reward import SMALLEST_DEVIATION

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Results:
    """What every agent found in ``R`` runs on each of ``T`` tasks with ``D`` designs.

    Args:
        tasks: names, of length T.
        accuracy: of each agent's every design, (R, T, D).
        seconds: evaluation time and the agent's own, from the start of the trial to the end of each design, (R, T, D).
        best: the best accuracy on each task that regret is measured from, (T,).
        mean: the mean accuracy of random designs on each task, (T,).
        best_is_known: whether ``best`` is the best possible, as a table knows it, or the best that anyone found here.
        chosen: for each agent and each named measure what the designs it chose in the end are worth,
            (runs, tasks).
        about: command, versions, seeds, hardware and the like, as JSON.
        rounds: how often each run searched each task. ``R`` counts rounds, those of one run side by side; what is
            derived here is averaged over them first, because a run's rounds share whatever its agent has learned.

    Raises:
        ConfigurationError: if the arrays' shapes do not fit together.
    """

    tasks: tuple[str, ...]
    accuracy: Mapping[str, Floats]
    seconds: Mapping[str, Floats]
    best: Floats
    mean: Floats
    best_is_known: bool
    chosen: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 1

    def __post_init__(self) -> None:
        shapes = {array.shape for arrays in (self.accuracy, self.seconds) for array in arrays.values()}
        if len(shapes) != 1 or self.accuracy.keys() != self.seconds.keys():
            raise ConfigurationError(f"every agent needs accuracies and seconds of one shape, got {sorted(shapes)}")
        runs, tasks, _ = shapes.pop()
        seeds = runs // self.rounds
        for name, array, shape in (
            ("best", self.best, (tasks,)),
            ("mean", self.mean, (tasks,)),
            *((f"chosen {m}", a, (seeds, tasks)) for measures in self.chosen.values() for m, a in measures.items()),
        ):
            if array.shape != shape:
                raise ConfigurationError(f"{name} must have the shape {shape}, got {array.shape}")
        if runs % self.rounds:
            raise ConfigurationError(f"{runs} searches of each task are no multiple of {self.rounds} rounds")
        if len(self.tasks) != tasks:
            raise ConfigurationError(f"{tasks} tasks were searched, but {len(self.tasks)} are named")

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents' names, in the order in which they are shown."""
        return tuple(self.accuracy)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(runs, tasks, designs), where the rounds of a run are one."""
        searches, tasks, designs = next(iter(self.accuracy.values())).shape
        return searches // self.rounds, tasks, designs

    def design_accuracy(self, agent: str) -> Floats:
        """Accuracy of each design, of shape :attr:`shape`."""
        return self._over_rounds(self.accuracy[agent])

    def best_so_far(self, agent: str) -> Floats:
        """Best accuracy after each design, of shape :attr:`shape`."""
        return self._over_rounds(np.maximum.accumulate(self.accuracy[agent], axis=2))

    def elapsed(self, agent: str) -> Floats:
        """Seconds until the end of each design, of shape :attr:`shape`."""
        return self._over_rounds(self.seconds[agent])

    def regret(self, agent: str) -> Floats:
        """The task's best accuracy minus the best so far, of shape :attr:`shape`."""
        return self.best[:, None] - self.best_so_far(agent)

    def normalised_regret(self, agent: str) -> Floats:
        """Regret in units of (best minus the mean of random designs), of shape :attr:`shape`.

        The unit is at least :data:`~rlnas.reward.SMALLEST_DEVIATION`: where every design is as good, the rest is noise.
        """
        return self.regret(agent) / np.maximum(self.best - self.mean, SMALLEST_DEVIATION)[:, None]

    def score(self, agent: str) -> Floats:
        """1 minus normalised regret: 1 is the best possible, 0 as good as a random design on average."""
        return 1.0 - self.normalised_regret(agent)

    def _over_rounds(self, values: Floats) -> Floats:
        searches, tasks, designs = values.shape
        return np.asarray(values.reshape(searches // self.rounds, self.rounds, tasks, designs).mean(1))
