"""Bayesian search that begins with what other tasks teach: expected improvement under a transferred prior.

Before the first design of a trial :class:`~rlnas.task_prior.TaskPrior` says what to expect of every design on a task of
this descriptor; each accuracy that is seen makes it more certain, of its own design most, then of designs that resemble
it. The next design is the one of greatest expected improvement (Mockus 1978; Swersky et al. 2013, "Multi-task Bayesian
optimization"), the noise of its evaluation included: what is found is judged by the accuracy seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from rlnas.errors import ConfigurationError
from rlnas.synthetic_tasks import prior_of_table
from rlnas.tabular_evaluator import TableTask, TabularEvaluator
from rlnas.task_prior import Belief, Floats, TaskPrior

from .agent import State
from .portfolio import training_record
from .problem import SearchProblem

SHARPNESS = 40.0
"""How strictly advice keeps to the designs of greatest merit: 2% less of it and a design is half as likely."""


CANDIDATES = 2_000
"""Designs to search among where networks are trained: all of a smaller space, otherwise random ones."""


class Posterior:
    """What is believed of one task's designs after some were evaluated, by their rows.

    Level and scale of the task: the level is inferred along with the designs' worth, the scale is taken as expected.

    Args:
        belief: before that.
    """

    def __init__(self, belief: Belief) -> None:
        self.rows: list[int] = []
        self.accuracies: list[float] = []
        self._basis, self._noise = belief.basis, belief.noise**2
        self._weight_variance = belief.variance * np.exp(2 * belief.log_scale[0])
        self._level_variance = belief.level[1] ** 2
        self._mean = belief.level[0] + np.exp(belief.log_scale[0]) * belief.mean
        self._variance = np.square(belief.basis) @ self._weight_variance + self._level_variance
        self._covariances = np.empty((0, len(belief.mean)))

    def tell(self, row: int, accuracy: float) -> None:
        """A design was evaluated."""
        self.rows.append(row)
        self.accuracies.append(accuracy)
        covariance = self._basis @ (self._weight_variance * self._basis[row]) + self._level_variance
        self._covariances = np.vstack([self._covariances, covariance])

    def predict(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of what evaluating each design would yield, (R,) each."""
        mean, variance = self._mean, self._variance
        if self.rows:
            seen = self._covariances[:, self.rows] + np.diag(self._noise[self.rows])
            gain = np.linalg.solve(seen, self._covariances)
            mean = mean + (np.array(self.accuracies) - mean[self.rows]) @ gain
            variance = np.maximum(variance - (gain * self._covariances).sum(0), 0.0)
        return mean, np.sqrt(variance + self._noise)

    def expected_improvement(self) -> Floats:
        """Over the best accuracy seen, or over the best mean where nothing was; 0 of what was evaluated, (R,)."""
        mean, deviation = self.predict()
        gap = mean - max(self.accuracies, default=float(mean.max()))
        ratio = gap / deviation
        merit = gap * ndtr(ratio) + deviation * np.exp(-0.5 * ratio**2) / np.sqrt(2 * np.pi)
        merit[self.rows] = 0.0
        return np.asarray(np.maximum(merit, 0.0))


