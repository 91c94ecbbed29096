"""What an agent is: anything that predicts actions the way stable-baselines3's models do."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

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
