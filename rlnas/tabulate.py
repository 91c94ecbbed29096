"""Makes tables of recorded evaluations: every different network of a space, trained on every task of a suite.

A table takes long, so each column is kept in a file of its own, in the folder ``OUT.parts``, until all are there and
become one file. A run that was interrupted or killed goes on where it stood; what it writes is, byte for byte, what an
uninterrupted one would have written.

The file is as :mod:`rlnas.table` reads it. Its arrays, for R rows, K tasks, S seeds and D decisions:

* ``ops`` int8 (R, D), ``op_names`` and ``decision_names``: each network once, as its lexicographically first design;
* ``tasks``, ``families``, ``splits`` (K,), and ``descriptors`` float32 (K, 9): see :class:`~rlnas.task.Task`;
* ``accuracy`` float32 (R, K, S): NaN where a network was not evaluated with a seed, or could not be for want of memory
  or time; 0 where it does not fit the task or diverged;
* ``params_m``, ``flops_m`` float64 (R, K): millions of parameters, and of multiply-accumulates for one image;
* ``about``: what the table was made of and with, as JSON.

It has no array of seconds: networks that are trained in lock-step have no time of their own.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rlnas
from rlnas.architecture import Architecture
from rlnas.checkpoint import write_durably
from rlnas.errors import ConfigurationError, DataError, at_least
from rlnas.evaluator import LASTING, Evaluator, Proposal
from rlnas.search_space import SearchSpace
from rlnas.table_file import MOST_CHOICES
from rlnas.task import Task, TaskSource

MOST_DESIGNS = 100_000
"""Spaces with more are refused: to train them all would take years."""
CHUNK = 512
"""Proposals that the evaluator is given at once."""
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Suite:
    """The first ``count`` tasks of a split; by default all of them.

    Raises:
        ConfigurationError: if the split has fewer.
    """

    source: TaskSource
    split: str
    count: int | None = None

    def __post_init__(self) -> None:
        there = self.source.splits[self.split]
        if self.count is None:
            object.__setattr__(self, "count", there)
        elif not 1 <= self.count <= there:
            raise ConfigurationError(f"{self.source.name}:{self.split} has {there} tasks, got a limit of {self.count}")

    def tasks(self) -> Iterator[Task]:
        """The tasks, made one at a time."""
        assert self.count is not None
        return (self.source.task(self.split, index) for index in range(self.count))


@dataclass(frozen=True)
class Tabulation:
    """What a table is to hold.

    Args:
        space: every different network of it is a row.
        suites: their tasks are the columns, in this order.
        seeds: evaluation seeds, 0 .. seeds - 1.
        replicate_every: the seeds beyond the first are for every so many rows, counted from the first row.

    Raises:
        ConfigurationError: if the space is too large for a table, or a number is too small.
    """

    space: SearchSpace
    suites: tuple[Suite, ...]
    seeds: int = 1
    replicate_every: int = 1

    def __post_init__(self) -> None:
        at_least("seeds", self.seeds, 1)
        at_least("replicate_every", self.replicate_every, 1)
        if self.space.size > MOST_DESIGNS:
            size = f"{self.space.name} has {self.space.size:,} designs"
            raise ConfigurationError(f"{size}; a table is made of spaces of at most {MOST_DESIGNS:,}")
        assert self.space.num_choices <= MOST_CHOICES

    def rows(self) -> list[Architecture]:
        """Each network once, as its lexicographically first design: shorter chains end in identities."""
        first: dict[str, Architecture] = {}
        for architecture in self.space.enumerate():
            first.setdefault(architecture.key, architecture)
        return list(first.values())

    def cells(self, rows: Sequence[Architecture]) -> list[tuple[int, int]]:
        """The row and the seed of each evaluation that a column takes."""
        replicated = range(0, len(rows), self.replicate_every)
        return [(row, 0) for row in range(len(rows))] + [(r, s) for s in range(1, self.seeds) for r in replicated]

    def columns(self) -> Iterator[tuple[str, Task]]:
        """The split and the task of each column."""
        return ((suite.split, task) for suite in self.suites for task in suite.tasks())

    def missing(self, out: str | Path) -> list[Task]:
        """The tasks that a table at ``out`` has no column of yet."""
        parts = _parts(Path(out))
        return [task for _, task in self.columns() if not _part(parts, task).exists()]

    @property
    def num_columns(self) -> int:
        """How many columns there are."""
        return sum(suite.count or 0 for suite in self.suites)


def tabulate(
    tabulation: Tabulation,
    evaluator: Evaluator,
    out: str | Path,
    on_progress: Callable[[int, float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> bool:
    """Evaluate what is still missing of a table and, when nothing is, write it.

    Args:
        tabulation: what the table is to hold.
        evaluator: says what a network is worth.
        out: the table's file. Until it is complete, columns are kept beside it in the folder ``OUT.parts``.
        on_progress: called with a number of evaluations that were made and their mean accuracy.
        stop: asked between two calls of the evaluator. If it says so the columns so far are kept, and nothing else.

    Returns:
        Whether the table is complete.

    Raises:
        ConfigurationError: if there is such a file already, or its parts were made otherwise than is now asked for.
        DataError: if a part is damaged.
    """
    out = Path(out)
    if out.exists():
        raise ConfigurationError(f"{out} exists already; choose another --out")
    parts = _parts(out)
    about = _agreed(parts, describe(tabulation, evaluator))
    rows = tabulation.rows()
    cells = tabulation.cells(rows)
    for task in tabulation.missing(out):
        column = _evaluate(rows, cells, tabulation.seeds, task, evaluator, on_progress, stop)
        if column is None:
            return False
        write_durably(_part(parts, task), npz_bytes(column))
    write_durably(out, npz_bytes({**_assembled(tabulation, rows, parts), "about": np.array(json.dumps(about))}))
    shutil.rmtree(parts)
    return True


def describe(tabulation: Tabulation, evaluator: Evaluator) -> dict[str, Any]:
    """What a table was made of and with, as JSON."""
    import torch

    return {
        "rlnas": rlnas.__version__,
        "torch": torch.__version__,
        "code": code_digest(),
        "space": tabulation.space.spec(),
        "evaluator": evaluator.spec(),
        "seeds": tabulation.seeds,
        "replicate_every": tabulation.replicate_every,
        "tasks": [{"source": s.source.spec(), "split": s.split, "count": s.count} for s in tabulation.suites],
        "date": datetime.now(UTC).date().isoformat(),
    }


def code_digest() -> str:
    """SHA-256 of the core's source files, in hexadecimal: says which code ran where a version number does not."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(path.name.encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()


