"""Reading a table of features with a column of labels from a ``.csv`` or ``.csv.gz`` file."""

from __future__ import annotations

import csv
import gzip
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import DataError, UnknownNameError

LABEL_NAMES = ("label", "class", "target", "y")
"""Names of columns that hold the labels where nothing else is said; capitals don't matter."""

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
"""What stands for a missing value; capitals don't matter."""

LINE_CAP = 2**22
"""A line of more characters is not read."""

TEXT_CAP = 2**31
"""A file of more characters, unpacked, is not read."""

_DELIMITERS = ",;\t"
_LARGEST = float(np.finfo(np.float32).max)


def read_csv(path: Path, label: str | None, max_features: int) -> tuple[NDArray[np.float32], list[str]]:
    """Features and labels of a file whose first line names the columns.

    Args:
        path: the file; values are separated by commas, semicolons or tabs.
        label: the column of labels; None for the one that is called as :data:`LABEL_NAMES` say.
        max_features: the most other columns there may be.

    Returns:
        Features, float32 of shape (N, F), in the order of the columns; and the labels.

    Raises:
        DataError: if the file is missing or no such table; if there is no column of labels or none besides; if a value
            is missing, not a number or not finite, or a line has more or fewer values than there are columns; if there
            are more than :data:`LINE_CAP` characters in a line or :data:`TEXT_CAP` in all.
        UnknownNameError: if there is no column ``label``.
    """
    try:
        with _opened(path) as stream:
            return _read(path, stream, label, max_features)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table ({error})") from None


def _opened(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read(path: Path, stream: TextIO, label: str | None, max_features: int) -> tuple[NDArray[np.float32], list[str]]:
    first = stream.readline(LINE_CAP)
    stream.seek(0)
    lines = _lines(path, stream, max(_DELIMITERS, key=first.count))
    columns = [" ".join(name.strip().splitlines()) for name in next(lines, (1, []))[1]]
    _require_names(path, columns)
    place = _label_column(path, columns, label)
    if not 1 <= len(columns) - 1 <= max_features:
        raise DataError(
            f"{path}: must have 1 to {max_features} columns besides {columns[place]!r}, has {len(columns) - 1}"
        )
    features = columns[:place] + columns[place + 1 :]
    table, labels = array("f"), []
    for number, values in lines:
        if not values:
            continue
        if len(values) != len(columns):
            names = f"the first line names {len(columns)} columns"
            raise DataError(f"{path}: line {number} has {len(values)} values, {names}")
        text = values.pop(place).strip()
        if text.lower() in MISSING - {"none"}:
            raise DataError(f"{path}: line {number} has no label in column {columns[place]!r}")
        labels.append(text)
        table.extend(_number(path, number, name, value) for name, value in zip(features, values, strict=True))
    if not labels:
        raise DataError(f"{path}: has no line below the names of its columns")
    return np.frombuffer(table, dtype=np.float32).reshape(len(labels), len(features)), labels


def _lines(path: Path, stream: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The values of each line, with its number in the file as an editor counts it."""
    length = total = 0

    def limited() -> Iterator[str]:
        nonlocal length, total
        while text := stream.readline(LINE_CAP + 1):
            length += len(text)
            total += len(text)
            if length > LINE_CAP:
                raise DataError(f"{path}: line {lines.line_num + 1} has more than {LINE_CAP} characters")
            if total > TEXT_CAP:
                raise DataError(f"{path}: has more than {TEXT_CAP} characters; a .npz file may hold more")
            yield text

    lines = csv.reader(limited(), delimiter=delimiter)
    for values in lines:
        length = 0  # which counts what several lines hold that quotes make one
        yield lines.line_num, values


def _require_names(path: Path, columns: list[str]) -> None:
    if not columns:
        raise DataError(f"{path}: is empty; its first line must name the columns")
    for number, name in enumerate(columns, start=1):
        if not name:
            raise DataError(f"{path}: column {number} has no name; name it, or take it out if it only counts the rows")
        if columns.count(name) > 1:
            raise DataError(f"{path}: has {columns.count(name)} columns called {name!r}")
    if all(_parsed(name) is not None for name in columns):
        raise DataError(f"{path}: its first line must name the columns, but holds numbers ({columns[0]}, ...)")


def _label_column(path: Path, columns: list[str], label: str | None) -> int:
    if label is not None:
        if label not in columns:
            raise UnknownNameError(f"label column of {path}", label, columns)
        return columns.index(label)
    found = [name for name in columns if name.lower() in LABEL_NAMES]
    if len(found) != 1:
        which = (
            f"columns {' and '.join(found)} may hold the labels"
            if found
            else "no column is called label, class, target or y"
        )
        listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
        raise DataError(f"{path}: {which}; label must name the one that does (columns: {listed})")
    return columns.index(found[0])


def _number(path: Path, line: int, column: str, value: str) -> float:
    number = _parsed(value)
    if number is not None and abs(number) <= _LARGEST:
        return number
    wanted = "must be numbers" if number is None else "must be finite in 32 bits"
    if value.strip().lower() in MISSING:
        raise DataError(f"{path}: line {line} has no value in column {column!r}; fill it in or leave the line out")
    raise DataError(f"{path}: line {line} has {value!r} in column {column!r}, which {wanted}")


def _parsed(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)  # Python's own numbers may have underscores
    except ValueError:
        return None
