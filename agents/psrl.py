"""What is known to do well at random Markov decision processes: it plays ``rlnas/TabularMDP-v0`` by observation.

Both agents keep the exact posterior of the process. The priors are those that processes are drawn from: transitions
flat Dirichlet, mean rewards N(1, 1), noise N(0, 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from .agent import State


class BeliefAgent:
    """Counts what it sees. Its state is, for N trials of S states and A actions: how often each next state followed
    (N, S, A, S), how often each action was taken (N, S, A), the sum of its rewards (N, S, A), the state before (N,) and
    the step of the inner episode (N,).

    Args:
        layout: where state, previous action, reward and ``design_ended`` lie in an observation.
        horizon: steps of an inner episode.
    """

    def __init__(self, layout: Mapping[str, slice], horizon: int = 10) -> None:
        self._layout = layout
        self._horizon = horizon

    def _blank(self, count: int, states: int, actions: int) -> tuple[NDArray[Any], ...]:
        cells = np.zeros((count, states, actions))
        steps = np.zeros(count, dtype=np.int64)
        return np.zeros((*cells.shape, states)), cells, cells, steps, steps

    def _believe(
        self, observation: NDArray[np.float32], state: State, episode_start: NDArray[np.bool_] | None
    ) -> tuple[list[NDArray[Any]], NDArray[np.bool_]]:
        """The state after an observation, and which trials are at the first step of an inner episode."""
        rows = np.arange(len(observation))
        now = observation[:, self._layout["state"]].argmax(1)
        taken = observation[:, self._layout["action"]]
        if state is None:
            state = self._blank(len(rows), self._layout["state"].stop - self._layout["state"].start, taken.shape[1])
        elif episode_start is not None and np.any(episode_start):
            blank = self._blank(len(rows), state[0].shape[1], taken.shape[1])
            fresh = np.asarray(episode_start, dtype=np.bool_)
            state = tuple(
                np.where(fresh.reshape(-1, *[1] * (old.ndim - 1)), new, old)
                for new, old in zip(blank, state, strict=True)
            )
        following, visits, rewards, before, step, *rest = (part.copy() for part in state)
        acted = rows[taken.any(1)]
        cell = acted, before[acted], taken[acted].argmax(1)
        visits[cell] += 1
        rewards[cell] += observation[acted, self._layout["reward"].start]
        ended = observation[:, self._layout["design_ended"].start] > 0.5
        went_on = ~ended[acted]  # where an inner episode ended, what is seen is the next one's first state
        following[(*(part[went_on] for part in cell), now[acted][went_on])] += 1
        begins = ended | ~taken.any(1)
        return [following, visits, rewards, now, np.where(begins, 0, step + 1), *rest], begins


class PosteriorSampling(BeliefAgent):
    """Plays each inner episode as is best in a process drawn from the posterior (PSRL: Strens 2000; Osband et al. 2013,
    https://arxiv.org/abs/1306.0940). Its state ends with its policy, (N, horizon, S).

    Args:
        layout: see :class:`BeliefAgent`.
        horizon: likewise.
        seed: of what it draws.
    """

    def __init__(self, layout: Mapping[str, slice], horizon: int = 10, seed: int = 0) -> None:
        super().__init__(layout, horizon)
        self._rng = np.random.default_rng(seed)

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`."""
        belief, begins = self._believe(observation, state, episode_start)
        following, visits, rewards, now, step, policy = belief
        if begins.any():
            policy[begins] = self._plan(following[begins], visits[begins], rewards[begins])
        return policy[np.arange(len(now)), step, now], tuple(belief)

    def _blank(self, count: int, states: int, actions: int) -> tuple[NDArray[Any], ...]:
        return *super()._blank(count, states, actions), np.zeros((count, self._horizon, states), dtype=np.int64)

    def _plan(
        self, following: NDArray[np.float64], visits: NDArray[np.float64], rewards: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """The best actions, (N, horizon, S), in a process drawn for each trial."""
        weight = self._rng.standard_gamma(following + 1)
        transition = weight / weight.sum(-1, keepdims=True)
        mean = (1 + rewards) / (1 + visits) + self._rng.standard_normal(visits.shape) / np.sqrt(1 + visits)
        worth = worth_by_steps_left(transition, mean, self._horizon)
        return np.stack([of_step.argmax(-1) for of_step in reversed(worth)], axis=1)


class BeliefPlanner(BeliefAgent):
    """Plans anew before every step, to the end of the inner episode, in the process that is expected, with a bonus for
    what is little known: ``bonus`` standard deviations of a mean reward. The bonus is Kolter & Ng's idea (2009,
    https://doi.org/10.1145/1553374.1553441), who let it fall faster.

    It is an :class:`~rlnas.agents.cloning.Adviser` too: it advises the softmax of what actions are worth.

    Args:
        layout: see :class:`BeliefAgent`.
        horizon: likewise.
        bonus: weight of the bonus.
        temperature: of the advice.
    """

    def __init__(
        self, layout: Mapping[str, slice], horizon: int = 10, bonus: float = 0.5, temperature: float = 0.2
    ) -> None:
        super().__init__(layout, horizon)
        self._bonus, self._temperature = bonus, temperature
        self._belief: State = None

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`."""
        worth, state = self._worth(observation, state, episode_start)
        return worth.argmax(1), state

    def advise(
        self, observation: NDArray[np.float32], episode_start: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """See :meth:`rlnas.agents.cloning.Adviser.advise`; what it has seen it remembers from call to call."""
        if episode_start is not None and np.all(episode_start):
            self._belief = None
        worth, self._belief = self._worth(observation, self._belief, episode_start)
        return np.asarray(softmax(worth / self._temperature, axis=1), dtype=np.float32)

    def _worth(
        self, observation: NDArray[np.float32], state: State, episode_start: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float64], State]:
        """What each action is worth now, (N, A), and the state after."""
        belief, _ = self._believe(observation, state, episode_start)
        following, visits, rewards, now, step = belief
        transition = (following + 1) / (following + 1).sum(-1, keepdims=True)
        mean = (1 + rewards) / (1 + visits) + self._bonus / np.sqrt(1 + visits)
        worth, rows = np.zeros((len(now), visits.shape[2])), np.arange(len(now))
        by_steps_left = worth_by_steps_left(transition, mean, self._horizon - int(step.min(initial=self._horizon - 1)))
        for left, known in enumerate(by_steps_left, start=1):
            due = self._horizon - step == left
            worth[due] = known[rows[due], now[due]]
        return worth, tuple(belief)


def worth_by_steps_left(
    transition: NDArray[np.float64], mean: NDArray[np.float64], horizon: int
) -> list[NDArray[np.float64]]:
    """What actions are worth with 1 to ``horizon`` steps left, (N, S, A) each, in processes given by their transition
    probabilities (N, S, A, S) and mean rewards (N, S, A)."""
    value, found = np.zeros(mean.shape[:2]), []
    for _ in range(horizon):
        worth = mean + (transition @ value[:, None, :, None])[..., 0]
        found.append(worth)
        value = worth.max(-1)
    return found
