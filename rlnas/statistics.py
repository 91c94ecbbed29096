"""Statistics of a comparison over several runs and tasks, as pure functions of arrays.

Interquartile mean, optimality gap, stratified bootstrap, performance profiles and probability of improvement are those
of Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice", and of their rliable.

``R`` runs on each of ``T`` tasks give a matrix of scores (..., R, T); leading axes (numbers of evaluations, say) are
treated one by one. An interval resamples the runs within each task: it says how far other seeds on *these* tasks would
move the number. A single run on each task tells nothing about that, so the tasks are resampled instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Interval = tuple[Floats, Floats]

ELEMENTS = 1_000_000
"""How many resampled numbers are held at a time."""


def interquartile_mean(scores: ArrayLike) -> Floats:
    """Mean of the middle half of all runs on all tasks: robust as a median, and it wastes less.

    Args:
        scores: (..., R, T).

    Returns:
        (...): without the lowest and the highest ``int(R * T / 4)`` scores.
    """
    scores = np.asarray(scores, dtype=np.float64)
    ordered = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)  # with SIMD, faster than two partitions
    cut = ordered.shape[-1] // 4
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(-1))


def mean(scores: ArrayLike) -> Floats:
    """Mean over runs and tasks, (..., R, T) to (...)."""
    return np.asarray(np.asarray(scores, dtype=np.float64).mean(axis=(-2, -1)))


def median(scores: ArrayLike) -> Floats:
    """Median over the tasks of each task's mean over its runs, (..., R, T) to (...)."""
    return np.asarray(np.median(np.asarray(scores, dtype=np.float64).mean(axis=-2), axis=-1))


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> Floats:
    """How far runs fall short of ``target`` on average, where more than the target counts as the target.

    Args:
        scores: (..., R, T).
        target: a score beyond which more is worth nothing.

    Returns:
        (...), 0 at best.
    """
    return np.asarray(target - np.minimum(scores, target).mean(axis=(-2, -1)))


def resampled_unit(runs: int) -> str:
    """What intervals resample, in words."""
    return "runs within tasks" if runs > 1 else "tasks"


