"""Bernoulli bandits, the first problem that RL² was shown to solve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import at_least

from .problem import Problem, ProblemEnv, ProblemVectorEnv


class Bandits(Problem):
    """Bandits side by side. Every outcome of every arm is decided when a trial begins."""

    def __init__(self, count: int, arms: int, pulls: int) -> None:
        at_least("arms", arms, 2)
        at_least("pulls", pulls, 1)
        super().__init__(count, {}, arms, designs=pulls, horizon=1, randomness=(arms, pulls))
        self._expected = np.zeros(count)

    def info(self) -> dict[str, NDArray[Any]]:
        return {**super().info(), "expected_reward": self._expected.copy(), "best_mean": self._best.copy()}

    def _draw_tasks(self, uniform: NDArray[np.float64]) -> None:
        self._means = uniform
        self._best = uniform.max(1)

    def _draw_events(self, uniform: NDArray[np.float64]) -> None:
        self._luck = uniform
        self._expected = np.zeros(self.count)

    def _play(self, actions: NDArray[np.int64]) -> NDArray[np.float64]:
        self._expected = self._means[self.rows, actions]
        return (self._luck[:, self.clock] < self._expected).astype(np.float64)


class BanditEnv(ProblemEnv):
    """Pull the arms of a Bernoulli bandit whose means are drawn from U(0, 1) at each reset.

    Duan et al. 2016 (https://arxiv.org/abs/1611.02779), section 4.1. With 5 arms a random agent's mean return is 5.0
    after 10 pulls and 50 after 100; RL² reaches 6.7 and 78.7, the Gittins index 6.6 and 78.3.

    ## Observations
    A float32 vector with named slices (``env.unwrapped.layout``):

    ============== ====== ===========================================================
    slice          length content
    ============== ====== ===========================================================
    action         arms   one-hot: the arm pulled last (zeros at first)
    reward         1      its reward
    design_ended   1      1 after every pull: an inner episode is one
    designs_left   1      pulls left, as a fraction of the trial's
    ============== ====== ===========================================================

    ## Actions
    ``Discrete(arms)``: the arm to pull.

    ## Rewards
    1 with the probability that is the arm's mean, else 0.

    ## Episode end
    Terminates after ``pulls`` pulls.

    ## Info
    At every step: ``design_ended``, ``expected_reward`` (the mean of the arm just pulled, else 0), ``best_mean``.

    ## Reset options
    ``{"new_task": False}`` keeps the means.

    ## Arguments
    Args:
        arms: of a bandit.
        pulls: in one episode.

    Raises:
        ConfigurationError: if an argument has a value that is not allowed.

    ## Version history
    * v0: first version.
    """

    def __init__(self, *, arms: int = 5, pulls: int = 10) -> None:
        super().__init__(Bandits(1, arms, pulls))


class BanditVectorEnv(ProblemVectorEnv):
    """``num_envs`` trials of :class:`BanditEnv`, whose arguments it takes."""

    def __init__(self, num_envs: int = 1, *, arms: int = 5, pulls: int = 10) -> None:
        super().__init__(Bandits(at_least("num_envs", num_envs, 1), arms, pulls))
