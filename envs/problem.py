"""Published meta-learning problems as environments: what bandits and Markov decision processes share.

A task is drawn at random at each reset and an episode is a trial on it. All trials of a problem have the same length,
so those of a vector environment begin and end together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError, IllegalChoiceError

from .observation import LIMIT, Layout
from .same_step import final_entries, row_seeds, with_masks

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(keys: NDArray[np.uint64], numbers: NDArray[np.uint64], size: int) -> NDArray[np.float64]:
    """Uniform random numbers in (0, 1), a row of ``size`` for each pair of a key and a number.

    SplitMix64 (Steele, Lea & Flood 2014, https://doi.org/10.1145/2660193.2660195), whose state is a counter: a row
    depends on its own pair alone, and all rows are computed at once, where a generator for each would take longer to
    seed than its whole trial takes to play.
    """
    states = _mixed(_mixed(keys + GOLDEN) + numbers * GOLDEN)
    bits = _mixed(states[:, None] + np.arange(1, size + 1, dtype=np.uint64) * GOLDEN)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


class Problem(ABC):
    """``count`` trials side by side, each on a task of its own.

    Args:
        count: number of trials.
        layout: lengths of the observation's parts that come before the common ones.
        num_actions: size of the action space.
        designs: inner episodes of a trial.
        horizon: steps of an inner episode.
        randomness: how many random numbers a task takes, and how many the events of a trial on it.
    """

    def __init__(
        self,
        count: int,
        layout: dict[str, int],
        num_actions: int,
        designs: int,
        horizon: int,
        randomness: tuple[int, int],
    ) -> None:
        self.count, self.num_actions, self.designs, self.horizon = count, num_actions, designs, horizon
        self.layout = Layout({**layout, "action": num_actions, "reward": 1, "design_ended": 1, "designs_left": 1})
        self.clock = -1
        self.rows = np.arange(count)
        self._randomness = randomness
        self._keys = np.random.default_rng().integers(2**64, size=count, dtype=np.uint64)
        self._numbers = np.full(count, -1).astype(np.uint64)
        self._action: NDArray[np.int64] | None = None
        self._reward = np.zeros(count)
        self.ended = np.zeros(count, dtype=np.bool_)

    def begin(self, seeds: Sequence[int | None], new_task: bool = True) -> None:
        """Start a trial in every row.

        Args:
            seeds: of each row's random numbers; None where they go on.
            new_task: draw new tasks, or keep those that there are.
        """
        if any(seed is not None for seed in seeds):
            given = np.array([seed is not None for seed in seeds])
            self._keys[given] = [(seed or 0) % 2**64 for seed in seeds if seed is not None]
            self._numbers[given] = -1 % 2**64
        self._numbers += np.uint64(1)
        task, _ = self._randomness
        drawn = uniforms(self._keys, self._numbers, sum(self._randomness))
        if new_task or self.clock < 0:
            self._draw_tasks(drawn[:, :task])
        self._draw_events(drawn[:, task:])
        self.clock, self._action = 0, None
        self._reward, self.ended = np.zeros(self.count), np.zeros(self.count, dtype=np.bool_)

    @property
    def over(self) -> bool:
        """Whether the trials have ended."""
        return self.clock == self.designs * self.horizon

    def step(self, actions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Take an action in every trial; the rewards.

        Raises:
            IllegalChoiceError: if they are not actions, one for each trial.
            ResetNeeded: if no trial is in progress.
        """
        if self.clock < 0 or self.over:
            raise ResetNeeded("no trial is in progress: call reset() before step()")
        if (
            actions.shape != (self.count,)
            or actions.dtype.kind not in "iu"
            or actions.min() < 0
            or actions.max() >= self.num_actions
        ):
            allowed = f"{self.count} action(s) in 0 .. {self.num_actions - 1}"
            raise IllegalChoiceError(f"a step takes {allowed}, got {actions.tolist()}")
        self._reward = self._play(actions)
        self._action = actions
        self.clock += 1
        self.ended = np.full(self.count, self.clock % self.horizon == 0)
        return self._reward

    def observe(self) -> NDArray[np.float32]:
        """Observations of shape (count, layout.size)."""
        observation = np.zeros((self.count, self.layout.size), dtype=np.float32)
        if self._action is not None:
            observation[self.rows, self.layout["action"].start + self._action] = 1
        observation[:, self.layout["reward"].start] = self._reward.clip(-LIMIT, LIMIT)
        observation[:, self.layout["design_ended"].start] = self.ended
        observation[:, self.layout["designs_left"].start] = 1 - self.clock // self.horizon / self.designs
        return observation

    def info(self) -> dict[str, NDArray[Any]]:
        """What Gymnasium's ``info`` holds at every step, one row for each trial."""
        return {"design_ended": self.ended.copy()}

    @abstractmethod
    def _draw_tasks(self, uniform: NDArray[np.float64]) -> None:
        """Make a task of each row of random numbers."""

    @abstractmethod
    def _draw_events(self, uniform: NDArray[np.float64]) -> None:
        """Keep the random numbers that decide what happens in a trial."""

    @abstractmethod
    def _play(self, actions: NDArray[np.int64]) -> NDArray[np.float64]:
        """The rewards of actions, which are legal; the clock still shows the step they are taken in."""


class ProblemEnv(gym.Env[NDArray[Any], np.int64]):
    """One trial of a problem."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.layout = problem.layout
        self.observation_space = problem.layout.box()
        self.action_space = spaces.Discrete(problem.num_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._problem.begin([seed], _new_task(options))
        return self._problem.observe()[0], self._info()

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        reward = float(self._problem.step(np.array([action]))[0])
        return self._problem.observe()[0], reward, self._problem.over, False, self._info()

    def _info(self) -> dict[str, Any]:
        return {name: column[0].item() for name, column in self._problem.info().items()}


class ProblemVectorEnv(VectorEnv[NDArray[np.float32], NDArray[np.int64], NDArray[Any]]):
    """``num_envs`` trials of a problem, bit for bit what that many single environments do.

    Trials that end are followed by the next in the same step (``AutoresetMode.SAME_STEP``): their last observations and
    info are in ``info["final_obs"]`` and ``info["final_info"]``.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.num_envs = problem.count
        self.layout = problem.layout
        self.single_observation_space = problem.layout.box()
        self.single_action_space = spaces.Discrete(problem.num_actions)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        self._problem.begin(row_seeds(seed, self.num_envs), _new_task(options))
        return self._problem.observe(), self._info()

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        problem = self._problem
        rewards = problem.step(np.asarray(actions))
        over = np.full(self.num_envs, problem.over)
        final: dict[str, Any] = {}
        if problem.over:
            final = final_entries(problem.observe(), problem.info(), over)
            problem.begin([None] * self.num_envs)
        return problem.observe(), rewards, over, np.zeros_like(over), {**self._info(), **final}

    def _info(self) -> dict[str, Any]:
        return with_masks(self._problem.info(), np.ones(self.num_envs, dtype=np.bool_))


def _new_task(options: dict[str, Any] | None) -> bool:
    """Reads ``reset``'s options: ``new_task``; the number of a trial, ``trial``, means nothing to a problem."""
    unknown = sorted(set(options or {}) - {"new_task", "trial"})
    if unknown:
        raise ConfigurationError(f"reset knows the options 'new_task' and 'trial', got {unknown}")
    return bool((options or {}).get("new_task", True))
