"""Dividing a user's data once: to train on, to validate on, and a test part that the search never sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError, DataError, at_least
from rlnas.user_data import UserData

_STREAM = 0


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
    at_least("seed", seed, 0)
    official = data.test is not None
    for field, fraction, lowest in (("validation", validation, "above 0"), ("test", test, "at least 0")):
        if not 0 <= fraction < 1 or (fraction == 0 and field == "validation"):
            raise ConfigurationError(f"{field} must be a fraction {lowest} and below 1, got {fraction!r}")
    if not official and validation + test >= 1:
        raise ConfigurationError(
            f"validation and test must leave something to train on, got {validation!r} and {test!r}"
        )
    fractions = (validation, 0.0 if official else test)
    needed = 1 + sum(fraction > 0 for fraction in fractions)
    rng = np.random.default_rng([seed, _STREAM])
    free = np.ones(len(data.y), dtype=np.bool_) if data.test is None else ~data.test
    part = np.where(free, 0, 2)
    for label, name in enumerate(data.classes):
        members = np.flatnonzero((data.y == label) & free)
        if len(members) < needed:
            beside = " outside the official test part" if official else ""
            raise DataError(
                f"{data.name}: class {name!r} has {len(members)} examples{beside}, needs at least {needed} "
                f"(one for each of train, validation{' and test' if needed == 3 else ''})"
            )
        sizes = _sizes(len(members), fractions)
        part[rng.permutation(members)] = np.repeat([0, 1, 2], [len(members) - sum(sizes), *sizes])
    train, held, tested = (np.flatnonzero(part == number) for number in range(3))
    return Division(train, held, tested)


def stratified_order(y: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order of rows of which every beginning has the classes about as frequent as the whole has them.

    Args:
        y: the class of each row, of shape (N,).
        rng: where the order is drawn from.

    Returns:
        The rows 0 .. N - 1, of shape (N,); one of each class comes first.
    """
    shuffled = rng.permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    counts = np.bincount(y)
    rank = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.where(rank == 0, -1.0, (rank + 0.5) / np.repeat(counts, counts))
    # Ties, as between classes of one size, are broken at random, lest the first classes be favoured.
    return by_class[np.lexsort((rng.random(len(y)), place))]


def _sizes(count: int, fractions: tuple[float, float]) -> list[int]:
    """Of ``count`` rows those for validation and test: at least one of each, and two left for train if there are."""
    sizes = [max(1, round(count * fraction)) if fraction else 0 for fraction in fractions]
    left = min(2, count - sum(size > 0 for size in sizes))
    while count - sum(sizes) < left:
        sizes[int(np.argmax(sizes))] -= 1
    return sizes
