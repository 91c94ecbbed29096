"""The episode store: every design episode, durable once acknowledged, in one SQLite file.

A row keeps an episode as canonical JSON with the SHA-256 of that text. What the episodes of a run have in common, the
description of their environment, is kept once and named in the JSON by its own SHA-256: an episode's hash covers it
too. SQLite's own checks let most flipped bits pass; the hashes do not.

While a writer has it open, a store is in SQLite's write-ahead mode, where readers and a writer do not wait for each
other. The last writer to close it leaves a single file, which can be read where nothing may be written; while a reader
has it open, an empty log stays beside it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rlnas.canonical import canonical_json, sha256
from rlnas.episode import DesignEpisode
from rlnas.errors import StoreError
from rlnas.store_file import StoreFile

PAGE_ROWS = 256
"""Episodes held in memory while reading."""
ROWS_AT_ONCE = 128
"""Rows in a statement: for each statement another thread may take the interpreter, and be long in giving it back."""

Row: TypeAlias = tuple[str, int, int, str, str]
"""An episode's agent, trial, design, SHA-256 and canonical JSON."""

_COLUMNS = "SELECT agent, trial, design, sha256, payload FROM episodes"
_INSERT = "INSERT INTO episodes VALUES {} ON CONFLICT (agent, trial, design) DO NOTHING"


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


