"""Makes a table of what searches recorded, so that other searches can be compared on it without training anything.

Its rows are the designs that were evaluated, its columns the tasks; most cells of several searches' table are empty,
for each task was searched by other designs. See :mod:`rlnas.tabulate` for the arrays. Besides those it has ``seconds``
(R, K), the mean time of an evaluation.

Replicates are a cell's evaluation seeds. Where the seeds that occur are 0, 1 .. each has its own place; where they were
drawn at random, a cell's replicates are in the order of its seeds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rlnas
from rlnas.architecture import Architecture
from rlnas.canonical import canonical_json
from rlnas.checkpoint import write_durably
from rlnas.datasets import source_from_spec
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, DataError
from rlnas.evaluator import LASTING
from rlnas.specs import space_from_spec
from rlnas.tabulate import design_arrays, npz_bytes, task_arrays
from rlnas.task import Task, TaskSource

SETTINGS = ("space", "evaluator")
"""What of an environment's description must be the same for evaluations to stand in one table."""


@dataclass(frozen=True, slots=True)
class TableSize:
    """How large a table is, and how full.

    Args:
        rows: designs.
        columns: tasks.
        cells: (design, task) pairs with an evaluation.
    """

    rows: int
    columns: int
    cells: int


def export_table(episodes: Iterable[DesignEpisode], out: str | Path, tasks: Sequence[str] = ()) -> TableSize:
    """Write a table of recorded evaluations, which :meth:`rlnas.table.Table.load` reads.

    Load it with ``scale="fraction"``: then the recorded accuracies are its answers, to the bit.

    Args:
        episodes: such as :meth:`rlnas.store.EpisodeStore.episodes` gives.
        out: the file, ``.npz``.
        tasks: names of the tasks to keep, by default all. A single task's table is never empty in places.

    Raises:
        ConfigurationError: if the file exists already, if the episodes are of different spaces or evaluators, or if
            none of them was evaluated on one of ``tasks``.
        DataError: if a task cannot be made here, or is not the one that was recorded.
    """
    out = Path(out)
    if out.exists():
        raise ConfigurationError(f"{out} exists already; choose another file")
    found = _Evaluations()
    for episode in episodes:
        found.add(episode)
    found.keep(tasks)
    arrays = found.arrays()
    write_durably(out, npz_bytes(arrays))
    known = ~np.isnan(arrays["accuracy"]).all(axis=2)
    rows, columns = known.shape
    return TableSize(rows, columns, int(known.sum()))


@dataclass
class _Cell:
    """The evaluations of one design on one task: accuracies by seed."""

    accuracies: dict[int, set[float]] = field(default_factory=lambda: defaultdict(set))
    seconds: list[float] = field(default_factory=list)
    parameters: int = 0
    flops: int = 0


class _Evaluations:
    """What episodes say, by task and design."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[str, _Cell]] = defaultdict(lambda: defaultdict(_Cell))
        self._digests: dict[str, str] = {}
        self._sources: dict[str, dict[str, Any]] = {}
        self._env: dict[str, Any] = {}
        self._agents: set[str] = set()

    def add(self, episode: DesignEpisode) -> None:
        """Take note of an episode, if its result would be the same again."""
        evaluation = episode.evaluation
        self._env = self._env or episode.env
        for name in SETTINGS:
            if self._env is not episode.env and self._env[name] != episode.env[name]:
                raise ConfigurationError(
                    f"the episodes of agent {episode.agent!r} have another {name} than those before: a table has one; "
                    "choose with --agent"
                )
        if self._digests.setdefault(episode.task, episode.task_digest) != episode.task_digest:
            raise ConfigurationError(f"two different tasks are called {episode.task}; choose with --agent")
        if not episode.architecture or evaluation.status not in LASTING:
            return
        self._sources[episode.task] = episode.env["tasks"]
        self._agents.add(episode.agent)
        cell = self._cells[episode.task][episode.architecture]
        cell.accuracies[episode.evaluation_seed].add(evaluation.accuracy)
        cell.parameters = max(cell.parameters, evaluation.parameters)
        cell.flops = max(cell.flops, evaluation.flops)
        if not evaluation.cached:
            cell.seconds.append(evaluation.seconds)

    def keep(self, tasks: Sequence[str]) -> None:
        """Forget all other tasks, if any are named."""
        if not self._cells:
            raise ConfigurationError("there are no evaluations to make a table of")
        for task in tasks:
            if task not in self._cells:
                there = f"there are {len(self._cells)}, such as {min(self._cells, key=_place)}"
                raise ConfigurationError(f"no design was evaluated on a task {task!r} ({there})")
        if tasks:
            self._cells = {task: self._cells[task] for task in tasks}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The table's."""
        space = space_from_spec(self._env["space"])
        texts = {text for column in self._cells.values() for text in column}
        rows = sorted((space.parse(text) for text in texts), key=lambda row: row.choices)
        tasks = self._tasks()
        seeds = sorted({seed for column in self._cells.values() for c in column.values() for seed in c.accuracies})
        splits = [task.name.rpartition(":")[2].partition("/")[0] for task in tasks]
        about = {
            "rlnas": rlnas.__version__,
            **{name: self._env[name] for name in SETTINGS},
            "recorded": sorted(self._agents),
            "seeds": seeds[:100],
        }
        return {
            **design_arrays(space, rows),
            **task_arrays(splits, tasks),
            **self._values(rows, tasks, seeds),
            "about": np.array(json.dumps(about)),
        }

    def _tasks(self) -> list[Task]:
        """The tasks in the order of their sources, splits and numbers."""
        sources: dict[str, TaskSource] = {}
        tasks = []
        for name in sorted(self._cells, key=_place):
            spec = self._sources[name]
            text = canonical_json(spec)
            if text not in sources:
                sources[text] = source_from_spec(spec)
            task = sources[text].named(name)
            if task.digest != self._digests[name]:
                raise DataError(f"the task {name} is not the recorded one: its data has changed")
            tasks.append(task)
        return tasks

    def _values(
        self, rows: Sequence[Architecture], tasks: Sequence[Task], seeds: Sequence[int]
    ) -> dict[str, NDArray[Any]]:
        columns = [self._cells[task.name] for task in tasks]
        numbered = list(seeds) == list(range(len(seeds)))
        most = max(len(cell.accuracies) for column in columns for cell in column.values())
        shape = (len(rows), len(tasks))
        accuracy = np.full((*shape, len(seeds) if numbered else most), np.nan)
        seconds, parameters, flops = np.full(shape, np.nan), np.zeros(shape), np.zeros(shape)
        for k, column in enumerate(columns):
            for r, row in enumerate(rows):
                cell = column.get(row.text)
                if cell is None:
                    continue
                for place, seed in enumerate(sorted(cell.accuracies)):
                    # Equal proposals have equal results, but perhaps not on different machines.
                    accuracy[r, k, seed if numbered else place] = np.mean(sorted(cell.accuracies[seed]))
                if cell.seconds:
                    seconds[r, k] = np.mean(cell.seconds)
                parameters[r, k], flops[r, k] = cell.parameters / 1e6, cell.flops / 1e6
        return {"accuracy": accuracy, "params_m": parameters, "flops_m": flops, "seconds": seconds}


def _place(task: str) -> tuple[str, int]:
    split, _, number = task.rpartition("/")
    return split, int(number)
