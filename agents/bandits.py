"""What is known to do well at Bernoulli bandits, to judge a learner by: it plays ``rlnas/Bandit-v0`` by observation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .agent import State


class BanditAgent(ABC):
    """Counts what each arm gave, and pulls the arm with the highest index.

    Args:
        layout: where the previous action and reward lie in an observation.
        seed: of what it draws, if anything.
    """

    def __init__(self, layout: Mapping[str, slice], seed: int = 0) -> None:
        self._action, self._reward = layout["action"], layout["reward"]
        self.rng = np.random.default_rng(seed)

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`; the state is the successes and failures, (N, arms) each."""
        pulled = observation[:, self._action]
        wins, losses = (np.zeros(pulled.shape), np.zeros(pulled.shape)) if state is None else state
        if episode_start is not None:
            kept = ~np.asarray(episode_start)[:, None]
            wins, losses = wins * kept, losses * kept
        reward = observation[:, self._reward]
        wins, losses = wins + pulled * reward, losses + pulled * (1 - reward)
        # Ties are broken at random.
        score = self.index(wins, losses) + 1e-9 * self.rng.random(wins.shape)
        return score.argmax(1), (wins, losses)

    @abstractmethod
    def index(self, wins: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """How promising each arm is, from what it gave: all of shape (N, arms)."""


class RandomArms(BanditAgent):
    """Pulls any arm."""

    def index(self, wins: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.rng.random(wins.shape)


class GreedyArms(BanditAgent):
    """Pulls the arm whose mean is expected to be highest."""

    def index(self, wins: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
        return (wins + 1) / (wins + losses + 2)


class ThompsonSampling(BanditAgent):
    """Pulls the arm that is best in a bandit drawn from the posterior (Thompson 1933)."""

    def index(self, wins: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.rng.beta(wins + 1, losses + 1)


class UCB1(BanditAgent):
    """Adds to each arm's mean a bonus for how seldom it was pulled (Auer et al. 2002)."""

    def index(self, wins: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
        pulls = wins + losses
        total, tried = np.maximum(pulls.sum(1, keepdims=True), 1), np.maximum(pulls, 1)
        bound = wins / tried + np.sqrt(2 * np.log(total) / tried)
        return np.where(pulls == 0, 1e3, bound)  # an arm that was never pulled comes first


class GittinsIndex(BanditAgent):
    """Pulls the arm with the highest index for the pulls that are left (Gittins 1979).

    The index of an arm is the sure reward a pull at which one would as soon have it for all the pulls left as try the
    arm and stop when one likes; it is found among ``grid`` sure rewards. Means are uniform a priori.

    Args:
        pulls: of a trial.
        grid: how many rewards are tried, which bounds the index's precision.
    """

    def __init__(self, layout: Mapping[str, slice], pulls: int, seed: int = 0, grid: int = 200) -> None:
        super().__init__(layout, seed)
        self._pulls = pulls
        self._table = finite_horizon_indices(pulls, grid)

    def index(self, wins: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
        won, lost = wins.astype(np.int64), losses.astype(np.int64)
        left = self._pulls - (won + lost).sum(1, keepdims=True)
        index: NDArray[np.float64] = self._table[left, won, lost]
        return index


def finite_horizon_indices(pulls: int, grid: int) -> NDArray[np.float64]:
    """Indices of shape (pulls + 1, pulls, pulls): by pulls left, successes and failures of an arm."""
    sure = (np.arange(grid) + 0.5)[:, None, None] / grid
    table = np.zeros((pulls + 1, pulls, pulls))
    value = np.zeros((grid, pulls + 1, pulls + 1))
    for left in range(1, pulls + 1):
        size = pulls - left + 1  # an arm can have given so many successes, or failures, less one
        wins, losses = np.arange(size)[:, None], np.arange(size)[None]
        mean = (wins + 1) / (wins + losses + 2)
        tried = mean * (1 + value[:, 1 : size + 1, :size]) + (1 - mean) * value[:, :size, 1 : size + 1]
        table[left, :size, :size] = (tried >= left * sure).mean(0)
        value = np.maximum(tried, left * sure)
    return table
