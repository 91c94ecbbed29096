"""How programs that share an SQLite file take turns with it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """The statements of its block are kept, all of them, or none is if it raises."""
    # IMMEDIATE, because a transaction that reads before it writes could not wait for another writer to finish.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself where the disk was full.
            connection.execute("ROLLBACK")
        raise


def patiently(action: Callable[[], object], seconds: float) -> None:
    """Repeat until the database is not locked: SQLite does not wait by itself where the journal's mode changes.

    Args:
        action: what to do.
        seconds: after which its error is raised.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
