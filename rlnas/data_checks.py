"""Checks of features and labels that a user hands over."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import DataError

MAX_CLASSES = 1000
MAX_FEATURES = 10_000

_INTEGER = re.compile("0|-?[1-9][0-9]{0,18}")


def checked_features(where: str, x: NDArray[Any]) -> NDArray[np.float32]:
    """Features as float32.

    Raises:
        DataError: beginning with ``where``, if they are not (N, F) finite numbers or there are too many columns.
    """
    if x.ndim != 2 or len(x) == 0 or not 1 <= x.shape[1] <= MAX_FEATURES:
        raise DataError(f"{where}: features must have shape (N, F) with F in 1 .. {MAX_FEATURES}, got {x.shape}")
    if x.dtype.kind not in "biufO":
        raise DataError(f"{where}: features must be numbers, got {x.dtype}")
    try:
        with np.errstate(over="ignore"):
            features = x.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: features must be numbers ({error})") from None
    bad = np.argwhere(~np.isfinite(features))
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(f"{where}: features must be finite, found {x[row, column]} in row {row}, column {column}")
    return features


def require_labels(where: str, labels: NDArray[Any]) -> None:
    """Make sure that labels are numbers or texts of shape (N,) and none is missing.

    Raises:
        DataError: otherwise, beginning with ``where``.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "biufUSO":
        raise DataError(f"{where}: labels must be numbers or texts of shape (N,), got {labels.dtype} {labels.shape}")
    for row, value in enumerate(labels.tolist()):
        try:
            missing = value is None or bool(value != value) or value in ("", b"")
        except (TypeError, ValueError):  # pandas' NA, or an array, is neither equal nor unequal
            wanted = "labels must be numbers or texts"
            raise DataError(f"{where}: {wanted}, got {type(value).__name__} in row {row}") from None
        if missing:
            raise DataError(f"{where}: row {row} has no label")
        if labels.dtype.kind == "f" and not value.is_integer():
            raise DataError(f"{where}: labels must name classes, got the number {value} in row {row}")


def numbered(where: str, labels: NDArray[Any]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The classes that labels name, in their order, and the number of each label's class.

    Raises:
        DataError: see :func:`require_labels`.
    """
    require_labels(where, labels)
    values = labels.tolist()
    if labels.dtype.kind == "f":
        values = [int(value) for value in values]
    texts = [value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value) for value in values]
    found = set(texts)
    numeric = all(_INTEGER.fullmatch(text) for text in found)
    classes = tuple(sorted(found, key=int) if numeric else sorted(found))
    number = {name: k for k, name in enumerate(classes)}
    return classes, np.array([number[text] for text in texts], dtype=np.int64)


def tells_classes_apart(y: NDArray[np.int64], test: NDArray[np.bool_]) -> bool:
    """Whether a test part holds whole classes, as sets for few-shot learning have it."""
    return bool(np.isin(np.bincount(y, test) / np.bincount(y), (0, 1)).all())
