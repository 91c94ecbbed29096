"""The controller that comes with the package, as an agent for spaces and tasks of any kind that it serves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError
from rlnas.pretrained import Range, controller_path, each_network_once
from rlnas.search_space import SearchSpace

from .agent import State, Thinking
from .controller import Controller
from .problem import SearchProblem


class Pretrained:
    """Shows a controller nothing but what it was shown in training, and takes its likeliest actions.

    Descriptors outside the range of its training tasks are clamped to it. No network is designed twice in a trial,
    nor in two ways, whatever the environment allows: identities come last. What follows from an illegal choice that the
    environment leaves no way around is the environment's.

    Args:
        controller: trained where duplicates are refused.
        space: of the environment.
        layout: of its observations.
        shown: the range of the training tasks' descriptors.

    Raises:
        ConfigurationError: if an action of the environment is no choice of a design.
    """

    def __init__(self, controller: Controller, space: SearchSpace, layout: Any, shown: Range) -> None:
        if not layout.ACTIONS_ARE_CHOICES:
            raise ConfigurationError("the pretrained controller designs choice by choice; it cannot edit networks")
        self._controller, self._layout, self._shown = controller, layout, shown
        self._space = each_network_once(space)

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`.

        The state is the controller's, then each trial's last choices, (N, decisions), and its designs so far, (N, K,
        decisions), -1 where there are none.
        """
        thought = self.think(observation, state, episode_start)
        return thought.action if np.ndim(observation) == 2 else thought.action[0], thought.state

    def think(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> Thinking:
        """See :func:`rlnas.agents.agent.think`."""
        shown = np.array(np.atleast_2d(observation), dtype=np.float32)
        parts = self._layout.split(shown)
        rows, decisions = len(shown), len(self._space.decisions)
        starts = np.zeros(rows, dtype=np.bool_) if episode_start is None else np.atleast_1d(episode_start)
        if state is None:
            memory, starts = None, np.ones(rows, dtype=np.bool_)
            last, made = np.full((rows, decisions), -1), np.full((rows, 0, decisions), -1)
        else:
            *memory, last, made = state
        made = np.where(starts[:, None, None], -1, made)
        ended = (parts["design_ended"][:, 0] > 0) & ~starts
        if ended.any():
            made = np.concatenate([made, np.where(ended[:, None], last, -1)[:, None]], axis=1)
        parts["descriptor"][:] = self._shown.clamp(parts["descriptor"])
        codes = parts["design"].reshape(rows, decisions, -1)
        last = np.where(codes.any(2), codes.argmax(2), -1)
        for row, legal in enumerate(parts["legal"]):
            once = self._legal(last[row], made[row]) & (legal > 0)
            if once.any():
                legal[:] = once
        thought = self._controller.think(shown, None if memory is None else tuple(memory), episode_start, True)
        position = parts["position"].argmax(1)
        last[np.arange(rows), position] = thought.action
        return thought._replace(state=(*(thought.state or ()), last, made))

    def _legal(self, chosen: NDArray[np.int64], made: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The choices after ``chosen``, (decisions,), that lead to a network not yet among ``made``, (K, decisions)."""
        prefix = [choice for choice in chosen.tolist() if choice >= 0]
        if not self._space.is_legal(prefix):
            return np.zeros(self._space.num_choices, dtype=np.bool_)
        return self._space.legal_choices(prefix, {tuple(design) for design in made.tolist() if design[0] >= 0})


def pretrained(problem: SearchProblem, seed: int) -> Pretrained:
    """The controller that comes with the package; the same whatever the seed.

    Raises:
        ConfigurationError: if it does not serve the problem's space, or networks are edited.
    """
    path = controller_path(problem.space)
    controller = Controller.load(path, problem.device)
    return Pretrained(controller, problem.space, problem.layout, Range.from_about(path, controller.about))
