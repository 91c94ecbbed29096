"""What Gymnasium asks of vector environments that reset in the step that ends an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError


def row_seeds(seed: int | Sequence[int | None] | None, count: int) -> list[int | None]:
    """A seed for each of ``count`` rows: row i has ``seed + i``.

    Raises:
        ConfigurationError: if there is a sequence of seeds of another length.
    """
    if seed is None or isinstance(seed, int | np.integer):
        return [None if seed is None else int(seed) + i for i in range(count)]
    if len(seed) != count:
        raise ConfigurationError(f"seed must be one number or {count}, one for each trial, got {len(seed)}")
    return [None if s is None else int(s) for s in seed]


def final_entries(
    last: NDArray[np.float32], columns: dict[str, NDArray[Any]], over: NDArray[np.bool_]
) -> dict[str, Any]:
    """``final_obs`` and ``final_info`` of the rows that are ``over``.

    Args:
        last: their last observations, (count, D); owned by what is returned.
        columns: their last info, one row each; changed where a row is not over.
        over: (count,).
    """
    observations = np.full(len(over), None, dtype=object)
    for row in np.flatnonzero(over).tolist():
        observations[row] = last[row]
    for column in columns.values():
        column[~over] = None if column.dtype == object else 0  # as Gymnasium's own vector environments leave it
    return with_masks({"final_obs": observations, "final_info": with_masks(columns, over)}, over)


def with_masks(info: dict[str, Any], present: NDArray[np.bool_]) -> dict[str, Any]:
    """Gymnasium's form: beside each entry, under its name with an underscore, the rows that have it."""
    return {**info, **{f"_{name}": present.copy() for name in info}}
