"""Statistics of runs and tasks: against hand computation, scipy, theory and what must not change them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.stats import bootstrap, mannwhitneyu, trim_mean

from rlnas.statistics import (
    at_seconds,
    crossed_interval,
    crossed_means,
    interquartile_mean,
    mean,
    mean_interval,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    probability_of_improvement_interval,
    ranks,
    resampled_unit,
    stratified_bootstrap,
)

Matrix = NDArray[np.float64]
matrices = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.floats(-3, 1))
pairs = array_shapes(min_dims=2, max_dims=2, max_side=5).flatmap(
    lambda shape: st.tuples(*[arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))] * 2)
)


def make_scores(runs: int = 10, tasks: int = 20, seed: int = 0) -> Matrix:
    """Runs that scatter about their task's own level."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 10, tasks) + rng.standard_normal((runs, tasks))


@given(matrices)
def test_the_interquartile_mean_is_a_mean_trimmed_by_a_quarter_at_each_end(scores: Matrix) -> None:
    assert interquartile_mean(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None), abs=1e-12)


def test_aggregates_by_hand() -> None:
    scores = np.array([[0.0, 1.0, 2.0, -40.0], [3.0, 4.0, 5.0, 60.0]])
    assert interquartile_mean(scores) == (1 + 2 + 3 + 4) / 4
    assert mean(scores) == 35 / 8
    assert median(scores) == np.median([1.5, 2.5, 3.5, 10.0])
    assert optimality_gap(scores) == pytest.approx(1 - (0 + 1 + 1 - 40 + 1 + 1 + 1 + 1) / 8)
    assert optimality_gap(scores, target=3.0) == pytest.approx(3 - (0 + 1 + 2 - 40 + 3 + 3 + 3 + 3) / 8)


@given(matrices, st.randoms(use_true_random=False))
def test_aggregates_do_not_depend_on_the_order_of_tasks_or_of_a_tasks_runs(scores: Matrix, random: Any) -> None:
    shuffled = scores[:, random.sample(range(scores.shape[1]), scores.shape[1])].copy()
    shuffled[:, 0] = shuffled[::-1, 0]
    for statistic in (interquartile_mean, mean, median, optimality_gap):
        assert statistic(shuffled) == pytest.approx(statistic(scores), abs=1e-12)
    assert scores.min() - 1e-12 <= interquartile_mean(scores) <= scores.max() + 1e-12


@pytest.mark.parametrize("statistic", [interquartile_mean, mean, median, optimality_gap])
def test_leading_axes_are_treated_one_by_one(statistic: Any) -> None:
    stack = np.stack([make_scores(seed=seed) for seed in range(3)])
    np.testing.assert_allclose(statistic(stack), [statistic(scores) for scores in stack])
    low, high = stratified_bootstrap(statistic, stack, resamples=200, seed=4)
    for scores, *ends in zip(stack, low, high, strict=True):
        np.testing.assert_allclose(stratified_bootstrap(statistic, scores, resamples=200, seed=4), ends)


def test_an_interval_of_one_task_is_scipys() -> None:
    scores = make_scores(runs=12, tasks=1)
    ours = stratified_bootstrap(interquartile_mean, scores, resamples=20_000, seed=1)

    def trimmed(sample: Matrix, axis: int) -> Any:
        return trim_mean(sample, 0.25, axis=axis)

    theirs = bootstrap((scores[:, 0],), trimmed, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2))
    np.testing.assert_allclose(ours, tuple(theirs.confidence_interval), atol=0.05)


def test_an_interval_by_hand() -> None:
    """Two runs, 0 and 1: a resample's mean is 0, 1/2, 1/2 or 1, each as likely."""
    scores = np.array([[0.0], [1.0]])
    assert stratified_bootstrap(mean, scores, level=0.95) == (0.0, 1.0)
    assert stratified_bootstrap(mean, scores, level=0.4) == (0.5, 0.5)


