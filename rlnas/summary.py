"""What a comparison found, in numbers: :class:`~rlnas.results.Results` to a summary that is plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlnas import statistics
from rlnas.results import Floats, Results

RESAMPLES = 10_000
"""Bootstrap resamples of a number at the end of the search."""
CURVE_RESAMPLES = 1_000
"""Bootstrap resamples of each point of a curve, of a profile, and of what compares two agents."""
LEVEL = 0.95
GRID = 60
"""Moments at which curves against wall time are taken."""
THRESHOLDS = 101
"""Of a performance profile."""


def budgets(designs: int) -> list[int]:
    """The numbers of designs at which tables show results."""
    return [n for n in (1, 3, 5, 10, 20, 50, 100, 200, 500) if n < designs] + [designs]


def summarise(results: Results, seed: int = 0) -> dict[str, Any]:
    """Every statistic of a comparison, with 95% intervals.

    A number with its interval is ``{"value", "low", "high"}``, of lists where it is a curve. A score is 1 minus
    normalised regret. The intervals' unit, level and resamples are under ``"interval"``, the numbers of evaluations at
    which agents are compared under ``"budgets"``, everything about one agent under ``"agents"`` and its name.

    Args:
        results: of the comparison.
        seed: of the bootstrap.

    Returns:
        A dict of plain floats, strings and lists.
    """
    runs, _, designs = results.shape
    shown = budgets(designs)
    scores = {agent: results.score(agent) for agent in results.agents}
    end = {agent: score[:, :, -1] for agent, score in scores.items()}
    thresholds = _thresholds(np.concatenate([matrix.ravel() for matrix in end.values()]))
    grid = _moments(results)
    agents = {
        agent: {
            **_curves(results, agent, scores[agent], seed),
            "against_seconds": _against_seconds(results, agent, grid, seed),
            "end": _end(end[agent], seed),
            "profile": _mean(end[agent][..., None] > thresholds, CURVE_RESAMPLES, seed),
            **_designs(results.design_accuracy(agent), seed),
            "chosen": {m: _chosen(values, seed) for m, values in results.chosen.get(agent, {}).items()},
            "tasks": {
                "best_so_far": results.best_so_far(agent)[:, :, -1].mean(0).tolist(),
                "normalised_regret": (1.0 - end[agent]).mean(0).tolist(),
            },
        }
        for agent in results.agents
    }
    for agent, rank in zip(agents, statistics.ranks(np.array(list(end.values()))), strict=True):
        agents[agent]["rank"] = _mean(rank, RESAMPLES, seed)
    for agent, versus in _pairs(scores, [n - 1 for n in shown], seed).items():
        agents[agent]["versus"] = versus
    return {
        "runs": runs,
        "evaluations": designs,
        "tasks": list(results.tasks),
        "best_is_known": results.best_is_known,
        "best": results.best.tolist(),
        "random_mean": results.mean.tolist(),
        "budgets": shown,
        "interval": {
            "level": LEVEL,
            "unit": statistics.resampled_unit(runs),
            "resamples": RESAMPLES,
            "curve_resamples": CURVE_RESAMPLES,
            "seed": seed,
        },
        "profile_thresholds": thresholds.tolist(),
        "agents": agents,
        "about": dict(results.about),
    }


AGGREGATES = {
    "iqm": statistics.interquartile_mean,
    "mean": statistics.mean,
    "median": statistics.median,
    "optimality_gap": statistics.optimality_gap,
}
"""What is said about the scores at the end, by its name in the summary."""


def by_rank(summary: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The agents of a summary, each with its part of it, from the best mean rank to the worst."""
    return sorted(summary["agents"].items(), key=lambda item: item[1]["rank"]["value"])


def baseline_of(summary: Mapping[str, Any]) -> str:
    """The agent that others are compared with: random search, or the first where nobody searches at random."""
    agents = summary["agents"]
    return "random" if "random" in agents else str(next(iter(agents)))


def _curves(results: Results, agent: str, score: Floats, seed: int) -> dict[str, Any]:
    """Curves against evaluations, of length D."""
    iqm, curve = statistics.interquartile_mean, np.moveaxis(score, 2, 0)
    return {
        "accuracy": results.design_accuracy(agent).mean((0, 1)).tolist(),
        "best_so_far": results.best_so_far(agent).mean((0, 1)).tolist(),
        "regret": results.regret(agent).mean((0, 1)).tolist(),
        "normalised_regret": _mean(1.0 - score, CURVE_RESAMPLES, seed),
        "iqm": _entry(iqm(curve), *statistics.stratified_bootstrap(iqm, curve, CURVE_RESAMPLES, seed, LEVEL)),
    }


