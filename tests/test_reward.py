"""Reward forms, and the random designs that two of them compare with."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.errors import ConfigurationError
from rlnas.reward import REWARDS, Reference, find_reference, reward_of
from rlnas.search_space import ChainSpace
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator
from rlnas.task import Task

from .fake_evaluator import FakeEvaluator, fake_accuracy
from .tables import save_table

ACCURACIES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])  # few, so that many are equal


class TestFraction:
    def test_of_different_accuracies(self) -> None:
        reference = Reference.of([0.6, 0.2, 0.4])
        at = {0.7: 0.5, 0.6: 1, 0.5: 1.5, 0.4: 2, 0.3: 2.5, 0.2: 3, 0.0: 3.5}
        for accuracy, better in at.items():
            assert reference.fraction_at_least_as_good(accuracy) == pytest.approx(better / 4)

    def test_equal_ones_count_half(self) -> None:
        reference = Reference.of([0.5, 0.5, 0.5, 0.9])
        assert reference.fraction_at_least_as_good(0.5) == pytest.approx((1 + 1.5 + 0.5) / 5)

    @given(st.lists(ACCURACIES, min_size=1), ACCURACIES, ACCURACIES)
    def test_it_orders_designs_as_their_accuracies_do(self, others: list[float], one: float, another: float) -> None:
        reference = Reference.of(others)
        fractions = [reference.fraction_at_least_as_good(accuracy) for accuracy in (one, another)]
        assert all(0 < fraction < 1 for fraction in fractions)
        if one < another:
            assert fractions[0] >= fractions[1]
            assert (fractions[0] > fractions[1]) == any(one <= other <= another for other in others)

    @given(st.lists(ACCURACIES, min_size=1))
    def test_that_of_a_random_design_is_a_half_on_average(self, others: list[float]) -> None:
        reference = Reference.of(others)
        assert np.mean([reference.fraction_at_least_as_good(other) for other in others]) == pytest.approx(0.5)


def test_log_percentiles_of_random_designs_have_mean_and_deviation_1_on_every_task() -> None:
    rng = np.random.default_rng(0)
    for accuracies in (rng.uniform(0.4, 0.42, 2000), rng.beta(5, 2, 2000)):
        reference = Reference.of(accuracies.tolist())
        rewards = [reward_of("log-percentile", accuracy, 0.0, reference) for accuracy in accuracies]
        assert np.mean(rewards) == pytest.approx(1, abs=0.01)
        assert np.std(rewards) == pytest.approx(1, abs=0.03)
        assert max(rewards) == pytest.approx(math.log(2001))
        assert reward_of("log-percentile", 0.0, 0.0, reference) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("form", REWARDS)
def test_no_form_rewards_a_worse_design_more(form: str) -> None:
    reference = Reference.of([0.3, 0.5, 0.6])
    rewards = [reward_of(form, accuracy, 0.4, reference) for accuracy in np.linspace(0, 1, 101).tolist()]
    assert rewards == sorted(rewards)
    assert rewards[-1] > rewards[0]


class TestFindReference:
    space = ChainSpace(max_layers=2, widths=(4,), dense_widths=(8,))

    def test_random_designs_are_evaluated_where_networks_are_trained(self) -> None:
        evaluator, task = FakeEvaluator(), _Task("some:all/0", "some")
        reference = find_reference(self.space, task, evaluator, 5)
        (asked,) = evaluator.calls
        assert {proposal.task for proposal in asked} == {task}
        assert list(reference.accuracies) == sorted(map(fake_accuracy, asked))
        assert reference == find_reference(self.space, task, FakeEvaluator(), 5)
        with pytest.raises(ConfigurationError, match="reference_designs must be a number"):
            find_reference(self.space, task, evaluator, None)

    def test_of_a_table_they_are_all_that_were_evaluated_on_the_task(self, tmp_path: Path) -> None:
        table = Table.load(save_table(tmp_path / "small.npz"))
        task = TableSource(table).task("all", 1)
        reference = find_reference(table.space, task, TabularEvaluator(table), None)
        known = np.array([0.1, 0.2, 0.3, 0.4])  # one of five lacks a value
        assert reference.accuracies == pytest.approx((known - 0.1) / 0.3)
        assert (reference.mean, reference.deviation) == pytest.approx((0.5, np.std((known - 0.1) / 0.3)))
        of_two = find_reference(table.space, task, TabularEvaluator(table), 2)
        assert len(of_two.accuracies) == 2


class _Task(Task):
    digest = "ab" * 32  # type: ignore[assignment]
