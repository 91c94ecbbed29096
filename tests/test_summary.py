"""The summary of a comparison: plain JSON, with the numbers that the arrays say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rlnas.results import Results
from rlnas.statistics import interquartile_mean, probability_of_improvement
from rlnas.summary import baseline_of, budgets, by_rank, summarise

from .comparison import make_results


def intervals(part: Any) -> Iterator[dict[str, Any]]:
    """Every number with an interval, wherever it stands."""
    if isinstance(part, dict):
        if {"value", "low", "high"} <= part.keys():
            yield part
        for entry in part.values():
            yield from intervals(entry)


def test_a_summary_is_plain_json_and_the_same_again() -> None:
    results = make_results()
    summary = summarise(results)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summarise(results) == summary
    assert summarise(results, seed=1) != summary


def test_numbers_are_those_of_the_arrays() -> None:
    results = make_results()
    summary = summarise(results)
    row = summary["agents"]["rl2"]
    score = results.score("rl2")
    assert row["best_so_far"] == pytest.approx(results.best_so_far("rl2").mean((0, 1)))
    assert row["normalised_regret"]["value"] == pytest.approx(1 - score.mean((0, 1)))
    assert row["iqm"]["value"] == pytest.approx([float(interquartile_mean(score[:, :, d])) for d in range(6)])
    assert row["end"]["iqm"]["value"] == pytest.approx(row["iqm"]["value"][-1])
    assert row["end"]["optimality_gap"]["value"] == pytest.approx(row["normalised_regret"]["value"][-1])
    accuracy = results.accuracy["rl2"]
    assert row["last_minus_first"]["value"] == pytest.approx((accuracy[:, :, -1] - accuracy[:, :, 0]).mean())
    assert row["last_design"] - row["first_design"] == pytest.approx(row["last_minus_first"]["value"])
    versus = row["versus"]["random"]
    chance = probability_of_improvement(score[:, :, -1], results.score("random")[:, :, -1])
    assert versus["probability_of_improvement"]["value"] == pytest.approx(chance)
    difference = (score - results.score("random")).mean((0, 1))
    assert versus["score_difference"]["value"] == pytest.approx(difference[[n - 1 for n in summary["budgets"]]])
    assert row["tasks"]["best_so_far"] == pytest.approx(results.best_so_far("rl2")[:, :, -1].mean(0))


def test_chosen_designs_have_their_mean_and_deviation_over_runs() -> None:
    results = make_results()
    chosen = results.chosen["rl2"]["test accuracy"]
    entry = summarise(results)["agents"]["rl2"]["chosen"]["test accuracy"]
    assert entry["value"] == pytest.approx(chosen.mean())
    assert entry["std"] == pytest.approx(chosen.mean(1).std(ddof=1))
    assert entry["tasks"]["mean"] == pytest.approx(chosen.mean(0))
    assert entry["tasks"]["std"] == pytest.approx(chosen.std(0, ddof=1))


def test_what_compares_two_agents_is_the_same_from_the_other_side() -> None:
    agents = summarise(make_results())["agents"]
    one, other = agents["rl2"]["versus"]["evolution"], agents["evolution"]["versus"]["rl2"]
    for name, total in (("probability_of_improvement", 1.0), ("score_difference", 0.0)):
        for end, opposite in (("value", "value"), ("low", "high"), ("high", "low")):
            assert np.add(one[name][end], other[name][opposite]) == pytest.approx(total)


@pytest.mark.parametrize("runs", [1, 3])
def test_every_value_lies_within_its_interval(runs: int) -> None:
    summary = summarise(make_results(runs=runs))
    found = list(intervals(summary["agents"]))
    assert len(found) > 30
    for entry in found:
        low, value, high = (np.array(entry[key]) for key in ("low", "value", "high"))
        assert (low <= value + 1e-12).all()
        assert (value <= high + 1e-12).all()
    assert summary["interval"]["unit"] == ("runs within tasks" if runs > 1 else "tasks")


def test_mean_ranks_of_all_agents_average_to_the_middle() -> None:
    summary = summarise(make_results())
    ranks = [row["rank"]["value"] for _, row in by_rank(summary)]
    assert np.mean(ranks) == pytest.approx(2.0)
    assert ranks == sorted(ranks)


def test_curves_against_time_begin_when_all_have_a_design_and_end_with_the_last_trial() -> None:
    results = make_results()
    row = summarise(results)["agents"]["rl2"]
    timed, seconds = row["against_seconds"], results.seconds["rl2"]
    assert timed["seconds"][0] == pytest.approx(seconds[:, :, 0].max())
    assert timed["seconds"][-1] == pytest.approx(seconds[:, :, -1].max())
    assert timed["best_so_far"][-1] == pytest.approx(row["best_so_far"][-1])
    assert np.all(np.diff(timed["seconds"]) > 0)
    assert np.all(np.diff(timed["normalised_regret"]["value"]) <= 1e-12)


def test_equal_scores_have_no_winner_and_no_width() -> None:
    same = np.full((3, 2, 4), 0.7)
    results = Results(
        ("a", "b"), {"x": same, "y": same}, {"x": same * 0, "y": same * 0}, np.full(2, 0.7), np.full(2, 0.7), True
    )
    summary = summarise(results)
    row = summary["agents"]["x"]
    assert (row["rank"]["value"], row["end"]["iqm"]["value"]) == (1.5, 1.0)
    assert row["versus"]["y"]["probability_of_improvement"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    for entry in intervals(summary["agents"]):
        np.testing.assert_array_equal(entry["low"], entry["high"])


def test_one_design_of_one_agent_is_enough() -> None:
    summary = summarise(make_results(agents=("only",), runs=1, tasks=1, designs=1))
    assert summary["budgets"] == [1]
    assert summary["agents"]["only"]["versus"] == {}
    assert summary["agents"]["only"]["chosen"]["test accuracy"]["std"] == 0.0


def test_the_baseline_is_random_search_or_the_first() -> None:
    assert baseline_of({"agents": {"rl2": {}, "random": {}}}) == "random"
    assert baseline_of({"agents": {"rl2": {}, "tpe": {}}}) == "rl2"


def test_budgets_end_with_all_designs() -> None:
    assert budgets(50) == [1, 3, 5, 10, 20, 50]
    assert budgets(7) == [1, 3, 5, 7]
