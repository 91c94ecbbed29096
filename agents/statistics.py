"""Statistics of search, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.reward import SMALLEST_DEVIATION

from .search_run import SearchRun


def summarise(
    runs: Mapping[str, SearchRun], random: str, fresh: Mapping[str, NDArray[np.float64]], seed: int = 0
) -> dict[str, Any]:
    """Curves, regret and intervals of several agents on the same tasks, as JSON.

    The best accuracy possible on a live task is unknown; regret is to the best that any of these agents found there,
    whatever the seed. Normalised regret divides by that best minus the mean of the random designs on the task, taken as
    :data:`~rlnas.reward.SMALLEST_DEVIATION` at least: where every design is as good, what is missed is noise.

    Intervals are over tasks: repetitions of a task are averaged first, because they are not new tasks.

    Args:
        runs: each agent's run; all on the same tasks with equally many designs.
        random: the agent among them whose designs are random.
        fresh: accuracies of each agent's chosen designs under seeds that no search saw, (trials,).
        seed: of the bootstrap.
    """
    _, task = np.unique(runs[random].tasks, return_inverse=True)
    repeats = [task == t for t in range(task.max() + 1)]  # of each task, its rows: one for each seed
    best = np.array([max(run.accuracy[rows].max() for run in runs.values()) for rows in repeats])[task, None]
    mean = np.array([runs[random].accuracy[rows].mean() for rows in repeats])[task, None]
    spread = np.maximum(best - mean, SMALLEST_DEVIATION)

    def interval(values: NDArray[np.float64]) -> tuple[float, float]:
        return bootstrap_interval(np.array([values[rows].mean() for rows in repeats]), seed)

    def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float]:
        low, high = interval(one - other)
        return {"mean": float((one - other).mean()), "low": low, "high": high}

    summary: dict[str, Any] = {}
    for name, run in runs.items():
        regret = best - run.best_so_far
        summary[name] = {
            "accuracy": run.accuracy.mean(0).tolist(),
            "best_so_far": run.best_so_far.mean(0).tolist(),
            "best_so_far_interval": [list(interval(column)) for column in run.best_so_far.T],
            "regret": regret.mean(0).tolist(),
            "normalised_regret": (regret / spread).mean(0).tolist(),
            "normalised_regret_interval": [list(interval(column)) for column in (regret / spread).T],
            "first_design": float(run.accuracy[:, 0].mean()),
            "last_design": float(run.accuracy[:, -1].mean()),
            "last_minus_first": difference(run.accuracy[:, -1], run.accuracy[:, 0]),
            "chosen_on_fresh_seeds": float(fresh[name].mean()),
            "chosen_minus_random": difference(fresh[name], fresh[random]),
        }
    return summary


def bootstrap_interval(
    values: NDArray[np.float64], seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979).

    Args:
        values: of shape (n,).
        seed: of the resampling.
        resamples: how many.
        level: of confidence.
    """
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
