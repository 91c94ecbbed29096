"""Writes recorded evaluations as a Parquet file, one row each, for analysis with pandas, DuckDB and the like.

The columns, in this order; text is UTF-8, and null says that there is none:

* ``agent``, ``trial``, ``design``: the episode's number; ``env``: the environment's id; ``reward_form``;
* ``seed``: the environment's, ``evaluation_seed``: the proposal's;
* ``task``, ``task_digest``, ``split``, and ``family``, null where the task cannot be made here;
* ``architecture``: canonical text, the same for designs that are the same network, null where an illegal action ended
  the design; ``architecture_key``: the same with the space's name, null too where the space cannot be made here;
* ``status``, ``accuracy``, ``loss``, ``seconds``, ``parameters``, ``flops``, ``cached``, ``message``: the evaluation;
* ``actions``: how many the design took; ``reward``: the last one's; ``best``: best accuracy of the trial so far;
* ``sha256``: of the episode's record, as the store keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rlnas.canonical import canonical_json, sha256
from rlnas.datasets import source_from_spec
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, RlnasError
from rlnas.optional import imported
from rlnas.specs import space_from_spec
from rlnas.task import TaskSource

ROWS = 4096
"""Rows in a row group, and in memory."""
_TYPES = {
    "agent": "string",
    "trial": "int64",
    "design": "int64",
    "env": "string",
    "reward_form": "string",
    "seed": "int64",
    "evaluation_seed": "int64",
    "task": "string",
    "task_digest": "string",
    "split": "string",
    "family": "string",
    "architecture": "string",
    "architecture_key": "string",
    "status": "string",
    "accuracy": "float64",
    "loss": "float64",
    "seconds": "float64",
    "parameters": "int64",
    "flops": "int64",
    "cached": "bool_",
    "message": "string",
    "actions": "int32",
    "reward": "float64",
    "best": "float64",
    "sha256": "string",
}
_MAY_BE_NULL = ("seed", "family", "architecture", "architecture_key", "loss")


def export_parquet(episodes: Iterable[DesignEpisode], out: str | Path) -> int:
    """Write one row for each episode, in their order.

    Args:
        episodes: such as :meth:`rlnas.store.EpisodeStore.episodes` gives. Memory use does not grow with their number.
        out: the file, which is there whole or not at all.

    Returns:
        The number of rows.

    Raises:
        ConfigurationError: if the file exists already, or pyarrow is not installed.
        StoreError: whatever reading the episodes raises.
    """
    pa, parquet = imported("pyarrow", "--parquet", "export"), imported("pyarrow.parquet", "--parquet", "export")
    out = Path(out)
    if out.exists():
        raise ConfigurationError(f"{out} exists already; choose another file")
    fields = [pa.field(name, getattr(pa, kind)(), name in _MAY_BE_NULL) for name, kind in _TYPES.items()]
    schema = pa.schema(fields)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    rows, count = _rows(episodes), 0
    try:
        with parquet.ParquetWriter(temporary, schema) as writer:
            while batch := list(islice(rows, ROWS)):
                writer.write_table(pa.Table.from_pylist(batch, schema))
                count += len(batch)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _rows(episodes: Iterable[DesignEpisode]) -> Iterator[dict[str, Any]]:
    world: _World | None = None
    for episode in episodes:
        if world is None or (episode.env is not world.env and episode.env != world.env):
            world = _World(episode.env)
        yield world.row(episode)


@dataclass
class _World:
    """What is the same for all episodes of an environment."""

    env: dict[str, Any]
    sha256: str = field(init=False)
    source: TaskSource | None = field(init=False)
    space: str | None = field(init=False)
    families: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sha256 = sha256(canonical_json(self.env))
        try:
            self.source = source_from_spec(self.env["tasks"])
        except (RlnasError, OSError):
            self.source = None
        try:
            self.space = space_from_spec(self.env["space"]).name
        except (RlnasError, OSError):
            self.space = None

    def row(self, episode: DesignEpisode) -> dict[str, Any]:
        evaluation, text = episode.evaluation, episode.architecture or None
        return {
            **{name: getattr(episode, name) for name in ("agent", "trial", "design", "seed", "evaluation_seed")},
            **{name: getattr(episode, name) for name in ("task", "task_digest", "best")},
            **evaluation.to_json(),
            "status": str(evaluation.status),
            "env": self.env["id"],
            "reward_form": self.env["reward"],
            "split": self.env["split"],
            "family": self._family(episode),
            "architecture": text,
            "architecture_key": None if text is None or self.space is None else f"{self.space}/{text}",
            "actions": len(episode.actions),
            "reward": episode.rewards[-1],
            "sha256": sha256(episode.record(self.sha256)),
        }

    def _family(self, episode: DesignEpisode) -> str | None:
        digest = episode.task_digest
        if digest not in self.families:
            self.families[digest] = None
            try:
                task = None if self.source is None else self.source.named(episode.task)
            except (RlnasError, OSError):
                task = None
            if task is not None and task.digest == digest:
                self.families[digest] = task.family
        return self.families[digest]
