"""What is known to do well at random Markov decision processes: it plays ``rlnas/TabularMDP-v0`` by observation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .agent import State


class PosteriorSampling:
    """Plays each inner episode as is best in a process drawn from the posterior (PSRL: Strens 2000; Osband et al. 2013,
    https://arxiv.org/abs/1306.0940).

    The priors are those that processes are drawn from: transitions flat Dirichlet, mean rewards N(1, 1), noise N(0, 1).

    Args:
        layout: where state, previous action, reward and ``design_ended`` lie in an observation.
        horizon: steps of an inner episode.
        seed: of what it draws.
    """

    def __init__(self, layout: Mapping[str, slice], horizon: int = 10, seed: int = 0) -> None:
        self._layout = layout
        self._horizon = horizon
        self._rng = np.random.default_rng(seed)

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`.

        The state is, for N trials of S states and A actions: how often each next state followed (N, S, A, S), how often
        each action was taken (N, S, A), the sum of its rewards (N, S, A), the state before (N,), the step of the inner
        episode (N,) and its policy (N, horizon, S).
        """
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
        remembered: list[NDArray[Any]] = [part.copy() for part in state]
        following, visits, rewards, before, step, policy = remembered
        acted = rows[taken.any(1)]
        cell = acted, before[acted], taken[acted].argmax(1)
        visits[cell] += 1
        rewards[cell] += observation[acted, self._layout["reward"].start]
        ended = observation[:, self._layout["design_ended"].start] > 0.5
        went_on = ~ended[acted]  # where an inner episode ended, what is seen is the next one's first state
        following[(*(part[went_on] for part in cell), now[acted][went_on])] += 1
        begins = ended | ~taken.any(1)
        step = np.where(begins, 0, step + 1)
        if begins.any():
            policy[begins] = self._plan(following[begins], visits[begins], rewards[begins])
        return policy[rows, step, now], (following, visits, rewards, now, step, policy)

    def _blank(self, count: int, states: int, actions: int) -> tuple[NDArray[Any], ...]:
        cells = np.zeros((count, states, actions))
        steps = np.zeros(count, dtype=np.int64)
        policy = np.zeros((count, self._horizon, states), dtype=np.int64)
        return np.zeros((*cells.shape, states)), cells, cells, steps, steps, policy

    def _plan(
        self, following: NDArray[np.float64], visits: NDArray[np.float64], rewards: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """The best actions, (N, horizon, S), in a process drawn for each trial."""
        weight = self._rng.standard_gamma(following + 1)
        transition = weight / weight.sum(-1, keepdims=True)
        mean = (1 + rewards) / (1 + visits) + self._rng.standard_normal(visits.shape) / np.sqrt(1 + visits)
        value = np.zeros(following.shape[:2])
        policy = np.zeros((len(following), self._horizon, following.shape[1]), dtype=np.int64)
        for step in range(self._horizon - 1, -1, -1):
            worth = mean + np.einsum("nsat,nt->nsa", transition, value)
            policy[:, step], value = worth.argmax(-1), worth.max(-1)
        return policy
