"""What an agent is: anything that predicts actions the way stable-baselines3's models do."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

State: TypeAlias = tuple[NDArray[Any], ...] | None
"""Whatever an agent remembers between calls; None before the first."""


@runtime_checkable
class Agent(Protocol):
    """Chooses actions for a batch of environments.

    Every model of stable-baselines3 is an agent as it stands.
    """

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """Choose an action for each environment.

        Args:
            observation: of shape (N, D).
            state: what the previous call returned; None at the start.
            episode_start: of shape (N,); True where an episode (a trial) begins, so that nothing is remembered there.
            deterministic: take the likeliest action instead of a random one.

        Returns:
            Actions of shape (N,) and the new state.
        """
        ...


class Thinking(NamedTuple):
    """What an agent chose for ``N`` environments and what it thought of ``A`` choices.

    Args:
        action: (N,).
        state: as :meth:`Agent.predict` returns it.
        probabilities: of the choices, (N, A), 0 where illegal; None where the agent has none.
        value: its estimate of the rewards to come, (N,); None where it has none.
    """

    action: NDArray[np.int64]
    state: State
    probabilities: NDArray[np.floating[Any]] | None = None
    value: NDArray[np.floating[Any]] | None = None


def think(
    agent: Agent,
    observation: NDArray[np.float32],
    state: State = None,
    episode_start: NDArray[np.bool_] | None = None,
    deterministic: bool = False,
) -> Thinking:
    """What :meth:`Agent.predict` would return, and why, where the agent has a method ``think`` that tells.

    Args:
        agent: any.
        observation: of shape (N, D); the others as in :meth:`Agent.predict`.
        state: what the previous call returned.
        episode_start: of shape (N,).
        deterministic: take the likeliest action.
    """
    if hasattr(agent, "think"):
        return agent.think(observation, state, episode_start, deterministic)  # type: ignore[no-any-return]
    return Thinking(*agent.predict(observation, state, episode_start, deterministic))


class Session:
    """An agent with its memory: for those who don't want to carry states from call to call.

    Args:
        agent: any.
        deterministic: take the likeliest actions.
    """

    def __init__(self, agent: Agent, deterministic: bool = False) -> None:
        self._agent = agent
        self._deterministic = deterministic
        self._state: State = None
        self._begun = False

    def act(
        self, observation: NDArray[np.float32], episode_start: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """The next action, or one for each environment.

        Args:
            observation: of shape (D,) or (N, D).
            episode_start: of shape (N,); True where a trial begins. The first call after :meth:`reset` begins all.
        """
        if episode_start is None or not self._begun:
            episode_start = np.full(len(np.atleast_2d(observation)), not self._begun)
        action, self._state = self._agent.predict(observation, self._state, episode_start, self._deterministic)
        self._begun = True
        return action

    def reset(self) -> None:
        """Forget everything: a new trial begins."""
        self._state, self._begun = None, False


class Likeliest:
    """An agent that takes its likeliest actions, whatever it is asked for.

    Args:
        agent: any; its ``log``, if it has one, is this agent's, too.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.log: list[dict[str, float]] = getattr(agent, "log", [])

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`Agent.predict`."""
        return self._agent.predict(observation, state, episode_start, True)

    def think(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> Thinking:
        """See :func:`think`."""
        return think(self._agent, observation, state, episode_start, True)
