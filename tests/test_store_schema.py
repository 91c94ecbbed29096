"""Stores of every schema there was can be read and appended to for ever.

``golden/store-schema-1.sqlite`` was written by ``EpisodeStore(path).append(SCHEMA_1)`` when schema 1 was current. Never
write it anew: a change of the schema adds a file.
"""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from rlnas.episode import DesignEpisode
from rlnas.evaluator import Evaluation, Status
from rlnas.store import EpisodeStore

GOLDEN = Path(__file__).parent / "golden" / "store-schema-1.sqlite"

TRIAL = {
    "id": "rlnas/Trial-v0",
    "space": {"kind": "chain", "max_layers": 2},
    "tasks": {"kind": "digits"},
    "split": "train",
    "evaluator": {"kind": "sequential", "adaptation": {"steps": 15, "learning_rate": 0.03}},
    "designs_per_trial": 2,
    "reward": "improvement",
    "reference_designs": None,
    "invalid_action": "penalise",
    "evaluation_seed": None,
}
EDITS = {**TRIAL, "id": "rlnas/EditTrial-v0", "note": "größer als 3×3"}

SCHEMA_1 = [
    DesignEpisode(
        agent="evolution",
        trial=0,
        design=0,
        seed=None,
        env=EDITS,
        task="digits:train/3",
        task_digest="cd" * 32,
        evaluation_seed=17,
        actions=(4, 0),
        masks=("10011", "11111"),
        rewards=(0.0, 0.25),
        architecture="conv3x3-8",
        evaluation=Evaluation(0.25, loss=1.5, seconds=0.125, parameters=1234, flops=56789, cached=True),
        best=0.25,
        start="dense-32",
    ),
    DesignEpisode(
        agent="rl2",
        trial=7,
        design=0,
        seed=2**40,
        env=TRIAL,
        task="digits:train/17",
        task_digest="ab" * 32,
        evaluation_seed=2**31 - 1,
        actions=(0, 2, 1),
        masks=("111", "101", "011"),
        rewards=(0.0, 0.0, 0.1 + 0.2),
        architecture="conv3x3-16 > max-pool",
        evaluation=Evaluation(0.1 + 0.2, loss=1e-17, seconds=1e22, parameters=1, flops=2**50),
        best=0.1 + 0.2,
    ),
    DesignEpisode(
        agent="rl2",
        trial=7,
        design=1,
        seed=2**40,
        env=TRIAL,
        task="digits:train/17",
        task_digest="ab" * 32,
        evaluation_seed=0,
        actions=(2,),
        masks=("110",),
        rewards=(-0.3,),
        architecture="",
        evaluation=Evaluation(0.0, status=Status.INVALID, message='illegal "action" – \\ \n \U0001f642'),
        best=0.1 + 0.2,
    ),
]
TABLES = ("(SELECT sha256, payload, '' FROM specs)", "episodes")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copy(GOLDEN, tmp_path))


def test_a_store_of_schema_1_is_read(copy: Path) -> None:
    with EpisodeStore(copy, "r") as store:
        assert list(store.episodes()) == SCHEMA_1
        assert store.verify() == []
        assert [(row.agent, row.trials, row.episodes) for row in store.summary()] == [
            ("evolution", 1, 1),
            ("rl2", 1, 2),
        ]


def test_a_store_of_schema_1_is_appended_to_and_knows_what_it_has(copy: Path) -> None:
    later = replace(SCHEMA_1[1], trial=8)
    slower = replace(SCHEMA_1[0], evaluation=replace(SCHEMA_1[0].evaluation, seconds=9.0))
    with EpisodeStore(copy) as store:
        store.append([*SCHEMA_1, later, slower])
        assert list(store.episodes()) == [*SCHEMA_1, later]


def test_the_same_episodes_are_written_as_the_same_bytes(copy: Path, tmp_path: Path) -> None:
    with EpisodeStore(tmp_path / "new.sqlite") as store:
        store.append(SCHEMA_1)
    tables = []
    for path in (copy, tmp_path / "new.sqlite"):
        connection = sqlite3.connect(path)
        tables.append([connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in TABLES])
        connection.close()
    assert tables[0] == tables[1]
