"""Designs in progress that are made by edits: what an edit does to one, and which are legal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlnas.edits import WAIT, ChainEdits
from rlnas.errors import IllegalChoiceError

from .evaluated_designs import Rows
from .partial_designs import PartialDesigns


class EditedDesigns(PartialDesigns):
    """``count`` complete networks side by side, each changed edit by edit.

    ``choices`` are the networks as they are, ``position`` counts the edits of each.

    Args:
        edits: what may be done to them.
        count: number of designs.
        refuse: whether it is illegal to complete a design that its trial has evaluated, if the edits that are left
            allow any other.
    """

    def __init__(self, edits: ChainEdits, count: int, refuse: bool = False) -> None:
        super().__init__(edits.space, count)
        self.edits = edits
        self._refuse_repeats = refuse
        self._known_actions = range(WAIT if count > 1 else 0, len(edits.names))  # one alone waits for none
        self.choices[:] = edits.empty
        self._start = self.choices.copy()
        self._submitted: list[set[str]] = [set() for _ in range(count)]
        self._actions = np.zeros((count, edits.max_edits), dtype=np.int64)
        self._masks = np.zeros((count, edits.max_edits, len(edits.names)), dtype=np.bool_)
        self._action_codes = np.eye(len(edits.names) + 1, len(edits.names), dtype=np.float32)
        self._position_codes = np.eye(edits.max_edits, dtype=np.float32)
        self._made, self._possible = edits.outcomes(self.choices)

    def begin(self, rows: Rows) -> None:
        for row in rows:
            self._submitted[row] = set()
        super().begin(rows)

    def clear(self, rows: Rows, incumbent: NDArray[np.int64]) -> None:
        self._start[rows] = self.edits.empty
        if self.edits.start == "incumbent":
            self._start[rows] = np.where(incumbent >= 0, incumbent, self._start[rows])
        self.choices[rows], self.position[rows], self.illegal[rows] = self._start[rows], 0, False
        self._look_ahead(rows)

    def legal(self) -> NDArray[np.bool_]:
        """The legal actions now, of shape (count, actions); not to be written to."""
        return self._possible

    def take(self, actions: NDArray[np.int64], raises: bool) -> NDArray[np.bool_]:
        """Take one action in every design, as :meth:`PartialDesigns.take`; :data:`rlnas.edits.WAIT` does nothing."""
        actions = self._known(actions)
        acting = np.flatnonzero(actions != WAIT)
        chosen = actions[acting]
        illegal = np.zeros(self.count, dtype=np.bool_)
        illegal[acting] = ~self._possible[acting, chosen]
        if raises and illegal.any():
            self._refuse(int(np.flatnonzero(illegal)[0]), actions)
        self._masks[acting, self.position[acting]] = self._possible[acting]
        self._actions[acting, self.position[acting]] = chosen
        edited = acting[~illegal[acting]]
        self.choices[edited] = self._made[edited, actions[edited]]
        self.position[acting] += 1
        self.action, self.illegal = actions, illegal
        ended = illegal | (actions == self.edits.submit) | (self.position == self.edits.max_edits)
        if self._refuse_repeats:
            for row in np.flatnonzero(ended & ~illegal).tolist():
                self._submitted[row].add(self._text(self.choices[row]))
        self._look_ahead(edited[~ended[edited]])
        return np.asarray(ended)

    def taken(self, row: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
        _, masks = super().taken(row)
        return tuple(self._actions[row, : self.position[row]].tolist()), masks

    def start(self, row: int) -> str:
        return self._text(self._start[row])

    def progress(self, row: int) -> str:
        return f"{self._text(self.choices[row])} ({self.position[row]} of at most {self.edits.max_edits} edits)"

    def observe(self, parts: dict[str, NDArray[np.float32]], incumbent: NDArray[np.int64]) -> None:
        """Fill in what observations say of the designs; see :class:`~rlnas.envs.observation.EditLayout`."""
        parts["network"][:] = self._choice_codes[self.choices].reshape(self.count, -1)
        parts["position"][:] = self._position_codes[self.position]
        parts["action"][:] = self._action_codes[self.action]
        parts["incumbent"][:] = self._choice_codes[incumbent].reshape(self.count, -1)
        parts["legal"][:] = self._possible

    def _look_ahead(self, rows: Rows) -> None:
        """Find what every action would make of the networks of some rows, and which are legal."""
        made, legal = self.edits.outcomes(self.choices[rows])
        if self._refuse_repeats:
            for place, row in enumerate(rows):
                done, submitted = int(self.position[row]), self._submitted[row]
                legal[place] = self.edits.unrepeated(made[place], legal[place], done, submitted)
        self._made[rows], self._possible[rows] = made, legal

    def _text(self, network: NDArray[np.int64]) -> str:
        return self.space.text(tuple(network.tolist()))

    def _refuse(self, row: int, actions: NDArray[np.int64]) -> None:
        raise IllegalChoiceError(self.edits.refusal(int(self.position[row]), int(actions[row]), self._possible[row]))
