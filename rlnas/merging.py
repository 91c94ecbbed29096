"""Brings the episodes of several stores into one, all of them or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, StoreError
from rlnas.store import EpisodeStore
from rlnas.store_claim import claim

GROUP = 1024
"""Episodes held in memory."""


@dataclass(frozen=True, slots=True)
class Part:
    """A store to merge.

    Args:
        path: its file.
        prefix: what its agents' names are given in front, with a slash between; empty to leave them as they are.
    """

    path: Path
    prefix: str = ""

    def episodes(self) -> Iterator[DesignEpisode]:
        """Its episodes, with the agents' new names."""
        with EpisodeStore(self.path, mode="r") as store:
            for episode in store.episodes():
                yield replace(episode, agent=f"{self.prefix}/{episode.agent}") if self.prefix else episode


def merge(out: str | Path, parts: Sequence[Part]) -> int:
    """Add the episodes of some stores to another one, in one transaction. Equal episodes are kept once.

    Two runs of the same agent have different episodes under the same numbers: give each part a prefix of its own.

    Args:
        out: the store's file, made if it is absent; its folder must exist.
        parts: the stores, which stay as they are.

    Returns:
        How many episodes ``out`` did not have before.

    Raises:
        ConfigurationError: if ``out`` is itself one of the parts.
        StoreError: if two episodes of the same number differ, which the message names, if a store cannot be read, or if
            a run is recording into ``out``. That is then as it was before.
    """
    out = Path(out)
    for part in parts:
        if part.path.resolve() == out.resolve():
            raise ConfigurationError(f"{part.path} cannot be merged into itself")
        with EpisodeStore(part.path, mode="r"):  # before a file is made
            pass
    with claim(out):
        return _merged(out, _Reading(parts))


class _Reading:
    """Reads parts one after another, and knows which one it is at."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self.path: Path | None = None

    def groups(self) -> Iterator[list[DesignEpisode]]:
        """The episodes of all parts, some at a time."""
        for part in self._parts:
            self.path = part.path
            episodes = part.episodes()
            while group := list(islice(episodes, GROUP)):
                yield group


def _merged(out: Path, reading: _Reading) -> int:
    is_new = not out.exists()
    try:
        with EpisodeStore(out) as store:
            before = len(store)
            try:
                store.append_groups(reading.groups())
            except StoreError as error:
                if reading.path is None or str(reading.path) in str(error):
                    raise
                hint = "nothing is merged (NAME=RUN keeps the agents of a run apart)"
                raise type(error)(f"{error}; while merging {reading.path}: {hint}") from None
            return len(store) - before
    except BaseException:
        if is_new:
            out.unlink(missing_ok=True)
        raise