def _agreed(parts: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The description that goes into the table: with the date on which it was begun.

    Raises:
        ConfigurationError: if the parts that are there were made otherwise. Other tasks are no reason: each column
            stands for itself.
    """
    parts.mkdir(parents=True, exist_ok=True)
    file = parts / SETTINGS
    about = json.loads(json.dumps(about))  # so that it compares with what was read
    try:
        before = json.loads(file.read_bytes())
    except FileNotFoundError:
        before = about
        write_durably(file, json.dumps(about, indent=1).encode())
    except ValueError as error:
        raise DataError(f"{file}: not readable: {error}") from None
    for field, value in about.items():
        if field not in ("date", "tasks") and value != before.get(field):
            raise ConfigurationError(
                f"{parts} holds parts made with {field} {_short(before.get(field))}, now it is {_short(value)}; "
                "choose another --out, or delete that folder"
            )
    return {**about, "date": before["date"]}


def _evaluate(
    rows: Sequence[Architecture],
    cells: Sequence[tuple[int, int]],
    seeds: int,
    task: Task,
    evaluator: Evaluator,
    on_progress: Callable[[int, float], None] | None,
    stop: Callable[[], bool] | None,
) -> dict[str, NDArray[Any]] | None:
    """A column: ``accuracy`` (R, S), ``parameters`` and ``flops`` (R,); None if it was stopped."""
    accuracy = np.full((len(rows), seeds), np.nan, dtype=np.float32)
    costs = {cost: np.zeros(len(rows), dtype=np.int64) for cost in ("parameters", "flops")}
    for first in range(0, len(cells), CHUNK):
        if stop is not None and stop():
            return None
        chunk = cells[first : first + CHUNK]
        evaluations = evaluator.evaluate([Proposal(rows[row], task, seed) for row, seed in chunk])
        for (row, seed), evaluation in zip(chunk, evaluations, strict=True):
            if evaluation.status in LASTING:
                accuracy[row, seed] = evaluation.accuracy
            for cost, values in costs.items():
                values[row] = max(values[row], getattr(evaluation, cost))
        if on_progress is not None:
            on_progress(len(chunk), float(np.mean([evaluation.accuracy for evaluation in evaluations])))
    return {"accuracy": accuracy, **costs}


def _assembled(tabulation: Tabulation, rows: Sequence[Architecture], parts: Path) -> dict[str, NDArray[Any]]:
    """The arrays of the whole table but ``about``."""
    splits, tasks = zip(*tabulation.columns(), strict=True)
    shape = (len(rows), len(tasks))
    accuracy = np.empty((*shape, tabulation.seeds), dtype=np.float32)
    parameters, flops = np.empty(shape), np.empty(shape)
    for number, task in enumerate(tasks):
        part = _read_part(_part(parts, task))
        accuracy[:, number] = part["accuracy"]
        parameters[:, number], flops[:, number] = part["parameters"] / 1e6, part["flops"] / 1e6
    return {
        **design_arrays(tabulation.space, rows),
        **task_arrays(splits, tasks),
        "accuracy": accuracy,
        "params_m": parameters,
        "flops_m": flops,
    }


def design_arrays(space: SearchSpace, rows: Sequence[Architecture]) -> dict[str, NDArray[Any]]:
    """The arrays of a table that say what its rows are."""
    decisions = space.decisions
    shared = {decision.choices for decision in decisions}
    return {
        "ops": np.array([row.choices for row in rows], dtype=np.min_scalar_type(-space.num_choices)),
        **({"op_names": np.array(decisions[0].choices)} if len(shared) == 1 else {}),
        "decision_names": np.array([decision.name for decision in decisions]),
    }


def task_arrays(splits: Sequence[str], tasks: Sequence[Task]) -> dict[str, NDArray[Any]]:
    """The arrays of a table that say what its columns are."""
    return {
        "tasks": np.array([task.name for task in tasks]),
        "families": np.array([task.family for task in tasks]),
        "splits": np.array(splits),
        "descriptors": np.stack([task.descriptor for task in tasks]),
    }


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An ``.npz`` file; equal arrays give equal bytes, for numpy writes no dates."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _parts(out: Path) -> Path:
    """The folder of a table's columns while they are made."""
    return out.with_name(f"{out.name}.parts")


def _part(parts: Path, task: Task) -> Path:
    """A column's file, called after the task's content: a task that has changed is evaluated again."""
    return parts / f"{task.digest}.npz"


def _read_part(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with file.open("rb") as content, np.load(content, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # whatever zipfile, zlib or numpy makes of the damage
        raise DataError(f"{file}: damaged: {error}; delete it, and its column is evaluated again") from None


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
