"""Tables of recorded evaluations.

A table is a plain ``.npz`` file (never a pickle). Row *i* of each array belongs to one design:

* ``ops``: the design as integer codes, of shape (rows, decisions). A table may also have ``links``, codes that are
  decided before ``ops``, or call its codes ``decisions`` instead.
* ``tasks``: the names of the columns. A table of one column may do without and calls it as its value array.
* one or more value arrays of shape (rows, columns) or (rows, columns, replicates), higher is better. Where an array has
  fewer columns than there are names, it holds the first ones; where there is one name but several columns, they are
  replicates. NaN says that a design was not evaluated on that task, or not so often.
* arrays whose names differ only in the number of steps that they end in, such as ``val_12`` and ``val_200``, are
  fidelities of one measure.
* optionally ``op_names`` (shared by all decisions of the last code array), ``decision_names``, the costs ``params_m``
  and ``flops_m`` in millions and ``seconds`` of one evaluation (of ``val_12``: ``seconds_12``), of shape (rows,) or
  (rows, columns), and any other cost in that form.
* optionally, one entry for each column: ``families``, ``splits`` (which split of the tasks it belongs to), and
  ``descriptors`` of shape (columns, len(DESCRIPTOR)), see :data:`rlnas.task.DESCRIPTOR`.

Designs that are the same network (``canon`` in some tables) stay apart: they were trained apart and have values of
their own. A design that occurs in several rows has the mean of their values, NaN if one of them is NaN. Rows are kept
in the lexicographic order of their codes, not in the file's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError, DataError, at_least, one_of
from rlnas.table_file import COSTS, SECONDS, Floats, TableFile, read_table_file, sha256_of
from rlnas.table_presets import KNOWN_TABLES, load_arguments
from rlnas.table_recording import REPLICATES, SCALES, Recording, mean_by, read_recording
from rlnas.table_space import TableSpace


@dataclass(frozen=True, eq=False)
class Table:
    """Recorded evaluations of ``R`` designs on ``K`` tasks; made by :meth:`load`.

    Args:
        space: the designs, in the order of the rows.
        scale: one of :data:`~rlnas.table_recording.SCALES`.
        replicates: one of :data:`~rlnas.table_recording.REPLICATES`.
        tasks: the columns' names.
        main: what is answered unless a fidelity is asked for.
        fidelities: the recordings by their number of steps, the main one among them if it has a number.
        named_fidelities: the names of their arrays where :meth:`load` was told them, else None.
        parameters: of each design, a count, int64 of shape (R, K); 0 where unknown.
        flops: multiply-accumulates, likewise.
        families: what kind of task each column is; its name where the file does not say.
        splits: the split that each column belongs to; None where the file does not say.
        descriptors: of each column, float32 of shape (K, len(DESCRIPTOR)); None where the file does not say.
    """

    space: TableSpace
    scale: str
    replicates: str
    tasks: tuple[str, ...]
    main: Recording
    fidelities: Mapping[int, Recording]
    named_fidelities: Mapping[int, str] | None
    parameters: NDArray[np.int64]
    flops: NDArray[np.int64]
    families: tuple[str, ...]
    splits: tuple[str, ...] | None
    descriptors: NDArray[np.float32] | None

    @classmethod
    def load(
        cls,
        path: str | Path,
        values: str | None = None,
        scale: str = "minmax",
        tasks: Sequence[str] | None = None,
        digest: str | None = None,
        replicates: str = "mean",
        fidelities: Mapping[Any, str] | None = None,
        known_as: str | None = None,
    ) -> Table:
        """Reads a table.

        Args:
            path: an ``.npz`` file as this module describes it.
            values: the value array to read; may be omitted if only one float array has a column for each task.
            scale: how its columns become accuracies, see :data:`~rlnas.table_recording.SCALES`. The default suits every
                metric and makes tasks comparable; ``percent`` keeps the published numbers. Every fidelity is scaled for
                itself.
            tasks: the columns to keep, by name; by default all.
            digest: refuse the file unless :attr:`digest` comes out as this.
            replicates: ``mean`` answers every seed with the mean of a design's replicates, as many as it has; ``seed``
                answers seed ``s`` with replicate number ``s`` alone.
            fidelities: value arrays by the number of steps that ask for them; by default those that are called as
                ``values`` but for the number at the end.
            known_as: see :class:`~rlnas.table_space.TableSpace`.

        Raises:
            DataError: if the file is missing, is no such table, or is not the one that ``digest`` was taken of.
            ConfigurationError: if an option is unknown or ``values`` is needed.
        """
        one_of("scale", scale, SCALES)
        one_of("replicates", replicates, REPLICATES)
        space = TableSpace(path, known_as=known_as)
        file, rows = read_table_file(space.path), space.file_rows
        main = values if values is not None else file.only_value_array(len(rows))
        names, _ = file.values(main, len(rows))
        asked = (tasks,) if isinstance(tasks, str) else tasks
        kept = names if asked is None else tuple(one_of("task", task, names) for task in asked)
        if not kept or len(set(kept)) < len(kept):
            raise ConfigurationError(f"tasks must be distinct and not empty, got {list(kept)}")
        told = None if fidelities is None else _by_steps(fidelities)
        by_steps = file.fidelities(main) if told is None else told
        recordings = {main: read_recording(space, main, kept, scale, replicates, SECONDS)}
        for steps, name in by_steps.items():
            clocks = (f"{SECONDS}_{steps}", *([SECONDS] if name == main else []))
            recordings[name] = read_recording(space, name, kept, scale, replicates, *clocks)
        picked = [names.index(task) for task in kept]
        parameters, flops = (_counts(file, rows, cost, len(names))[:, picked] for cost in COSTS)
        all_columns = len(file.tasks or names)
        families, splits = (file.labels(field, all_columns) for field in ("families", "splits"))
        descriptors = file.descriptors(all_columns)
        table = cls(
            space=space,
            scale=scale,
            replicates=replicates,
            tasks=kept,
            main=recordings[main],
            fidelities={steps: recordings[name] for steps, name in sorted(by_steps.items())},
            named_fidelities=told,
            parameters=parameters,
            flops=flops,
            families=kept if families is None else tuple(families[i] for i in picked),
            splits=None if splits is None else tuple(splits[i] for i in picked),
            descriptors=None if descriptors is None else descriptors[picked],
        )
        if digest is not None and digest != table.digest:
            raise DataError(f"{space.path}: its content has changed: SHA-256 {table.digest}, expected {digest}")
        return table

    @property
    def values_name(self) -> str:
        """The file's array that the answers come from."""
        return self.main.name

    @property
    def values(self) -> Floats:
        """What the main recording says of seed 0, of shape (R, K)."""
        return np.asarray(self.main.values[:, :, 0])

    @property
    def accuracy(self) -> Floats:
        """Its values scaled to [0, 1], of shape (R, K)."""
        return np.asarray(self.main.accuracy[:, :, 0])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of designs, values and options, in hexadecimal; equal for equal content, however it is packed."""
        recordings = (self.main, *self.fidelities.values())
        names = (self.values_name, {steps: recording.name for steps, recording in self.fidelities.items()})
        options = (self.scale, self.replicates, self.tasks, self.families, self.splits)
        arrays = [array for recording in recordings for array in (recording.values, recording.seconds)]
        described = [] if self.descriptors is None else [self.descriptors]
        parts = (self.space.digest, names, options)
        return sha256_of(repr(parts), *arrays, self.parameters, self.flops, *described)

    def column(self, task: str) -> int:
        """The number of a task's column.

        Raises:
            UnknownNameError: if there is none of that name.
        """
        return self.tasks.index(one_of("task", task, self.tasks))

    def recording(self, steps: int | None = None) -> Recording:
        """The recording of that fidelity, the main one for None.

        Raises:
            ConfigurationError: if the table has none of that number of steps.
        """
        if steps is None:
            return self.main
        if steps not in self.fidelities:
            there = ", ".join(map(str, self.fidelities)) or "none"
            raise ConfigurationError(f"{self.space.path}: no values for {steps} steps (fidelities: {there})")
        return self.fidelities[steps]

    def replicate(self, seed: int, steps: int | None = None) -> int:
        """The number of the replicate that answers a seed: see ``replicates`` of :meth:`load`.

        Raises:
            ConfigurationError: if the table has no replicate of that number.
        """
        if self.replicates == "mean":
            return 0
        recording = self.recording(steps)
        count = recording.values.shape[2]
        if not 0 <= seed < count:
            raise ConfigurationError(
                f"{self.space.path}: seed must be in 0 .. {count - 1}, the replicates of {recording.name}, got {seed} "
                "(replicates='mean' answers any seed)"
            )
        return seed

    def best(self, task: str, seed: int = 0) -> float:
        """The best accuracy of any design on a task: what regret is measured from; NaN if none has that seed."""
        known = self.accuracies(task, seed)
        return float(known.max()) if len(known) else float("nan")

    def mean(self, task: str, seed: int = 0) -> float:
        """The mean accuracy of the designs that were evaluated on a task; NaN if none has that seed."""
        known = self.accuracies(task, seed)
        return float(known.mean()) if len(known) else float("nan")

    def accuracies(self, task: str, seed: int = 0) -> Floats:
        """The accuracies of the designs that were evaluated on a task, in the order of their rows."""
        column = self.main.accuracy[:, self.column(task), self.replicate(seed)]
        return np.asarray(column[~np.isnan(column)])

    def cost(self, name: str) -> Floats:
        """Any cost that the file has, of shape (R, K); NaN where unknown.

        Raises:
            UnknownNameError: if the file has no such array.
            DataError: if that array is no cost.
        """
        file, rows = read_table_file(self.space.path), self.space.file_rows
        names = file.tasks or self.tasks
        picked = [names.index(task) for task in self.tasks]
        return mean_by(rows, file.cost(name, len(rows), max(picked) + 1)[:, picked])

    def spec(self) -> dict[str, Any]:
        """The arguments with which :meth:`load` makes an equal table, or reports that the file changed, as JSON."""
        known = {} if self.space.known_as is None else {"name": self.space.known_as}
        told = self.named_fidelities
        fidelities = {} if told is None else {"fidelities": {str(steps): name for steps, name in told.items()}}
        return {
            **known,
            "path": str(self.space.path),
            "values": self.values_name,
            "scale": self.scale,
            "replicates": self.replicates,
            **fidelities,
            "tasks": list(self.tasks),
            "digest": self.digest,
        }

    @classmethod
    def from_spec(cls, spec: str | Mapping[str, Any]) -> Table:
        """The table that :meth:`spec` described, or that is known by a name: see :mod:`rlnas.table_presets`.

        Raises:
            DataError: if its file is missing or has changed.
            ConfigurationError: if an argument is missing or unknown.
        """
        arguments = load_arguments(spec)
        if "path" not in arguments:
            raise ConfigurationError(f"table needs a path or a name (known: {', '.join(KNOWN_TABLES)}), got {spec!r}")
        try:
            return cls.load(**arguments)
        except TypeError as error:
            raise ConfigurationError(f"table: {error}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return Table.from_spec, (self.spec(),)


def _by_steps(fidelities: Mapping[Any, str]) -> dict[int, str]:
    if not isinstance(fidelities, Mapping):
        raise ConfigurationError(f"fidelities must be value arrays by their number of steps, got {fidelities!r}")
    numbers = {int(s) if isinstance(s, str) and s.isdecimal() else s: name for s, name in fidelities.items()}
    return {at_least("steps of a fidelity", steps, 0): str(name) for steps, name in numbers.items()}


def _counts(file: TableFile, rows: NDArray[np.int64], cost: str, columns: int) -> NDArray[np.int64]:
    """A cost in millions as whole numbers; 0 where unknown."""
    if cost not in file.arrays:
        return np.zeros((int(rows.max()) + 1, columns), dtype=np.int64)
    millions = mean_by(rows, np.nan_to_num(file.cost(cost, len(rows), columns)))
    return np.rint(millions * 1e6).astype(np.int64)
