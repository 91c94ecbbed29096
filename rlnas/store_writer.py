"""Recording for those who cannot wait for the disk at every step: many steps' episodes are made durable at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from rlnas.episode import DesignEpisode
from rlnas.errors import StoreError
from rlnas.store import EpisodeStore, Rows
from rlnas.store_claim import claim

GATHER_SECONDS = 0.2
"""How long episodes are gathered before they are written together."""
HELD_AT_MOST = 50_000
"""Episodes that may wait to be written; whoever hands over more waits for the disk."""


class StoreWriter:
    """The one run that records into a store; others may read it meanwhile, and append through ``EpisodeStore``.

    What is handed over is written soon, in the background, and is certain to be on disk once :meth:`flush` has
    returned. If writing fails, what was handed over is held until a later :meth:`flush` succeeds.

    Args:
        path: the store, made if it is absent; its folder must exist.

    Raises:
        StoreError: as :class:`~rlnas.store.EpisodeStore`, or if another run records into it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._held = Rows()
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._state = threading.Lock()
        """Of the attributes above."""
        self._writing = threading.Lock()
        self._closing = threading.Event()
        with ExitStack() as stack:
            stack.enter_context(claim(self.path))
            self._store = stack.enter_context(EpisodeStore(self.path))
            self._open = stack.pop_all()

    def append(self, episodes: Sequence[DesignEpisode]) -> None:
        """Hand over episodes, which are kept even if this raises a StoreError.

        They are encoded here: a second thread that computes would hold up the caller's more than it takes off it.

        Raises:
            StoreError: if what was handed over before could not be written.
            ValueError: if an episode is no JSON; none of these is kept then.
        """
        with self._state:
            if self._closing.is_set():
                raise StoreError(f"the writer of {self.path} is closed")
            self._held.add(episodes)
            error, many = self._error, len(self._held.rows) > HELD_AT_MOST
            if error is None and self._thread is None:
                self._thread = threading.Thread(target=self._write_on, name="rlnas-store-writer")
                self._thread.start()
        if error is not None:
            raise error
        if many:
            self._write()

    def flush(self) -> None:
        """Returns when everything handed over so far is on disk.

        Raises:
            StoreError: as :meth:`EpisodeStore.append`; what could not be written is held and can be flushed later.
        """
        self._write()

    def __len__(self) -> int:
        """Number of episodes on disk."""
        return len(self._store)

    def close(self) -> None:
        """Flush and let go of the file; closing twice is harmless.

        Raises:
            StoreError: as :meth:`flush`; what could not be written is lost then.
        """
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        try:
            with self._open:
                self._write()
        finally:
            self._held.rows.clear()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        try:
            self.close()
        except Exception:
            if error is None:  # otherwise it is that one which is to be told
                raise

    def _write_on(self) -> None:
        """In a thread: write what is held, group after group, until nothing has come for a while or writing fails.

        While a run goes on the thread does: on a busy machine a run would wait long for one to start.
        """
        while True:
            self._closing.wait(GATHER_SECONDS)
            with self._state:
                if not self._held.rows or self._error is not None:
                    self._thread = None
                    return
            with suppress(Exception):  # it is remembered, and raised where episodes are handed over or flushed
                self._write()

    def _write(self) -> None:
        with self._writing:
            with self._state:
                specs, group = dict(self._held.specs), self._held.rows[:]
            if not group:
                return
            try:
                self._store.append_rows(specs, group)
            except Exception as error:
                with self._state:
                    self._error = error
                raise
            with self._state:
                self._error = None
                del self._held.rows[: len(group)]
