"""The seal of a store that was closed: one SHA-256 over every byte of the file, kept in the file itself.

Rows have their own hashes, but a part of an SQLite file is in no row: its header, its pages' headers, and
space that is not used. Where the last writer closed a store, :func:`seal_faults` finds a flipped bit anywhere in it.
A writer that opens the store takes the seal away, so that one that is killed leaves a store without; the rows' hashes
are what it then has.

The seal is the one row of a table, and fills the end of that table's one page. Its own 32 bytes count as zero.
"""

from __future__ import annotations

import hashlib
import sqlite3

LARGEST = 2**30
"""Bytes; a store is held in memory while it is sealed or its seal is checked, and a larger one is not sealed."""

SEALS = "CREATE TABLE seal (sha256 BLOB NOT NULL)"
"""The table that a seal is in."""

_EMPTY = bytes(hashlib.sha256().digest_size)
_COUNTER, _VALID_FOR, _VERSION = slice(24, 28), slice(92, 96), slice(96, 100)
"""Where SQLite's header has the number of changes, twice, and the version that made the last one."""


def seal(connection: sqlite3.Connection) -> None:
    """Seal a store that has no write-ahead log and is not open elsewhere.

    Raises:
        sqlite3.Error: if it cannot be written; it is then as it was.
    """
    if _size(connection) > LARGEST:
        return
    connection.execute("BEGIN EXCLUSIVE")
    try:
        if not _was_sealed(connection):
            connection.execute(SEALS)
        connection.execute("DELETE FROM seal")
        connection.execute("INSERT INTO seal VALUES (?)", (_EMPTY,))
        image = bytearray(connection.serialize())
        changes = int.from_bytes(image[_COUNTER], "big") + 1  # what the commit will write
        image[_COUNTER] = image[_VALID_FOR] = (changes % 2**32).to_bytes(4, "big")
        major, minor, patch = sqlite3.sqlite_version_info
        image[_VERSION] = (major * 1_000_000 + minor * 1_000 + patch).to_bytes(4, "big")
        connection.execute("UPDATE seal SET sha256 = ?", (hashlib.sha256(image).digest(),))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def unseal(connection: sqlite3.Connection) -> None:
    """Take the seal away, before anything else is changed."""
    if _was_sealed(connection) and connection.execute("SELECT COUNT(*) FROM seal").fetchone()[0]:
        connection.execute("DELETE FROM seal")


def seal_faults(connection: sqlite3.Connection) -> list[str]:
    """What the seal says of the file: nothing, or one line; nothing too where there is none.

    Raises:
        sqlite3.Error: if the file is too damaged to be read.
    """
    if not _was_sealed(connection):
        return []
    connection.execute("BEGIN")  # so that nobody changes what is compared
    try:
        seals = connection.execute("SELECT sha256, (SELECT rootpage FROM sqlite_master WHERE name = 'seal') FROM seal")
        rows = seals.fetchall()
        if not rows:
            return []
        found, root = rows[0]
        image = bytearray(connection.serialize())
    finally:
        connection.execute("COMMIT")
    end = (root or 0) * _page_size(connection)
    place = slice(end - len(_EMPTY), end)
    written, image[place] = bytes(image[place]), _EMPTY
    if len(rows) == 1 and found == written == hashlib.sha256(image).digest():
        return []
    return ["the file differs from its seal: bytes of it have changed since it was closed"]


def _was_sealed(connection: sqlite3.Connection) -> bool:
    """Whether there is a table of seals, were it one whose name is damaged."""
    query = "SELECT COUNT(*) FROM sqlite_master WHERE 'seal' IN (name, tbl_name) OR sql = ?"
    return bool(connection.execute(query, (SEALS,)).fetchone()[0])


def _page_size(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA page_size").fetchone()[0])


def _size(connection: sqlite3.Connection) -> int:
    return _page_size(connection) * int(connection.execute("PRAGMA page_count").fetchone()[0])
