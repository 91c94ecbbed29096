"""The seal of a closed store: it knows every byte, and is gone while somebody writes."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rlnas import store_file, store_seal
from rlnas.errors import StoreError
from rlnas.store import EpisodeStore
from rlnas.store_seal import seal

from .test_store import fill, make_episode, make_episodes

SEAL = "the file differs from its seal"
UNUSED = 80
"""A byte that SQLite leaves alone: its header has twenty that are reserved for later."""


def seals(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM seal").fetchone()[0])


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    fill(tmp_path / "run.db", make_episodes(3))
    return tmp_path / "run.db"


def test_a_store_that_was_closed_is_sealed_and_one_that_is_open_is_not(path: Path) -> None:
    assert seals(path) == 1
    with EpisodeStore(path) as store:
        store.append([make_episode(trial=9)])
        assert seals(path) == 0
        assert store.verify() == []
    assert seals(path) == 1


def test_a_store_that_another_writer_closes_meanwhile_is_not_left_with_its_seal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store_file.unseal

    def unseal_too_early(connection: sqlite3.Connection) -> None:
        real(connection)
        monkeypatch.setattr(store_file, "unseal", real)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            seal(other)

    monkeypatch.setattr(store_file, "unseal", unseal_too_early)
    with EpisodeStore(path) as store:
        store.append([make_episode(trial=9)])
        assert seals(path) == 0
        assert store.verify() == []
    assert seals(path) == 1


def test_a_flipped_bit_that_no_row_feels_is_found(path: Path) -> None:
    flip(path, UNUSED)
    with EpisodeStore(path, "r") as store:
        assert len(list(store.episodes())) == 3
        (fault,) = store.verify()
    assert SEAL in fault
    assert str(path) in fault


def test_a_store_that_differs_from_its_seal_is_not_appended_to(path: Path) -> None:
    flip(path, UNUSED)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"{SEAL}.*it can be read, but not appended to"):
        EpisodeStore(path)
    assert path.read_bytes() == before


def test_a_seal_of_another_store_does_not_hold(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    fill(other, make_episodes(4, "b"))
    with closing(sqlite3.connect(other)) as connection:
        ((sha,),) = connection.execute("SELECT sha256 FROM seal")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE seal SET sha256 = ?", (sha,))
    with EpisodeStore(path, "r") as store:
        assert [SEAL in fault for fault in store.verify()] == [True]


def test_two_seals_are_one_too_many(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO seal SELECT sha256 FROM seal")
    with EpisodeStore(path, "r") as store:
        assert [SEAL in fault for fault in store.verify()] == [True]


def test_a_store_of_before_there_were_seals_is_read_appended_to_and_sealed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE seal")
    with EpisodeStore(path, "r") as store:
        assert store.verify() == []
    fill(path, [make_episode(trial=9)])
    assert seals(path) == 1
    with EpisodeStore(path, "r") as store:
        assert store.verify() == []
        assert len(store) == 4


def test_a_store_too_large_for_memory_is_left_without_a_seal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_seal, "LARGEST", path.stat().st_size - 1)
    fill(path, [make_episode(trial=9)])
    assert seals(path) == 0
    with EpisodeStore(path, "r") as store:
        assert store.verify() == []


def test_a_copy_keeps_its_seal(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    with EpisodeStore(copy, "r") as store:
        assert store.verify() == []
    assert seals(copy) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON episodes BEGIN DELETE FROM episodes; END",
        "CREATE VIEW v AS SELECT * FROM episodes",
        "CREATE TABLE recipes (name TEXT)",
        "CREATE INDEX i ON episodes (abs(trial))",
    ],
)
@pytest.mark.parametrize("mode", ["a", "r"])
def test_a_store_with_more_in_its_schema_is_refused(path: Path, mode: str, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    with pytest.raises(StoreError, match="which no episode store has"):
        EpisodeStore(path, mode)  # type: ignore[arg-type]


def test_a_store_whose_tables_are_gone_is_not_begun_anew(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_master")
    with pytest.raises(StoreError, match="it has pages, but no tables"):
        EpisodeStore(path)


def test_what_a_killed_writer_left_half_done_is_undone_for_a_reader(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # so that pages are written before the transaction ends
        connection.execute("BEGIN")
        connection.execute("UPDATE episodes SET payload = payload || hex(zeroblob(9000))")
        shutil.copy(path, copy)
        shutil.copy(f"{path}-journal", f"{copy}-journal")
    with (
        pytest.raises(sqlite3.OperationalError, match="readonly"),
        closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)) as connection,
    ):
        connection.execute("SELECT COUNT(*) FROM episodes")
    with EpisodeStore(copy, "r") as store:
        assert list(store.episodes()) == make_episodes(3)
        assert store.verify() == []
