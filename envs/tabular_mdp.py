"""Random Markov decision processes, the second problem that RL² was shown to solve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rlnas.errors import ConfigurationError, at_least

from .problem import Problem, ProblemEnv, ProblemVectorEnv


class TabularMDPs(Problem):
    """Markov decision processes side by side. Their randomness is decided when a trial begins."""

    def __init__(
        self, count: int, states: int, actions: int, episodes: int, horizon: int, previous_state: bool
    ) -> None:
        at_least("states", states, 2)
        at_least("actions", actions, 2)
        at_least("episodes", episodes, 1)
        at_least("horizon", horizon, 1)
        self._shape = (count, states, actions)
        randomness = (states * actions * states, 2 * episodes * horizon)
        if not isinstance(previous_state, bool):
            raise ConfigurationError(f"previous_state must be true or false, got {previous_state!r}")
        layout = {"state": states, "steps_left": 1, **({"previous_state": states} if previous_state else {})}
        super().__init__(count, layout, actions, episodes, horizon, randomness)
        self._state = self._previous = np.zeros(count, dtype=np.int64)
        self._expected = np.zeros(count)

    def observe(self) -> NDArray[np.float32]:
        observation = super().observe()
        observation[self.rows, self.layout["state"].start + self._state] = 1
        observation[:, self.layout["steps_left"].start] = 1 - self.clock % self.horizon / self.horizon
        if "previous_state" in self.layout and self.clock > 0:
            observation[self.rows, self.layout["previous_state"].start + self._previous] = 1
        return observation

    def info(self) -> dict[str, NDArray[Any]]:
        return {**super().info(), "expected_reward": self._expected.copy(), "state": self._state.copy()}

    def _draw_tasks(self, uniform: NDArray[np.float64]) -> None:
        uniform = uniform.reshape(*self._shape, -1)
        self._means = 1 + ndtri(uniform[..., 0])
        # Sorted uniform numbers cut the unit interval into lengths that are a flat Dirichlet distribution's.
        self._cuts = np.sort(uniform[..., 1:], axis=-1)

    def _draw_events(self, uniform: NDArray[np.float64]) -> None:
        self._luck, noise = np.split(uniform, 2, axis=1)
        self._noise = ndtri(noise)
        self._state = np.zeros(self.count, dtype=np.int64)
        self._expected = np.zeros(self.count)

    def _play(self, actions: NDArray[np.int64]) -> NDArray[np.float64]:
        now = self.rows, self._state, actions
        self._previous = self._state
        self._expected = self._means[now]
        self._state = (self._luck[:, self.clock, None] > self._cuts[now]).sum(1)
        if (self.clock + 1) % self.horizon == 0:
            self._state = np.zeros_like(self._state)
        reward: NDArray[np.float64] = self._expected + self._noise[:, self.clock]
        return reward


class TabularMDPEnv(ProblemEnv):
    """Act in a Markov decision process that is drawn at each reset, for several inner episodes.

    Duan et al. 2016 (https://arxiv.org/abs/1611.02779), section 4.2. The mean reward of each state and action is drawn
    from N(1, 1), rewards from N(mean, 1), and the probabilities of the next states from a flat Dirichlet distribution.
    Every inner episode begins in state 0. With 10 states, 5 actions and 10 episodes of 10 steps a random agent's mean
    return is 100.1; RL² reaches 156.2, posterior sampling 138.1.

    ## Observations
    A float32 vector with named slices (``env.unwrapped.layout``):

    ============== ======= ==========================================================
    slice          length  content
    ============== ======= ==========================================================
    state          states  one-hot: the state now
    steps_left     1       steps left of the inner episode, as a fraction
    previous_state states  if asked for, one-hot: the state before (zeros at first)
    action         actions one-hot: the action taken last (zeros at first)
    reward         1       its reward
    design_ended   1       1 if it ended an inner episode: ``state`` is the next one's
    designs_left   1       inner episodes not yet completed, as a fraction
    ============== ======= ==========================================================

    ## Actions
    ``Discrete(actions)``.

    ## Rewards
    Normal, with the mean of the state and the action, and deviation 1.

    ## Episode end
    Terminates after ``episodes`` inner episodes of ``horizon`` steps.

    ## Info
    At every step: ``design_ended``, ``expected_reward`` (the mean of the reward just given, else 0), ``state``.

    ## Reset options
    ``{"new_task": False}`` keeps the process.

    ## Arguments
    Args:
        states: of a process.
        actions: in each state.
        episodes: inner episodes of a trial.
        horizon: steps of each.
        previous_state: whether observations show the state that the last action was taken in. It tells nothing that
            an agent did not see a step before, but a memory need not keep it to know what a reward was for.

    Raises:
        ConfigurationError: if an argument has a value that is not allowed.

    ## Version history
    * v0: first version.
    """

    def __init__(
        self,
        *,
        states: int = 10,
        actions: int = 5,
        episodes: int = 10,
        horizon: int = 10,
        previous_state: bool = False,
    ) -> None:
        super().__init__(TabularMDPs(1, states, actions, episodes, horizon, previous_state))


class TabularMDPVectorEnv(ProblemVectorEnv):
    """``num_envs`` trials of :class:`TabularMDPEnv`, whose arguments it takes."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        states: int = 10,
        actions: int = 5,
        episodes: int = 10,
        horizon: int = 10,
        previous_state: bool = False,
    ) -> None:
        at_least("num_envs", num_envs, 1)
        super().__init__(TabularMDPs(num_envs, states, actions, episodes, horizon, previous_state))
