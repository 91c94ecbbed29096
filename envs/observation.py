"""What an agent sees: one flat vector with named slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.edits import ChainEdits
from rlnas.search_space import SearchSpace
from rlnas.task import DESCRIPTOR

LIMIT = 10.0
"""Bound of every entry; nothing in a sensible task comes near it."""


class Layout:
    """Names for the parts of a flat vector: ``layout["reward"]`` is a slice, ``size`` the vector's length.

    Args:
        lengths: of the parts, in their order.
    """

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self._slices: dict[str, slice] = {}
        self.size = 0
        for name, length in lengths.items():
            self._slices[name] = slice(self.size, self.size + length)
            self.size += length

    def __getitem__(self, name: str) -> slice:
        return self._slices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._slices)

    def box(self) -> spaces.Box:
        """The observation space: float32, of shape (size,)."""
        return spaces.Box(-LIMIT, LIMIT, (self.size,), np.float32)

    def split(self, observation: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Views of each named part of observations of shape (..., size)."""
        return {name: observation[..., part] for name, part in self._slices.items()}


class ObservationLayout(Layout):
    """Where each part of an observation lies. ``layout["best"]`` is a slice; ``size`` is the vector's length.

    ============== ================== ==================================================================
    slice          length             content
    ============== ================== ==================================================================
    design         decisions*choices  one-hot row for each decision taken so far in this design
    position       decisions          one-hot: the decision to take now
    action         choices            one-hot: the previous action (zeros at a trial's start)
    reward         1                  accuracy of the design that the previous action completed, else 0
    design_ended   1                  1 if the previous action completed a design
    designs_left   1                  designs not yet completed, as a fraction of the trial's
    best           1                  best accuracy of the trial so far
    incumbent      choices            one-hot: what the design that has it chose for the decision to take now
    descriptor     9                  the task's descriptor, :data:`rlnas.task.DESCRIPTOR`
    legal          choices            1 for each action that is legal now: the action mask, for agents that are
                                      given nothing but observations
    ============== ================== ==================================================================

    ``action``, ``reward`` and ``design_ended`` are what RL² (Duan et al. 2016, https://arxiv.org/abs/1611.02779) feeds
    back to its policy. ``reward`` holds the accuracy whatever the reward form: the form shapes what is learned, and the
    accuracy is what a search on a new task can see.
    """

    ACTIONS_ARE_CHOICES = True
    """Whether an action is the choice of the decision at hand."""

    MEMORY = ("action", "reward", "design_ended", "designs_left", "best", "incumbent")
    """The slices that carry something from one design of a trial to the next."""

    def __init__(self, space: SearchSpace) -> None:
        decisions, choices = len(space.decisions), space.num_choices
        super().__init__(
            {
                "design": decisions * choices,
                "position": decisions,
                "action": choices,
                "reward": 1,
                "design_ended": 1,
                "designs_left": 1,
                "best": 1,
                "incumbent": choices,
                "descriptor": len(DESCRIPTOR),
                "legal": choices,
            }
        )

    def action_towards(self, observation: NDArray[np.float32], target: Architecture) -> int:
        """The action that goes on towards a design, for one observation, of shape (size,)."""
        return target.choices[int(observation[self["position"]].argmax())]


class EditLayout(ObservationLayout):
    """Where each part of an observation lies if designs are made by edits; see :class:`ObservationLayout` too.

    ============== ================== ==================================================================
    slice          length             content
    ============== ================== ==================================================================
    network        layers*choices     one-hot row for each layer of the network as it is now
    position       max_edits          one-hot: the edits made so far in this design
    action         actions            one-hot: the previous action (zeros at a trial's start)
    reward         1                  see :class:`ObservationLayout`
    design_ended   1                  see :class:`ObservationLayout`
    designs_left   1                  see :class:`ObservationLayout`
    best           1                  see :class:`ObservationLayout`
    incumbent      layers*choices     one-hot rows: the network that is best so far (zeros if none)
    descriptor     9                  see :class:`ObservationLayout`
    legal          actions            1 for each action that is legal now
    ============== ================== ==================================================================

    If designs start from the incumbent, ``network`` too carries something from one of them to the next.
    """

    ACTIONS_ARE_CHOICES = False

    def __init__(self, edits: ChainEdits) -> None:
        self._edits = edits
        network, actions = len(edits.empty) * edits.space.num_choices, len(edits.names)
        Layout.__init__(
            self,
            {
                "network": network,
                "position": edits.max_edits,
                "action": actions,
                "reward": 1,
                "design_ended": 1,
                "designs_left": 1,
                "best": 1,
                "incumbent": network,
                "descriptor": len(DESCRIPTOR),
                "legal": actions,
            },
        )

    def action_towards(self, observation: NDArray[np.float32], target: Architecture) -> int:
        network = observation[self["network"]].reshape(len(self._edits.empty), -1).argmax(1)
        return self._edits.plan(target, network.tolist())[0]
