"""Recording in groups: what was flushed is on disk, what was not is held, and one process at a time records."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rlnas import store_claim
from rlnas.episode import DesignEpisode
from rlnas.errors import StoreError
from rlnas.store import EpisodeStore
from rlnas.store_claim import claim
from rlnas.store_writer import StoreWriter

from . import test_store
from .test_store import make_episode, make_episodes

PRELUDE = f"""
import itertools, runpy, subprocess, sys
from pathlib import Path
globals().update(runpy.run_path({test_store.__file__!r}))
from rlnas.errors import DiskFullError
from rlnas.store_writer import StoreWriter
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def count(path: Path) -> int:
    with EpisodeStore(path, "r") as store:
        assert store.verify() == []
        return len(store)


def start(code: str, *arguments: object, command: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A child process that runs ``code`` with ``sys.argv[1:]`` = ``arguments``."""
    command = (*command, sys.executable, "-c", PRELUDE + code, *map(str, arguments))
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_what_was_flushed_is_there_for_readers_while_the_run_goes_on(path: Path) -> None:
    episodes = make_episodes(10)
    with StoreWriter(path) as writer:
        for number, episode in enumerate(episodes, 1):
            writer.append([episode])
            if number % 3 == 0:
                writer.flush()
                assert count(path) == number == len(writer)
    with EpisodeStore(path, "r") as store:
        assert list(store.episodes()) == episodes


def test_what_is_never_flushed_is_written_soon_all_the_same(path: Path) -> None:
    writer = StoreWriter(path)
    writer.append([make_episode()])
    thread = writer._thread
    assert thread is not None
    thread.join()
    assert count(path) == 1
    writer.append([make_episode(trial=1)])  # another thread takes over
    writer.close()
    assert count(path) == 2


def test_one_thread_writes_all_that_comes_without_a_pause(path: Path) -> None:
    coming = [[make_episode(trial=1)], [make_episode(trial=2)]]

    class More(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if coming:
                writer.append(coming.pop())
            return self.is_set()

    writer = StoreWriter(path)
    writer._closing = More()
    writer.append([make_episode()])
    thread = writer._thread
    assert thread is not None
    thread.join()
    assert count(path) == 3
    writer.close()


def test_whoever_hands_over_very_much_waits_for_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlnas.store_writer.GATHER_SECONDS", 1e6)
    monkeypatch.setattr("rlnas.store_writer.HELD_AT_MOST", 3)
    with StoreWriter(path) as writer:
        writer.append(make_episodes(3))
        assert len(writer) == 0
        writer.append([make_episode(trial=9)])
        assert len(writer) == 4


def test_closing_leaves_one_file_and_may_be_repeated(path: Path) -> None:
    writer = StoreWriter(path)
    writer.append([make_episode()])
    writer.close()
    writer.close()
    assert os.listdir(path.parent) == [path.name]
    with pytest.raises(StoreError, match="is closed"):
        writer.append([make_episode()])


def test_what_cannot_be_written_is_told_to_whoever_flushes_or_hands_over_next(path: Path) -> None:
    with EpisodeStore(path) as store:
        store.append([make_episode()])
    other = make_episode(accuracy=0.9)
    writer = StoreWriter(path)
    writer.append([other])
    thread = writer._thread
    assert thread is not None
    thread.join()
    for _ in range(2):
        with pytest.raises(StoreError, match="different episode of agent 'random', trial 0, design 0"):
            writer.append([make_episode(trial=1)])
        with pytest.raises(StoreError, match="different episode"):
            writer.flush()
    with pytest.raises(StoreError, match="different episode"):
        writer.close()
    writer.close()
    assert count(path) == 1
    assert os.listdir(path.parent) == [path.name]


def test_an_episode_that_is_no_json_is_no_episode(path: Path) -> None:
    with StoreWriter(path) as writer:
        with pytest.raises(ValueError, match="not JSON compliant"):
            writer.append([make_episode(), replace(make_episode(trial=1), best=float("nan"))])
        writer.append([make_episode(trial=2)])
    with EpisodeStore(path, "r") as store:
        assert store.trials("random") == [2]


def record_until_interrupted(path: Path, *episodes: DesignEpisode) -> None:
    with StoreWriter(path) as writer:
        writer.append(episodes)
        raise KeyboardInterrupt


def test_an_error_of_the_run_is_not_hidden_by_one_of_the_store_and_what_was_evaluated_is_kept(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        record_until_interrupted(path, make_episode())
    assert count(path) == 1
    with pytest.raises(KeyboardInterrupt):
        record_until_interrupted(path, make_episode(accuracy=0.9))
    assert count(path) == 1


def test_a_killed_run_loses_nothing_that_it_flushed_and_another_takes_over(path: Path) -> None:
    code = """
with StoreWriter(sys.argv[1]) as writer:
    for trial in itertools.count(int(sys.argv[2])):
        writer.append([make_episode(trial=trial, design=design) for design in range(4)])
        if trial % 5 == 0:
            writer.flush()
            print(trial, flush=True)
"""
    begun = 0
    for flushes in (1, 4, 9):
        child = start(code, path, begun)
        for _ in range(flushes):
            acknowledged = int(read_line(child))
        child.kill()
        acknowledged = max([acknowledged, *map(int, child.communicate()[0].split())])
        with EpisodeStore(path, "r") as store:
            assert store.verify() == []
            trials = store.trials("random")
            assert trials == list(range(len(trials)))
            assert len(store) == 4 * len(trials)
        assert len(trials) > acknowledged
        begun = len(trials)


def test_a_second_run_is_refused_and_told_who_records(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_claim, "PATIENCE", 0.05)
    code = """
with StoreWriter(sys.argv[1]) as writer:
    print("recording", flush=True)
    sys.stdin.read()
"""
    child = start(code, path)
    assert read_line(child) == "recording"
    holder = f"process {child.pid} on {socket.gethostname()} is recording into {path}"
    with pytest.raises(StoreError, match=holder):
        StoreWriter(path)
    with EpisodeStore(path) as store:  # now and then, others may
        store.append([make_episode("other")])
        assert len(store) == 1
    child.communicate()
    with StoreWriter(path) as writer:
        assert len(writer) == 1
        with pytest.raises(StoreError, match=f"process {os.getpid()} on"):
            StoreWriter(path)
    assert os.listdir(path.parent) == [path.name]


def test_a_store_has_one_claim_by_whatever_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_claim, "PATIENCE", 0.05)
    alias = path.with_name("alias.db")
    alias.symlink_to(path)
    with StoreWriter(path), pytest.raises(StoreError, match=f"process {os.getpid()} on"):
        StoreWriter(alias)


def test_the_file_has_everything_when_a_run_ends_while_somebody_reads(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with StoreWriter(path) as writer:
        writer.append(make_episodes(3))
        writer.flush()
        reader = EpisodeStore(path, "r")
        assert len(reader) == 3
        writer.append([make_episode(trial=9)])
    shutil.copy(path, copy)
    assert count(copy) == 4
    reader.close()


def test_a_run_that_is_about_to_end_is_waited_for(path: Path) -> None:
    with claim(path):
        child = start("print('ready', flush=True); StoreWriter(sys.argv[1]).close(); print('done')", path)
        read_line(child)
    assert child.communicate()[0].strip() == "done"


def test_a_store_that_cannot_be_opened_is_not_claimed(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere.*No such file"):
        StoreWriter(tmp_path / "nowhere" / "run.db")
    path = tmp_path / "no-store.db"
    path.write_bytes(b"agent,trial,design\n" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        StoreWriter(path)
    assert os.listdir(tmp_path) == [path.name]


SMALL_DISK = ("unshare", "--user", "--map-root-user", "--mount")


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*SMALL_DISK, "true"], capture_output=True).returncode != 0,
    reason="needs leave to mount a small file system of its own",
)
def test_a_full_disk_has_a_name_and_when_there_is_room_again_the_run_goes_on_with_nothing_lost(
    path: Path,
) -> None:
    """On a file system of 600 KiB, for real; the store's copy outside of it is looked at."""
    code = """
folder, copy = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder], check=True)
ballast = Path(folder, "ballast")
ballast.write_bytes(bytes(300_000))
path, handed, flushed = Path(folder, "run.db"), 0, 0
writer = StoreWriter(path)
try:
    for handed in itertools.count(1):
        writer.append([make_episode(trial=handed)])
        if handed % 20 == 0:
            writer.flush()
            flushed = handed
except DiskFullError as error:
    print("full", flushed > 0, len(writer) == flushed)
try:
    writer.flush()
except DiskFullError:
    print("still full")
with EpisodeStore(path, "r") as store:
    print(store.verify() == [], store.trials("random") == list(range(1, flushed + 1)))
ballast.unlink()
writer.flush()
print(len(writer) == handed)
writer.close()
with EpisodeStore(path, "r") as store:
    print(store.verify() == [], store.trials("random") == list(range(1, handed + 1)))
"""
    child = start(code, path.parent, path, command=SMALL_DISK)
    assert child.communicate()[0].splitlines() == ["full True True", "still full", "True True", "True", "True True"]
