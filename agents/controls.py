"""The control that shows what feedback does: a controller that is never told what its designs are worth."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError

from .agent import State, Thinking, think
from .learned import rl2
from .problem import SearchProblem

FEEDBACK = ("reward", "best", "incumbent")
"""The slices of an observation that tell what designs are worth."""


def without_feedback(observation: NDArray[np.float32], layout: Any) -> NDArray[np.float32]:
    """A copy of observations, of shape (..., size), whose :data:`FEEDBACK` is zero."""
    hidden = observation.copy()
    for name in FEEDBACK:
        hidden[..., layout[name]] = 0.0
    return hidden


class FeedbackHidden:
    """The same agent, shown observations without feedback.

    Args:
        agent: best one that was trained in :class:`FeedbackHiddenEnv`; to another, all designs seem to have failed.
        layout: of the environment's observations.
    """

    def __init__(self, agent: Any, layout: Any) -> None:
        self._agent = agent
        self._layout = layout

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`."""
        hidden = without_feedback(observation, self._layout)
        return self._agent.predict(hidden, state, episode_start, deterministic)  # type: ignore[no-any-return]

    def think(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> Thinking:
        """See :func:`rlnas.agents.agent.think`."""
        return think(self._agent, without_feedback(observation, self._layout), state, episode_start, deterministic)


class FeedbackHiddenEnv(VectorWrapper[Any, Any, Any, Any, Any]):
    """A native vector environment of design trials that earns the same rewards and shows none of them.

    A trial's last design is told to nobody but the learner, so ``final_obs`` is left as it is.
    """

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.settings = _Settings(env.settings)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        """What the environment has beyond Gymnasium's, such as its ``layout``."""
        return getattr(self.__dict__["env"], name)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return without_feedback(observation, self.layout), info

    def step(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.float32], Any, Any, Any, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(actions)
        return without_feedback(observation, self.layout), reward, terminated, truncated, info


class _Settings:
    """An environment's settings, whose description says that feedback is hidden."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._settings, name)

    def spec(self) -> dict[str, Any]:
        return {**self._settings.spec(), "hidden": list(FEEDBACK)}


class _HiddenProblem(SearchProblem):
    """The same problem, whose training environments hide feedback."""

    def training_env(self, num_envs: int, **options: Any) -> VectorEnv:
        return FeedbackHiddenEnv(super().training_env(num_envs, **options))


def rl2_hidden(problem: SearchProblem, seed: int) -> FeedbackHidden:
    """RL² that is trained and searches without being told what its designs are worth.

    It learns which designs are good for training tasks and, by their descriptors, for which; nothing of the task at
    hand. That it remembers its own designs lets it try different ones.
    """
    if problem.env_options.get("start") == "incumbent":
        raise ConfigurationError("rl2-hidden must not see designs start from the best one: that tells which it is")
    hidden = _HiddenProblem(**{field.name: getattr(problem, field.name) for field in fields(problem)})
    return FeedbackHidden(rl2(hidden, seed), problem.layout)
