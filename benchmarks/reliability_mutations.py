"""Ways to damage and to forge files, for the loaders that must see through them.

Part of ``benchmarks/reliability.py``. A mutation takes a file's content, or a folder's by name, and a generator of
random numbers. What is *forged* has its hashes and checksums made anew, so that the loader's own checks are met.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import random
import sqlite3
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors.torch import save

from rlnas.checkpoint import DATA, MANIFEST, TENSORS
from rlnas.store_seal import seal, unseal

Files: TypeAlias = dict[str, bytes]
Rng: TypeAlias = random.Random


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def evil_values(canary: Path) -> list[Any]:
    """What no field of a JSON file expects."""
    code = f"__import__('os').system('touch {canary}')"
    numbers = [None, True, False, -1, 0, 1, 7, 0.5, 2**31, 2**63, 10**30, 1e308, -1e308, float("nan"), float("inf")]
    texts = ["", "1", "x" * 100_000, "../../canary", str(canary), "a\0b", "a\nb", "\ud800", code, f"!!python/{code}"]
    return [*numbers, *texts, 3_000, 20_000, 10**6, [], {}, [1, 2, 3], [[]], {"a": 1}, _nested(900), [None] * 1000]


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def damaged(content: bytes, rng: Rng) -> bytes:
    """Bits flipped, a part cut off, exchanged, repeated, overwritten or added."""
    size = max(1, len(content))
    start, end = sorted(rng.randrange(size + 1) for _ in range(2))
    match rng.randrange(8):
        case 0 | 1 | 2:
            flipped = bytearray(content or b"\0")
            for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            return bytes(flipped)
        case 3:
            return content[:start]
        case 4:
            middle = rng.randrange(start, end + 1)
            return content[:start] + content[middle:end] + content[start:middle] + content[end:]
        case 5:
            return content[:end] + content[start:]
        case 6:
            return content[:start] + bytes(end - start) + content[end:]
        case _:
            return content + rng.randbytes(rng.choice([1, 100, 5000]))


def pickled(canary: Path, rng: Rng) -> bytes:
    """A file that sings if it is unpickled: by pickle, by torch, by numpy."""
    stream, spy = io.BytesIO(), Canary(canary)
    match rng.randrange(4):
        case 0:
            return pickle.dumps(spy)
        case 1:
            torch.save({"weight": spy}, stream)
        case 2:
            np.save(stream, np.array([spy, spy], dtype=object), allow_pickle=True)
        case _:
            names = ("ops", "tasks", "accuracy", "images", "x", "about")
            np.savez(stream, **{name: np.array([spy], dtype=object) for name in names})  # type: ignore[arg-type]
    return stream.getvalue()


def changed_json(content: bytes, rng: Rng, canary: Path) -> bytes:
    """A JSON text with one value, at any depth, exchanged, removed or added; or no more than brackets."""
    if rng.randrange(12) == 0:
        return rng.choice([b"[" * 200_000, b'{"a":' * 100_000, b"9" * 100_000, b"null", b"[]", b'""', b"\xff\xfe", b""])
    data = json.loads(content)
    places = list(_places(data))
    where, key = rng.choice(places) if places else (data, None)
    match rng.randrange(6):
        case 0 if key is not None:
            del where[key]
        case 1 if isinstance(where, dict):
            where[rng.choice(["surplus", "__class__", "self", "path", ""])] = rng.choice(evil_values(canary))
        case _ if key is not None:
            where[key] = rng.choice(evil_values(canary))
        case _:
            return json.dumps(rng.choice(evil_values(canary))).encode()
    return json.dumps(data).encode()


def _places(data: Any) -> Any:
    """Each value within a JSON value, as what it is in and by which key or index."""
    for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
        yield data, key
        if isinstance(value, dict | list):
            yield from _places(value)


def changed_tensors(content: bytes, rng: Rng, canary: Path) -> bytes:
    """A safetensors file whose header says something else, or that holds other tensors."""
    length = int.from_bytes(content[:8], "little")
    match rng.randrange(4):
        case 0:
            return rng.choice([2**63, 2**40, 0, 3]).to_bytes(8, "little") + content[8:]
        case 1:
            other = {
                "controller.policy.weight": torch.full((3, 3), float("nan")),
                "a": torch.zeros(2, dtype=torch.int8),
            }
            return save(other)
        case _:
            header = changed_json(content[8 : 8 + length], rng, canary)
            return len(header).to_bytes(8, "little") + header + content[8 + length :]


def forged_checkpoint(files: Files, rng: Rng, canary: Path) -> Files:
    """A checkpoint's folder with changed JSON or tensors, under a manifest that vouches for them."""
    manifest = json.loads(files[MANIFEST])
    part = rng.choice([DATA, DATA, TENSORS, MANIFEST])
    if part == MANIFEST:
        return {**files, MANIFEST: changed_json(files[MANIFEST], rng, canary)}
    name = manifest[part]["file"]
    change = changed_json if part == DATA else changed_tensors
    content = pickled(canary, rng) if rng.randrange(10) == 0 else change(files[name], rng, canary)
    manifest[part]["sha256"] = hashlib.sha256(content).hexdigest()
    return {**files, name: content, MANIFEST: json.dumps(manifest).encode()}


