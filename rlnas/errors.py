"""The errors rlnas raises on purpose.

Every one of them is a :class:`RlnasError`; its message names the field, the value that was given and what is
allowed. The command line prints that message as one line and exits with status 2.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable
from typing import SupportsFloat, SupportsIndex


class RlnasError(Exception):
    """Base class of every error that rlnas raises on purpose."""


class ConfigurationError(RlnasError, ValueError):
    """An option has a value that is not allowed, or options contradict each other."""


class UnknownNameError(ConfigurationError):
    """A name (of an environment, a space, a task source, an agent ...) is not known."""

    def __init__(self, field: str, value: object, known: Iterable[str]) -> None:
        names = sorted(known)
        self._arguments = field, value, names
        close = difflib.get_close_matches(str(value), names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {field} {value!r}{hint} (known: {', '.join(names)})")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, object, list[str]]]:
        return type(self), self._arguments  # an exception is otherwise rebuilt from its message alone


class IllegalChoiceError(RlnasError, ValueError):
    """A list of choices is not a legal, complete architecture of its space."""


class DataError(RlnasError, ValueError):
    """A file or array of a user's data cannot serve: missing, corrupt, too small, NaN."""


class CheckpointError(RlnasError):
    """A saved agent or training state is truncated, altered, or made for something else."""


class CacheError(RlnasError):
    """A cache of evaluations cannot be opened, read or written."""


class StoreError(RlnasError):
    """An episode store cannot be opened, or an episode in it is damaged."""


class DiskFullError(StoreError):
    """Episodes could not be written because the disk is full; once there is room the same call will do."""


def one_of(field: str, value: str, known: Iterable[str]) -> str:
    """Return ``value`` if it is among ``known``.

    Raises:
        UnknownNameError: otherwise, with the nearest known name.
    """
    names = list(known)
    if value not in names:
        raise UnknownNameError(field, value, names)
    return value


def at_least(field: str, value: object, minimum: int) -> int:
    """Return ``value`` if it is an integer no smaller than ``minimum``.

    Raises:
        ConfigurationError: otherwise.
    """
    whole = None if isinstance(value, bool) or not isinstance(value, SupportsIndex) else operator.index(value)
    if whole is None or whole < minimum:
        raise ConfigurationError(f"{field} must be an integer >= {minimum}, got {value!r}")
    return whole


def in_range(field: str, value: object, low: float, high: float = math.inf) -> float:
    """Return ``value`` as a float if it is a finite number no smaller than ``low`` and no larger than ``high``.

    Raises:
        ConfigurationError: otherwise.
    """
    number = _number(value)
    if number is None or not low <= number <= high:
        allowed = f"a number >= {low:g}" if high == math.inf else f"a number in {low:g} .. {high:g}"
        raise ConfigurationError(f"{field} must be {allowed}, got {value!r}")
    return number


def positive(field: str, value: object) -> float:
    """Return ``value`` as a float if it is a finite number above 0.

    Raises:
        ConfigurationError: otherwise.
    """
    number = _number(value)
    if number is None or number <= 0:
        raise ConfigurationError(f"{field} must be a positive number, got {value!r}")
    return number


def _number(value: object) -> float | None:
    """A finite number as a float, None for anything else."""
    if isinstance(value, bool | str | bytes) or not isinstance(value, SupportsFloat):
        return None
    number = float(value)
    return number if math.isfinite(number) else None
