"""Answers from a table of recorded evaluations: nothing is trained.

A column of a table is a task, a design of its space an architecture; :mod:`rlnas.table` says what a table looks like.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.cell import OPERATIONS
from rlnas.errors import ConfigurationError, one_of
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.search_space import CellSpace, SearchSpace
from rlnas.table import Table
from rlnas.table_file import Floats
from rlnas.table_presets import KNOWN_TABLES, known_name
from rlnas.table_report import Report, value_and_rank
from rlnas.task import DESCRIPTOR, Task, TaskSource


@dataclass(frozen=True, eq=False)
class TableTask(Task):
    """A column of a table.

    Args:
        name: ``source:split/index``.
        family: what kind of task it is; the column's name where the table does not say.
        column: the column's name.
        table_digest: the table's :attr:`~rlnas.table.Table.digest`, which covers the values and their scale.
        described: the descriptor that the table has for the column; all zeros, which say nothing, where it has none.
    """

    column: str
    table_digest: str
    described: tuple[float, ...] = (0.0,) * len(DESCRIPTOR)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(repr((self.table_digest, self.column)).encode()).hexdigest()

    @property
    def descriptor(self) -> NDArray[np.float32]:
        return np.array(self.described, dtype=np.float32)


class TableSource(TaskSource):
    """The columns of a table as tasks, in the table's order.

    The splits are ``train`` and ``test`` if columns are held out, else those that the table's file names, else there is
    one, ``all``.

    Args:
        table: the table.
        test: columns to hold out.
        only: in place of all these splits a single one: ``all``, or a column under its own name.

    Raises:
        UnknownNameError: if ``test`` or ``only`` names a column that is not there.
        ConfigurationError: if nothing is left to train on.
    """

    def __init__(self, table: Table, test: Sequence[str] = (), only: str | None = None) -> None:
        self.table = table
        held_out = (test,) if isinstance(test, str) else test
        self.test = tuple(one_of("test column", column, table.tasks) for column in held_out)
        self.only = None if only is None else one_of("split", only, ("all", *table.tasks))
        labels = table.splits or ("all",) * len(table.tasks)
        if self.test:
            labels = tuple("test" if column in self.test else "train" for column in table.tasks)
            if "train" not in labels:
                raise ConfigurationError(f"test must leave a column to train on, got all of {list(table.tasks)}")
        if only is not None:
            labels = tuple(only if only in ("all", column) else "" for column in table.tasks)
        order = ("train", "test") if self.test and only is None else dict.fromkeys(label for label in labels if label)
        self._columns = {
            split: tuple(column for column, label in enumerate(labels) if label == split) for split in order
        }

    @property
    def name(self) -> str:
        return f"table:{self.table.space.known_as or self.table.space.path.stem}"

    @property
    def splits(self) -> dict[str, int]:
        return {split: len(columns) for split, columns in self._columns.items()}

    def spec(self) -> dict[str, Any]:
        only = {} if self.only is None else {"only": self.only}
        return {"kind": "table", "table": self.table.spec(), "test": list(self.test), **only}

    def column(self, split: str, index: int) -> str:
        """The name of a task's column."""
        return self.table.tasks[self._columns[split][index]]

    def environment(self) -> dict[str, Any]:
        """The arguments of an environment that go with these tasks: the specs of the table's space and evaluator."""
        return {"space": self.table.space.spec(), "evaluator": {"kind": "table", "table": self.table.spec()}}

    def with_split(self, split: str) -> TableSource:
        """This source, or, if none of its splits is so called, the one with ``split`` as its ``only`` one.

        Raises:
            UnknownNameError: if there is no such split and no such column.
        """
        if split in self.splits:
            return self
        columns = () if self.table.splits is not None else self.table.tasks
        only = one_of("split", split, dict.fromkeys([*self.splits, "all", *columns]))
        return TableSource(self.table, self.test, only)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> TableSource:
        """The source that :meth:`spec` described, or that of a known table with the columns it usually holds out.

        Raises:
            DataError: if the table's file is missing or has changed.
        """
        for option in spec:
            one_of("option of the task source 'table'", option, ("kind", "table", "test", "only"))
        of_table = spec.get("table", {})
        name = known_name(of_table)
        usual = () if name is None else KNOWN_TABLES[name].test
        return cls(Table.from_spec(of_table), spec.get("test", usual), spec.get("only"))

    def _build(self, split: str, index: int) -> TableTask:
        table, column = self.table, self._columns[split][index]
        name, described = f"{self.name}:{split}/{index}", table.descriptors
        of_task = (name, table.families[column], table.tasks[column], table.digest)
        return TableTask(*of_task) if described is None else TableTask(*of_task, tuple(described[column].tolist()))


