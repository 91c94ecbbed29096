"""RL² for any Gymnasium environment: trials of several episodes, and observations that feed back what was done.

``RL2Observation(TrialEnv(gym.make("CartPole-v1"), designs_per_trial=3))`` is an ordinary environment, so any recurrent
agent of any library meta-learns in it: one of its episodes is a whole trial, through which memory lives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError, at_least

from .observation import Layout


class TrialEnv(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """One episode is a trial: ``designs_per_trial`` episodes of another environment, its inner episodes.

    Where an inner episode ends, however it ends, the environment is reset and the trial goes on with the first
    observation of the next; the reward is that of the step that ended it. At a trial's start the environment is reset
    with the option ``new_task`` set, within it with ``new_task`` False: environments of this package then keep their
    task, and others, which know no tasks, ignore it.

    ``info`` has, beside the environment's own entries, ``design_ended`` (whether an inner episode just ended) and
    ``design`` (how many have). Where one ended they are its last, but for ``action_mask``, which is that of the next.

    Args:
        env: what is played; its reset must accept options that it does not know, as Gymnasium's own do.
        designs_per_trial: inner episodes of a trial.

    Raises:
        ConfigurationError: if ``designs_per_trial`` is no positive integer.
    """

    def __init__(self, env: gym.Env[Any, Any], designs_per_trial: int) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, designs_per_trial=designs_per_trial)
        gym.Wrapper.__init__(self, env)
        if any(isinstance(inner, RL2Observation) for inner in _wrappers(env)):
            raise ConfigurationError("TrialEnv goes inside: RL2Observation(TrialEnv(env, ...)), or rewards get lost")
        self.designs_per_trial = at_least("designs_per_trial", designs_per_trial, 1)
        self._design = self.designs_per_trial

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options={"new_task": True, **(options or {})})
        self._design = 0
        return observation, self._with_design(info, False)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._design >= self.designs_per_trial:
            raise ResetNeeded("no trial is in progress: call reset() before step()")
        observation, reward, terminated, truncated, info = self.env.step(action)
        ended = bool(terminated or truncated)
        self._design += ended
        over = self._design == self.designs_per_trial
        if ended and not over:
            observation, first = self.env.reset(options={"new_task": False})
            if "action_mask" in first:
                info = {**info, "action_mask": first["action_mask"]}
        return observation, float(reward), over, False, self._with_design(info, ended)

    def _with_design(self, info: dict[str, Any], ended: bool) -> dict[str, Any]:
        return {**info, "design_ended": ended, "design": self._design}


class RL2Observation(gym.Wrapper[NDArray[np.float32], Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Observations with what RL² feeds back to its policy, as one float32 vector.

    ============== ====================== ============================================================================
    slice          length                 content
    ============== ====================== ============================================================================
    observation    of it, flat            the environment's own; discrete ones are one-hot
    action         of it, flat            the previous action (zeros at first); discrete ones are one-hot
    reward         1                      its reward, or how far it is from what the trial has given so far
    design_ended   1                      1 if it ended an inner episode: ``info["design_ended"]``, else 0
    legal          as many as actions     1 for each legal action: ``info["action_mask"]``, where there is one
    ============== ====================== ============================================================================

    ``layout`` names the slices. To see whether ``info`` has a mask, the environment is reset once when it is wrapped.

    Args:
        env: whose observations and actions can be flattened by Gymnasium.
        normalise_reward: feed back rewards less their mean so far in this trial, divided by their deviation so far: of
            a new task nothing is known before. The rewards that are learned from stay as they are.

    Raises:
        ConfigurationError: if observations or actions have no fixed size when flat.
    """

    def __init__(self, env: gym.Env[Any, Any], normalise_reward: bool = False) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, normalise_reward=normalise_reward)
        gym.Wrapper.__init__(self, env)
        self.normalise_reward = normalise_reward
        seen, acts = _flat("observations", env.observation_space), _flat("actions", env.action_space)
        parts = {
            "observation": seen,
            "action": spaces.Box(np.minimum(acts.low, 0), np.maximum(acts.high, 0)),  # zeros at first
            "reward": spaces.Box(-np.inf, np.inf, (1,)),
            "design_ended": spaces.Box(0, 1, (1,)),
        }
        if "action_mask" in env.reset()[1]:
            parts["legal"] = spaces.Box(0, 1, acts.shape)
        self.layout = Layout({name: box.shape[0] for name, box in parts.items()})
        low, high = (np.concatenate([getattr(box, side) for box in parts.values()]) for side in ("low", "high"))
        self.observation_space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self._action = np.zeros(acts.shape, dtype=np.float32)
        self._rewards = RunningMoments()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._rewards = RunningMoments()
        return self._observe(observation, np.zeros_like(self._action), 0.0, info), info

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        taken = np.asarray(spaces.flatten(self.env.action_space, action))
        fed_back = self._rewards.standardised(float(reward)) if self.normalise_reward else float(reward)
        return self._observe(observation, taken, fed_back, info), float(reward), terminated, truncated, info

    def _observe(
        self, observation: Any, action: NDArray[Any], reward: float, info: dict[str, Any]
    ) -> NDArray[np.float32]:
        seen = np.empty(self.layout.size, dtype=np.float32)
        parts = self.layout.split(seen)
        parts["observation"][:] = np.asarray(spaces.flatten(self.env.observation_space, observation))
        parts["action"][:] = action
        parts["reward"][:] = reward
        parts["design_ended"][:] = info.get("design_ended", False)
        if "legal" in parts:
            parts["legal"][:] = np.hstack(info["action_mask"])  # of a MultiDiscrete space it is a tuple
        return seen


def _wrappers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


class RunningMoments:
    """Mean and deviation of the rewards of a trial (Welford 1962)."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def standardised(self, value: float) -> float:
        """Count a value in; how many deviations it is from the mean, or 0 while all values are equal."""
        self._count += 1
        off = value - self._mean
        self._mean += off / self._count
        self._squares += off * (value - self._mean)
        deviation = (self._squares / self._count) ** 0.5
        return (value - self._mean) / deviation if deviation > 0 else 0.0


def _flat(what: str, space: spaces.Space[Any]) -> spaces.Box:
    flat = spaces.flatten_space(space) if space.is_np_flattenable else None
    if not isinstance(flat, spaces.Box):
        raise ConfigurationError(f"RL2Observation takes {what} that make a vector, got {space}")
    return flat
