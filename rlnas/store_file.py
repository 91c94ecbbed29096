"""The SQLite file of an episode store: opening it, its schema, its transactions, and what its errors mean."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from rlnas.episode import SCHEMA_VERSION
from rlnas.errors import DiskFullError, StoreError, one_of
from rlnas.sqlite_turns import patiently, transaction
from rlnas.store_seal import SEALS, seal, seal_faults, unseal

APPLICATION_ID = 0x524C4E53
"""SQLite's ``application_id`` of an episode store: the letters RLNS."""
BUSY_SECONDS = 60.0
"""How long a writer waits for others to finish their transactions."""
LOG_PAGES = 4000
"""Of 4 KiB: how long the write-ahead log grows before it is copied into the database."""
LITTLE = 2**20
"""Free bytes, fewer than which make a failed write one on a full disk."""

_TABLES = """
CREATE TABLE specs (sha256 TEXT PRIMARY KEY, payload TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE episodes (
    agent TEXT NOT NULL, trial INTEGER NOT NULL, design INTEGER NOT NULL,
    sha256 TEXT NOT NULL, payload TEXT NOT NULL,
    UNIQUE (agent, trial, design)
);
"""
_KNOWN = {statement.strip() for statement in f"{_TABLES}{SEALS}".split(";")}
"""All that may be in the schema of a file that somebody gave us; a view or a trigger could do anything."""


class StoreFile:
    """An open episode store, used by one thread at a time: the others wait.

    Args:
        path: the file.
        mode: ``"a"`` makes it if it is absent; ``"r"`` never writes.

    Raises:
        StoreError: as :class:`rlnas.store.EpisodeStore`.
    """

    def __init__(self, path: Path, mode: Literal["a", "r"]) -> None:
        self.path = path
        self.mode = one_of("store mode", mode, ("a", "r"))
        self._turn = threading.RLock()
        if mode == "r" and not path.is_file():
            raise StoreError(f"there is no episode store at {path}")
        with self.errors():
            self._connection = self._connect("ro" if mode == "r" else "rwc")
            try:
                self._recover()
                self._open()
            except BaseException:
                self._connection.close()
                raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The statements of its block are on disk, all of them, when it ends, or none is if it raises."""
        if self.mode == "r":
            raise StoreError(f"{self.path} is open for reading alone")
        with self._turn, self.errors(), transaction(self._connection):
            yield self._connection

    def fetch(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows that a query finds."""
        with self._turn, self.errors():
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """SQLite's errors as :class:`StoreError`."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes damaged bytes in its messages.
            kind = DiskFullError if _is_full(error, self.path) else StoreError
            raise kind(f"episode store {self.path}: {error}") from error

    def seal_faults(self) -> list[str]:
        """See :func:`rlnas.store_seal.seal_faults`."""
        with self._turn, self.errors():
            return [f"episode store {self.path}: {fault}" for fault in seal_faults(self._connection)]

    def close(self) -> None:
        """Let go of the file; closing twice is harmless."""
        with self._turn:
            if self.mode == "a":
                with suppress(sqlite3.Error):  # Another process has the store open, or this one has closed it before.
                    self._connection.execute("PRAGMA busy_timeout = 0")
                    # A reader can keep the log from being removed; the file beside it shall have all the same.
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    if self._connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",):
                        seal(self._connection)
            self._connection.close()

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.resolve().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        # Damaged text is for the hashes to find, not for the decoder to stumble over.
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        return connection

    def _recover(self) -> None:
        """Have undone what a killed writer had begun, which a connection for reading alone cannot do itself."""
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
        if faults := seal_faults(self._connection):  # what is damaged would be sealed again at the end
            instead = "it can be read, but not appended to (rlnas store merge makes a copy that can)"
            raise StoreError(f"episode store {self.path}: {faults[0]}; {instead}")
        self._connection.execute("PRAGMA synchronous = FULL")
        patiently(lambda: unseal(self._connection), BUSY_SECONDS)
        patiently(lambda: self._connection.execute("PRAGMA journal_mode = WAL"), BUSY_SECONDS)
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        with self.transaction():
            unseal(self._connection)  # again: another writer may have closed the store since; from now on none can
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
        if not tables and self._connection.execute("PRAGMA page_count").fetchone()[0] > 1:
            raise StoreError(f"{self.path} is a damaged or emptied SQLite database: it has pages, but no tables")
        if not tables and not may_be_empty:
            raise StoreError(f"{self.path} is not an rlnas episode store: it is empty")
        for kind, name, text in self._connection.execute("SELECT type, name, sql FROM sqlite_master"):
            if text not in _KNOWN and not (kind == "index" and text is None):
                raise StoreError(f"{self.path} holds a {kind} {name!r}, which no episode store has")
        return bool(tables)


def _is_full(error: Exception, path: Path) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # absent where the sqlite3 module itself complains
    if code == sqlite3.SQLITE_FULL:
        return True
    # What cannot be extended for want of space is not always said to be full: shared memory, say.
    failed = code is not None and code & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    return failed and path.parent.is_dir() and shutil.disk_usage(path.parent).free < LITTLE
