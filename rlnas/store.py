"""The episode store: every design episode, durable once acknowledged, in one SQLite file.

A row keeps an episode as canonical JSON with the SHA-256 of that text. What the episodes of a run have in common, the
description of their environment, is kept once and named in the JSON by its own SHA-256: an episode's hash covers it
too. SQLite's own checks let most flipped bits pass; the hashes do not.

While a writer has it open, a store is in SQLite's write-ahead mode, where readers and a writer do not wait for each
other. The last writer to close it leaves a single file, which can be read where nothing may be written.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from rlnas.episode import SCHEMA_VERSION, DesignEpisode, canonical_json, sha256
from rlnas.errors import StoreError, one_of
from rlnas.store_seal import seal, seal_faults, unseal

APPLICATION_ID = 0x524C4E53
"""SQLite's ``application_id`` of an episode store: the letters RLNS."""
BUSY_SECONDS = 60.0
"""How long a writer waits for others to finish their transactions."""
PAGE_ROWS = 256
"""Episodes held in memory while reading."""

_TABLES = """
CREATE TABLE specs (sha256 TEXT PRIMARY KEY, payload TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE episodes (
    agent TEXT NOT NULL, trial INTEGER NOT NULL, design INTEGER NOT NULL,
    sha256 TEXT NOT NULL, payload TEXT NOT NULL,
    UNIQUE (agent, trial, design)
);
"""

_COLUMNS = "SELECT agent, trial, design, sha256, payload FROM episodes"
_INSERT = "INSERT INTO episodes VALUES (?, ?, ?, ?, ?) ON CONFLICT (agent, trial, design) DO NOTHING"


@dataclass(frozen=True, slots=True)
class AgentSummary:
    """What one agent has in a store.

    Args:
        agent: its name.
        trials: number of its trials, finished or not.
        episodes: number of its design episodes.
        best_accuracy: the highest of any episode.
        first_accuracy: that of a trial's first design, averaged over trials.
        last_accuracy: that of a trial's last design so far, averaged over trials.
    """

    agent: str
    trials: int
    episodes: int
    best_accuracy: float
    first_accuracy: float
    last_accuracy: float