def _against_seconds(results: Results, agent: str, grid: Floats, seed: int) -> dict[str, Any]:
    """Curves from the moment when every trial has its first design to the moment when the last trial ends."""
    seconds = results.elapsed(agent)
    moments = np.unique(np.clip(grid, seconds[:, :, 0].max(), seconds[:, :, -1].max()))
    best = statistics.at_seconds(results.best_so_far(agent), seconds, moments)
    regret = statistics.at_seconds(results.normalised_regret(agent), seconds, moments)
    return {
        "seconds": moments.tolist(),
        "best_so_far": best.mean((0, 1)).tolist(),
        "normalised_regret": _mean(regret, CURVE_RESAMPLES, seed),
    }


def _end(score: Floats, seed: int) -> dict[str, Any]:
    """The aggregates of the scores at the end, (R, T), all of the same resamples."""

    def aggregates(scores: Floats) -> Floats:
        return np.stack([aggregate(scores) for aggregate in AGGREGATES.values()])

    low, high = statistics.stratified_bootstrap(aggregates, score, RESAMPLES, seed, LEVEL)
    entries = zip(aggregates(score), low, high, strict=True)
    return {name: _entry(*entry) for name, entry in zip(AGGREGATES, entries, strict=True)}


def _designs(accuracy: Floats, seed: int) -> dict[str, Any]:
    """What the first and the last design of a trial are worth: whether an agent learns within it."""
    return {
        "first_design": float(accuracy[:, :, 0].mean()),
        "last_design": float(accuracy[:, :, -1].mean()),
        "last_minus_first": _mean(accuracy[:, :, -1] - accuracy[:, :, 0], RESAMPLES, seed),
    }


def _chosen(values: Floats, seed: int) -> dict[str, Any]:
    """A measure of the chosen designs, (R, T): overall and on each task, with the standard deviation over runs."""

    def deviation(of_runs: Floats) -> Floats:
        return np.std(of_runs, axis=0, ddof=1) if len(of_runs) > 1 else np.zeros(of_runs.shape[1:])

    return {
        **_mean(values, RESAMPLES, seed),
        "std": float(deviation(values.mean(1))),
        "tasks": {"mean": values.mean(0).tolist(), "std": deviation(values).tolist()},
    }


def _pairs(scores: Mapping[str, Floats], shown: list[int], seed: int) -> dict[str, dict[str, Any]]:
    """Each agent against each other: probability of improvement at the end, difference of mean scores at budgets."""
    pairs: dict[str, dict[str, Any]] = {agent: {} for agent in scores}
    agents = list(scores)
    for i, x in enumerate(agents):
        others = agents[i + 1 :]
        if not others:
            break
        differences = np.stack([(scores[x] - scores[y])[:, :, shown] for y in others], axis=2)
        lows, highs = statistics.mean_interval(differences, CURVE_RESAMPLES, seed, LEVEL)
        for y, value, low, high in zip(others, differences.mean((0, 1)), lows, highs, strict=True):
            ends = scores[x][:, :, -1], scores[y][:, :, -1]
            chance = statistics.probability_of_improvement(*ends)
            worst, most = statistics.probability_of_improvement_interval(*ends, CURVE_RESAMPLES, seed, LEVEL)
            pairs[x][y] = {
                "probability_of_improvement": {"value": chance, "low": worst, "high": most},
                "score_difference": _entry(value, low, high),
            }
            pairs[y][x] = {
                "probability_of_improvement": {"value": 1.0 - chance, "low": 1.0 - most, "high": 1.0 - worst},
                "score_difference": _entry(0.0 - value, 0.0 - high, 0.0 - low),
            }
    return pairs


def _moments(results: Results) -> Floats:
    """Moments common to all agents, evenly spaced on a logarithmic axis, up to the end of the slowest trial."""
    seconds = np.concatenate([array.ravel() for array in results.seconds.values()])
    positive = seconds[seconds > 0]
    return np.geomspace(positive.min(), positive.max(), GRID) if positive.size else np.zeros(1)


def _thresholds(scores: Floats) -> Floats:
    """Thresholds of a performance profile: from about the worst score (but for outliers) to the best possible."""
    return np.linspace(min(np.floor(20 * np.quantile(scores, 0.02)) / 20, 0.9), 1.0, THRESHOLDS)


def _mean(values: ArrayLike, resamples: int, seed: int) -> dict[str, Any]:
    values = np.asarray(values, dtype=np.float64)
    return _entry(values.mean((0, 1)), *statistics.mean_interval(values, resamples, seed, LEVEL))


def _entry(value: Floats, low: Floats, high: Floats) -> dict[str, Any]:
    return {"value": value.tolist(), "low": low.tolist(), "high": high.tolist()}
