"""Designs in progress that are made by edits: what an edit does to one, and which are legal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlnas.edits import WAIT, ChainEdits
from rlnas.errors import IllegalChoiceError

from .partial_designs import PartialDesigns, Rows


class EditedDesigns(PartialDesigns):
    """``count`` complete networks side by side, each changed edit by edit.

    ``choices`` are the networks as they are, ``position`` counts the edits of each.

    Args:
        edits: what may be done to them.
        count: number of designs.
    """

    def __init__(self, edits: ChainEdits, count: int) -> None:
        super().__init__(edits.space, count)
        self.edits = edits
        self._known_actions = range(WAIT if count > 1 else 0, len(edits.names))  # one alone waits for none
        self.choices[:] = edits.empty
        self._start = self.choices.copy()
        self._actions = np.zeros((count, edits.max_edits), dtype=np.int64)
        self._masks = np.zeros((count, edits.max_edits, len(edits.names)), dtype=np.bool_)
        self._action_codes = np.eye(len(edits.names) + 1, len(edits.names), dtype=np.float32)
        self._position_codes = np.eye(edits.max_edits, dtype=np.float32)
        self._made, self._legal = edits.outcomes(self.choices)

    def clear(self, rows: Rows, incumbent: NDArray[np.int64]) -> None:
        self._start[rows] = self.edits.empty
        if self.edits.start == "incumbent":
            self._start[rows] = np.where(incumbent >= 0, incumbent, self._start[rows])
        self.choices[rows], self.position[rows], self.illegal[rows] = self._start[rows], 0, False
        self._made[rows], self._legal[rows] = self.edits.outcomes(self.choices[rows])

    def legal(self) -> NDArray[np.bool_]:
        """The legal actions now, of shape (count, actions)."""
        return self._legal.copy()

    def take(self, actions: NDArray[np.int64], raises: bool) -> NDArray[np.bool_]:
        """Take one action in every design; see :meth:`PartialDesigns.take`. :data:`WAIT` does nothing."""
        actions = self._known(actions)
        acting = np.flatnonzero(actions != WAIT)
        chosen = actions[acting]
        illegal = np.zeros(self.count, dtype=np.bool_)
        illegal[acting] = ~self._legal[acting, chosen]
        if raises and illegal.any():
            row = int(np.flatnonzero(illegal)[0])
            raise IllegalChoiceError(self.edits.refusal(int(self.position[row]), int(actions[row]), self._legal[row]))
        self._masks[acting, self.position[acting]] = self._legal[acting]
        self._actions[acting, self.position[acting]] = chosen
        made = np.flatnonzero(~illegal & (actions != WAIT))
        self.choices[made] = self._made[made, actions[made]]
        self.position[acting] += 1
        self.action, self.illegal = actions, illegal
        ended = illegal | (actions == self.edits.submit) | (self.position == self.edits.max_edits)
        going_on = made[~ended[made]]
        self._made[going_on], self._legal[going_on] = self.edits.outcomes(self.choices[going_on])
        return np.asarray(ended)

    def taken(self, row: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
        actions, done = self._actions[row], int(self.position[row])
        masks = ("".join("1" if legal else "0" for legal in mask) for mask in self._masks[row, :done].tolist())
        return tuple(actions[:done].tolist()), tuple(masks)

    def start(self, row: int) -> str:
        return self.space.text(tuple(self._start[row].tolist()))

    def progress(self, row: int) -> str:
        network = self.space.text(tuple(self.choices[row].tolist()))
        return f"{network} ({self.position[row]} of at most {self.edits.max_edits} edits)"

    def observe(self, parts: dict[str, NDArray[np.float32]], incumbent: NDArray[np.int64]) -> None:
        parts["network"][:] = self._choice_codes[self.choices].reshape(self.count, -1)
        parts["position"][:] = self._position_codes[self.position]
        parts["action"][:] = self._action_codes[self.action]
        parts["incumbent"][:] = self._choice_codes[incumbent].reshape(self.count, -1)
        parts["legal"][:] = self._legal
