"""Synthetic tasks: columns that a table might have had, drawn from what its own columns teach.

A learner that trains on a few dozen tasks, again and again, knows them and their noise by heart. Of synthetic ones
there are as many as it takes, and hardly any is met twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import at_least
from rlnas.table import Table
from rlnas.table_recording import Recording
from rlnas.task import DESCRIPTOR
from rlnas.task_prior import TaskPrior

SPLIT = "synthetic"
_PRIORS: WeakKeyDictionary[Table, dict[tuple[str, ...], TaskPrior]] = WeakKeyDictionary()
MIXED, JITTER = 0.5, 0.1
"""How far at most a synthetic descriptor is from a known one on the way to another, and its standard deviation around
that, in units of the known ones'."""


def prior_of_table(table: Table, columns: Sequence[str] | None = None) -> TaskPrior:
    """What a table's columns teach about tasks; remembered for as long as the table lives.

    Args:
        table: the table.
        columns: names of those to learn from; all by default.

    Raises:
        UnknownNameError: if there is no such column.
    """
    chosen = _numbers(table, columns)
    known = _PRIORS.setdefault(table, {})
    names = tuple(table.tasks[column] for column in chosen)
    if names not in known:
        counts = [np.log1p(array[:, chosen]).mean(1) for array in (table.parameters, table.flops)]
        accuracy, descriptors = table.accuracy[:, chosen], descriptors_of(table)[chosen]
        known[names] = TaskPrior(table.space.codes, np.stack(counts, axis=1), accuracy, descriptors)
    return known[names]


def synthesise(table: Table, columns: Sequence[str] | None = None, count: int = 2000, seed: int = 0) -> Table:
    """A table of synthetic tasks over the same designs, in one split, ``synthetic``.

    A task's descriptor lies between those of two known tasks, nearer to the first, which gives it its family. What its
    designs are worth is drawn from the :class:`~rlnas.task_prior.TaskPrior` of the known tasks: level, scale, every
    design's expectation, and the noise of one evaluation. Its values are accuracies.

    Args:
        table: whose designs, costs and tasks are the pattern.
        columns: names of the known tasks; all by default.
        count: of synthetic tasks.
        seed: of everything random.

    Returns:
        A table for :class:`~rlnas.tabular_evaluator.TableSource` and :class:`~rlnas.tabular_evaluator.TabularEvaluator`
        of this process: its :meth:`~rlnas.table.Table.spec` names the pattern's file, from which it cannot be read.

    Raises:
        UnknownNameError: if there is no such column.
        ConfigurationError: if ``count`` is less than 1.
    """
    at_least("count", count, 1)
    chosen = _numbers(table, columns)
    rng = np.random.default_rng(seed)
    prior = prior_of_table(table, columns)
    known = descriptors_of(table)[chosen]
    first, second = rng.integers(len(chosen), size=(2, count))
    way = rng.uniform(0, MIXED, size=(count, 1))
    around = JITTER * known.std(0) * rng.standard_normal((count, known.shape[1]))
    descriptors = np.maximum(known[first] + way * (known[second] - known[first]) + around, 0.0).astype(np.float32)
    accuracy = np.stack([prior.believe(descriptor).sample(rng) for descriptor in descriptors], axis=1)[:, :, None]
    pattern = np.asarray(chosen)[first]
    unknown = np.broadcast_to(0.0, accuracy.shape[:2])
    return replace(
        table,
        scale="fraction",
        replicates="mean",
        tasks=tuple(f"{SPLIT}/{number}" for number in range(count)),
        main=Recording(table.values_name, accuracy, accuracy, unknown),
        fidelities={},
        named_fidelities=None,
        parameters=table.parameters[:, pattern],
        flops=table.flops[:, pattern],
        families=tuple(table.families[column] for column in pattern),
        splits=(SPLIT,) * count,
        descriptors=descriptors,
    )


def descriptors_of(table: Table) -> NDArray[np.float64]:
    """Of every column, (K, D); zeros, as of its tasks, where the table has none."""
    if table.descriptors is None:
        return np.zeros((len(table.tasks), len(DESCRIPTOR)))
    return table.descriptors.astype(np.float64)


def _numbers(table: Table, columns: Sequence[str] | None) -> list[int]:
    return [table.column(name) for name in (table.tasks if columns is None else columns)]
