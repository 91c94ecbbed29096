"""Evaluations shared across runs: one SQLite file of what networks were found to be worth.

An entry is addressed by all that its evaluation depends on: the architecture's canonical key, the task's digest, seed,
fidelity, and the evaluator's version, see :meth:`rlnas.cached_evaluator.CachedEvaluator.version`. So one found is
right wherever it came from, none ever has to be brought up to date, and the file may be deleted at any time. Each
carries a SHA-256 of its address and content; a damaged one counts as absent and is written anew.

Any number of processes of one machine read and write it at the same time. It is in SQLite's write-ahead mode, which
network file systems don't serve: where the home folder lies on one, name another place with ``RLNAS_CACHE``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlnas.canonical import canonical_json, sha256
from rlnas.errors import CacheError, at_least
from rlnas.evaluator import Evaluation, Proposal
from rlnas.sqlite_turns import patiently, transaction

APPLICATION_ID = 0x524C4E43
"""SQLite's ``application_id`` of an evaluation cache: the letters RLNC."""
SCHEMA_VERSION = 1
MAX_EVALUATIONS = 1_000_000
"""Evaluations that a file holds, some 300 MB."""
BUSY_SECONDS = 10.0
"""How long to wait for others to finish their transactions."""
CHUNK = 500
"""Entries asked for in one query."""

_TABLE = "CREATE TABLE evaluations (address BLOB NOT NULL UNIQUE, sha256 BLOB NOT NULL, payload TEXT NOT NULL)"


def default_cache_path() -> Path:
    """``$RLNAS_CACHE``, else ``evaluations.sqlite`` in ``$XDG_CACHE_HOME/rlnas`` or in ``~/.cache/rlnas``.

    Raises:
        CacheError: if there is no home folder.
    """
    if own := os.environ.get("RLNAS_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    except RuntimeError as error:
        raise CacheError(f"evaluation cache: {error} RLNAS_CACHE can name a place for it") from None
    return folder / "rlnas" / "evaluations.sqlite"


def addresses(proposals: Sequence[Proposal], version: Mapping[str, Any]) -> list[bytes]:
    """Of each proposal the SHA-256 of all that its evaluation depends on, where the evaluator is of this version."""
    evaluator = sha256(canonical_json(version))
    return [
        hashlib.sha256(
            canonical_json(
                {
                    "architecture": proposal.architecture.key,
                    "task": proposal.task.digest,
                    "seed": proposal.seed,
                    "steps": proposal.steps,
                    "evaluator": evaluator,
                }
            ).encode()
        ).digest()
        for proposal in proposals
    ]


class EvaluationCache:
    """A file of evaluations; several evaluators, threads and processes may use it at once. It can be pickled.

    Args:
        path: the file; it is made, with its folder, if it is absent.
        max_evaluations: evaluations to hold; beyond them the oldest are dropped.

    Raises:
        ConfigurationError: if ``max_evaluations`` is no positive number.
        CacheError: if the file is no evaluation cache, or cannot be opened or made.
    """

    def __init__(self, path: str | Path, max_evaluations: int = MAX_EVALUATIONS) -> None:
        try:
            self.path = Path(path).expanduser().absolute()
        except RuntimeError as error:  # nobody of that name has a home folder
            raise CacheError(f"evaluation cache {path}: {error}") from None
        self.max_evaluations = at_least("max_evaluations", max_evaluations, 1)
        self._open: dict[tuple[int, int], sqlite3.Connection] = {}
        """By process and thread. SQLite forbids to use, or even close, what a forked process inherits."""
        with self._errors():
            self._connection()

    def find(self, proposals: Sequence[Proposal], version: Mapping[str, Any]) -> list[Evaluation | None]:
        """The evaluation of each proposal, marked as cached; None of those that it does not have.

        Args:
            proposals: what to look for.
            version: of the evaluator.

        Raises:
            CacheError: if the file cannot be read.
        """
        places = addresses(proposals, version)
        found: dict[bytes, Evaluation] = {}
        with self._errors():
            for first in range(0, len(places), CHUNK):
                some = places[first : first + CHUNK]
                marks = ",".join("?" * len(some))
                query = f"SELECT address, sha256, payload FROM evaluations WHERE address IN ({marks})"
                for place, sha, payload in self._connection().execute(query, some):
                    evaluation = _read(place, sha, payload)
                    if evaluation is not None:
                        found[place] = evaluation
        return [found.get(place) for place in places]

    def keep(
        self, proposals: Sequence[Proposal], version: Mapping[str, Any], evaluations: Sequence[Evaluation]
    ) -> None:
        """Hold the evaluations of these proposals, in one transaction; they may be lost if the power fails soon after.

        Raises:
            CacheError: if the file cannot be written.
        """
        rows = []
        for place, evaluation in zip(addresses(proposals, version), evaluations, strict=True):
            payload = canonical_json(replace(evaluation, cached=False).to_json()).encode()
            rows.append((place, _sha(place, payload), payload.decode()))
        if not rows:
            return
        with self._errors():
            connection = self._connection()
            with transaction(connection):
                # Others' equal entries are replaced, because one that is there and was not found is damaged.
                connection.executemany("INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?)", rows)
                connection.execute(
                    "DELETE FROM evaluations WHERE rowid <= (SELECT max(rowid) FROM evaluations) - ?",
                    (self.max_evaluations,),
                )

    def __len__(self) -> int:
        with self._errors():
            return int(self._connection().execute("SELECT COUNT(*) FROM evaluations").fetchone()[0])

    def close(self) -> None:
        """Let go of the file, which no thread may be using then; using it again opens it again."""
        for owner in [owner for owner in self._open if owner[0] == os.getpid()]:
            self._open.pop(owner).close()

    def __enter__(self) -> EvaluationCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def _connection(self) -> sqlite3.Connection:
        owner = os.getpid(), threading.get_ident()
        if owner not in self._open:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._open[owner] = connection
        return self._open[owner]

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.text_factory = bytes  # damaged text is for the hashes to find
        self._check_schema(connection)  # before anything is written to what may be another program's
        connection.execute("PRAGMA synchronous = NORMAL")
        patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"), BUSY_SECONDS)
        with transaction(connection):
            if not self._check_schema(connection):
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check_schema(self, connection: sqlite3.Connection) -> bool:
        """Whether the file is an evaluation cache; False if it is empty."""
        # Tables first: another process may be making them now, in one transaction with the two numbers.
        tables, application, version = (
            connection.execute(query).fetchone()[0]
            for query in ("SELECT COUNT(*) FROM sqlite_master", "PRAGMA application_id", "PRAGMA user_version")
        )
        if tables and application != APPLICATION_ID:
            raise CacheError(f"{self.path} is no evaluation cache but another program's SQLite database")
        if tables and version != SCHEMA_VERSION:
            raise CacheError(
                f"evaluation cache {self.path} has schema {version}, this rlnas knows {SCHEMA_VERSION}; "
                "delete it, or name another place with RLNAS_CACHE"
            )
        return bool(tables)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            raise CacheError(f"evaluation cache {self.path}: {said}") from error


def _read(place: object, sha: object, payload: object) -> Evaluation | None:
    """What an entry says; None if it is damaged, or not what this rlnas writes."""
    if not isinstance(place, bytes) or not isinstance(payload, bytes) or _sha(place, payload) != sha:
        return None
    try:
        return replace(Evaluation.from_json(json.loads(payload)), cached=True)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _sha(place: bytes, payload: bytes) -> bytes:
    return hashlib.sha256(place + payload).digest()
