"""Tasks to search on, made of a user's data: trained on some of its train part, scored on its validation part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlnas.data_division import Division
from rlnas.task import FewShotTask, TaskSource
from rlnas.user_data import UserData

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
    raise NotImplementedError


class UserSource(TaskSource):
    """Search tasks of one user's data: a split for each number of examples, with one task.

    Args:
        data: the data.
        division: its division; None for :func:`~rlnas.data_division.divide` with the defaults.
        examples: the numbers of examples; a split is called as its number, ``all`` for None.
        seed: see :func:`search_task`.
    """

    def __init__(
        self,
        data: UserData,
        division: Division | None = None,
        examples: Sequence[int | None] = (None,),
        seed: int = 0,
    ) -> None:
        raise NotImplementedError

    @property
    def name(self) -> str:
        return self.data.name

    @property
    def splits(self) -> dict[str, int]:
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        raise NotImplementedError

    def _build(self, split: str, index: int) -> FewShotTask:
        raise NotImplementedError
