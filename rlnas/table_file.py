"""Reads the arrays of a table's file and checks their shapes; :mod:`rlnas.table` says what a table looks like."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError, DataError, one_of
from rlnas.search_space import Decision
from rlnas.task import DESCRIPTOR

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]

COSTS = ("params_m", "flops_m")
SECONDS = "seconds"
DESCRIPTORS = "descriptors"
MOST_CHOICES = 1024
"""Codes must be smaller: legality is a dense table, so a hash taken for a code would fill the memory."""


@dataclass(frozen=True)
class TableFile:
    """The arrays of one file, by name.

    Raises:
        DataError: by every method, naming the file and the array, if an array is missing or has not the form it needs.
    """

    path: Path
    arrays: Mapping[str, Array]

    def decisions(self) -> tuple[NDArray[np.int64], tuple[Decision, ...]]:
        """All codes side by side, of shape (rows, decisions), and what they are called."""
        fields = (
            ("decisions",) if "ops" not in self.arrays else ("links", "ops") if "links" in self.arrays else ("ops",)
        )
        parts = [self._codes(field) for field in fields]
        if len({len(part) for part in parts}) > 1:
            raise DataError(f"{self.path}: {' and '.join(fields)} differ in rows: {[len(part) for part in parts]}")
        codes = np.concatenate(parts, axis=1)
        choices = [tuple(map(str, range(top + 1))) for top in codes.max(0).tolist()]
        if (op_names := self._names("op_names")) is not None:
            if parts[-1].max() >= len(op_names):
                raise DataError(f"{self.path}: {fields[-1]} has code {parts[-1].max()}, op_names {len(op_names)} names")
            named = parts[-1].shape[1]
            choices[-named:] = [op_names] * named
        titles = self._names("decision_names")
        if titles is None:
            titles = tuple(f"{f}[{i}]" for f, part in zip(fields, parts, strict=True) for i in range(part.shape[1]))
        if len(titles) != len(choices):
            raise DataError(f"{self.path}: decision_names has {len(titles)} names for {len(choices)} decisions")
        return codes, tuple(Decision(title, names) for title, names in zip(titles, choices, strict=True))

    def only_value_array(self, rows: int) -> str:
        """The name of the one float array with a value for each row and task.

        Raises:
            ConfigurationError: if there are several or none.
        """
        tasks = self.tasks
        shape = (rows,) if tasks is None else (rows, len(tasks))
        of_replicates = (shape,) if tasks is None or len(tasks) > 1 else (shape, (rows,))
        floats = [name for name in self.arrays if self._may_be_values(name, rows)]
        exact = [name for name in floats if self.arrays[name].shape == shape]
        replicated = [name for name in floats if self.arrays[name].shape[:-1] in of_replicates]
        fitting = exact or replicated
        uneven = {n: len(a) for n, a in self.arrays.items() if n not in COSTS and a.dtype.kind == "f" and a.ndim > 1}
        if not floats and uneven and rows not in uneven.values():
            raise DataError(f"{self.path}: {rows} designs, but rows of values: {uneven}")
        if len(fitting) != 1:
            there = ", ".join(f"{name} {self.arrays[name].shape}" for name in floats) or "(no float array)"
            fault = "" if fitting else f"no array has the shape {shape}: "
            raise ConfigurationError(f"{self.path}: {fault}values must name one of: {there}")
        return fitting[0]

    def values(self, field: str, rows: int) -> tuple[tuple[str, ...], Floats]:
        """The names of a value array's columns, and its values, of shape (rows, columns, replicates).

        Raises:
            UnknownNameError: if there is no such array.
        """
        one_of(f"value array of {self.path}", field, self.arrays)
        values = self._numbers(field, rows, most_dimensions=3)
        names = self.tasks or (field,)
        if values.ndim < 3:
            values = values.reshape(rows, 1, -1) if len(names) == 1 else values[..., None]
        if not 0 < values.shape[1] <= len(names):
            raise DataError(f"{self.path}: {field} has {values.shape[1]} columns, but tasks has {len(names)} names")
        if values.shape[2] == 0:
            raise DataError(f"{self.path}: {field} must have a replicate, got the shape {self.arrays[field].shape}")
        return names[: values.shape[1]], values

    def fidelities(self, field: str) -> dict[int, str]:
        """By their numbers the value arrays that are called as this one but for the number of steps they end in."""
        stem, mark, _ = field.rpartition("_")
        ending = re.compile(re.escape(stem + mark) + r"([0-9]+)")
        matches = [match for name in self.arrays if (match := ending.fullmatch(name))]
        return {int(match[1]): match[0] for match in matches} if mark and ending.fullmatch(field) else {}

    @property
    def tasks(self) -> tuple[str, ...] | None:
        """The columns' names."""
        return self._names("tasks")

    def labels(self, field: str, columns: int) -> tuple[str, ...] | None:
        """One text for each of all columns, not all different; None if the file has none."""
        if field not in self.arrays:
            return None
        array = self.arrays[field]
        if array.dtype.kind not in "US" or array.shape != (columns,):
            raise DataError(f"{self.path}: {field} must be {columns} strings, one for each task, got {_form(array)}")
        return tuple(map(str, array.astype(np.str_).tolist()))

    def descriptors(self, columns: int) -> NDArray[np.float32] | None:
        """What each of all columns is like, of shape (columns, entries); None if the file does not say."""
        if DESCRIPTORS not in self.arrays:
            return None
        array, shape = self.arrays[DESCRIPTORS], (columns, len(DESCRIPTOR))
        if array.dtype.kind not in "fiu" or array.shape != shape or not np.isfinite(array).all():
            raise DataError(f"{self.path}: {DESCRIPTORS} must be finite numbers of shape {shape}, got {_form(array)}")
        return array.astype(np.float32)

    def cost(self, field: str, rows: int, columns: int) -> Floats:
        """A cost of each row on each of the first ``columns`` tasks; NaN where unknown.

        Raises:
            UnknownNameError: if there is no such array.
        """
        one_of(f"cost of {self.path}", field, self.arrays)
        cost = self._numbers(field, rows)
        if cost.shape[1] == 1:
            cost = np.repeat(cost, columns, axis=1)
        if cost.shape[1] < columns or np.isinf(cost).any() or (cost < 0).any():
            raise DataError(
                f"{self.path}: {field} must be finite, not negative and of shape ({rows},) or ({rows}, tasks)"
            )
        return cost[:, :columns]

    def _codes(self, field: str) -> NDArray[np.int64]:
        if field not in self.arrays:
            raise DataError(f"{self.path}: array 'ops' is missing (arrays: {', '.join(self.arrays) or 'none'})")
        codes = self.arrays[field]
        if codes.ndim != 2 or codes.dtype.kind not in "iu" or 0 in codes.shape:
            raise DataError(f"{self.path}: {field} must be integers of shape (rows, decisions), got {_form(codes)}")
        low, high = codes.min(), codes.max()
        if low < 0 or high >= MOST_CHOICES:
            raise DataError(f"{self.path}: {field} must lie in 0 .. {MOST_CHOICES - 1}, found {low} .. {high}")
        return codes.astype(np.int64)

    def _may_be_values(self, name: str, rows: int) -> bool:
        array = self.arrays[name]
        is_cost = name in (*COSTS, DESCRIPTORS) or re.fullmatch(rf"{SECONDS}(_[0-9]+)?", name)
        return array.dtype.kind == "f" and array.shape[:1] == (rows,) and not is_cost

    def _numbers(self, field: str, rows: int, most_dimensions: int = 2) -> Floats:
        """Numbers of shape (rows,), (rows, n) or, where allowed, (rows, n, m), as float64 of 2 or 3 dimensions."""
        array = self.arrays[field]
        if array.dtype.kind not in "fiu" or not 1 <= array.ndim <= most_dimensions or len(array) != rows:
            form = f"({rows}, tasks)" + (f" or ({rows}, tasks, seeds)" if most_dimensions == 3 else "")
            raise DataError(f"{self.path}: {field} must be numbers of shape {form}, got {_form(array)}")
        return (array[:, None] if array.ndim == 1 else array).astype(np.float64)

    def _names(self, field: str) -> tuple[str, ...] | None:
        """A 1-D array of distinct strings; None if the file has none."""
        if field not in self.arrays:
            return None
        array = self.arrays[field]
        if array.ndim != 1 or array.dtype.kind not in "US":
            raise DataError(f"{self.path}: {field} must be a 1-D array of strings, got {_form(array)}")
        names = tuple(str(name) for name in array.astype(np.str_))
        if not names or len(set(names)) < len(names):
            raise DataError(f"{self.path}: {field} must be distinct names and not empty, got {list(names)}")
        return names


