"""Checkpoints: JSON and safetensors with a SHA-256 manifest, in a folder or a zip. Nothing in them can run code."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rlnas.errors import CheckpointError, ConfigurationError, RlnasError

SCHEMA_VERSION = 1
DAMAGED = (ValueError, KeyError, TypeError, RuntimeError, EOFError, struct.error, SafetensorError, BadZipFile)
"""What reading damaged files raises."""
DATA, TENSORS, MANIFEST = "checkpoint.json", "tensors.safetensors", "manifest.json"
KEPT = re.compile(rf"\.?[0-9a-f]+-({DATA}|{TENSORS})(\..*part)?|\.{MANIFEST}\..*part")
"""Names of files that a save leaves in a folder, whole or cut short."""


def save_checkpoint(path: str | Path, data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint so that a reader finds the old one or the new one, never a mixture.

    In a folder, files carry their content's hash in their names; replacing the manifest, in one step, is what makes
    them current.

    Args:
        path: a folder, made if it is missing, or a file ``.zip``.
        data: JSON.
        tensors: by name.
    """
    path = Path(path)
    contents = {
        DATA: json.dumps({"schema": SCHEMA_VERSION, **data}, indent=1, sort_keys=True).encode(),
        TENSORS: save({name: tensor.contiguous() for name, tensor in tensors.items()}),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    stored = {name: f"{digest[:16]}-{name}" for name, digest in digests.items()}
    manifest = {name: {"file": stored[name], "sha256": digests[name]} for name in contents}
    files = {stored[name]: content for name, content in contents.items()}
    files[MANIFEST] = json.dumps(manifest, indent=1).encode()  # the last to be written
    if path.suffix == ".zip":
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, _zipped(files))
        return
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_durably(path / name, content)
    for old in path.iterdir():
        if KEPT.fullmatch(old.name) and old.name not in files:
            old.unlink()


def load_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what :func:`save_checkpoint` wrote, checking every hash.

    Raises:
        CheckpointError: if there is no checkpoint, or one that is damaged or of a newer version.
    """
    path = Path(path)
    try:
        read = _files_of_zip(path.read_bytes()) if path.is_file() else _files_of_folder(path)
        manifest = json.loads(read(MANIFEST))
        contents = {name: _checked(read, manifest[name]) for name in (DATA, TENSORS)}
        data = json.loads(contents[DATA])
        found = data["schema"]
        # Asked first: what else the files of a newer version hold is not ours to judge.
        tensors = load(contents[TENSORS]) if found == SCHEMA_VERSION else {}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no checkpoint here ({Path(error.filename).name!r} is missing)") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except DAMAGED as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged: {one_line(error)}") from None
    if found != SCHEMA_VERSION:
        raise CheckpointError(f"{path}: checkpoint of schema {found!r}; this rlnas reads schema {SCHEMA_VERSION}")
    return data, tensors


@contextmanager
def settings_of_run(file: Path) -> Iterator[Any]:
    """The JSON in the file that a run keeps its settings in, to make them of within the context.

    Raises:
        ConfigurationError: if there is none, or what it holds, or what is made of it, is damaged.
    """
    try:
        yield json.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigurationError(f"{file.parent} holds no run (there is no {file.name})") from None
    except RlnasError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"{file} is damaged, or of another kind of run: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """An error's message without its line breaks."""
    return " ".join(str(error).split())


def _files_of_folder(folder: Path) -> Callable[[str], bytes]:
    return lambda name: (folder / name).read_bytes()


def _files_of_zip(content: bytes) -> Callable[[str], bytes]:
    """Reads files from a zip whose files are stored as they are: what is said to be larger than the zip is refused."""
    archive = ZipFile(BytesIO(content))

    def read(name: str) -> bytes:
        entry = archive.getinfo(name)
        if entry.compress_type != ZIP_STORED or entry.file_size > len(content):
            raise ValueError(f"{name} must be stored without compression")
        return archive.read(entry)

    return read


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of files, stored as they are; equal files give an equal zip."""
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(ZipInfo(name), content)
    return buffer.getvalue()


def _checked(read: Callable[[str], bytes], entry: Mapping[str, str]) -> bytes:
    name = entry["file"]
    if Path(name).name != name:
        raise ValueError(f"the manifest names a file outside the folder: {name!r}")
    content = read(name)
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
