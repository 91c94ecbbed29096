"""The search space of a table's designs: what may be chosen is what some row of the table goes on with."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError, DataError, IllegalChoiceError
from rlnas.graph import Graph
from rlnas.search_space import Decision, SearchSpace
from rlnas.table_file import read_table_file, sha256_of


class TableSpace(SearchSpace):
    """The designs of a table, and no others: a choice is legal if some design goes on with it.

    Choice ``c`` of a decision is code ``c`` of the table. Spaces are equal if they hold the same designs under the same
    names. Only a table can say what its networks are worth; they cannot be built here.

    Args:
        path: the table's file.
        digest: refuse the file unless :attr:`digest` comes out as this.
        known_as: the name under which :mod:`rlnas.table_presets` finds the file if it is moved.

    Raises:
        DataError: if the file is missing, is no table, or is not the one that ``digest`` was taken of.
    """

    kind: ClassVar[str] = "table"

    def __init__(self, path: str | Path, digest: str | None = None, known_as: str | None = None) -> None:
        self.path = Path(path).resolve()
        self.known_as = known_as
        codes, self._decisions = read_table_file(self.path).decisions()
        order = np.lexsort(codes.T[::-1])
        new = np.r_[True, (codes[order][1:] != codes[order][:-1]).any(1)]
        self.codes: NDArray[np.int64] = codes[order][new]
        """The designs, of shape (R, decisions), in lexicographic order."""
        self.file_rows: NDArray[np.int64] = np.empty(len(codes), dtype=np.int64)
        """For each row of the file the number of its design."""
        self.file_rows[order] = np.cumsum(new) - 1
        self.digest = sha256_of(repr(self._decisions), self.codes)
        """SHA-256 of the designs and all names, in hexadecimal."""
        if digest is not None and digest != self.digest:
            raise DataError(f"{self.path}: its designs have changed: SHA-256 {self.digest}, expected {digest}")

    @property
    def name(self) -> str:
        return f"table({self.digest[:16]})"  # not the path: a copy of the file is the same space

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return self._decisions

    @cached_property
    def transitions(self) -> NDArray[np.int32]:
        table = _automaton(self.codes, max(len(d.choices) for d in self._decisions))
        table.setflags(write=False)
        return table

    @property
    def size(self) -> int:
        return len(self.codes)

    def rank(self, choices: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The row of each design, -1 where the table has none; nothing is searched for.

        Args:
            choices: complete designs, integers of shape (n, decisions).

        Returns:
            Rows, of shape (n,).
        """
        transitions, skipped = self.transitions, self._skipped
        known = ((choices >= 0) & (choices < transitions.shape[1])).all(axis=1)
        state, row = np.zeros(len(choices), dtype=np.int32), np.zeros(len(choices), dtype=np.int64)
        for choice in np.where(known[:, None], choices, 0).T:
            row += skipped[state, choice]
            state = transitions[state, choice]  # -1 stays -1: it is the last state, from which nothing goes on
        return np.where(known & (state >= 0), row, -1)

    @cached_property
    def _skipped(self) -> NDArray[np.int64]:
        """How many designs come before those of each choice in each state, in lexicographic order."""
        transitions = self.transitions
        completions = np.r_[np.zeros(len(transitions) - 1, dtype=np.int64), 1]
        for _ in self._decisions:  # after k rounds right for the last k decisions
            following = np.where(transitions >= 0, completions[transitions], 0)
            completions = np.r_[following[:-1].sum(axis=1), 1]
        return np.cumsum(following, axis=1) - following

    def text(self, choices: tuple[int, ...]) -> str:
        """The codes, as in ``1-0-3-2``."""
        return "-".join(map(str, choices))

    def parse(self, text: str) -> Architecture:
        codes = text.split("-")
        if not all(code.isdecimal() for code in codes):
            raise IllegalChoiceError(f"{text!r} is not a design of {self.path} (those look like 1-0-3-2)")
        return self.decode([int(code) for code in codes])

    def graph(self, choices: tuple[int, ...], ways: int) -> Graph:
        raise ConfigurationError(f"the networks of {self.path} cannot be built; use the evaluator of its table")

    def spec(self) -> dict[str, Any]:
        place: dict[str, Any] = {"path": str(self.path)}
        if self.known_as is not None:
            place = {"table": {"name": self.known_as, **place}}
        return {"kind": self.kind, **place, "digest": self.digest}

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, TableSpace) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return TableSpace, (self.path, self.digest, self.known_as)


def _automaton(codes: NDArray[np.int64], num_choices: int) -> NDArray[np.int32]:
    """The smallest transition table that accepts the rows of ``codes`` and nothing else.

    Args:
        codes: distinct rows in lexicographic order, of shape (R, D).
        num_choices: width of the table.

    Returns:
        Entries are states, or -1 where a choice is illegal; row 0 is the empty design, the last row the complete one.
    """
    differs = np.logical_or.accumulate(codes[1:] != codes[:-1], axis=1)
    levels: list[NDArray[np.int64]] = []  # from the last decision to the first; entries are classes of the level before
    behind = np.zeros(len(codes), dtype=np.int64)  # for each design, the class of what it can still become
    for decision in reversed(range(codes.shape[1])):
        starts = np.r_[False, differs[:, decision - 1]] if decision else np.zeros(len(codes), dtype=bool)
        prefix = np.cumsum(starts)  # number of each design's first `decision` choices
        following = np.full((prefix[-1] + 1, num_choices), -1, dtype=np.int64)
        following[prefix, codes[:, decision]] = behind
        # Prefixes that can be completed alike are one state: without this a full table of 5^6 rows has 3,906 of them.
        distinct, classes = _distinct_rows(following)
        levels.append(distinct)
        behind = classes[prefix]
    table = []
    first = 0
    for level in reversed(levels):
        first += len(level)
        table.append(np.where(level >= 0, level + first, -1))
    return np.concatenate([*table, np.full((1, num_choices), -1)]).astype(np.int32)


def _distinct_rows(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct rows and, for each row, which of them it is.

    Sorting one random combination of a row's numbers takes a tenth of the time of sorting rows; should two different
    rows have the same one, rows are sorted after all.
    """
    weights = np.random.default_rng(0).integers(2**62, size=rows.shape[1])
    _, first, classes = np.unique((rows * weights).sum(axis=1), return_index=True, return_inverse=True)
    distinct = rows[first]
    if (distinct[classes] != rows).any():
        distinct, classes = np.unique(rows, axis=0, return_inverse=True)
    return distinct, classes.reshape(-1)