def test_runs_are_resampled_within_their_tasks() -> None:
    """The spread between tasks is no uncertainty: only the runs' own spread moves the mean."""
    scores = make_scores(runs=10, tasks=20)
    deviation = np.sqrt((scores.var(axis=0) / 10).sum()) / 20
    low, high = stratified_bootstrap(mean, scores, resamples=20_000)
    assert low == pytest.approx(scores.mean() - 1.96 * deviation, abs=0.05 * deviation)
    assert high == pytest.approx(scores.mean() + 1.96 * deviation, abs=0.05 * deviation)
    constant = np.tile(np.arange(5.0), (4, 1))
    for statistic in (interquartile_mean, mean, median):
        assert stratified_bootstrap(statistic, constant, resamples=100) == (statistic(constant), statistic(constant))


def test_tasks_are_resampled_where_each_has_one_run() -> None:
    scores = make_scores(runs=1, tasks=30)
    deviation = scores.std() / np.sqrt(30)
    low, high = stratified_bootstrap(mean, scores, resamples=20_000)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.05)
    assert (resampled_unit(1), resampled_unit(2)) == ("tasks", "runs within tasks")


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    levels = np.linspace(0, 5, 20)
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(100):
        low, high = stratified_bootstrap(mean, levels + rng.standard_normal((10, 20)), resamples=400, seed=seed)
        covered += int(low <= levels.mean() <= high)
    assert 88 <= covered <= 99


def test_a_seed_gives_its_interval_again_and_another_seed_another() -> None:
    scores = make_scores()
    first = stratified_bootstrap(interquartile_mean, scores, resamples=300, seed=1)
    assert stratified_bootstrap(interquartile_mean, scores, resamples=300, seed=1) == first
    assert stratified_bootstrap(interquartile_mean, scores, resamples=300, seed=2) != first


def test_many_resamples_take_little_time() -> None:
    scores = make_scores(runs=10, tasks=20)
    start = time.process_time()
    stratified_bootstrap(interquartile_mean, scores, resamples=50_000)
    assert time.process_time() - start < 2.0  # about 0.2 s


def test_intervals_of_many_means_are_those_of_each() -> None:
    values = np.random.default_rng(0).random((6, 4, 3, 2))
    low, high = mean_interval(values, resamples=500, seed=3)
    assert low.shape == high.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            alone = stratified_bootstrap(mean, values[:, :, i, j], resamples=500, seed=3)
            np.testing.assert_allclose((low[i, j], high[i, j]), alone)


def test_equal_values_have_an_interval_without_width() -> None:
    assert mean_interval(np.full((7, 3), 0.1), resamples=50) == (0.1, 0.1)


def test_a_performance_profile_by_hand() -> None:
    scores = np.array([[0.2, 0.8], [0.5, 1.0]])
    np.testing.assert_array_equal(performance_profile(scores, [0.0, 0.2, 0.5, 0.9, 1.0]), [1.0, 0.75, 0.5, 0.25, 0.0])


@given(matrices)
def test_a_profile_falls_and_its_area_is_the_mean(scores: Matrix) -> None:
    thresholds = np.linspace(-3, 1, 4001)
    profile = performance_profile(scores, thresholds)
    assert (np.diff(profile) <= 0).all()
    assert -3 + profile[:-1].sum() * 0.001 == pytest.approx(scores.mean(), abs=0.002)


def test_a_probability_of_improvement_by_hand() -> None:
    x = np.array([[0.0, 1.0], [1.0, 1.0]])
    y = np.array([[0.5, 1.0], [0.0, 2.0]])
    # Task 1: of (0, 1) against (0.5, 0): 0 loses and ties, 1 wins twice. Task 2: 1 ties with 1 and loses to 2, twice.
    assert probability_of_improvement(x, y) == (2.5 / 4 + 1 / 4) / 2


def test_a_probability_of_improvement_is_mann_and_whitneys() -> None:
    x, y = make_scores(runs=8, seed=1).round(), make_scores(runs=5, seed=2).round()
    expected = [mannwhitneyu(a, b).statistic / 40 for a, b in zip(x.T, y.T, strict=True)]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(expected))


@given(pairs)
def test_improvements_either_way_sum_to_one(pair: tuple[Matrix, Matrix]) -> None:
    x, y = pair
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1.0)
    assert probability_of_improvement(x, x) == pytest.approx(0.5)


