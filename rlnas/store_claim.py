"""Which process records into an episode store: one run at a time, and two would mix up their trials.

A claim is a lock on a file beside the store, which the operating system takes back when the process ends, however it
does. The file says who holds it; left behind by a killed process it means nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlnas.errors import DiskFullError, StoreError

PATIENCE = 1.0
"""Seconds to wait for the last holder to finish, who may be about to end."""


@contextmanager
def claim(store: Path) -> Iterator[None]:
    """Within its block no other run can claim the store.

    Those who append to it now and then without a claim take turns with the run, transaction by transaction.

    Args:
        store: path of the store, which need not exist yet.

    Raises:
        StoreError: if another run has claimed it, naming that run's process.
    """
    file_itself = store.resolve()  # the same by whatever name
    path = file_itself.with_name(f"{file_itself.name}-claim")
    file = _locked(path, store)
    try:
        with suppress(OSError):  # a full disk: others are refused all the same
            os.truncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):  # what stays means nothing
            path.unlink()
        os.close(file)


def _locked(path: Path, store: Path) -> int:
    """A descriptor of the file, which is locked."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            kind = DiskFullError if error.errno == errno.ENOSPC else StoreError
            raise kind(f"episode store {store}: {path} cannot be made: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(file, 200, 0).decode(errors="replace") or "another process"
                os.close(file)
                raise StoreError(f"{holder} is recording into {store}; wait for it or end it") from None
        except OSError as error:
            os.close(file)
            raise StoreError(f"episode store {store}: {path} cannot be locked: {error.strerror}") from None
        os.close(file)  # its holder has not finished, or has just removed it
        time.sleep(0.01)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
