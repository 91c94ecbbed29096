"""Networks of a table trained again: the table's own where seeds are equal, each once, nothing else taken for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlnas.errors import ConfigurationError, DataError
from rlnas.retraining import Retraining
from rlnas.table import Table

from .tables import save_table

DESIGNS = [("digits:test/3", "0-8-8-8"), ("digits:unseen-families/1", "7-5-6-4"), ("digits:test/3", "5-8-8-8")]


@pytest.fixture(scope="module")
def table() -> Table:
    return Table.from_spec("digits")


def recorded(table: Table, task: str, text: str, seed: int) -> float:
    (row,) = table.space.rank(np.array([table.space.parse(text).choices]))
    return float(table.main.accuracy[row, table.column(task), seed])


def test_on_the_tables_seeds_it_repeats_the_table(table: Table) -> None:
    every_fourth = [("digits:val/2", table.space.text(tuple(row))) for row in table.space.codes[:40].tolist()]
    twice = [d for d in every_fourth if not np.isnan(recorded(table, *d, seed=1))]
    assert len(twice) > 5
    designs = [*DESIGNS, *twice]
    for (task, text), (first, second) in Retraining(table, [0, 1]).accuracies(designs).items():
        assert first == pytest.approx(recorded(table, task, text, 0), abs=1e-6)
        if not np.isnan(again := recorded(table, task, text, 1)):
            assert second == pytest.approx(again, abs=1e-6)


def test_each_network_is_trained_once_for_a_file(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlnas.retraining.CHUNK", 2)
    file = tmp_path / "fresh.json"
    trained: list[tuple[int, int]] = []

    def interrupt(done: int, of: int) -> None:
        trained.append((done, of))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Retraining(table, [7]).accuracies([*DESIGNS, *DESIGNS], file, interrupt)
    first = Retraining(table, [7]).accuracies(DESIGNS, file, lambda *counts: trained.append(counts))
    again = Retraining(table, [7]).accuracies(DESIGNS, file, lambda *counts: trained.append(counts))
    assert trained == [(2, 3), (1, 1)]
    assert list(first) == list(again) == DESIGNS
    assert first == again == Retraining(table, [7]).accuracies(DESIGNS)


def test_a_file_of_other_training_and_a_damaged_one_are_refused(table: Table, tmp_path: Path) -> None:
    file = tmp_path / "fresh.json"
    Retraining(table, [7]).accuracies(DESIGNS[:1], file)
    with pytest.raises(DataError, match="trained otherwise"):
        Retraining(table, [8]).accuracies(DESIGNS[:1], file)
    for content in ("{", "[]", json.dumps({**json.loads(file.read_text()), "accuracies": [["a"], 3]})):
        file.write_text(content)
        with pytest.raises(DataError, match="is damaged"):
            Retraining(table, [7]).accuracies(DESIGNS[:1], file)


@pytest.mark.parametrize("about", [None, np.array('{"rlnas": "0.1.0"}')])
def test_a_table_that_says_nothing_of_its_making_is_refused(about: Any, tmp_path: Path) -> None:
    other = Table.load(save_table(tmp_path / "table.npz", about=about), values="score")
    with pytest.raises(ConfigurationError, match="does not say how its networks were trained"):
        Retraining(other, [0])


def test_a_task_from_elsewhere_is_refused(table: Table) -> None:
    with pytest.raises(DataError, match="does not say where its task letters:test/3 is from"):
        Retraining(table, [0]).task("letters:test/3")