class TabularEvaluator:
    """Looks proposals up in a table; there is no loss.

    A proposal's ``steps`` choose among the table's fidelities and its ``seed`` among the replicates, see
    :meth:`rlnas.table.Table.load`. A fidelity or seed that the table has for no design is the caller's mistake; where
    it lacks one for this design alone, the evaluation is INVALID. ``seconds`` is what the table says.

    Designs of the table's own space are known, and cells of :class:`~rlnas.search_space.CellSpace` if the table is one
    of NAS-Bench-201's cells, whatever the width. Isomorphic cells have rows, and so values, of their own.

    Args:
        table: the table.
        report: what :meth:`chosen_measures` says; by default the table's own values.
    """

    def __init__(self, table: Table, report: Report | None = None) -> None:
        self.table = table
        self.report = report
        self._spaces: set[SearchSpace] = {table.space}
        self._answers: dict[tuple[int, int | None], dict[str, list[Evaluation | None]]] = {}

    def spec(self) -> dict[str, Any]:
        report = None if self.report is None else self.report.spec()
        return {"kind": "table", "table": self.table.spec(), "report": report}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> TabularEvaluator:
        """The evaluator that :meth:`spec` described, or that of a known table with its usual report.

        Raises:
            DataError: if the table's file is missing or has changed.
            ConfigurationError: if an argument is missing or unknown.
        """
        of_table = spec.get("table", {})
        name = known_name(of_table)
        for option in spec:
            one_of("option of the evaluator 'table'", option, ("kind", "table", "report"))
        table = Table.from_spec(of_table)
        reported = spec.get("report", None if name is None else KNOWN_TABLES[name].report)
        if reported is not None and not isinstance(reported, Mapping):
            raise ConfigurationError(f"report must be a mapping, such as {{'values': 'test'}}, got {reported!r}")
        try:
            return cls(table, None if reported is None else Report(table.space, **reported))
        except TypeError as error:
            raise ConfigurationError(f"report: {error}") from None

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        """What the table says of each proposal; INVALID where it says nothing.

        Raises:
            ConfigurationError: if a task is no column of this table, a space is not the table's, or the table has no
                such fidelity or seed.
        """
        for proposal in proposals:
            if proposal.architecture.space not in self._spaces:
                self.accept(proposal.architecture.space)
        width = len(self.table.space.decisions)
        choices = np.array([p.architecture.choices for p in proposals], dtype=np.int64).reshape(-1, width)
        rows = self.table.space.rank(choices).tolist()
        return [
            self._answer(row, choices[i], p.task, p.seed, p.steps)
            for i, (row, p) in enumerate(zip(rows, proposals, strict=True))
        ]

    def lookup(self, choices: NDArray[np.int64], tasks: Sequence[Task], seed: int = 0) -> list[Evaluation]:
        """What :meth:`evaluate` says, without a proposal for each design; call :meth:`accept` with their space once.

        Args:
            choices: complete designs, of shape (n, decisions).
            tasks: the task of each, of length n.
            seed: the seed of all.

        Raises:
            ConfigurationError: as :meth:`evaluate`.
        """
        rows = self.table.space.rank(choices).tolist()
        known = self._answers.setdefault((self.table.replicate(seed), None), {})
        found = []
        for i, (row, task) in enumerate(zip(rows, tasks, strict=True)):
            answers = known.get(task.digest)
            answer = answers[row] if answers is not None and row >= 0 else None
            found.append(answer or self._answer(row, choices[i], task, seed, None))
        return found

    def accept(self, space: SearchSpace) -> None:
        """Returns if the designs of a space are looked up by their choices.

        Raises:
            ConfigurationError: if they are not this table's.
        """
        names = [decision.choices for decision in self.table.space.decisions]
        cells = isinstance(space, CellSpace) and names == [OPERATIONS] * len(space.decisions)
        if space != self.table.space and not cells:
            raise ConfigurationError(f"{self.table.space.path} does not hold the designs of {space.name}")
        self._spaces.add(space)

    def best(self, task: Task, seed: int = 0) -> float:
        """The best accuracy of any design on a task.

        Raises:
            ConfigurationError: if the task is no column of this table.
        """
        return self.table.best(self._column(task), seed)

    def mean(self, task: Task, seed: int = 0) -> float:
        """The mean accuracy of the designs that were evaluated on a task.

        Raises:
            ConfigurationError: if the task is no column of this table.
        """
        return self.table.mean(self._column(task), seed)

    def accuracies(self, task: Task) -> Floats:
        """The accuracies of all designs that were evaluated on a task, in the order of their rows.

        Raises:
            ConfigurationError: if the task is no column of this table.
        """
        return self.table.accuracies(self._column(task))

    def chosen_measures(self, architectures: Sequence[Architecture], tasks: Sequence[Task]) -> dict[str, Floats]:
        """What designs are worth that were chosen after a search, in the units of the table.

        Args:
            architectures: ``n`` designs.
            tasks: the task that each was searched on.

        Returns:
            The :class:`~rlnas.table_report.Report`'s measures, each of shape (n,), NaN where unknown. Without a report
            the main values on the task searched and their rank there, or, if seeds choose among replicates, each
            replicate's value as ``NAME seed 1``.

        Raises:
            ConfigurationError: if a task is no column of this table or a space is not the table's.
        """
        for space in {architecture.space for architecture in architectures}:
            self.accept(space)
        columns = [self._column(task) for task in tasks]
        numbers = [self.table.column(column) for column in columns]
        width = len(self.table.space.decisions)
        rows = self.table.space.rank(np.array([a.choices for a in architectures], dtype=np.int64).reshape(-1, width))
        if self.report is not None:
            found = self.report.measures(rows, columns)
        elif self.table.replicates == "mean":
            found = value_and_rank(self.table.values_name, self.table.values, rows, numbers)
        else:
            values = self.table.main.values[rows, numbers]
            found = {f"{self.table.values_name} seed {seed}": column for seed, column in enumerate(values.T)}
        return {measure: np.where(rows >= 0, values, np.nan) for measure, values in found.items()}

    def _column(self, task: Task) -> str:
        if not isinstance(task, TableTask):
            raise ConfigurationError(f"task {task.name} is no column of a table; use an evaluator that trains networks")
        if task.table_digest != self.table.digest:
            raise ConfigurationError(
                f"task {task.name} is a column of another table than {self.table.space.path}, or was read otherwise"
            )
        return task.column

    def _answer(self, row: int, choices: NDArray[np.int64], task: Task, seed: int, steps: int | None) -> Evaluation:
        """The evaluation of one row; made once: a look-up then costs less than making one."""
        self.table.recording(steps)
        replicate = self.table.replicate(seed, steps)
        known = self._answers.setdefault((replicate, steps), {})
        answers = known.get(task.digest)
        if answers is None:
            self._column(task)
            answers = known[task.digest] = [None] * self.table.space.size
        if row < 0:
            text = self.table.space.text(tuple(choices.tolist()))
            return Evaluation(0.0, status=Status.INVALID, message=f"{text} is not in {self.table.space.path}")
        found = answers[row]
        if found is None:
            found = answers[row] = self._made(row, self._column(task), replicate, steps)
        return found

    def _made(self, row: int, task: str, replicate: int, steps: int | None) -> Evaluation:
        table, recording, column = self.table, self.table.recording(steps), self.table.column(task)
        accuracy = float(recording.accuracy[row, column, replicate])
        status, message = Status.OK, ""
        if math.isnan(accuracy):
            which = "" if steps is None else f" for {steps} steps"
            which += "" if table.replicates == "mean" else f" with seed {replicate}"
            accuracy, status, message = 0.0, Status.INVALID, f"the design was not evaluated on {task}{which}"
        return Evaluation(
            accuracy,
            status=status,
            seconds=float(recording.seconds[row, column]),
            parameters=int(table.parameters[row, column]),
            flops=int(table.flops[row, column]),
            message=message,
        )