class EpisodeStore:
    """A file of design episodes, numbered by agent, trial and design.

    Args:
        path: the file. Mode ``"a"`` makes it if it is absent; its folder must exist.
        mode: ``"a"`` to append and read, ``"r"`` to read alone, which never creates a file.

    Raises:
        StoreError: if the file is absent (mode ``"r"``), is not an episode store, or was written by a newer rlnas.
    """

    def __init__(self, path: str | Path, mode: Literal["a", "r"] = "a") -> None:
        self.path = Path(path)
        self.mode = one_of("store mode", mode, ("a", "r"))
        if mode == "r" and not self.path.is_file():
            raise StoreError(f"there is no episode store at {self.path}")
        with self._errors():
            self._connection = self._connect("ro" if mode == "r" else "rwc")
            try:
                self._recover()
                self._open()
            except BaseException:
                self._connection.close()
                raise

    def append(self, episodes: Sequence[DesignEpisode]) -> None:
        """Keep episodes: all of them are on disk when this returns, or none is if it raises.

        One call is one transaction and one wait for the disk, so many episodes at once cost little more than one. An
        episode that the store already has is ignored: a resumed run does its last trials again. Two are the same if
        they differ at most in the time their evaluation took, its message and whether it was cached.

        Raises:
            StoreError: if the store has a different episode of the same agent, trial and design; if it is open for
                reading alone; or if the disk is full or fails.
        """
        if self.mode == "r":
            raise StoreError(f"{self.path} is open for reading alone")
        specs: dict[str, str] = {}
        rows = [(episode, _row(episode, specs)) for episode in episodes]
        with self._errors(), self._transaction():
            self._connection.executemany("INSERT OR IGNORE INTO specs VALUES (?, ?)", specs.items())
            for episode, row in rows:
                if not self._connection.execute(_INSERT, row).rowcount:
                    self._require_same(episode)

    def forget(self, agent: str, trials: range) -> None:
        """Remove an agent's episodes of some trials, because these are about to be played anew.

        Raises:
            StoreError: as :meth:`append`.
        """
        if self.mode == "r":
            raise StoreError(f"{self.path} is open for reading alone")
        with self._errors(), self._transaction():
            self._connection.execute(
                "DELETE FROM episodes WHERE agent = ? AND trial >= ? AND trial < ?", (agent, trials.start, trials.stop)
            )

    def episodes(self, agent: str | None = None, trial: int | None = None) -> Iterator[DesignEpisode]:
        """The episodes in order of agent, trial and design, of one agent or trial number if asked.

        Memory use does not grow with the store. What is appended meanwhile is seen if it comes later in the order.

        Raises:
            StoreError: naming the first episode that does not match its hash.
        """
        specs: dict[str, Any] = {}
        for row in self._rows(agent, trial):
            yield self._read(row, specs)

    def agents(self, trial: int | None = None) -> list[str]:
        """Names of the agents with episodes, of one trial if it is given, in order."""
        condition, values = ("", ()) if trial is None else ("WHERE trial = ?", (trial,))
        return [name for (name,) in self._fetch(f"SELECT DISTINCT agent FROM episodes {condition} ORDER BY 1", values)]

    def trials(self, agent: str) -> list[int]:
        """The numbers of an agent's trials, in order."""
        rows = self._fetch("SELECT DISTINCT trial FROM episodes WHERE agent = ? ORDER BY trial", (agent,))
        return [row[0] for row in rows]

    def summary(self) -> list[AgentSummary]:
        """One row for each agent, by name; reads and checks every episode.

        Raises:
            StoreError: naming the first episode that does not match its hash.
        """
        return [_summarise(agent, group) for agent, group in groupby(self.episodes(), lambda episode: episode.agent)]

    def verify(self) -> list[str]:
        """One line for each damaged episode and for all else that is wrong with the file; none if all is well."""
        damaged: list[str] = []
        specs: dict[str, Any] = {}
        try:
            damaged += [str(row[0]) for row in self._fetch("PRAGMA integrity_check") if row[0] != "ok"]
            for row in self._rows():
                try:
                    self._read(row, specs)
                except StoreError as error:
                    damaged.append(str(error))
            if not damaged:
                damaged = self._seal_faults()
        except StoreError as error:  # The file is too broken to be read on.
            damaged.append(str(error))
        return damaged

    def __len__(self) -> int:
        return int(self._fetch("SELECT COUNT(*) FROM episodes")[0][0])

    def close(self) -> None:
        """Let go of the file; closing twice is harmless."""
        if self.mode == "a":
            with suppress(sqlite3.Error):  # Another process has the store open, or this one has closed it before.
                self._connection.execute("PRAGMA busy_timeout = 0")
                if self._connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",):
                    seal(self._connection)
        self._connection.close()

    def __enter__(self) -> EpisodeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.resolve().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        # Damaged text is for the hashes to find, not for the decoder to stumble over.
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        return connection

    def _recover(self) -> None:
        """Have undone what a writer that was killed had begun, which a connection for reading alone cannot do itself."""
        try:
            self._connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            with closing(self._connect("rw")) as connection:
                connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()

    def _open(self) -> None:
        self._check_schema(may_be_empty=self.mode == "a")
        if self.mode == "r":
            return
        self._connection.execute("PRAGMA synchronous = FULL")
        _patiently(lambda: unseal(self._connection))
        _patiently(lambda: self._connection.execute("PRAGMA journal_mode = WAL"))
        with self._transaction():
            if not self._check_schema(may_be_empty=True):
                for statement in _TABLES.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check_schema(self, may_be_empty: bool = False) -> bool:
        """Whether the file is an episode store that this rlnas knows; False if it is empty and may be."""
        # Tables first: another process may be making them now, in one transaction with the two numbers.
        tables, application, version = (
            self._connection.execute(query).fetchone()[0]
            for query in ("SELECT COUNT(*) FROM sqlite_master", "PRAGMA application_id", "PRAGMA user_version")
        )
        if application == APPLICATION_ID and version > SCHEMA_VERSION:
            needed = f"an rlnas that knows store schema {version}; this one knows {SCHEMA_VERSION}"
            raise StoreError(f"{self.path} needs {needed}")
        if tables and application != APPLICATION_ID:
            raise StoreError(f"{self.path} is not an rlnas episode store: it is another program's SQLite database")
        if not tables and not may_be_empty:
            raise StoreError(f"{self.path} is not an rlnas episode store: it is empty")
        return bool(tables)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE, because a transaction that reads before it writes could not wait for another writer to finish.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite has rolled back by itself where the disk was full.
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes damaged bytes in its messages.
            raise StoreError(f"episode store {self.path}: {error}") from error

    def _fetch(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._errors():
            return self._connection.execute(query, values).fetchall()

    def _seal_faults(self) -> list[str]:
        with self._errors():
            return [f"episode store {self.path}: {fault}" for fault in seal_faults(self._connection)]

    def _rows(self, agent: str | None = None, trial: int | None = None) -> Iterator[tuple[Any, ...]]:
        # Page by page rather than with one open cursor, which would keep the write-ahead log from being cut short.
        wanted = {name: value for name, value in (("agent", agent), ("trial", trial)) if value is not None}
        # With the agent known, comparing it again would make SQLite start every page at the agent's first row.
        after = "(agent, trial, design) > (?, ?, ?)" if agent is None else "(trial, design) > (?, ?)"
        conditions = " AND ".join([after, *(f"{name} = ?" for name in wanted)])
        query = f"{_COLUMNS} WHERE {conditions} ORDER BY agent, trial, design LIMIT {PAGE_ROWS}"
        place: tuple[Any, ...] = ("", -(2**63), -(2**63))
        while rows := self._fetch(query, (*place[-after.count("?") :], *wanted.values())):
            for row in rows:
                number = row[:3]
                # A damaged index could otherwise lead round in circles.
                if [type(part) for part in number] != [str, int, int] or number <= place:
                    raise StoreError(f"episode store {self.path}: its index is damaged at {number}")
                place = number
                yield row

    def _read(self, row: tuple[Any, ...], specs: dict[str, Any]) -> DesignEpisode:
        agent, trial, design, sha, payload = row
        name = f"episode store {self.path}: agent {agent!r}, trial {trial}, design {design}"
        if not _matches(payload, sha):
            raise StoreError(f"{name} is damaged: it does not match its SHA-256")
        data = json.loads(payload)
        if (data["agent"], data["trial"], data["design"]) != (agent, trial, design):
            raise StoreError(f"{name} is damaged: it is filed under another episode's number")
        if data["env"] not in specs:  # Remember one alone: neighbours nearly always share it.
            specs.clear()
            found = self._fetch("SELECT payload FROM specs WHERE sha256 = ?", (data["env"],))
            if not found or not _matches(found[0][0], data["env"]):
                raise StoreError(f"{name} is damaged: its environment's description does not match its SHA-256")
            specs[data["env"]] = json.loads(found[0][0])
        return DesignEpisode.from_json({**data, "env": specs[data["env"]]})

    def _require_same(self, episode: DesignEpisode) -> None:
        number = (episode.agent, episode.trial, episode.design)
        rows = self._fetch(f"{_COLUMNS} WHERE (agent, trial, design) = (?, ?, ?)", number)
        if not self._read(rows[0], {}).same_record(episode):
            name = f"agent {episode.agent!r}, trial {episode.trial}, design {episode.design}"
            raise StoreError(
                f"{self.path} already has a different episode of {name}; a run gives the same episodes again only with "
                "the same settings, machine and torch version"
            )


def _matches(text: object, sha: object) -> bool:
    return isinstance(text, str) and sha256(text) == sha


def _row(episode: DesignEpisode, specs: dict[str, str]) -> tuple[str, int, int, str, str]:
    """An episode's row; adds its environment's description to ``specs``."""
    env = canonical_json(episode.env)
    sha = sha256(env)
    specs[sha] = env
    payload = canonical_json({**episode.to_json(), "env": sha})
    return episode.agent, episode.trial, episode.design, sha256(payload), payload


def _summarise(agent: str, episodes: Iterator[DesignEpisode]) -> AgentSummary:
    trials = count = 0
    best = first = last = 0.0
    for _, designs in groupby(episodes, lambda episode: episode.trial):
        accuracies = [episode.evaluation.accuracy for episode in designs]
        trials += 1
        count += len(accuracies)
        best = max(best, *accuracies)
        first += accuracies[0]
        last += accuracies[-1]
    return AgentSummary(agent, trials, count, best, first / trials, last / trials)


def _patiently(action: Callable[[], object]) -> object:
    """Repeat until the database is not locked: SQLite does not wait by itself where the journal's mode changes."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
