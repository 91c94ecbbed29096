"""The value arrays of a table: what is recorded there, and what accuracies it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import DataError
from rlnas.table_file import Floats, read_table_file
from rlnas.table_space import TableSpace


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

REPLICATES = ("mean", "seed")
"""What several values of one design on one task are: averaged, or each the answer to the seed of its number."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One value array of a table with ``R`` designs, ``K`` tasks and ``S`` replicates (1 if they are averaged).

    Args:
        name: the array's name in the file.
        values: as recorded, of shape (R, K, S); NaN where a design was not evaluated.
        accuracy: the values scaled to [0, 1], of the same shape.
        seconds: of one evaluation, of shape (R, K); 0 where unknown.
    """

    name: str
    values: Floats
    accuracy: Floats
    seconds: Floats


def read_recording(
    space: TableSpace, name: str, tasks: Sequence[str], scale: str, replicates: str, *clocks: str
) -> Recording:
    """A value array's columns of these tasks; where it lacks one, no design was evaluated on it.

    Args:
        space: the table's designs.
        name: of the array.
        tasks: the columns' names.
        scale: one of :data:`SCALES`.
        replicates: one of :data:`REPLICATES`.
        clocks: names of arrays of seconds; the first that the file has is read.

    Raises:
        DataError: if an array cannot serve.
    """
    names, recorded = recorded_values(space, name)
    if replicates == "mean":
        recorded = mean_of_replicates(recorded)
    file, rows = read_table_file(space.path), space.file_rows
    clock = next((clock for clock in clocks if clock in file.arrays), None)
    spent = None if clock is None else np.nan_to_num(mean_by(rows, file.cost(clock, len(rows), len(names))))
    shape = (space.size, len(tasks), recorded.shape[2])
    values, accuracy, seconds = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape[:2])
    for column, task in enumerate(tasks):
        if task in names:
            values[:, column] = recorded[:, names.index(task)]
            accuracy[:, column] = _scaled(f"{space.path}: {name}: column {task!r}", scale, values[:, column])
            if spent is not None:
                seconds[:, column] = spent[:, names.index(task)]
    return Recording(name, values, accuracy, seconds)


def _scaled(where: str, scale: str, values: Floats) -> Floats:
    if np.isinf(values).any() or np.isnan(values[:, 0]).all():
        raise DataError(f"{where} holds infinity or nothing but NaN")
    try:
        return SCALES[scale](values)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def recorded_values(space: TableSpace, name: str) -> tuple[tuple[str, ...], Floats]:
    """A value array's columns and its values, of shape (designs, columns, replicates)."""
    names, values = read_table_file(space.path).values(name, len(space.file_rows))
    return names, mean_by(space.file_rows, values)


def mean_of_replicates(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN, with that axis kept."""
    known = ~np.isnan(values)
    counts = known.sum(axis=-1, keepdims=True)
    sums = np.where(known, values, 0.0).sum(axis=-1, keepdims=True)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def mean_by(groups: NDArray[np.int64], values: Floats) -> Floats:
    """Mean of the rows of each group; the first axis is that of the groups afterwards."""
    counts = np.bincount(groups)
    flat = values.reshape(len(values), -1)
    sums = np.stack([np.bincount(groups, weights=column) for column in flat.T], axis=1)
    return (sums / counts[:, None]).reshape(len(counts), *values.shape[1:])
