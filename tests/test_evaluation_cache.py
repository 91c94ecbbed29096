"""Evaluations shared across runs: found again when and only when they must be, whatever happens to the file."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlnas import device, evaluation_cache, sequential_evaluator
from rlnas.adaptation import Adaptation
from rlnas.batched_evaluator import BatchedEvaluator
from rlnas.cached_evaluator import CachedEvaluator, stated_version
from rlnas.digits import DigitsSource
from rlnas.errors import CacheError, ConfigurationError
from rlnas.evaluation_cache import EvaluationCache, addresses, default_cache_path
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.initialisation import Initialisation
from rlnas.parallel_evaluator import ParallelEvaluator, evaluator_in_processes
from rlnas.search_space import ChainSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.specs import evaluator_from_spec

from .contracts.evaluator import EvaluatorContract
from .fake_evaluator import fake_accuracy

CHAIN = ChainSpace(max_layers=3, widths=(4, 8), dense_widths=(16,))
FAST = Adaptation(steps=2)
SOURCE = DigitsSource()
TASK = SOURCE.task("train", 0)
VERSION = {"version": 1}
A, B, C = (Proposal(CHAIN.parse("conv3x3-4"), TASK, seed) for seed in range(3))


class Counting(CachedEvaluator):
    """Trains nothing, but counts what it is asked to train."""

    def __init__(self, cache: EvaluationCache | None, version: dict[str, Any] | None = VERSION, size: int = 0) -> None:
        super().__init__(size, cache)
        self.trained = 0
        self.statuses: dict[int, Status] = {}
        self._version = version

    def spec(self) -> dict[str, Any]:
        return {"kind": "counting"}

    def version(self) -> dict[str, Any] | None:
        return self._version

    def _train_all(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        self.trained += len(proposals)
        return [Evaluation(fake_accuracy(p), status=self.statuses.get(p.seed, Status.OK)) for p in proposals]


@pytest.fixture
def cache(tmp_path: Path) -> EvaluationCache:
    return EvaluationCache(tmp_path / "rlnas" / "evaluations.sqlite")


def trains(evaluator: CachedEvaluator, proposals: Sequence[Proposal]) -> list[bool]:
    """Of each proposal, whether it is not known."""
    return [not evaluation.cached for evaluation in evaluator.evaluate(proposals)]


class TestShared(EvaluatorContract):
    """An evaluator that shares keeps every promise, on an empty file and then on what it left there."""

    @pytest.fixture(autouse=True)
    def _cache(self, cache: EvaluationCache) -> None:
        self.cache = cache

    def make(self) -> SequentialEvaluator:
        return SequentialEvaluator(FAST, cache=self.cache, cache_size=3)

    def make_proposals(self) -> list[Proposal]:
        return [A, B, replace(A, steps=1), replace(A, task=SOURCE.task("train", 1))]


@pytest.mark.parametrize("size", [0, 2, 100])
def test_what_one_evaluator_trained_another_knows(cache: EvaluationCache, size: int) -> None:
    first = Counting(cache, size=size)
    assert [e.cached for e in first.evaluate([A, B, A])] == [False, False, True]
    second = Counting(EvaluationCache(cache.path), size=size)
    found = second.evaluate([C, A, B, A])
    assert [e.cached for e in found] == [False, True, True, True]
    assert [e.accuracy for e in found] == [fake_accuracy(p) for p in (C, A, B, A)]
    assert (first.trained, second.trained, len(cache)) == (2, 1, 3)


def test_a_hit_is_the_first_evaluation_to_the_bit(cache: EvaluationCache) -> None:
    proposals = [A, B, Proposal(CHAIN.parse("dense-16 > dense-16"), TASK)]
    first = BatchedEvaluator(FAST, cache=cache).evaluate(proposals)
    assert not any(e.cached for e in first)
    again = BatchedEvaluator(FAST, cache=cache).evaluate(proposals)
    assert again == [replace(e, cached=True) for e in first]


def test_an_entry_is_for_one_proposal_and_one_version() -> None:
    proposals = [
        A,
        B,
        replace(A, steps=1),
        replace(A, architecture=CHAIN.parse("conv3x3-8")),
        replace(A, architecture=ChainSpace(max_layers=2).parse("conv3x3-8")),
        replace(A, task=SOURCE.task("train", 1)),
    ]
    found = [place for version in ({"version": 1}, {"version": 2}) for place in addresses(proposals, version)]
    assert len(set(found)) == 12
    identity, conv = "identity", "conv3x3-4"
    twins = [
        CHAIN.decode([CHAIN.decisions[0].choices.index(name) for name in names])
        for names in ((conv, identity, identity), (identity, conv, identity))
    ]
    assert len(set(addresses([replace(A, architecture=twin) for twin in twins], VERSION))) == 1


def test_every_option_that_changes_results_is_in_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [
        SequentialEvaluator().version(),
        SequentialEvaluator(FAST).version(),
        BatchedEvaluator().version(),
        BatchedEvaluator(tiles=(5, 25)).version(),
        BatchedEvaluator(precision="bfloat16").version(),
    ]
    for module, name, value in (
        (torch, "__version__", "1.0"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "ABACUS"),
        (torch, "get_float32_matmul_precision", lambda: "medium"),
        (device, "_machine", lambda: {"processor": "Z80"}),
        (sequential_evaluator, "EVALUATOR_VERSION", 0),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            versions.append(SequentialEvaluator().version())
    assert len({str(version) for version in versions}) == len(versions)
    assert SequentialEvaluator().version() == versions[0]
    assert SequentialEvaluator(cache_size=0).version() == versions[0]


def test_results_are_those_of_this_evaluator_version() -> None:
    """Where this fails, results have changed: raise EVALUATOR_VERSION, and only then these numbers."""
    designs = [CHAIN.parse(text) for text in ("conv3x3-8 > max-pool > dense-16", "conv3x3-4", "dense-16")]
    proposals = [Proposal(design, TASK, seed) for seed, design in enumerate(designs)]
    assert sequential_evaluator.EVALUATOR_VERSION == 1
    for evaluator in (SequentialEvaluator(), BatchedEvaluator()):
        losses = [e.loss for e in evaluator.evaluate(proposals)]
        np.testing.assert_allclose(np.array(losses, dtype=float), [0.7597, 0.387908, 0.742606], rtol=1e-3)


def test_a_learned_start_is_known_by_its_content(tmp_path: Path, cache: EvaluationCache) -> None:
    starts = [Initialisation({"w": torch.full((1,), value)}, Adaptation(1, method="fomaml")) for value in (1.0, 2.0)]
    folders = [tmp_path / name for name in ("one", "copy", "other")]
    for folder, start in zip(folders, (starts[0], starts[0], starts[1]), strict=True):
        start.save(folder)
    known = [not SequentialEvaluator(init=folder, cache=cache).evaluate([A])[0].cached for folder in folders]
    assert known == [True, False, True]


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.OK])
def test_only_what_follows_from_the_proposal_is_kept(cache: EvaluationCache, status: Status) -> None:
    unlucky = Counting(cache)
    unlucky.statuses = {1: status}
    unlucky.evaluate([A, B])
    assert trains(Counting(cache), [A, B]) == [False, status not in (Status.DIVERGED, Status.INVALID)]


class Silent(Counting):
    """Might train otherwise than its parent, and does not say."""


class Outspoken(Counting):
    def version(self) -> dict[str, Any] | None:
        return {"outspoken": 1}


def test_a_class_that_does_not_state_its_own_version_shares_nothing(cache: EvaluationCache) -> None:
    Counting(cache).evaluate([A])
    assert [trains(Silent(cache), [A]) for _ in range(2)] == [[True], [True]]
    assert [trains(Outspoken(cache), [A]) for _ in range(2)] == [[True], [False]]
    assert [trains(Counting(cache, version=None), [A]) for _ in range(2)] == [[True], [True]]
    assert len(cache) == 2


def test_rlnas_own_evaluators_state_theirs() -> None:
    assert stated_version(SequentialEvaluator()) is not None
    assert stated_version(BatchedEvaluator()) is not None


def test_worker_processes_share_through_their_parent(cache: EvaluationCache) -> None:
    proposals = [A, B, C]
    first = SequentialEvaluator(FAST, cache=cache).evaluate([A])
    with ParallelEvaluator(1, SequentialEvaluator(FAST).spec(), cache=cache) as evaluator:
        assert stated_version(evaluator) == SequentialEvaluator(FAST).version()
        found = evaluator.evaluate(proposals)
    assert [e.cached for e in found] == [True, False, False]
    assert found[0] == replace(first[0], cached=True)
    here = evaluator_in_processes(SequentialEvaluator(FAST).spec(), cache=cache).evaluate(proposals)
    assert here == [replace(e, cached=True) for e in found]


def test_a_description_carries_no_cache(cache: EvaluationCache) -> None:
    evaluator = SequentialEvaluator(FAST, cache=cache)
    spec = evaluator.spec()
    assert spec == SequentialEvaluator(FAST).spec()
    evaluator.evaluate([A])
    again = evaluator_from_spec(spec)
    assert isinstance(again, SequentialEvaluator)
    assert trains(again, [A]) == [True]
    with pytest.raises(ConfigurationError, match=r"cache must be an EvaluationCache or None, got '.*sqlite'"):
        evaluator_from_spec({**spec, "cache": str(cache.path)})


@pytest.mark.parametrize("count", [evaluation_cache.CHUNK, evaluation_cache.CHUNK + 1, 3 * evaluation_cache.CHUNK])
def test_any_number_at_once(cache: EvaluationCache, count: int) -> None:
    proposals = [replace(A, seed=seed) for seed in range(count)]
    Counting(cache).evaluate(proposals)
    again = Counting(cache)
    found = again.evaluate(proposals[::-1])
    assert [e.accuracy for e in found] == [fake_accuracy(p) for p in proposals[::-1]]
    assert again.trained == 0


def test_the_oldest_are_dropped(tmp_path: Path) -> None:
    cache = EvaluationCache(tmp_path / "small.sqlite", max_evaluations=3)
    proposals = [replace(A, seed=seed) for seed in range(5)]
    for some in (proposals[:2], proposals[2:4], proposals[4:]):
        Counting(cache).evaluate(some)
    assert len(cache) == 3
    assert [e is None for e in cache.find(proposals, VERSION)] == [True, True, False, False, False]
    with pytest.raises(ConfigurationError, match="max_evaluations must be an integer >= 1, got 0"):
        EvaluationCache(tmp_path / "none.sqlite", max_evaluations=0)


@pytest.mark.parametrize("column", ["address", "sha256", "payload"])
def test_every_flipped_bit_of_an_entry_is_found_and_repaired(cache: EvaluationCache, column: str) -> None:
    Counting(cache).evaluate([A])
    with closing(sqlite3.connect(cache.path, isolation_level=None)) as file:
        (whole,) = file.execute(f"SELECT CAST({column} AS BLOB) FROM evaluations").fetchone()
        for bit in range(0, 8 * len(whole), 7):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            kind = "TEXT" if column == "payload" else "BLOB"
            file.execute(f"UPDATE evaluations SET {column} = CAST(? AS {kind})", (bytes(damaged),))
            assert cache.find([A], VERSION) == [None]
            Counting(cache).evaluate([A])
            (found,) = cache.find([A], VERSION)
            assert found is not None
            assert found.accuracy == fake_accuracy(A)
            file.execute("DELETE FROM evaluations WHERE rowid < (SELECT max(rowid) FROM evaluations)")


@pytest.mark.parametrize("text", [b"{}", b"[]", b"\xff", b"nonsense", b'{"status": "odd"}', b"[" * 100_000])
def test_an_entry_that_says_something_else_counts_as_absent(cache: EvaluationCache, text: bytes) -> None:
    Counting(cache).evaluate([A])
    (place,) = addresses([A], VERSION)
    with closing(sqlite3.connect(cache.path)) as file, file:
        sha = hashlib.sha256(place + text).digest()
        file.execute("UPDATE evaluations SET payload = CAST(? AS TEXT), sha256 = ?", (text, sha))
    assert trains(Counting(cache), [A]) == [True]
    assert trains(Counting(cache), [A]) == [False]


def test_what_is_no_cache_is_refused_and_left_alone(tmp_path: Path, cache: EvaluationCache) -> None:
    text, other, folder = tmp_path / "text", tmp_path / "other", tmp_path / "folder"
    text.write_bytes(b"dear diary " * 500)
    folder.mkdir()
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE evaluations (mine)")
    before = other.read_bytes()
    for path, said in (
        (text, "file is not a database"),
        (other, "is no evaluation cache but another program's SQLite database"),
        (folder, "unable to open"),
        (text / "inside", "Not a directory|File exists"),
    ):
        with pytest.raises(CacheError, match=said):
            EvaluationCache(path)
    assert (text.read_bytes()[:11], other.read_bytes()) == (b"dear diary ", before)
    with closing(sqlite3.connect(cache.path)) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(CacheError, match="has schema 9, this rlnas knows 1; delete it"):
        EvaluationCache(cache.path)


def test_a_file_that_breaks_while_it_is_used_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with EvaluationCache(tmp_path / "cache.sqlite") as cache:
        Counting(cache).evaluate([A, B, C])
    content = bytearray(cache.path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)  # all but the first page, which lists the tables
    cache.path.write_bytes(content)
    evaluator = Counting(cache)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert [e.accuracy for e in evaluator.evaluate([A, B])] == [fake_accuracy(A), fake_accuracy(B)]
    (record,) = caplog.records
    assert record.getMessage() == (
        f"rlnas: going on without sharing evaluations: evaluation cache {cache.path}: database disk image is malformed"
    )


def test_a_full_disk_stops_nothing(cache: EvaluationCache, caplog: pytest.LogCaptureFixture) -> None:
    cache._connection().execute("PRAGMA max_page_count = 4")  # what SQLite then says is what it says of a full disk
    evaluator = Counting(cache)
    proposals = [replace(A, seed=seed) for seed in range(200)]
    assert trains(evaluator, proposals) == [True] * 200
    assert trains(evaluator, proposals) == [True] * 200
    (record,) = caplog.records
    assert "database or disk is full" in record.getMessage()


PROCESS = """
import sys
from pathlib import Path
from rlnas.evaluation_cache import EvaluationCache
from rlnas.evaluator import Evaluation, Proposal
from rlnas.search_space import ChainSpace
from rlnas.task import Task

