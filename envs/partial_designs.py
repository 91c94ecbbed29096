"""Designs in progress: what an action does to one, and which actions are legal."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import IllegalChoiceError
from rlnas.search_space import SearchSpace

from .evaluated_designs import EvaluatedDesigns, Rows

_DIGITS = bytes.maketrans(b"\0\1", b"01")


class PartialDesigns:
    """``count`` designs side by side, each decided choice by choice.

    Every array has one row for each of them.

    Args:
        space: what is designed in.
        count: number of designs.
        evaluated: makes every choice illegal that leads to nothing but designs that a trial has evaluated.
    """

    def __init__(self, space: SearchSpace, count: int, evaluated: EvaluatedDesigns | None = None) -> None:
        self.space = space
        self.count = count
        self._evaluated = evaluated
        self._transitions = space.transitions
        self._allowed = self._transitions >= 0
        self._decisions = len(space.decisions)
        self._rows = np.arange(count)
        self._known_actions = range(space.num_choices)
        self._choice_codes = _one_hot(space.num_choices)
        self._position_codes = _one_hot(self._decisions)
        self.state = np.zeros(count, dtype=np.int32)
        self.position = np.zeros(count, dtype=np.int64)
        self.choices = np.full((count, self._decisions), -1, dtype=np.int64)
        self.action = np.full(count, -1, dtype=np.int64)
        self.illegal = np.zeros(count, dtype=np.bool_)
        self._legal: NDArray[np.bool_] | None = None
        self._codes = np.zeros((*self.choices.shape, space.num_choices), dtype=np.float32)
        self._masks = np.zeros((count, self._decisions, space.num_choices), dtype=np.bool_)

    def begin(self, rows: Rows) -> None:
        """Start the first design of a trial in some rows."""
        self.action[rows] = -1
        if self._evaluated is not None:
            self._evaluated.forget(rows)
        self.clear(rows, np.full_like(self.choices[rows], -1))

    def clear(self, rows: Rows, incumbent: NDArray[np.int64]) -> None:
        """Start the next design of the same trial in some rows, given their best so far as :meth:`observe` is."""
        self.state[rows], self.position[rows], self.choices[rows], self.illegal[rows] = 0, 0, -1, False
        self._codes[rows] = 0
        self._legal = None
        if self._evaluated is not None:
            self._evaluated.restart(rows)

    def legal(self) -> NDArray[np.bool_]:
        """The legal choices now, of shape (count, choices); not to be written to."""
        if self._legal is None:
            legal: NDArray[np.bool_] = self._allowed.take(self.state, axis=0)
            if self._evaluated is not None:
                legal &= ~self._evaluated.spent(self.state, self.position)
            legal.setflags(write=False)
            self._legal = legal
        return self._legal

    def take(self, actions: NDArray[np.int64], raises: bool) -> NDArray[np.bool_]:
        """Take one decision in every design.

        Args:
            actions: integers of shape (count,).
            raises: whether an illegal action raises and leaves everything as it was.

        Returns:
            Which designs have ended, complete or (see :attr:`illegal`) by an illegal action, of shape (count,).

        Raises:
            IllegalChoiceError: if an action is illegal and ``raises``, or is no action at all.
        """
        actions = self._known(actions)
        legal = self.legal()
        illegal = ~legal[self._rows, actions]
        if raises and illegal.any():
            self._refuse(int(np.flatnonzero(illegal)[0]), actions)
        if self._evaluated is not None:
            self._evaluated.follow(self.position, actions)
        self._masks[self._rows, self.position] = legal
        self._codes[self._rows, self.position, actions] = 1
        self.choices[self._rows, self.position] = actions
        self.position += 1
        self.state = np.where(illegal, 0, self._transitions[self.state, actions])
        self.action, self.illegal, self._legal = actions, illegal, None
        ended: NDArray[np.bool_] = illegal | (self.position == self._decisions)
        if self._evaluated is not None:
            complete = np.flatnonzero(ended & ~illegal)
            self._evaluated.add(complete, self.choices[complete])
        return ended

    def taken(self, row: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """A design's actions so far, and the legal ones at each of them as a string of ``0`` and ``1``."""
        done = int(self.position[row])
        return tuple(self.choices[row, :done].tolist()), _texts(self._masks[row, :done].tobytes(), done)

    def start(self, row: int) -> str:
        """Canonical text of the network that a design began with, "" where it began with none."""
        return ""

    def progress(self, row: int) -> str:
        """A design as far as it is made."""
        taken = self.taken(row)[0]
        named = [d.choices[c] for d, c in zip(self.space.decisions, taken, strict=False)]
        return f"{' | '.join(named) or '-'} ({len(taken)} of {self._decisions} decisions)"

    def observe(self, parts: dict[str, NDArray[np.float32]], incumbent: NDArray[np.int64]) -> None:
        """Fill in what observations say of the designs.

        Args:
            parts: from :meth:`~rlnas.envs.observation.ObservationLayout.split`.
            incumbent: the choices of each trial's best design, -1 where it has none, of shape (count, decisions).
        """
        parts["design"][:] = self._codes.reshape(self.count, -1)
        parts["position"][:] = self._position_codes[self.position]
        parts["action"][:] = self._choice_codes[self.action]
        parts["incumbent"][:] = self._choice_codes[incumbent[self._rows, self.position]]
        parts["legal"][:] = self.legal()

    def _known(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        # A negative index would silently be another choice, and a single number the choice of every trial.
        first, last = self._known_actions[0], self._known_actions[-1]
        whole = actions.shape == (self.count,) and actions.dtype.kind in "iu"
        if not whole or ((actions < first) | (actions > last)).any():
            raise IllegalChoiceError(f"{self.count} action(s) in {first} .. {last} are needed, got {actions.tolist()}")
        return actions.astype(np.int64)

    def _refuse(self, row: int, actions: NDArray[np.int64]) -> None:
        decision = self.space.decisions[int(self.position[row])]
        legal = [n for n, ok in zip(decision.choices, self.legal()[row], strict=False) if ok]
        raise IllegalChoiceError(f"{decision.name}: action {actions[row]} is illegal here (legal: {', '.join(legal)})")


@lru_cache(4096)
def _texts(masks: bytes, count: int) -> tuple[str, ...]:
    """``count`` masks as strings of ``0`` and ``1``; remembered, because designs often have the same."""
    digits = masks.translate(_DIGITS).decode()
    width = len(digits) // max(count, 1)
    return tuple(digits[place * width : (place + 1) * width] for place in range(count))


def _one_hot(length: int) -> NDArray[np.float32]:
    """Row i is the one-hot code of i; the last row, which -1 picks, is all zeros."""
    return np.eye(length + 1, length, dtype=np.float32)