def test_an_interval_of_improvement_is_that_of_resampled_runs() -> None:
    """Drawn again with loops: the runs of X and of Y each for themselves, within each task."""
    x, y = make_scores(5, 3, seed=1), make_scores(5, 3, seed=1) + np.random.default_rng(8).standard_normal((5, 3))
    rng = np.random.default_rng(9)
    drawn = [
        probability_of_improvement(*(np.stack([rng.choice(task, 5) for task in scores.T], 1) for scores in (x, y)))
        for _ in range(3000)
    ]
    expected = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose(probability_of_improvement_interval(x, y, resamples=20_000), expected, atol=0.02)


def test_an_interval_of_improvement_with_one_run_resamples_tasks_for_both() -> None:
    x = np.arange(10.0)[None]
    assert probability_of_improvement_interval(x, x - 0.5, resamples=200) == (1.0, 1.0)
    low, high = probability_of_improvement_interval(x, 9 - x, resamples=2000)
    assert low < 0.5 < high


def test_crossed_means_vary_as_runs_and_tasks_do() -> None:
    """Where a value is the sum of its run's and its task's effect, so is the variance of the mean's resamples."""
    rng = np.random.default_rng(3)
    of_runs, of_tasks = rng.standard_normal((6, 1)), 2 * rng.standard_normal((1, 9))
    found = crossed_means(of_runs + of_tasks, resamples=40_000, seed=1)
    assert found.var() == pytest.approx(of_runs.var() / 6 + of_tasks.var() / 9, rel=0.03)
    assert found.mean() == pytest.approx((of_runs + of_tasks).mean(), abs=0.02)


def test_crossed_means_of_several_quantities_are_of_the_same_resamples() -> None:
    scores = make_scores(4, 5)
    found = crossed_means(np.stack([scores, -2 * scores], axis=2), resamples=50)
    assert found.shape == (50, 2)
    np.testing.assert_allclose(found[:, 1], -2 * found[:, 0])
    np.testing.assert_allclose(found[:, 0], crossed_means(scores, resamples=50))


def test_a_crossed_interval_is_wider_than_one_of_runs_and_has_no_width_where_all_is_equal() -> None:
    scores = make_scores()
    low, high = crossed_interval(scores)
    of_runs = mean_interval(scores)
    assert low < of_runs[0] < scores.mean() < of_runs[1] < high
    assert crossed_interval(np.full((3, 4), 0.1)) == (0.1, 0.1)


def test_ranks_by_hand() -> None:
    scores = np.array([[[1.0, 0.3]], [[0.5, 0.7]], [[1.0, 0.1]]])
    np.testing.assert_array_equal(ranks(scores), [[[1.5, 2]], [[3, 1]], [[1.5, 3]]])


@given(arrays(np.float64, (4, 3, 2), elements=st.sampled_from([0.0, 0.5, 1.0])))
def test_ranks_of_a_run_always_have_the_same_sum(scores: Matrix) -> None:
    np.testing.assert_array_equal(ranks(scores).sum(0), np.full((3, 2), 10.0))


def test_curves_against_time_are_steps() -> None:
    curves = np.array([[[0.1, 0.5, 0.9]], [[0.2, 0.3, 0.4]]])
    seconds = np.array([[[1.0, 2.0, 4.0]], [[2.0, 2.5, 2.5]]])
    stepped = at_seconds(curves, seconds, np.array([1.0, 1.9, 2.0, 3.0, 4.0, 9.0]))
    np.testing.assert_array_equal(stepped[0, 0], [0.1, 0.1, 0.5, 0.5, 0.9, 0.9])
    np.testing.assert_array_equal(stepped[1, 0], [0.2, 0.2, 0.2, 0.4, 0.4, 0.4])


@settings(max_examples=30)
@given(matrices, st.integers(0, 5))
def test_an_interval_of_the_mean_holds_no_more_than_the_scores(scores: Matrix, seed: int) -> None:
    low, high = stratified_bootstrap(mean, scores, resamples=50, seed=seed)
    assert scores.min() - 1e-12 <= low <= high <= scores.max() + 1e-12
