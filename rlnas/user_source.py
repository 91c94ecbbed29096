"""Tasks to search on, made of a user's data: trained on some of its train part, scored on its validation part."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.data_division import Division, divide, stratified_order
from rlnas.errors import ConfigurationError, at_least
from rlnas.preprocessing import preprocessing_of
from rlnas.task import FewShotTask, TaskSource
from rlnas.user_data import UserData

_CACHE_BYTES = 2**28

MAX_QUERIES = 1000
"""A search task scores on no more rows than that."""


def search_task(data: UserData, division: Division, examples: int | None, seed: int = 0) -> FewShotTask:
    """The task on which candidates are compared: so many examples of the train part, and the validation part.

    Args:
        data: the data.
        division: its division; the test part is not looked at.
        examples: size of the support set; None, or more than there are, for the whole train part. Classes are as
            frequent in it as in the train part, but none is missing; that of fewer examples is part of that of more.
        seed: of which examples are taken.

    Returns:
        A task called ``NAME:EXAMPLES/0`` (``NAME:all/0`` for the whole train part) whose query set is the validation
        part, or :data:`MAX_QUERIES` rows of it.

    Raises:
        ConfigurationError: if there are fewer examples than classes.
    """
    at_least("seed", seed, 0)
    count = _count(data, division, examples)
    support = _beginning(data, division.train, count, np.random.default_rng([seed, 1]))
    query = _beginning(data, division.validation, min(MAX_QUERIES, len(division.validation)), np.random.default_rng(0))
    show = preprocessing_of(data, division.train)
    return FewShotTask(
        name=f"{data.name}:{_split(count, division)}/0",
        family=data.name,
        support_x=show(data.x[support]),
        support_y=data.y[support],
        query_x=show(data.x[query]),
        query_y=data.y[query],
    )


class UserSource(TaskSource):
    """Search tasks of one user's data: a split for each number of examples, with one task.

    Args:
        data: the data.
        examples: the numbers of examples, see :func:`search_task`; a split is called as its number, ``all`` for None.
        seed: of the division and of which examples are taken.
        validation: see :func:`~rlnas.data_division.divide`.
        test: see :func:`~rlnas.data_division.divide`.

    Attributes:
        division: of the data.

    Raises:
        ConfigurationError: if an option is not allowed.
        DataError: if a class has too few examples.
    """

    def __init__(
        self,
        data: UserData,
        examples: Sequence[int | None] = (None,),
        *,
        seed: int = 0,
        validation: float = 0.2,
        test: float = 0.2,
    ) -> None:
        if not examples:
            raise ConfigurationError("examples must have a number of examples for each split, got none")
        self.data = data
        self.division = divide(data, seed=seed, validation=validation, test=test)
        self._seed, self._fractions = seed, {"validation": validation, "test": test}
        counts = [_count(data, self.division, number) for number in examples]
        self._examples = {_split(count, self.division): count for count in counts}
        task_bytes = (max(counts) + MAX_QUERIES) * prod(data.input_shape) * np.dtype(np.float32).itemsize
        self.cache_size = int(np.clip(_CACHE_BYTES // task_bytes, 1, TaskSource.cache_size))

    @property
    def name(self) -> str:
        return self.data.name

    @property
    def splits(self) -> dict[str, int]:
        return dict.fromkeys(self._examples, 1)

    def spec(self) -> dict[str, Any]:
        origin = {field: value for field, value in (self.data.origin or {}).items() if value is not None}
        examples = [None if split == "all" else count for split, count in self._examples.items()]
        kind = "user" if origin else "arrays"
        options = {"examples": examples, "seed": self._seed, **self._fractions}
        return {"kind": kind, **origin, **options, "digest": self.data.digest}

    def _build(self, split: str, index: int) -> FewShotTask:
        return search_task(self.data, self.division, self._examples[split], self._seed)


def _count(data: UserData, division: Division, examples: int | None) -> int:
    """The size of the support set."""
    count = len(division.train) if examples is None else at_least("examples", examples, 1)
    if count < data.ways:
        raise ConfigurationError(f"examples must be one for each of {data.ways} classes at least, got {examples}")
    return min(count, len(division.train))


def _split(count: int, division: Division) -> str:
    return "all" if count == len(division.train) else str(count)


def _beginning(data: UserData, rows: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """So many of some rows, the classes about as frequent as in all of them; fewer are part of more."""
    return np.sort(rows[stratified_order(data.y[rows], rng)[:count]])
