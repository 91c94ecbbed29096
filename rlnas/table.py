"""Tables of recorded evaluations, and the search space of the designs they hold.

A table is a plain ``.npz`` file (never a pickle). Row *i* of each array belongs to one design:

* ``ops``: the design as integer codes, of shape (rows, decisions). A table may also have ``links``, codes that are
  decided before ``ops``, or call its codes ``decisions`` instead.
* ``tasks``: the names of the columns. A table of one column may do without and calls it as its value array.
* one or more value arrays of shape (rows, columns), higher is better. Where an array has fewer columns than there are
  names, it holds the first ones; where there is one name but several columns, they are replicates and averaged. NaN
  says that a design was not evaluated on that task.
* optionally ``op_names`` (shared by all decisions of the last code array), ``decision_names``, and the costs
  ``params_m`` and ``flops_m`` in millions, of shape (rows,) or (rows, columns).

Designs that are the same network (``canon`` in some tables) stay apart: they were trained apart and have values of
their own. A design that occurs in several rows has the mean of their values, NaN if one of them is NaN. Rows are kept
in the lexicographic order of their codes, not in the file's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError, DataError, IllegalChoiceError, one_of
from rlnas.graph import Graph
from rlnas.search_space import Decision, SearchSpace
from rlnas.table_file import COSTS, Floats, read_table_file, sha256_of


def _minmax(values: Floats) -> Floats:
    low, high = np.nanmin(values), np.nanmax(values)
    if low == high:
        raise DataError(f"scale 'minmax' needs different values, but all are {low}")
    return np.asarray((values - low) / (high - low))


def _share_of(whole: float) -> Callable[[Floats], Floats]:
    def scaled(values: Floats) -> Floats:
        low, high = np.nanmin(values), np.nanmax(values)
        if low < 0 or high > whole:
            raise DataError(f"values {low:g} .. {high:g} are not in 0 .. {whole:g}; scale 'minmax' takes any")
        return values / whole

    return scaled


SCALES: dict[str, Callable[[Floats], Floats]] = {
    "minmax": _minmax,
    "percent": _share_of(100.0),
    "fraction": _share_of(1.0),
}
"""How a column becomes accuracies in [0, 1]: ``minmax`` sends its worst value to 0 and its best to 1, whatever the
metric; ``percent`` divides by 100; ``fraction`` leaves it as it is."""


@dataclass(frozen=True, eq=False)
class Table:
    """Recorded evaluations of ``R`` designs on ``K`` tasks; made by :meth:`load`.

    Args:
        space: the designs, in the order of the rows.
        values_name: the file's array that the values come from.
        scale: one of :data:`SCALES`.
        tasks: the columns' names.
        values: as recorded, of shape (R, K); NaN where a design was not evaluated.
        accuracy: the values scaled to [0, 1], of the same shape.
        parameters: of each design, a count, int64 of shape (R, K); 0 where unknown.
        flops: multiply-accumulates, likewise.
    """

    space: TableSpace
    values_name: str
    scale: str
    tasks: tuple[str, ...]
    values: Floats
    accuracy: Floats
    parameters: NDArray[np.int64]
    flops: NDArray[np.int64]

    @classmethod
    def load(
        cls,
        path: str | Path,
        values: str | None = None,
        scale: str = "minmax",
        tasks: Sequence[str] | None = None,
        digest: str | None = None,
    ) -> Table:
        """Reads a table.

        Args:
            path: an ``.npz`` file as this module describes it.
            values: the value array to read; may be omitted if only one float array has a column for each task.
            scale: how its columns become accuracies, see :data:`SCALES`. The default suits every metric and makes tasks
                comparable; ``percent`` keeps the published numbers.
            tasks: the columns to keep, by name; by default all.
            digest: refuse the file unless :attr:`digest` comes out as this.

        Raises:
            DataError: if the file is missing, is no such table, or is not the one that ``digest`` was taken of.
            ConfigurationError: if an option is unknown or ``values`` is needed.
        """
        one_of("scale", scale, SCALES)
        space = TableSpace(path)
        file, rows = read_table_file(space.path), space.file_rows
        values_name = values if values is not None else file.only_value_array(len(rows))
        names, columns = file.columns(values_name, len(rows))
        kept = names if tasks is None else tuple(one_of("task", task, names) for task in tasks)
        if not kept or len(set(kept)) < len(kept):
            raise ConfigurationError(f"tasks must be distinct and not empty, got {list(kept)}")
        picked = [names.index(task) for task in kept]
        recorded = _mean_by(rows, columns[:, picked])
        accuracy = np.stack([_scaled(space.path, scale, t, c) for t, c in zip(kept, recorded.T, strict=True)], axis=1)
        millions = (_mean_by(rows, file.millions(cost, len(rows), len(names))[:, picked]) for cost in COSTS)
        parameters, flops = (np.rint(cost * 1e6).astype(np.int64) for cost in millions)
        table = cls(space, values_name, scale, kept, recorded, accuracy, parameters, flops)
        if digest is not None and digest != table.digest:
            raise DataError(f"{space.path}: its content has changed: SHA-256 {table.digest}, expected {digest}")
        return table

    @cached_property
    def digest(self) -> str:
        """SHA-256 of designs, values and options, in hexadecimal; equal for equal content, however it is packed."""
        parts = (self.space.digest, self.values_name, self.scale, self.tasks)
        return sha256_of(repr(parts), self.values, self.parameters, self.flops)

    def column(self, task: str) -> int:
        """The number of a task's column.

        Raises:
            UnknownNameError: if there is none of that name.
        """
        return self.tasks.index(one_of("task", task, self.tasks))

    def best(self, task: str) -> float:
        """The best accuracy of any design on a task: what regret is measured from."""
        return float(np.nanmax(self.accuracy[:, self.column(task)]))

    def mean(self, task: str) -> float:
        """The mean accuracy of the designs that were evaluated on a task."""
        return float(np.nanmean(self.accuracy[:, self.column(task)]))

    def spec(self) -> dict[str, Any]:
        """The arguments with which :meth:`load` makes an equal table, or reports that the file changed, as JSON."""
        options = {"values": self.values_name, "scale": self.scale, "tasks": list(self.tasks), "digest": self.digest}
        return {"path": str(self.space.path), **options}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Table:
        """The table that :meth:`spec` described.

        Raises:
            DataError: if its file is missing or has changed.
            ConfigurationError: if an argument is missing or unknown.
        """
        try:
            return cls.load(**spec)
        except TypeError as error:
            raise ConfigurationError(f"table: {error}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return Table.from_spec, (self.spec(),)


class TableSpace(SearchSpace):
    """The designs of a table, and no others: a choice is legal if some design goes on with it.

    Choice ``c`` of a decision is code ``c`` of the table. Spaces are equal if they hold the same designs under the same
    names. Only a table can say what its networks are worth; they cannot be built here.

    Args:
        path: the table's file.
        digest: refuse the file unless :attr:`digest` comes out as this.

    Raises:
        DataError: if the file is missing, is no table, or is not the one that ``digest`` was taken of.
    """

    kind: ClassVar[str] = "table"

    def __init__(self, path: str | Path, digest: str | None = None) -> None:
        self.path = Path(path).resolve()
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
        return {"kind": self.kind, "path": str(self.path), "digest": self.digest}

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, TableSpace) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return TableSpace, (self.path, self.digest)


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
        distinct, classes = np.unique(following, axis=0, return_inverse=True)
        levels.append(distinct)
        behind = classes.reshape(-1)[prefix]
    table = []
    first = 0
    for level in reversed(levels):
        first += len(level)
        table.append(np.where(level >= 0, level + first, -1))
    return np.concatenate([*table, np.full((1, num_choices), -1)]).astype(np.int32)


def _scaled(path: Path, scale: str, task: str, values: Floats) -> Floats:
    if np.isinf(values).any() or np.isnan(values).all():
        raise DataError(f"{path}: column {task!r} holds infinity or nothing but NaN")
    try:
        return SCALES[scale](values)
    except DataError as error:
        raise DataError(f"{path}: column {task!r}: {error}") from None


def _mean_by(groups: NDArray[np.int64], values: Floats) -> Floats:
    """Mean of the rows of each group, of shape (groups, columns)."""
    counts = np.bincount(groups)
    return np.stack([np.bincount(groups, weights=column) for column in values.T], axis=1) / counts[:, None]
