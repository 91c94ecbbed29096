"""The control that shows what feedback does: a controller that is never told what its designs are worth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .agent import State
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
        agent: best one that was trained in an environment with ``feedback="hidden"``; to another, all designs seem to
            have failed.
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


def rl2_hidden(problem: SearchProblem, seed: int) -> FeedbackHidden:
    """RL² that is trained and searches without being told what its designs are worth.

    It learns which designs are good for training tasks and, by their descriptors, for which; nothing of the task at
    hand. That it remembers its own designs lets it try different ones.
    """
    hidden = replace(problem, env_options={**problem.env_options, "feedback": "hidden"})
    return FeedbackHidden(rl2(hidden, seed), problem.layout)