class Named(Task):
    digest = "digest"

path, number = Path(sys.argv[1]), int(sys.argv[2])
design = ChainSpace().parse("conv3x3-8")
proposals = [Proposal(design, Named("t:s/0", "f"), seed) for seed in range(120)]
print("ready", flush=True)
sys.stdin.readline()
cache = EvaluationCache(path)
for first in range(0, 120, 4):  # each in an order of its own
    some = [proposals[(index * (2 * number + 1) + number) % 120] for index in range(first, first + 4)]
    found = cache.find(some, {})
    missing = [p for p, e in zip(some, found) if e is None]
    assert all(e.accuracy == p.seed / 1000 for p, e in zip(some, found) if e is not None)
    cache.keep(missing, {}, [Evaluation(p.seed / 1000) for p in missing])
found = cache.find(proposals, {})
print(sum(e is not None and e.accuracy == p.seed / 1000 for p, e in zip(proposals, found)))
"""


def test_processes_make_read_and_write_one_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.sqlite"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 3, 5, 6)  # strides that leave none of the 120 out
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120) for process in processes]
    assert [err for _, err in answers] == [""] * 4
    assert [out.split() for out, _ in answers] == [["120"]] * 4
    assert len(EvaluationCache(path)) == 120


def test_threads_that_share_one_wait_for_each_other(cache: EvaluationCache) -> None:
    connection = cache._connection()
    connection.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        kept = pool.submit(cache.keep, [A], VERSION, [Evaluation(0.5)])
        assert wait([kept], 0.1).not_done
        connection.execute("COMMIT")
    assert kept.exception() is None
    assert len(cache) == 1
    cache.close()


def test_it_can_be_sent_to_another_process(cache: EvaluationCache) -> None:
    Counting(cache).evaluate([A])
    sent: EvaluationCache = pickle.loads(pickle.dumps(cache))
    assert (sent.path, sent.max_evaluations) == (cache.path, cache.max_evaluations)
    assert trains(Counting(sent), [A]) == [False]
    sent.close()


def test_it_opens_again_after_it_was_closed_or_deleted(cache: EvaluationCache) -> None:
    Counting(cache).evaluate([A])
    cache.close()
    cache.close()
    assert trains(Counting(cache), [A]) == [False]
    cache.close()
    assert [path.name for path in cache.path.parent.iterdir()] == [cache.path.name]
    cache.path.unlink()
    assert trains(Counting(cache), [A]) == [True]


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("RLNAS_CACHE", "/mine.sqlite")
    assert default_cache_path() == Path("/mine.sqlite")
    for unset in ("", None):
        monkeypatch.setenv("RLNAS_CACHE", unset) if unset is not None else monkeypatch.delenv("RLNAS_CACHE")
        assert default_cache_path() == Path("/xdg/rlnas/evaluations.sqlite")
    for useless in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", useless)
        assert default_cache_path() == tmp_path / ".cache/rlnas/evaluations.sqlite"
    with pytest.raises(CacheError, match=r"evaluation cache ~nobody-of-this-name/x\.sqlite: .*home"):
        EvaluationCache("~nobody-of-this-name/x.sqlite")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(CacheError, match="RLNAS_CACHE can name a place for it"):
        default_cache_path()
