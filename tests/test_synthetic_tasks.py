"""Synthetic tasks from the digits table's training columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlnas import task_prior
from rlnas.errors import ConfigurationError, UnknownNameError
from rlnas.evaluator import Proposal
from rlnas.synthetic_tasks import prior_of_table, synthesise
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator


@pytest.fixture(scope="module")
def table() -> Table:
    table = Table.from_spec("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_prior, "STEPS", 10)
        patch.setattr(task_prior, "BASIS", 100)
        prior_of_table(table, known(table))
    return table


def known(table: Table) -> list[str]:
    return list(table.tasks[:12])


def test_they_look_like_the_tasks_they_come_from(table: Table) -> None:
    columns = [table.column(name) for name in known(table)]
    real, made = table.accuracy[:, columns], synthesise(table, known(table), 60).accuracy
    assert made.mean() == pytest.approx(real.mean(), abs=0.08)
    assert made.std(0).mean() == pytest.approx(real.std(0).mean(), rel=0.35)
    shared = real.mean(1)
    alike = [np.median([np.corrcoef(column, shared)[0, 1] for column in columns.T]) for columns in (real, made)]
    assert alike[1] == pytest.approx(alike[0], abs=0.2)


def test_environments_can_be_made_of_them(table: Table) -> None:
    made = synthesise(table, known(table), 5)
    source, evaluator = TableSource(made), TabularEvaluator(made)
    assert source.splits == {"synthetic": 5}
    task, design = source.task("synthetic", 3), made.space.decode(made.space.codes[7].tolist())
    assert evaluator.evaluate([Proposal(design, task, seed=9)])[0].accuracy == made.accuracy[7, 3]
    assert made.families[3] in table.families
    assert made.descriptors is not None
    assert task.descriptor.tolist() == made.descriptors[3].tolist()


def test_a_table_without_descriptors_will_do(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_prior, "STEPS", 2)
    plain = replace(table, descriptors=None)
    made = synthesise(plain, known(table), 2)
    task = TableSource(made).task("synthetic", 0)
    assert not task.descriptor.any()
    known_task = TableSource(plain).task("val", 0)
    assert prior_of_table(plain, known(table)).believe(known_task.descriptor).mean.shape == (plain.space.size,)


def test_a_seed_makes_the_same_tasks_and_another_makes_others(table: Table) -> None:
    digests = [synthesise(table, known(table), 3, seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_mistakes_are_named(table: Table) -> None:
    with pytest.raises(UnknownNameError, match="digits:train/0"):
        synthesise(table, ["digits:train/o"])
    with pytest.raises(ConfigurationError, match="count must be"):
        synthesise(table, count=0)
