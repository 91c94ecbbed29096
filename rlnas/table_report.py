"""What the designs that a search chose are worth in the end, by a table's other values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import DataError, one_of
from rlnas.table_file import Floats, sha256_of
from rlnas.table_recording import mean_of_replicates, recorded_values
from rlnas.table_space import TableSpace


class Report:
    """What designs are worth by another value array than the one that was searched, in that array's own unit.

    Args:
        space: the table's designs.
        values: the array's name in the table's file; its replicates are averaged.
        tasks: the columns that are reported of every design; by default only the one that was searched.
        digest: refuse the array unless :attr:`digest` comes out as this.

    Raises:
        DataError: if the array cannot serve or is not the one that ``digest`` was taken of.
        UnknownNameError: if the file lacks the array or a column.
    """

    def __init__(self, space: TableSpace, values: str, tasks: Sequence[str] = (), digest: str | None = None) -> None:
        self.values_name = values
        self.columns, recorded = recorded_values(space, values)
        self.values: Floats = mean_of_replicates(recorded)[:, :, 0]
        reported = (tasks,) if isinstance(tasks, str) else tasks
        self.tasks = tuple(one_of("reported task", task, self.columns) for task in reported)
        self.digest = sha256_of(repr((values, self.columns)), self.values)
        if digest is not None and digest != self.digest:
            raise DataError(f"{space.path}: {values} has changed: SHA-256 {self.digest}, expected {digest}")

    def spec(self) -> dict[str, Any]:
        """The arguments, but for the space, as JSON."""
        return {"values": self.values_name, "tasks": list(self.tasks), "digest": self.digest}

    def measures(self, rows: NDArray[np.int64], columns: Sequence[str]) -> dict[str, Floats]:
        """Each measure of the designs in these rows, which were searched on these columns; NaN where unknown."""
        if self.tasks:
            numbers = {task: self.columns.index(task) for task in self.tasks}
            return {f"{task} {self.values_name}": self.values[rows, number] for task, number in numbers.items()}
        padded = np.c_[self.values, np.full(len(self.values), np.nan)]  # the last column is that of tasks unknown here
        numbers_searched = [self.columns.index(c) if c in self.columns else -1 for c in columns]
        return value_and_rank(self.values_name, padded, rows, numbers_searched)


def value_and_rank(name: str, values: Floats, rows: NDArray[np.int64], columns: Sequence[int]) -> dict[str, Floats]:
    """Values under their name and, as ``NAME rank``, how many designs are better there, plus 1; NaN where unknown."""
    found = values[rows, columns]
    better = [(values[:, column] > value).sum() for column, value in zip(columns, found.tolist(), strict=True)]
    return {name: found, f"{name} rank": np.where(np.isnan(found), np.nan, np.array(better, dtype=np.float64) + 1)}
