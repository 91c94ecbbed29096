"""Checkpoints: a folder of JSON and safetensors with a SHA-256 manifest. Nothing in it can run code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rlnas.errors import CheckpointError

SCHEMA_VERSION = 1
DATA, TENSORS, MANIFEST = "checkpoint.json", "tensors.safetensors", "manifest.json"


def save_checkpoint(folder: str | Path, data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint so that a reader finds the old one or the new one, never a mixture.

    Files carry their content's hash in their names; replacing the manifest, in one step, is what makes them current.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        DATA: json.dumps({"schema": SCHEMA_VERSION, **data}, indent=1, sort_keys=True).encode(),
        TENSORS: save({name: tensor.contiguous() for name, tensor in tensors.items()}),
    }
    manifest = {}
    for name, content in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        stored = f"{digest[:16]}-{name}"
        write_durably(folder / stored, content)
        manifest[name] = {"file": stored, "sha256": digest}
    write_durably(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    current = {MANIFEST, *(entry["file"] for entry in manifest.values())}
    for pattern in (f"*-{DATA}*", f"*-{TENSORS}*", f".{MANIFEST}.*"):  # also the parts of a save that was cut short
        for old in folder.glob(pattern):
            if old.name not in current:
                old.unlink()


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what :func:`save_checkpoint` wrote, checking every hash.

    Raises:
        CheckpointError: if the folder holds no checkpoint, or one that is damaged or of a newer version.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        contents = {name: _read(folder, manifest[name]) for name in (DATA, TENSORS)}
        data = json.loads(contents[DATA])
        found = data["schema"]
        # Asked first: what else the files of a newer version hold is not ours to judge.
        tensors = load(contents[TENSORS]) if found == SCHEMA_VERSION else {}
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no checkpoint here ({Path(error.filename).name!r} is missing)") from None
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the checkpoint is damaged: {one_line(error)}") from None
    if found != SCHEMA_VERSION:
        raise CheckpointError(f"{folder}: checkpoint of schema {found!r}; this rlnas reads schema {SCHEMA_VERSION}")
    return data, tensors


def one_line(error: Exception) -> str:
    """An error's message without its line breaks."""
    return " ".join(str(error).split())


def _read(folder: Path, entry: Mapping[str, str]) -> bytes:
    name = entry["file"]
    if Path(name).name != name:
        raise ValueError(f"the manifest names a file outside the folder: {name!r}")
    content = (folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ValueError(f"{name} differs from its SHA-256 in the manifest")
    return content


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that a kill or a power cut leaves the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # so that the new name itself survives a power cut
    finally:
        os.close(folder)
