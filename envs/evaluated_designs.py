"""Designs that a trial has evaluated, and the choices that would only repeat one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlnas.search_space import SearchSpace

Rows: TypeAlias = Sequence[int] | NDArray[np.int64]
"""Numbers of the trials that something is done to."""


class EvaluatedDesigns:
    """What ``count`` trials have evaluated, so that none need evaluate anything twice.

    A choice is spent when every design that goes on with it has been evaluated in the trial. Designs are compared by
    their choices: the same network designed in another way is no repetition. Once a trial has evaluated the whole
    space, nothing is spent any more. :meth:`rlnas.search_space.SearchSpace.legal_choices` says the same of one design.

    Args:
        space: what is designed in.
        count: number of trials.
        designs: the most that a trial can evaluate.
    """

    def __init__(self, space: SearchSpace, count: int, designs: int) -> None:
        self._size = min(space.size, designs + 1)
        completions = [[min(number, designs + 1) for number in after] for after in space.completions]
        self._completions = np.array(completions, dtype=np.int64)
        self._transitions = space.transitions
        self._places = np.arange(min(space.size, designs))
        self._designs = np.full((count, len(self._places), len(space.decisions)), -1, dtype=np.int64)
        self._known = np.zeros(count, dtype=np.int64)
        self._alike = np.zeros((count, len(self._places)), dtype=np.bool_)  # those that begin as the design in progress

    def forget(self, rows: Rows) -> None:
        """A trial begins in some rows."""
        self._known[rows] = 0

    def add(self, rows: Rows, choices: NDArray[np.int64]) -> None:
        """Complete designs, of shape (rows, decisions), have been evaluated."""
        new = self._known[rows] < self._size  # later on there are repetitions alone
        rows = np.asarray(rows)[new]
        self._designs[rows, self._known[rows]] = choices[new]
        self._known[rows] += 1

    def restart(self, rows: Rows) -> None:
        """A design begins in some rows."""
        self._alike[rows] = self._places < self._known[rows][:, None]

    def follow(self, position: NDArray[np.int64], actions: NDArray[np.int64]) -> None:
        """The choice for the decision at ``position`` was taken in every row."""
        self._alike &= self._at(position) == actions[:, None]

    def spent(self, state: NDArray[np.int32], position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The choices that would lead to nothing new, of shape (count, choices); illegal ones may be among them."""
        following = self._transitions[state]
        left = self._completions[self._designs.shape[2] - 1 - position[:, None], following]
        rows, places = np.nonzero(self._alike)
        taken = rows * following.shape[1] + self._at(position)[rows, places]
        tried = np.bincount(taken, minlength=following.size).reshape(following.shape)
        return np.asarray((tried >= left) & (self._known < self._size)[:, None])

    def _at(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.take_along_axis(self._designs, position[:, None, None], axis=2)[:, :, 0]
