"""Dividing a user's data once: a part to train on, a part to validate on, and a test part that the search never sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError, DataError, at_least
from rlnas.user_data import UserData


@dataclass(frozen=True, eq=False)
class Division:
    """Three disjoint parts that together are the whole; the rows of each ascend.

    Args:
        train: rows that candidates and the winner are trained on, int64.
        validation: rows that candidates are compared and training is stopped on.
        test: rows that only the trained winner is scored on, once; may be empty.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def divide(data: UserData, *, seed: int = 0, validation: float = 0.2, test: float = 0.2) -> Division:
    """Divide at random, each class by the same fractions.

    Every class has at least one row in each part, and two in train where it has rows enough.

    Args:
        data: what to divide; its official test part, if it has one, is the test part.
        seed: of the division.
        validation: fraction of all rows; where there is an official test part, of the other rows.
        test: fraction of all rows; 0 for no test part. Unused where there is an official test part.

    Raises:
        ConfigurationError: if a fraction is not allowed or they leave nothing to train on.
        DataError: if a class has too few rows.
    """
    raise NotImplementedError