def read_table_file(path: Path) -> TableFile:
    """The arrays of an ``.npz`` file; remembered until the file changes.

    Raises:
        DataError: if it is missing, damaged, no ``.npz`` file, or needs pickle to be read.
    """
    try:
        status = path.stat()
        return _read_version(path, status.st_mtime_ns, status.st_size)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except DataError:
        raise
    except Exception as error:  # whatever a damaged archive makes of its reader
        reason = "it is no archive of arrays" if "pickle" in str(error) else error  # numpy would have it unpickled
        raise DataError(f"{path}: not a readable .npz file: {reason}") from None


@lru_cache(maxsize=8)
def _read_version(path: Path, modified: int, size: int) -> TableFile:
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: a file of named arrays (.npz) is needed, this is a single array")
        arrays = {name: _member(path, loaded, name) for name in loaded.files}
    return TableFile(path, arrays)


def _member(path: Path, arrays: Mapping[str, Array], name: str) -> Array:
    try:
        array = arrays[name]
    except Exception as error:  # likewise
        raise DataError(f"{path}: array {name!r} cannot be read: {error}") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {name!r} is not an array")
    array.setflags(write=False)
    return array


def _form(array: Array) -> str:
    return f"{array.dtype} of shape {array.shape}"


def sha256_of(text: str, *arrays: Array) -> str:
    """SHA-256 of a text and of arrays' shapes, types and content, in hexadecimal."""
    sha = hashlib.sha256(text.encode())
    for array in arrays:
        sha.update(repr((array.shape, array.dtype.str)).encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
