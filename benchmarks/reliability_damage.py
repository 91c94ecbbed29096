"""Whether a flipped bit in a store is found, and what a file of a newer version is answered with.

Part of ``benchmarks/reliability.py``.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reliability_store import AGENT, episodes_of

from rlnas import store_seal
from rlnas.agents.controller import Controller, ControllerConfig
from rlnas.checkpoint import DATA, MANIFEST, SCHEMA_VERSION
from rlnas.episode import SCHEMA_VERSION as STORE_VERSION
from rlnas.errors import RlnasError, StoreError
from rlnas.store import EpisodeStore


def bit_flips(folder: Path, flips: int) -> dict[str, Any]:
    """Flip one random bit of a closed store at a time, and of one that its last writer did not get to seal."""
    sealed, unsealed = folder / "sealed.sqlite", folder / "unsealed.sqlite"
    _make_store(sealed)
    with _without_seals():
        _make_store(unsealed)
    found, without = (_flipped(path, flips) for path in (sealed, unsealed))
    return {
        "flips": flips,
        "bytes of the store": sealed.stat().st_size,
        "found": found["refused"] + found["by rows"] + found["by the seal alone"],
        "not found": found["same"] + found["different"],
        **{how: found[how] for how in ("refused", "by rows", "by the seal alone")},
        "without a seal: found": without["refused"] + without["by rows"],
        "without a seal: not found, the same episodes": without["same"],
        "without a seal: not found, other episodes": without["different"],
    }


def _make_store(path: Path) -> None:
    """A store that has been added to and removed from."""
    for first in (0, 60):
        with EpisodeStore(path) as store:
            for trial in range(first, first + 60):
                store.append(episodes_of(trial))
            store.append([episode for trial in range(20) for episode in episodes_of(trial, f"from {first}")])
            store.forget(AGENT, range(first + 50, first + 60))


@contextmanager
def _without_seals() -> Iterator[None]:
    largest, store_seal.LARGEST = store_seal.LARGEST, 0
    yield
    store_seal.LARGEST = largest


def _flipped(path: Path, flips: int) -> Counter[str]:
    rng, content, damaged = random.Random(0), path.read_bytes(), path.with_name("flipped.sqlite")
    with EpisodeStore(path, "r") as store:
        assert store.verify() == []
        before = list(store.episodes())
    outcomes = Counter[str]()
    for place in (rng.randrange(8 * len(content)) for _ in range(flips)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        damaged.write_bytes(flipped)
        try:
            with EpisodeStore(damaged, "r") as store:
                if faults := store.verify():
                    outcomes["by the seal alone" if "seal" in faults[0] else "by rows"] += 1
                else:
                    outcomes["same" if list(store.episodes()) == before else "different"] += 1
        except StoreError:
            outcomes["refused"] += 1
    return outcomes


def newer_versions(folder: Path) -> dict[str, Any]:
    """Hand a checkpoint, a store and an episode of the next version to their loaders."""
    checkpoint, store = folder / "newer", folder / "newer.sqlite"
    Controller(ControllerConfig(4, (2,), hidden_size=2)).save(checkpoint)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    data = checkpoint / manifest[DATA]["file"]
    data.write_text(json.dumps({**json.loads(data.read_text()), "schema": SCHEMA_VERSION + 1}))
    manifest[DATA]["sha256"] = hashlib.sha256(data.read_bytes()).hexdigest()
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))
    with EpisodeStore(store) as made:
        made.append(episodes_of(0))
    connection = sqlite3.connect(store)
    connection.execute(f"PRAGMA user_version = {STORE_VERSION + 1}")
    connection.close()
    messages = {
        "a newer checkpoint": _refusal(lambda: Controller.load(checkpoint)),
        "a newer store": _refusal(lambda: EpisodeStore(store, "r")),
        "a newer store, to write": _refusal(lambda: EpisodeStore(store)),
    }
    needed = {"a newer checkpoint": SCHEMA_VERSION + 1}
    silent = sum(
        not re.search(rf"schema {needed.get(what, STORE_VERSION + 1)}\b", text) for what, text in messages.items()
    )
    return {**messages, "that don't say what they need": silent}


def _refusal(load: Any) -> str:
    try:
        load()
    except RlnasError as error:
        return str(error).partition(": ")[2] or str(error)
    return "accepted"
