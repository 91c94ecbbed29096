"""Checkpoints: whole or refused, in one line, and never run."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from rlnas import checkpoint
from rlnas.checkpoint import DATA, MANIFEST, SCHEMA_VERSION, TENSORS, load_checkpoint, save_checkpoint
from rlnas.errors import CheckpointError

TENSOR: dict[str, Tensor] = {"weight": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(4.0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "kept", {"number": 1}, TENSOR)
    return tmp_path / "kept"


def stored(folder: Path, name: str) -> Path:
    """The file that the manifest names for ``name``."""
    return folder / MANIFEST if name == MANIFEST else folder / json.loads((folder / MANIFEST).read_text())[name]["file"]


def replace_content(folder: Path, name: str, content: bytes) -> None:
    """Put other content in place, with a manifest that vouches for it."""
    manifest = json.loads((folder / MANIFEST).read_text())
    stored(folder, name).write_bytes(content)
    manifest[name]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    edit(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def assert_refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(folder), *words):
        assert word in message


def test_what_was_saved_is_loaded(folder: Path) -> None:
    data, tensors = load_checkpoint(folder)
    assert data == {"schema": SCHEMA_VERSION, "number": 1}
    assert tensors.keys() == TENSOR.keys()
    assert all(torch.equal(tensors[name], TENSOR[name]) for name in TENSOR)
    assert tensors["step"].shape == ()


def test_equal_content_has_equal_files(folder: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "again", {"number": 1}, dict(reversed(TENSOR.items())))
    mine, its = ({p.name: p.read_bytes() for p in f.iterdir()} for f in (folder, tmp_path / "again"))
    assert mine == its


def test_saving_again_replaces_what_was_there(folder: Path) -> None:
    (folder / f".0123-{TENSORS}.part").write_bytes(b"what a killed save left behind")
    save_checkpoint(folder, {"number": 2}, {"weight": torch.zeros(1)})
    data, tensors = load_checkpoint(folder)
    assert data["number"] == 2
    assert tensors.keys() == {"weight"}
    assert len(list(folder.iterdir())) == 3


def test_a_tensor_that_is_a_view_is_saved_as_it_looks(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {}, {"turned": TENSOR["weight"].T})
    assert torch.equal(load_checkpoint(tmp_path)[1]["turned"], TENSOR["weight"].T)


@pytest.mark.parametrize("name", [MANIFEST, DATA, TENSORS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    path = stored(folder, name)
    path.unlink()
    assert_refused(folder, path.name, "missing")


@pytest.mark.parametrize("name", [MANIFEST, DATA, TENSORS])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(folder: Path, name: str, share: float) -> None:
    path = stored(folder, name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert_refused(folder, "damaged")


@pytest.mark.parametrize("name", [DATA, TENSORS])
def test_any_flipped_bit_is_refused(folder: Path, name: str) -> None:
    path = stored(folder, name)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert_refused(folder, "SHA-256", path.name)


def test_swapped_files_are_refused(folder: Path) -> None:
    data, tensors = stored(folder, DATA), stored(folder, TENSORS)
    contents = data.read_bytes(), tensors.read_bytes()
    tensors.write_bytes(contents[0])
    data.write_bytes(contents[1])
    assert_refused(folder, "SHA-256")


def test_swapped_entries_of_the_manifest_are_refused(folder: Path) -> None:
    edit_manifest(folder, lambda m: m.update({DATA: m[TENSORS], TENSORS: m[DATA]}))
    assert_refused(folder, "damaged")


@pytest.mark.parametrize("away", ["../elsewhere", "/etc/hostname", "inner/file"])
def test_a_manifest_that_names_a_file_outside_the_folder_is_refused(folder: Path, away: str) -> None:
    target = folder / away
    inside = stored(folder, TENSORS)
    if away == "../elsewhere":
        target.write_bytes(inside.read_bytes())  # whose hash would match
    edit_manifest(folder, lambda m: m[TENSORS].update(file=away))
    assert_refused(folder, "outside the folder", away)


@pytest.mark.parametrize("schema", [SCHEMA_VERSION + 1, 0, "1", None, [SCHEMA_VERSION]])
def test_another_schema_is_refused_by_name(folder: Path, schema: object) -> None:
    replace_content(folder, DATA, json.dumps({"schema": schema, "number": 1}).encode())
    assert_refused(folder, f"schema {schema!r}", f"reads schema {SCHEMA_VERSION}")


def test_a_newer_schema_is_named_even_if_its_tensors_cannot_be_read(folder: Path) -> None:
    replace_content(folder, DATA, json.dumps({"schema": SCHEMA_VERSION + 1}).encode())
    replace_content(folder, TENSORS, b"a format of the future")
    assert_refused(folder, f"schema {SCHEMA_VERSION + 1}")


@pytest.mark.parametrize(
    "text", ["[]", "null", "3", '"text"', "{}", "{", "", "[" * 100_000, '{"checkpoint.json": 5}', "\xff\n\n"]
)
def test_json_of_the_wrong_kind_is_refused(folder: Path, text: str) -> None:
    manifest = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(text.encode("latin-1"))
    assert_refused(folder, "damaged")
    (folder / MANIFEST).write_bytes(manifest)
    if text != '{"checkpoint.json": 5}':
        replace_content(folder, DATA, text.encode("latin-1"))
        assert_refused(folder, "damaged")


@pytest.mark.parametrize("entry", [None, 5, "name", [], {}, {"file": None, "sha256": ""}, {"file": "", "sha256": ""}])
def test_a_manifest_with_an_entry_of_the_wrong_kind_is_refused(folder: Path, entry: object) -> None:
    edit_manifest(folder, lambda m: m.update({TENSORS: entry}))
    assert_refused(folder)


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "x" * 5000])
def test_a_manifest_with_an_impossible_file_name_is_refused_in_one_line(folder: Path, name: str) -> None:
    edit_manifest(folder, lambda m: m[TENSORS].update(file=name))
    assert_refused(folder)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert_refused(tmp_path / "file")


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_in_place_of_tensors_is_refused_and_not_run(folder: Path, tmp_path: Path, writer: str) -> None:
    canary, path = Canary(tmp_path / "canary"), tmp_path / "pickled"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(canary))
    else:
        torch.save({"weight": canary}, path)
    replace_content(folder, TENSORS, path.read_bytes())
    assert_refused(folder, "damaged")
    assert not canary.path.exists()
    pickle.loads(pickle.dumps(canary)).close()
    assert canary.path.exists()  # it would have sung


def test_tensors_with_a_header_that_lies_about_sizes_are_refused(folder: Path) -> None:
    content = save(TENSOR)
    for header in (b"\xff" * 8, (2**40).to_bytes(8, "little"), (3).to_bytes(8, "little")):
        replace_content(folder, TENSORS, header + content[8:])
        assert_refused(folder, "damaged")


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_an_interrupted_save_leaves_the_old_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    write, done = checkpoint.write_durably, 0

    def failing(path: Path, content: bytes) -> None:
        nonlocal done
        if done == writes:
            path.with_name(f".{path.name}.1.part").write_bytes(content[:5])
            raise OSError("no space left on device")
        done += 1
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_durably", failing)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(folder, {"number": 2}, {"weight": torch.zeros(1)})
    data, tensors = load_checkpoint(folder)
    assert data["number"] == 1
    assert torch.equal(tensors["weight"], TENSOR["weight"])
    monkeypatch.undo()
    save_checkpoint(folder, {"number": 3}, {"weight": torch.zeros(1)})
    assert load_checkpoint(folder)[0]["number"] == 3
    assert len(list(folder.iterdir())) == 3  # nothing of the interrupted save is left


def test_a_save_interrupted_before_old_files_are_removed_has_been_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", failing)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder, {"number": 2}, TENSOR)
    assert load_checkpoint(folder)[0]["number"] == 2