def unzipped(content: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: Files, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return stream.getvalue()


def tricked_zip(content: bytes, rng: Rng, canary: Path) -> bytes:
    """A zip that reaches out of its folder, unpacks to very much, says things twice, or is in another zip."""
    files = unzipped(content)
    names = list(files)
    name = rng.choice(names)
    match rng.randrange(7):
        case 0:
            return zipped({**files, f"../{canary.name}": b"out", str(canary): b"out"})
        case 1:
            return zipped({**files, name: _zeros()}, zipfile.ZIP_DEFLATED)  # a fifth of a megabyte
        case 2:
            return zipped({"../" + name if each == name else each: part for each, part in files.items()})
        case 3:
            said = content.rfind(b"PK\x01\x02") + rng.choice([20, 24])  # sizes, in the directory at the end
            return content[:said] + (2**32 - 2).to_bytes(4, "little") + content[said + 4 :]
        case 4:
            return zipped({"inner.zip": content, **({} if rng.randrange(2) else files)})
        case 5:
            return zipped(files, rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
        case _:
            return zipped({each: damaged(part, rng) if each == name else part for each, part in files.items()})


@cache
def _zeros() -> bytes:
    return bytes(200 * 2**20)


def huge_array(rng: Rng) -> bytes:
    """An ``.npy`` file that claims a size which no memory has."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(4))
    shape = rng.choice([b"(99999999,)", b"(9**9**9, )", b"(-1,     )", b"(4, 9999,)", b"(        )"])
    return stream.getvalue().replace(b"(4,)", shape)


SQL: list[str] = [
    "CREATE TRIGGER t AFTER INSERT ON episodes BEGIN DELETE FROM episodes; END",
    "CREATE TRIGGER t BEFORE INSERT ON specs BEGIN SELECT RAISE(ABORT, 'no'); END",
    "CREATE TRIGGER t AFTER INSERT ON episodes BEGIN UPDATE episodes SET payload = 'x'; END",
    "ALTER TABLE episodes RENAME TO e; CREATE VIEW episodes AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 "
    "FROM c) SELECT 'a' AS agent, x AS trial, 0 AS design, '' AS sha256, '' AS payload FROM c",
    "ALTER TABLE episodes RENAME TO e; CREATE VIEW episodes AS SELECT load_extension('CANARY') AS agent, 1 AS trial, "
    "0 AS design, '' AS sha256, '' AS payload",
    "ALTER TABLE specs RENAME TO s; CREATE VIEW specs AS SELECT sha256, writefile('CANARY', 'out') AS payload FROM s",
    "ALTER TABLE specs RENAME TO s; CREATE VIEW specs AS SELECT sha256, zeroblob(900000000) AS payload FROM s",
    "CREATE VIRTUAL TABLE words USING fts5(word)",
    "CREATE TABLE seals (sha256 BLOB)",
    "CREATE INDEX i ON episodes (abs(trial))",
    "ALTER TABLE episodes ADD COLUMN note TEXT DEFAULT 'x'",
    "ALTER TABLE episodes RENAME COLUMN payload TO text",
    "DROP TABLE specs",
    "DROP TABLE episodes",
    "DELETE FROM specs",
    "DELETE FROM episodes WHERE trial % 2",
    "UPDATE episodes SET payload = CAST(payload AS BLOB)",
    "UPDATE episodes SET payload = zeroblob(3000000)",
    "UPDATE episodes SET sha256 = ''",
    "UPDATE episodes SET trial = 9223372036854775807 WHERE trial = 1",
    "UPDATE episodes SET trial = -9223372036854775808 WHERE trial = 1",
    "UPDATE episodes SET trial = 'one' WHERE trial = 1",
    "UPDATE episodes SET design = 0.5 WHERE design = 1",
    "UPDATE episodes SET agent = CAST(x'ff00fe' AS TEXT)",
    "UPDATE episodes SET agent = char(10) || agent",
    "UPDATE specs SET payload = '[]'",
    "PRAGMA application_id = 7",
    "PRAGMA user_version = 0",
    "PRAGMA user_version = 2147483647",
    "PRAGMA user_version = -1",
    "PRAGMA journal_mode = WAL",
    "PRAGMA page_size = 512; VACUUM",
    "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 2",
    "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE TABLE episodes (x)' WHERE name = 'episodes'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_master SET type = 'view' WHERE name = 'specs'",
    "PRAGMA writable_schema = ON; DELETE FROM sqlite_master",
]
"""What somebody may have done to a store with a tool of SQLite's."""


def forged_store(path: Path, rng: Rng, canary: Path) -> None:
    """Change a store by SQL, or an episode's JSON with its hash; half of the time it is sealed again."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_function("sha", 1, lambda text: hashlib.sha256(text.encode()).hexdigest())
    with contextlib.closing(connection), contextlib.suppress(sqlite3.Error):
        match rng.randrange(4):
            case 0:
                rows = connection.execute("SELECT rowid, payload FROM episodes").fetchall()
                row, payload = rng.choice(rows)
                text = changed_json(payload.encode(), rng, canary).decode("latin-1")
                connection.execute(
                    "UPDATE episodes SET payload = ?, sha256 = sha(?) WHERE rowid = ?", (text, text, row)
                )
            case 1:
                ((before, payload),) = connection.execute("SELECT sha256, payload FROM specs LIMIT 1").fetchall()
                text = changed_json(payload.encode(), rng, canary).decode("latin-1")
                connection.execute(
                    "UPDATE specs SET payload = ?, sha256 = sha(?) WHERE sha256 = ?", (text, text, before)
                )
                connection.execute("UPDATE episodes SET payload = replace(payload, ?, sha(?))", (before, text))
                connection.execute("UPDATE episodes SET sha256 = sha(payload)")
            case _:
                connection.executescript(rng.choice(SQL).replace("CANARY", str(canary)))
        if rng.randrange(2):
            unseal(connection)
            seal(connection)
