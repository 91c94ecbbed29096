"""The episode store: what it acknowledged it keeps, and what is damaged it names."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rlnas.canonical import sha256
from rlnas.episode import SCHEMA_VERSION, DesignEpisode
from rlnas.errors import StoreError
from rlnas.evaluator import Evaluation
from rlnas.store import EpisodeStore

BATCH = 4


def make_episode(agent: str = "random", trial: int = 0, design: int = 0, accuracy: float = 0.5) -> DesignEpisode:
    return DesignEpisode(
        agent=agent,
        trial=trial,
        design=design,
        seed=1,
        env={"id": "rlnas/Trial-v0", "space": {"kind": "chain", "widths": [4]}, "note": "x" * 200},
        task=f"digits:test/{trial}",
        task_digest="ab" * 32,
        evaluation_seed=0,
        actions=(0, 2),
        masks=("111", "101"),
        rewards=(0.0, accuracy),
        architecture="conv3x3-4 > max-pool",
        evaluation=Evaluation(accuracy, 1.25, seconds=0.1, parameters=10, flops=20),
        best=accuracy,
    )


def make_episodes(count: int, agent: str = "random", designs: int = 2) -> list[DesignEpisode]:
    return [make_episode(agent, i // designs, i % designs, accuracy=i / count) for i in range(count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def fill(path: Path, episodes: Sequence[DesignEpisode]) -> None:
    with EpisodeStore(path) as store:
        store.append(episodes)


def edit(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A child process that runs ``code`` with this module's names and ``sys.argv[1:]`` = ``arguments``."""
    prelude = f"import runpy; globals().update(runpy.run_path({__file__!r}))\n"
    command = [sys.executable, "-c", prelude + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_was_appended_is_read_back_in_order(path: Path) -> None:
    episodes = [*make_episodes(5, "b"), *make_episodes(3, "a"), make_episode("a", trial=10)]
    fill(path, episodes[::-1])
    with EpisodeStore(path, "r") as store:
        assert list(store.episodes()) == [*episodes[5:], *episodes[:5]]
        assert list(store.episodes("a", trial=0)) == episodes[5:7]
        assert list(store.episodes(trial=1)) == [episodes[7], *episodes[2:4]]
        assert list(store.episodes("nobody")) == []
        assert store.trials("a") == [0, 1, 10]
        assert len(store) == 9


def test_reading_goes_on_past_a_page(path: Path) -> None:
    episodes = make_episodes(700, designs=300)
    fill(path, episodes)
    with EpisodeStore(path, "r") as store:
        assert list(store.episodes()) == episodes
        assert list(store.episodes("random", 2)) == episodes[600:]


def test_summary_tells_first_from_last_designs(path: Path) -> None:
    accuracies = {0: (0.2, 0.9, 0.4), 1: (0.4, 0.6)}
    fill(path, [make_episode("b", t, d, a) for t, trial in accuracies.items() for d, a in enumerate(trial)])
    fill(path, [make_episode("a", accuracy=0.0)])
    with EpisodeStore(path, "r") as store:
        a, b = store.summary()
    assert (a.agent, a.trials, a.episodes, a.best_accuracy) == ("a", 1, 1, 0.0)
    assert (b.agent, b.trials, b.episodes, b.best_accuracy) == ("b", 2, 5, 0.9)
    assert b.first_accuracy == pytest.approx(0.3)
    assert b.last_accuracy == pytest.approx(0.5)


def test_the_same_episode_again_is_ignored(path: Path) -> None:
    episode = make_episode()
    again = replace(episode, evaluation=replace(episode.evaluation, seconds=3.0, cached=True))
    with EpisodeStore(path) as store:
        store.append([episode, again])
        store.append([again])
        assert list(store.episodes()) == [episode]


def test_a_different_one_under_the_same_number_is_refused_with_its_batch(path: Path) -> None:
    with EpisodeStore(path) as store:
        store.append(make_episodes(4))
        with pytest.raises(StoreError, match="different episode of agent 'random', trial 1, design 0"):
            store.append([make_episode(trial=7), make_episode(trial=1, accuracy=0.99)])
        assert len(store) == 4
        store.append([make_episode(trial=7)])
        assert len(store) == 5


def test_closing_leaves_one_file_and_may_be_repeated(path: Path) -> None:
    store = EpisodeStore(path)
    store.append([make_episode()])
    store.close()
    store.close()
    assert os.listdir(path.parent) == [path.name]
    with pytest.raises(StoreError, match="closed"):
        store.append([make_episode()])


def test_reading_alone_creates_no_file(path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no episode store at .*run\.db"):
        EpisodeStore(path, "r")
    assert os.listdir(path.parent) == []
    fill(path, [make_episode()])
    with EpisodeStore(path, "r") as store:
        assert len(store) == 1
        assert os.listdir(path.parent) == [path.name]
        with pytest.raises(StoreError, match="open for reading alone"):
            store.append([make_episode(trial=1)])
    assert os.listdir(path.parent) == [path.name]


def test_a_reader_sees_what_a_writer_appends_meanwhile(path: Path) -> None:
    with EpisodeStore(path) as writer:
        writer.append(make_episodes(300, designs=300))
        with EpisodeStore(path, "r") as reader:
            found = reader.episodes()
            next(found)
            writer.append([make_episode(trial=1)])
            assert sum(1 for _ in found) == 300
            assert reader.verify() == []


def test_a_reader_outlives_the_writer(path: Path) -> None:
    fill(path, make_episodes(2))
    with EpisodeStore(path, "r") as reader:
        assert len(reader) == 2
        fill(path, make_episodes(4)[2:])
        assert len(reader) == 4


@pytest.mark.parametrize("mode", ["a", "r"])
def test_other_files_are_refused_in_one_line_and_left_alone(path: Path, mode: str) -> None:
    path.write_bytes(b"agent,trial,design\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="file is not a database"):
        EpisodeStore(path, mode)  # type: ignore[arg-type]
    assert path.read_bytes() == before
    path.unlink()
    edit(path, "CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="it is another program's SQLite database"):
        EpisodeStore(path, mode)  # type: ignore[arg-type]
    assert path.read_bytes() == before


def test_an_empty_file_can_be_appended_to_but_not_read(path: Path) -> None:
    path.touch()
    with pytest.raises(StoreError, match="not an rlnas episode store: it is empty"):
        EpisodeStore(path, "r")
    fill(path, [make_episode()])
    with EpisodeStore(path, "r") as store:
        assert len(store) == 1


def test_a_missing_folder_and_an_unknown_mode_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere.*unable to open"):
        EpisodeStore(tmp_path / "nowhere" / "run.db")
    with pytest.raises(ValueError, match="unknown store mode 'w'"):
        EpisodeStore(tmp_path / "run.db", "w")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["a", "r"])
def test_a_newer_store_says_what_it_needs(path: Path, mode: str) -> None:
    fill(path, [make_episode()])
    edit(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match=f"knows store schema {SCHEMA_VERSION + 1}; this one knows {SCHEMA_VERSION}"):
        EpisodeStore(path, mode)  # type: ignore[arg-type]


def test_a_flipped_byte_is_found_and_named(path: Path) -> None:
    fill(path, make_episodes(6))
    data = path.read_bytes()
    place = data.index(b'"accuracy":0.5') + len(b'"accuracy":0.')  # of trial 1, design 1
    path.write_bytes(data[:place] + b"9" + data[place + 1 :])
    with EpisodeStore(path, "r") as store:
        with pytest.raises(StoreError, match="agent 'random', trial 1, design 1 is damaged"):
            list(store.episodes())
        assert len(list(store.episodes(trial=0))) == 2
        assert ["trial 1, design 1 is damaged" in line for line in store.verify()] == [True]


def test_a_changed_environment_or_number_is_found(path: Path) -> None:
    fill(path, make_episodes(2))
    edit(path, "UPDATE specs SET payload = replace(payload, '[4]', '[8]')")
    with EpisodeStore(path, "r") as store:
        assert ["environment's description" in line for line in store.verify()] == [True, True]
    path.unlink()
    fill(path, make_episodes(2))
    edit(path, "UPDATE episodes SET trial = 9 WHERE design = 0")
    with EpisodeStore(path, "r") as store:
        assert ["trial 9, design 0 is damaged: it is filed" in line for line in store.verify()] == [True]


@pytest.mark.parametrize("record", ["[]", "null", "{}", "[" * 100_000, '{"agent": {}, "trial": 0, "design": 0}'])
def test_a_forged_record_is_a_damaged_one(path: Path, record: str) -> None:
    fill(path, [make_episode()])
    edit(path, "UPDATE episodes SET payload = ?, sha256 = ?", record, sha256(record))
    with EpisodeStore(path, "r") as store:
        assert ["agent 'random', trial 0, design 0 is damaged" in line for line in store.verify()] == [True]


def test_threads_may_share_a_store(path: Path) -> None:
    with EpisodeStore(path) as store, ThreadPoolExecutor(4) as pool:
        for appended in [pool.submit(store.append, make_episodes(6, agent)) for agent in "abcdabcd"]:
            appended.result()
        assert [(row.agent, row.episodes) for row in store.summary()] == [(agent, 6) for agent in "abcd"]


def test_no_flipped_bit_changes_an_episode_unnoticed(path: Path, tmp_path: Path) -> None:
    episodes = make_episodes(12)
    fill(path, episodes)
    data, rng, damaged = path.read_bytes(), random.Random(0), tmp_path / "damaged.db"
    for _ in range(300):
        place = rng.randrange(len(data))
        damaged.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        try:
            with EpisodeStore(damaged, "r") as store:
                faults = store.verify()
                found = list(store.episodes())
        except StoreError:
            continue
        assert faults or found == episodes, f"byte {place}"


def test_a_truncated_file_is_reported(path: Path, tmp_path: Path) -> None:
    fill(path, make_episodes(40))
    data, cut = path.read_bytes(), tmp_path / "cut.db"
    for length in range(1, len(data), 997):
        cut.write_bytes(data[:length])
        with pytest.raises(StoreError), EpisodeStore(cut, "r") as store:
            raise StoreError(store.verify()[0])


def test_a_killed_writer_loses_nothing_it_acknowledged(path: Path) -> None:
    code = f"""
store, first = EpisodeStore(sys.argv[1]), int(sys.argv[2])
for trial in range(first, first + 100_000):
    store.append([make_episode(trial=trial, design=design) for design in range({BATCH})])
    print(trial, flush=True)
"""
    rng, acknowledged, begun = random.Random(1), 0, 0
    for _ in range(5):
        child = start(code, path, begun)
        assert child.stdout is not None
        for _ in range(rng.randrange(1, 60)):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        lines = child.communicate()[0].splitlines()
        acknowledged = int(lines[-1]) + 1 if lines else acknowledged
        with EpisodeStore(path, "r") as store:
            assert store.verify() == []
            trials = store.trials("random")
            assert trials == list(range(len(trials)))
            assert len(trials) >= acknowledged
            assert len(store) == BATCH * len(trials)
        begun = len(trials)
    assert begun > 5


def test_writers_at_once_lose_nothing(path: Path) -> None:
    code = """
for trial in range(30):
    with EpisodeStore(sys.argv[1]) as store:
        store.append([make_episode(sys.argv[2], trial), make_episode('shared', trial)])
"""
    children = [start(code, path, agent) for agent in ("a", "b", "c")]
    assert [child.wait() for child in children] == [0, 0, 0]
    for child in children:
        child.communicate()
    with EpisodeStore(path, "r") as store:
        assert {row.agent: row.episodes for row in store.summary()} == {"a": 30, "b": 30, "c": 30, "shared": 30}
        assert store.verify() == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits a process's file size as POSIX does")
def test_a_full_disk_is_an_error_and_costs_only_what_was_not_acknowledged(path: Path) -> None:
    code = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = EpisodeStore(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for trial in range(100_000):
        store.append([make_episode(trial=trial)])
        print(trial, flush=True)
except StoreError as error:
    print(error)
"""
    *acknowledged, error = start(code, path).communicate()[0].splitlines()
    assert error.startswith(f"episode store {path}: ")
    with EpisodeStore(path, "r") as store:
        assert store.trials("random") == list(map(int, acknowledged))
        assert store.verify() == []


def test_a_copy_of_a_closed_store_is_a_store(path: Path, tmp_path: Path) -> None:
    fill(path, make_episodes(3))
    copy = tmp_path / "odd name?#%.db"
    shutil.copy(path, copy)
    with EpisodeStore(copy, "r") as store:
        assert list(store.episodes()) == make_episodes(3)


def test_agents_are_told_by_trial(path: Path) -> None:
    with EpisodeStore(path) as store:
        store.append([make_episode(agent=agent, trial=trial) for agent, trial in (("b", 0), ("a", 0), ("b", 1))])
        assert store.agents() == ["a", "b"]
        assert store.agents(0) == ["a", "b"]
        assert store.agents(1) == ["b"]
        assert store.agents(2) == []