def stratified_bootstrap(
    statistic: Callable[[Floats], Floats],
    scores: ArrayLike,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a statistic; runs are resampled within each task (with one run: tasks).

    Args:
        statistic: a function of (..., R, T) that gives (...), such as :func:`interquartile_mean`, or several, stacked.
        scores: (..., R, T).
        resamples: how many.
        seed: of the resampling.
        level: of confidence.

    Returns:
        Lower and upper ends, both (...).
    """
    scores = np.asarray(scores, dtype=np.float64)
    *leading, runs, tasks = scores.shape
    flat = scores.reshape(*leading, runs * tasks)
    parts = _draws(runs, tasks, resamples, seed, int(np.prod(leading)))
    found = [statistic(flat.take(drawn, axis=-1)) for drawn in parts]  # (..., b, R, T) to (..., b)
    return _ends(np.concatenate(found, axis=-1), level, axis=-1)


def mean_interval(values: ArrayLike, resamples: int = 10_000, seed: int = 0, level: float = 0.95) -> Interval:
    """The interval of :func:`stratified_bootstrap` for means, of many quantities at once.

    All quantities of a run are resampled together.

    Args:
        values: (R, T, ...).
        resamples: how many.
        seed: of the resampling.
        level: of confidence.

    Returns:
        Lower and upper ends of the means over runs and tasks, both (...).
    """
    values = np.asarray(values, dtype=np.float64)
    runs, tasks, *trailing = values.shape
    flat = values.reshape(runs * tasks, -1)
    centre = flat.mean(0)  # subtracted, so that equal values have an interval without width
    found = [
        _counts(drawn, runs * tasks) @ (flat - centre) / (runs * tasks)
        for drawn in _draws(runs, tasks, resamples, seed, 1)
    ]
    low, high = _ends(np.concatenate(found), level, axis=0)
    return (centre + low).reshape(trailing), (centre + high).reshape(trailing)


def crossed_means(values: ArrayLike, resamples: int = 10_000, seed: int = 0) -> Floats:
    """Means of resamples of runs *and* of tasks: how far other seeds on other tasks would move a mean.

    The same runs are drawn for all tasks, because a run's agent is the same on all of them: the pigeonhole bootstrap
    (Owen 2007, https://doi.org/10.1214/07-AOAS122), which is on the careful side.

    Args:
        values: (R, T, ...).
        resamples: how many, B.
        seed: of the resampling.

    Returns:
        (B, ...).
    """
    values = np.asarray(values, dtype=np.float64)
    runs, tasks, *trailing = values.shape
    rng = np.random.default_rng(seed)
    of_runs, of_tasks = (_counts(rng.integers(n, size=(resamples, n)), n) / n for n in (runs, tasks))
    flat = values.reshape(runs, tasks, -1)
    centre = flat.mean((0, 1))  # subtracted, so that equal values have an interval without width
    found = [((of_runs @ quantity) * of_tasks).sum(1) for quantity in np.moveaxis(flat - centre, 2, 0)]
    return np.asarray((np.stack(found, axis=1) + centre).reshape(resamples, *trailing))


def crossed_interval(values: ArrayLike, resamples: int = 10_000, seed: int = 0, level: float = 0.95) -> Interval:
    """The percentile interval of :func:`crossed_means`: lower and upper ends, both of the trailing shape."""
    return _ends(crossed_means(values, resamples, seed), level, axis=0)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Share of runs that score more than each threshold.

    Args:
        scores: (R, T).
        thresholds: (K,).

    Returns:
        (K,), never rising. :func:`mean_interval` of ``scores[..., None] > thresholds`` gives its pointwise intervals.
    """
    return np.asarray((np.asarray(scores)[..., None] > np.asarray(thresholds)).mean(axis=(0, 1)))


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """Chance that a run of X scores more than one of Y on a task drawn at random: Mann and Whitney's U by R R'.

    Args:
        x: scores of X, (R, T).
        y: of Y on the same tasks, (R', T).

    Returns:
        The mean over tasks of the share of pairs of runs that X wins; a tie is half a win.
    """
    return float(_wins(np.asarray(x), np.asarray(y)).mean())


def probability_of_improvement_interval(
    x: ArrayLike, y: ArrayLike, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Stratified bootstrap interval of :func:`probability_of_improvement`: X's and Y's runs are resampled apart.

    With one run on each task, tasks are resampled, the same for X and Y.

    Args:
        x: scores of X, (R, T).
        y: of Y on the same tasks, (R, T).
        resamples: how many.
        seed: of the resampling.
        level: of confidence.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    runs, tasks = x.shape
    wins = _wins(x, y)
    if runs == 1:
        low, high = mean_interval(wins.reshape(1, tasks), resamples, seed, level)
        return float(low), float(high)
    found = []
    twice = (_draws(runs, tasks, resamples, s, 1) for s in np.random.SeedSequence(seed).spawn(2))
    for drawn in zip(*twice, strict=True):
        of_x, of_y = (_counts(d, runs * tasks).reshape(-1, runs, tasks).transpose(2, 0, 1) for d in drawn)
        found.append((of_x @ wins * of_y).sum((0, 2)) / wins.size)
    low, high = _ends(np.concatenate(found), level, axis=0)
    return float(low), float(high)


def ranks(scores: ArrayLike) -> Floats:
    """Rank of every agent among all in the same run on the same task: 1 is best, ties share the mean of their ranks.

    Args:
        scores: (A, R, T).

    Returns:
        (A, R, T).
    """
    return np.asarray(rankdata(-np.asarray(scores, dtype=np.float64), axis=0, method="average"))


def at_seconds(curves: Floats, seconds: Floats, grid: Floats) -> Floats:
    """Curves over designs as step functions of time: the value after the last design that had ended by then.

    Args:
        curves: (R, T, D).
        seconds: at which each design ended, never falling, (R, T, D).
        grid: moments, (G,).

    Returns:
        (R, T, G); before its first design has ended, a trial has the value of that design.
    """
    runs, tasks, designs = curves.shape
    ended = np.array([np.searchsorted(row, grid, side="right") for row in seconds.reshape(-1, designs)])
    return np.take_along_axis(curves, np.maximum(ended - 1, 0).reshape(runs, tasks, -1), axis=2)


def _draws(
    runs: int, tasks: int, resamples: int, seed: int | np.random.SeedSequence, copies: int
) -> Iterator[NDArray[np.intp]]:
    """Resamples of a (R, T) matrix as flat indices (b, R, T), in parts of about ``ELEMENTS / copies`` numbers."""
    rng = np.random.default_rng(seed)
    part = max(1, ELEMENTS // (runs * tasks * copies))
    for start in range(0, resamples, part):
        size = (min(part, resamples - start), runs, tasks)
        if runs > 1:
            yield rng.integers(runs, size=size) * tasks + np.arange(tasks)
        else:
            yield rng.integers(tasks, size=size)


def _counts(drawn: NDArray[np.intp], cells: int) -> Floats:
    """How often each of ``cells`` cells was drawn, (b, R, T) to (b, cells)."""
    rows = len(drawn)
    offset = np.arange(rows)[:, None] * cells
    times = np.bincount((drawn.reshape(rows, -1) + offset).ravel(), minlength=rows * cells)
    return times.reshape(rows, cells).astype(np.float64)


def _wins(x: Floats, y: Floats) -> Floats:
    """For each task, whether each run of X (rows) beats each of Y (columns), (T, R, R'); a tie is half."""
    of_x, of_y = x.T[:, :, None], y.T[:, None, :]
    return np.asarray((of_x > of_y) + 0.5 * (of_x == of_y))


def _ends(found: Floats, level: float, axis: int) -> Interval:
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=axis)
    return low, high
