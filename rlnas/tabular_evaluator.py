"""Answers from a table of recorded evaluations: nothing is trained.

A column of a table is a task, a design of its space an architecture; :mod:`rlnas.table` says what a table looks like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.cell import OPERATIONS
from rlnas.errors import ConfigurationError, one_of
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.search_space import CellSpace, SearchSpace
from rlnas.table import Table
from rlnas.task import Task, TaskSource


@dataclass(frozen=True, eq=False)
class TableTask(Task):
    """A column of a table; its descriptor says nothing (all zeros).

    Args:
        name: ``source:split/index``.
        family: the column's name.
        table_digest: the table's :attr:`~rlnas.table.Table.digest`, which covers the values and their scale.
    """

    table_digest: str

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(repr((self.table_digest, self.family)).encode()).hexdigest()


class TableSource(TaskSource):
    """The columns of a table as tasks.

    Args:
        table: the table.
        test: columns to hold out. With it the splits are ``train`` and ``test``, without it there is one, ``all``; each
            in the order of the table's columns.

    Raises:
        UnknownNameError: if ``test`` names a column that is not there.
        ConfigurationError: if it leaves nothing to train on.
    """

    def __init__(self, table: Table, test: Sequence[str] = ()) -> None:
        self.table = table
        self.test = tuple(one_of("test column", column, table.tasks) for column in test)
        held_out = tuple(column for column in table.tasks if column in self.test)
        kept = tuple(column for column in table.tasks if column not in self.test)
        if not kept:
            raise ConfigurationError(f"test must leave a column to train on, got all of {list(table.tasks)}")
        self._columns = {"train": kept, "test": held_out} if held_out else {"all": kept}

    @property
    def name(self) -> str:
        return f"table:{self.table.space.path.stem}"

    @property
    def splits(self) -> dict[str, int]:
        return {split: len(columns) for split, columns in self._columns.items()}

    def spec(self) -> dict[str, Any]:
        return {"kind": "table", "table": self.table.spec(), "test": list(self.test)}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> TableSource:
        """The source that :meth:`spec` described.

        Raises:
            DataError: if the table's file is missing or has changed.
        """
        return cls(Table.from_spec(spec.get("table", {})), spec.get("test", ()))

    def _build(self, split: str, index: int) -> TableTask:
        return TableTask(f"{self.name}:{split}/{index}", self._columns[split][index], self.table.digest)


class TabularEvaluator:
    """Looks proposals up in a table. Seed and steps make no difference; ``seconds`` is 0 and there is no loss.

    Designs of the table's own space are known, and cells of :class:`~rlnas.search_space.CellSpace` if the table is one
    of NAS-Bench-201's cells, whatever the width. Isomorphic cells have rows, and so values, of their own.

    Args:
        table: the table.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self._spaces: set[SearchSpace] = {table.space}
        self._answers: dict[str, list[Evaluation]] = {}

    def spec(self) -> dict[str, Any]:
        return {"kind": "table", "table": self.table.spec()}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> TabularEvaluator:
        """The evaluator that :meth:`spec` described.

        Raises:
            DataError: if the table's file is missing or has changed.
        """
        return cls(Table.from_spec(spec.get("table", {})))

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        """What the table says of each proposal; INVALID where it says nothing.

        Raises:
            ConfigurationError: if a task is no column of this table or a space is not the table's.
        """
        rows, spaces, found = self.table.space.rows, self._spaces, []
        for proposal in proposals:
            architecture = proposal.architecture
            if architecture.space not in spaces:
                self.accept(architecture.space)
            answers = self._answers.get(proposal.task.digest)
            if answers is None:
                answers = self._column_answers(proposal.task)
            row = rows.get(architecture.choices)
            found.append(answers[row] if row is not None else self._absent(architecture.text))
        return found

    def lookup(self, choices: NDArray[np.int64], tasks: Sequence[Task], seed: int = 0) -> list[Evaluation]:
        """What :meth:`evaluate` says, without a proposal for each design; call :meth:`accept` with their space once.

        Args:
            choices: complete designs, of shape (n, decisions).
            tasks: the task of each.
            seed: makes no difference.

        Raises:
            ConfigurationError: if a task is no column of this table.
        """
        rows, answers = (
            self.table.space.rows,
            {task: self._answers.get(task.digest) or self._column_answers(task) for task in set(tasks)},
        )
        found = []
        for design, task in zip(map(tuple, choices.tolist()), tasks, strict=True):
            row = rows.get(design)
            found.append(answers[task][row] if row is not None else self._absent(self.table.space.text(design)))
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

    def best(self, task: Task) -> float:
        """The best accuracy of any design on a task.

        Raises:
            ConfigurationError: if the task is no column of this table.
        """
        return self.table.best(self._column(task))

    def mean(self, task: Task) -> float:
        """The mean accuracy of the designs that were evaluated on a task.

        Raises:
            ConfigurationError: if the task is no column of this table.
        """
        return self.table.mean(self._column(task))

    def _column(self, task: Task) -> str:
        if not isinstance(task, TableTask):
            raise ConfigurationError(f"task {task.name} is no column of a table; use an evaluator that trains networks")
        if task.table_digest != self.table.digest:
            raise ConfigurationError(f"task {task.name} is a column of another table than {self.table.space.path}")
        return task.family

    def _column_answers(self, task: Task) -> list[Evaluation]:
        """The evaluation of every row on a task. They are made once: a look-up then costs less than making one."""
        column = self.table.column(self._column(task))
        arrays = (self.table.accuracy, self.table.parameters, self.table.flops)
        rows = zip(*(array[:, column].tolist() for array in arrays), strict=True)
        answers = [
            Evaluation(accuracy, parameters=parameters, flops=flops)
            if not np.isnan(accuracy)
            else Evaluation(
                0.0,
                status=Status.INVALID,
                parameters=parameters,
                flops=flops,
                message=f"the design was not evaluated on {task.family}",
            )
            for accuracy, parameters, flops in rows
        ]
        self._answers[task.digest] = answers
        return answers

    def _absent(self, design: str) -> Evaluation:
        message = f"{design} is not in {self.table.space.path}"
        return Evaluation(0.0, status=Status.INVALID, message=message)
