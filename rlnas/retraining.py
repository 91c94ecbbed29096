"""Trains a table's networks again: what a design is worth beyond the one evaluation that the table has recorded.

The best of many recorded accuracies owes much to luck. Networks trained again from random starts that the table has not
seen say what a design is worth without it. A table that ``rlnas tabulate`` made says how its networks were trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rlnas.architecture import Architecture
from rlnas.checkpoint import write_durably
from rlnas.datasets import source_from_spec
from rlnas.errors import ConfigurationError, DataError
from rlnas.evaluator import Evaluator, Proposal
from rlnas.search_space import SearchSpace
from rlnas.specs import evaluator_from_spec, space_from_spec
from rlnas.table import Table
from rlnas.table_file import read_table_file
from rlnas.task import Task, TaskSource

CHUNK = 150
"""Designs that are trained before their accuracies are kept."""


class Retraining:
    """Trains designs of a table on its tasks once more, on seeds of one's choice.

    Args:
        table: made by ``rlnas tabulate``.
        seeds: of the evaluations; those of the table would only repeat it.

    Raises:
        ConfigurationError: if the table does not say how its networks were trained.
    """

    def __init__(self, table: Table, seeds: Sequence[int]) -> None:
        self.table = table
        self.seeds = tuple(seeds)
        about = read_table_file(table.space.path).arrays.get("about")
        self._about: dict[str, Any] = {} if about is None else json.loads(str(about))
        if not {"space", "evaluator", "tasks"} <= self._about.keys():
            raise ConfigurationError(f"{table.space.path} does not say how its networks were trained")

    def spec(self) -> dict[str, Any]:
        """What decides the accuracies, as JSON."""
        return {"evaluator": self._about["evaluator"], "seeds": list(self.seeds)}

    def accuracies(
        self,
        designs: Iterable[tuple[str, str]],
        file: Path | None = None,
        on_progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> dict[tuple[str, str], list[float]]:
        """The accuracy of each design with each seed.

        Args:
            designs: the task's name and the design's text in the table's space.
            file: keeps the accuracies; what it holds already is not trained again. Where training was interrupted, it
                holds what was done.
            on_progress: is told how many of how many designs are done.

        Raises:
            DataError: if the file was made otherwise or is damaged.
        """
        wanted = list(dict.fromkeys(designs))
        known = {} if file is None else self._read(file)
        missing = sorted(set(wanted) - known.keys())  # those of one task side by side, which trains them faster
        for start in range(0, len(missing), CHUNK):
            part = missing[start : start + CHUNK]
            proposals = [Proposal(self.network(text), self.task(task), s) for task, text in part for s in self.seeds]
            found = np.array([e.accuracy for e in self._evaluator.evaluate(proposals)]).reshape(len(part), -1)
            known |= dict(zip(part, found.tolist(), strict=True))
            if file is not None:
                rows = [[*design, *accuracies] for design, accuracies in sorted(known.items())]
                write_durably(file, json.dumps({**self.spec(), "accuracies": rows}).encode() + b"\n")
            on_progress(start + len(part), len(missing))
        return {design: known[design] for design in wanted}

    def network(self, text: str) -> Architecture:
        """The design of the space that the table was made of; in the table it is a row of codes.

        Raises:
            IllegalChoiceError: if there is no such design.
        """
        theirs, choices = self.table.space.decisions, self.table.space.parse(text).choices
        names = [decision.choices[choice] for decision, choice in zip(theirs, choices, strict=True)]
        ours = self._space.decisions
        return self._space.decode([d.choices.index(name) for d, name in zip(ours, names, strict=True)])

    def task(self, column: str) -> Task:
        """The task of a column.

        Raises:
            DataError: if the table does not say where it is from.
        """
        for source in self._sources:
            if column.startswith(f"{source.name}:"):
                return source.named(column)
        raise DataError(f"{self.table.space.path} does not say where its task {column} is from")

    @cached_property
    def _space(self) -> SearchSpace:
        return space_from_spec(self._about["space"])

    @cached_property
    def _sources(self) -> list[TaskSource]:
        return [source_from_spec(suite["source"]) for suite in self._about["tasks"]]

    @cached_property
    def _evaluator(self) -> Evaluator:
        return evaluator_from_spec(self._about["evaluator"])

    def _read(self, file: Path) -> dict[tuple[str, str], list[float]]:
        try:
            content = json.loads(file.read_text())
            made = {name: content.pop(name) for name in self.spec()}
            known = {(str(task), str(text)): list(map(float, values)) for task, text, *values in content["accuracies"]}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file} is damaged ({' '.join(str(error).split())}); delete it") from None
        if made != self.spec():
            raise DataError(f"{file} holds accuracies of networks that were trained otherwise; delete it")
        return known