class Rows:
    """Episodes as a store keeps them.

    Attributes:
        specs: the descriptions of their environments, by their SHA-256.
        rows: a row each.
    """

    def __init__(self, episodes: Sequence[DesignEpisode] = ()) -> None:
        self.specs: dict[str, str] = {}
        self.rows: list[Row] = []
        self._env: dict[str, Any] | None = None
        self._sha = ""
        self.add(episodes)

    def add(self, episodes: Sequence[DesignEpisode]) -> None:
        """Add some, all or none.

        Raises:
            ValueError: if one has a number that is not finite, or something else that is no JSON.
        """
        rows: list[Row] = []
        for episode in episodes:
            if episode.env is not self._env:  # neighbours nearly always share it, and it is much longer than the rest
                text = canonical_json(episode.env)
                self._env, self._sha = episode.env, sha256(text)
                self.specs[self._sha] = text
            payload = episode.record(self._sha)
            rows.append((episode.agent, episode.trial, episode.design, sha256(payload), payload))
        self.rows += rows


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
        self.mode = mode
        self._file = StoreFile(self.path, mode)

    def append(self, episodes: Sequence[DesignEpisode]) -> None:
        """Keep episodes: all of them are on disk when this returns, or none is if it raises.

        One call is one transaction and one wait for the disk, so many episodes at once cost little more than one. An
        episode that the store already has is ignored: a resumed run does its last trials again. Two are the same if
        they differ at most in the time their evaluation took, its message and whether it was cached.

        Raises:
            StoreError: if the store has a different episode of the same agent, trial and design; if it is open for
                reading alone; or if the disk fails.
            DiskFullError: if it is full; the store can be used again once it is not.
            ValueError: if an episode is no JSON.
        """
        made = Rows(episodes)
        self.append_rows(made.specs, made.rows)

    def append_rows(self, specs: dict[str, str], rows: Sequence[Row]) -> None:
        """Keep episodes that :class:`Rows` has made ready, as :meth:`append` does."""
        with self._file.transaction() as connection:
            self._insert(connection, specs, rows)

    def append_groups(self, groups: Iterable[Sequence[DesignEpisode]]) -> None:
        """Keep more episodes than fit into memory: those of all groups are on disk when this returns, or none is.

        Raises:
            StoreError: as :meth:`append`.
            DiskFullError: as :meth:`append`.
        """
        with self._file.transaction() as connection:
            for episodes in groups:
                made = Rows(episodes)
                self._insert(connection, made.specs, made.rows)

    def forget(self, agent: str, trials: range) -> None:
        """Remove an agent's episodes of some trials, because these are about to be played anew.

        Raises:
            StoreError: as :meth:`append`.
        """
        with self._file.transaction() as connection:
            connection.execute(
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
        rows = self._file.fetch(f"SELECT DISTINCT agent FROM episodes {condition} ORDER BY agent", values)
        return [row[0] for row in rows]

    def trials(self, agent: str) -> list[int]:
        """The numbers of an agent's trials, in order."""
        rows = self._file.fetch("SELECT DISTINCT trial FROM episodes WHERE agent = ? ORDER BY trial", (agent,))
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
            damaged += [str(row[0]) for row in self._file.fetch("PRAGMA integrity_check") if row[0] != "ok"]
            for row in self._rows():
                try:
                    self._read(row, specs)
                except StoreError as error:
                    damaged.append(str(error))
            if not damaged:
                damaged = self._file.seal_faults()
        except StoreError as error:  # The file is too broken to be read on.
            damaged.append(str(error))
        return damaged

    def __len__(self) -> int:
        return int(self._file.fetch("SELECT COUNT(*) FROM episodes")[0][0])

    def close(self) -> None:
        """Let go of the file; closing twice is harmless."""
        self._file.close()

    def __enter__(self) -> EpisodeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, agent: str | None = None, trial: int | None = None) -> Iterator[tuple[Any, ...]]:
        # Page by page rather than with one open cursor, which would keep the write-ahead log from being cut short.
        wanted = {name: value for name, value in (("agent", agent), ("trial", trial)) if value is not None}
        # With the agent known, comparing it again would make SQLite start every page at the agent's first row.
        after = "(agent, trial, design) > (?, ?, ?)" if agent is None else "(trial, design) > (?, ?)"
        conditions = " AND ".join([after, *(f"{name} = ?" for name in wanted)])
        query = f"{_COLUMNS} WHERE {conditions} ORDER BY agent, trial, design LIMIT {PAGE_ROWS}"
        place: tuple[Any, ...] = ("", -(2**63), -(2**63))
        while rows := self._file.fetch(query, (*place[-after.count("?") :], *wanted.values())):
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
        data = _object(payload)
        if [data.get(part) for part in ("agent", "trial", "design")] != [agent, trial, design]:
            raise StoreError(f"{name} is damaged: it is filed under another episode's number")
        env = str(data.get("env"))
        if env not in specs:  # Remember one alone: neighbours nearly always share it.
            specs.clear()
            found = self._file.fetch("SELECT payload FROM specs WHERE sha256 = ?", (env,))
            if not found or not _matches(found[0][0], env):
                raise StoreError(f"{name} is damaged: its environment's description does not match its SHA-256")
            specs[env] = _object(found[0][0])
        return DesignEpisode.from_json({**data, "env": specs[env]})

    def _insert(self, connection: sqlite3.Connection, specs: dict[str, str], rows: Sequence[Row]) -> None:
        connection.executemany("INSERT OR IGNORE INTO specs VALUES (?, ?)", specs.items())
        before = connection.total_changes
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            connection.execute(_INSERT.format(",".join(["(?,?,?,?,?)"] * len(some))), [*chain.from_iterable(some)])
        if connection.total_changes - before < len(rows):
            for row in rows:
                self._require_same(row)

    def _require_same(self, row: Row) -> None:
        (found,) = self._file.fetch(f"{_COLUMNS} WHERE (agent, trial, design) = (?, ?, ?)", row[:3])
        if found != row and not self._read(found, {}).same_record(self._read(row, {})):
            name = "agent {!r}, trial {}, design {}".format(*row[:3])
            raise StoreError(
                f"{self.path} already has a different episode of {name}; a run gives the same episodes again only with "
                "the same settings, machine and torch version"
            )


def _matches(text: object, sha: object) -> bool:
    return isinstance(text, str) and sha256(text) == sha


def _object(text: str) -> dict[str, Any]:
    """A JSON object; an empty one for any other text, which only a forged record has."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


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