class TransferAgent:
    """Searches by :class:`Posterior`; an agent that can also advise others.

    What it knows of a trial it reads from the observations, so that it does not matter who acts. No design is proposed
    twice while there are others.

    Args:
        prior: learned on other tasks.
        codes: the designs to search, the prior's, as choices, (R, decisions).
        layout: of the environment's observations.
        sharpness: see :data:`SHARPNESS`.

    Raises:
        ConfigurationError: if an action of that environment is no choice of a design.
    """

    def __init__(self, prior: TaskPrior, codes: NDArray[np.int64], layout: Any, sharpness: float = SHARPNESS) -> None:
        if not layout.ACTIONS_ARE_CHOICES:
            raise ConfigurationError("transfer-gp designs choice by choice; it cannot search where networks are edited")
        self._prior, self._codes, self._layout, self._sharpness = prior, codes, layout, sharpness
        self._trials: dict[int, _Trial] = {}

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`; what is remembered stays in this object, nothing is random."""
        merit = self._towards(np.atleast_2d(observation), episode_start)
        actions = np.array([self._codes[row.argmax(), position] for position, row in merit], dtype=np.int64)
        return (actions if observation.ndim == 2 else actions[0]), state

    def advise(
        self, observation: NDArray[np.float32], episode_start: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """How likely each action should be, (N, A); called once at every step, like :meth:`predict` and instead of it.

        A design is the likelier the greater its merit among those that go on from the choices made so far.
        """
        legal = self._layout["legal"]
        advice = np.zeros((len(observation), legal.stop - legal.start), dtype=np.float32)
        for row, (position, merit) in enumerate(self._towards(observation, episode_start)):
            likely = (np.maximum(merit, 0.0) / merit.max()) ** self._sharpness if merit.max() > 0 else merit == 0
            advice[row] = np.bincount(self._codes[:, position], weights=likely, minlength=advice.shape[1])
            if not advice[row].any():  # whoever acts has left the designs that are known
                advice[row] = observation[row, legal] > 0
        return np.asarray(advice / advice.sum(1, keepdims=True))

    def _towards(
        self, observation: NDArray[np.float32], episode_start: NDArray[np.bool_] | None
    ) -> list[tuple[int, Floats]]:
        """For each trial the decision at hand and the designs' merit, -1 where the choices made lead elsewhere."""
        parts = self._layout.split(observation)
        positions, previous = parts["position"].argmax(1), parts["action"].argmax(1)
        found = []
        for row, position in enumerate(positions.tolist()):
            if row not in self._trials or (episode_start is not None and np.atleast_1d(episode_start)[row]):
                belief = self._prior.believe(parts["descriptor"][row].astype(np.float64))
                self._trials[row] = _Trial(Posterior(belief), self._codes)
            elif position > 0:
                self._trials[row].chosen(int(previous[row]))
            elif parts["design_ended"][row, 0] > 0:
                self._trials[row].ended(int(previous[row]), float(parts["reward"][row, 0]))
            found.append((position, self._trials[row].merit()))
        return found


class _Trial:
    """A posterior and the choices of the design in progress."""

    def __init__(self, posterior: Posterior, codes: NDArray[np.int64]) -> None:
        self._posterior, self._codes = posterior, codes
        self._begin()

    def _begin(self) -> None:
        self._position = 0
        self._possible = np.ones(len(self._codes), dtype=np.bool_)
        self._merit = self._posterior.expected_improvement()

    def chosen(self, choice: int) -> None:
        self._possible &= self._codes[:, self._position] == choice
        self._position += 1

    def ended(self, choice: int, accuracy: float) -> None:
        self.chosen(choice)
        if self._possible.any():
            self._posterior.tell(int(self._possible.argmax()), accuracy)
        self._begin()

    def merit(self) -> Floats:
        return np.where(self._possible, self._merit, -1.0)


def transfer_gp(problem: SearchProblem, seed: int) -> TransferAgent:
    """Expected improvement under what the training tasks teach; the same whatever the seed.

    On a table every column of the training tasks is learned from and every design is a candidate; where networks are
    trained, what portfolios learn from (:func:`~.portfolio.training_record`) and at most :data:`CANDIDATES` designs.
    """
    if isinstance(problem.evaluator, TabularEvaluator):
        table = problem.evaluator.table
        columns = [task.column for task in problem.training_tasks() if isinstance(task, TableTask)]
        return TransferAgent(prior_of_table(table, columns), table.space.codes, problem.layout)
    record = training_record(problem)
    rng = np.random.default_rng(0)
    space = problem.space
    others = space.enumerate() if space.size <= CANDIDATES else (space.sample(rng) for _ in range(CANDIDATES))
    designs = list(dict.fromkeys([*record.designs, *others]))
    codes = np.array([design.choices for design in designs], dtype=np.int64)
    rows = np.arange(len(record.designs))
    prior = TaskPrior(codes, np.empty((len(codes), 0)), record.accuracy, record.descriptors, rows)
    return TransferAgent(prior, codes, problem.layout)
