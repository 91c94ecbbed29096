"""What a store keeps when its writer is killed, its disk is full, several write at once, or its log is torn.

Part of ``benchmarks/reliability.py``; run by itself it is the writer that these parts start, kill and starve.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from rlnas.episode import DesignEpisode
from rlnas.errors import StoreError
from rlnas.evaluator import Evaluation
from rlnas.store import EpisodeStore
from rlnas.store_claim import PATIENCE
from rlnas.store_writer import StoreWriter

AGENT = "writer"
DISK = 2 * 2**20
"""Bytes of the disk that runs full."""
LIMIT = "limit on the size of files"
"""What stands in for such a disk where none can be mounted."""
BETWEEN = 5
"""Trials that a writer records between opening a store and closing it."""


def episodes_of(trial: int, agent: str = AGENT) -> list[DesignEpisode]:
    """The episodes of one trial, which are appended at once: 1 to 8 of them, which follow from the trial's number."""
    rng = random.Random(trial)
    return [_episode(agent, trial, design, rng) for design in range(rng.randint(1, 8))]


def _episode(agent: str, trial: int, design: int, rng: random.Random) -> DesignEpisode:
    steps, accuracy = rng.randint(1, 12), rng.random()
    return DesignEpisode(
        agent=agent,
        trial=trial,
        design=design,
        seed=trial,
        env={"id": "rlnas/Trial-v0", "space": {"kind": "chain", "layers": trial // 100}, "note": "x" * 600},
        task=f"digits:train/{trial}",
        task_digest=f"{rng.getrandbits(256):064x}",
        evaluation_seed=design,
        actions=tuple(rng.randrange(5) for _ in range(steps)),
        masks=("11111",) * steps,
        rewards=(0.0,) * (steps - 1) + (accuracy,),
        architecture=" > ".join(["conv3x3-8"] * steps),
        evaluation=Evaluation(accuracy, 1.0, seconds=0.1, parameters=rng.randrange(9999), flops=rng.randrange(9999)),
        best=accuracy,
    )


def killed_writer(folder: Path, kills: int) -> dict[str, Any]:
    """Kill a writer ``kills`` times at random moments, be it while it opens, appends or closes, and read after each."""
    path, rng = folder / "killed.sqlite", random.Random(0)
    acknowledged, begun, lost, torn, unopened, damaged = 0, 0, 0, 0, 0, 0
    seconds: list[float] = []
    for _ in range(kills):
        child = _start("write", path, begun)
        assert child.stdout is not None
        child.stdout.readline()  # it is about to open the store
        time.sleep(rng.uniform(0.0, 0.25))
        child.send_signal(signal.SIGKILL)
        told = [int(line) for line in child.communicate()[0].splitlines()]
        acknowledged += len(told)
        if not path.exists():
            lost += len(told)
            continue
        started = time.perf_counter()
        try:
            with EpisodeStore(path, "r") as store:
                next(store.episodes(), None)
                seconds.append(time.perf_counter() - started)
                there = store.trials(AGENT)
                found = {trial: list(store.episodes(AGENT, trial)) for trial in there if trial >= begun}
                damaged += bool(store.verify())
        except StoreError as error:
            if not (begun or told) and "empty" in str(error):  # killed before there was anything to keep
                continue
            unopened += 1
            continue
        lost += sum(trial not in found for trial in told) + len(set(range(begun)) - set(there))
        torn += sum(episodes != episodes_of(trial) for trial, episodes in found.items())
        begun = max(there, default=-1) + 1
    with EpisodeStore(path, "r") as store:
        wrong = sum(mine != its for mine, its in zip(store.episodes(), _first(begun), strict=True))
        episodes = len(store)
    return {
        "kills": kills,
        "acknowledged trials": acknowledged,
        "episodes in the end": episodes,
        "acknowledged and lost": lost + wrong,
        "kept in part": torn,
        "stores that don't open": unopened,
        "stores with damage": damaged,
        "recovery, median ms": 1e3 * statistics.median(seconds),
        "recovery, longest ms": 1e3 * max(seconds),
    }


def full_disk(folder: Path, repeats: int) -> dict[str, Any]:
    """Write until the disk is full, then make room and go on; on a disk of its own where one can be mounted."""
    command, kind = _small_disk(folder)
    outcomes = []
    for repeat in range(repeats):
        child = subprocess.run(
            [*command, sys.executable, __file__, "fill", folder / "disk", str(repeat), kind],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        outcomes.append(json.loads(child.stdout))
    return {
        "kind of disk": kind,
        "times it ran full": repeats,
        "error": outcomes[0]["error"],
        "stopped without a named error": sum(not outcome["error"] for outcome in outcomes),
        "unreadable while full": sum(not outcome["readable"] for outcome in outcomes),
        "did not go on": sum(not outcome["goes on"] for outcome in outcomes),
        "acknowledged trials": sum(outcome["acknowledged"] for outcome in outcomes),
        "acknowledged and lost": sum(outcome["lost"] for outcome in outcomes),
        "stores with damage": sum(outcome["damaged"] for outcome in outcomes),
    }


def _small_disk(folder: Path) -> tuple[list[str], str]:
    """How to start a process that sees a small disk mounted in a folder, nobody else does; a limit for want of one."""
    (folder / "disk").mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size={DISK} rlnas "$0" && exec "$@"'
    for rights in ("-m", "-Urm"):
        command = ["unshare", rights, "sh", "-c", mount, str(folder / "disk")]
        with suppress(FileNotFoundError):
            if subprocess.run([*command, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return command, "tmpfs of 2 MiB"
    return [], LIMIT


def several_writers(folder: Path, writers: int, trials: int) -> dict[str, Any]:
    """Several processes write to one store at once, first as runs that record, then by appending now and then."""
    figures: dict[str, Any] = {"writers": writers}
    for kind in ("record", "append"):
        path = folder / f"{kind}.sqlite"
        children = [_start(kind, path, number, trials) for number in range(writers)]
        told = [child.communicate()[0].splitlines() for child in children]
        refusals = [line for lines in told for line in lines if not line.isdigit()]
        with EpisodeStore(path, "r") as store:
            found = {int(agent): store.trials(agent) for agent in store.agents()}
            wrong = sum(
                list(store.episodes(str(number), trial)) != episodes_of(trial, str(number))
                for number in found
                for trial in found[number]
            )
            faults = len(store.verify())
        acknowledged = [(number, int(line)) for number, lines in enumerate(told) for line in lines if line.isdigit()]
        mine = {
            "acknowledged trials": len(acknowledged),
            "acknowledged and lost": sum(trial not in found.get(number, ()) for number, trial in acknowledged),
            "kept in part": wrong,
            "faults in the store": faults,
            "writers that failed": sum(child.returncode != 0 for child in children),
            "a second one": f"is refused, {len(refusals)} times" if refusals else "waits for its turn",
        }
        figures |= {f"{kind}: {name}": value for name, value in mine.items()}
        figures |= {f"{kind}: a refusal": text.replace(str(folder), "...") for text in refusals[:1]}
    return figures


def torn_log(folder: Path, lengths: int, snapshots: int = 5) -> dict[str, Any]:
    """Cut a live writer's log at random lengths; what is left must be the first so many transactions, each whole."""
    rng, path, copy = random.Random(1), folder / "torn.sqlite", folder / "copy.sqlite"
    counts, wrong, refused, backwards, full = Counter[int](), 0, 0, 0, 0
    store = EpisodeStore(path)
    for snapshot in range(snapshots):
        if snapshot % 2:  # the log is begun anew, over what it held before
            with closing(sqlite3.connect(path)) as other:
                other.execute("PRAGMA wal_checkpoint")
        for trial in range(snapshot * 120, (snapshot + 1) * 120):
            store.append(episodes_of(trial))
        written = (snapshot + 1) * 120
        main, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
        before = -1
        for cut in sorted([len(log), *(rng.randrange(len(log)) for _ in range(lengths // snapshots - 1))]):
            copy.write_bytes(main)
            Path(f"{copy}-wal").write_bytes(log[:cut])
            Path(f"{copy}-shm").unlink(missing_ok=True)
            try:
                with EpisodeStore(copy, "r") as cut_store:
                    kept = len(cut_store.trials(AGENT))
                    wrong += list(cut_store.episodes()) != list(_first(kept)) or bool(cut_store.verify())
            except StoreError:
                refused += _kept_without(main, folder) > 0
                kept = 0
            backwards += kept < before
            before = kept
            counts[kept] += 1
        full += before == written
    store.close()
    return {
        "lengths": sum(counts.values()),
        "different prefixes": len(counts),
        "not a prefix": wrong + backwards,
        "don't open": refused,
        "whole log, whole store": f"{full} of {snapshots}",
        "whole logs that lost something": snapshots - full,
    }


def _kept_without(main: bytes, folder: Path) -> int:
    """Transactions in a store's file alone, without a log."""
    path = folder / "alone.sqlite"
    path.write_bytes(main)
    try:
        with EpisodeStore(path, "r") as store:
            return len(store)
    except StoreError:
        return 0


def _first(trials: int) -> Iterator[DesignEpisode]:
    return (episode for trial in range(trials) for episode in episodes_of(trial))


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def _tell(text: object) -> None:
    os.write(1, f"{text}\n".encode())  # whole or not at all


def write(path: Path, first: int) -> None:
    """Record one trial after another for ever, some together, and tell of each once it is acknowledged."""
    _tell("ready")
    while True:
        end = first + BETWEEN
        with StoreWriter(path) as store:
            for trial in range(first, end):
                store.append(episodes_of(trial))
                if trial % 3 == 0 or trial == end - 1:
                    store.flush()
                    while first <= trial:
                        _tell(first)
                        first += 1


def record(path: Path, number: int, trials: int) -> None:
    """Record so many trials in one go, slowly; where another run does, try again once it may be done."""
    for _ in range(100):
        try:
            with StoreWriter(path) as store:
                for trial in range(trials):
                    store.append(episodes_of(trial, str(number)))
                    store.flush()
                    _tell(trial)
                    time.sleep(1.3 * PATIENCE / trials)
            return
        except StoreError as error:
            _tell(error)
    sys.exit("never got its turn")


def append(path: Path, number: int, trials: int) -> None:
    """Append so many trials, opening the store for each anew."""
    for trial in range(trials):
        with EpisodeStore(path) as store:
            store.append(episodes_of(trial, str(number)))
            _tell(trial)


def fill(folder: Path, seed: int, kind: str) -> None:
    """Fill the disk, make room, go on, and tell what came of it as JSON."""
    path, ballast, limited = folder / f"{seed}.sqlite", folder / f"{seed}.ballast", kind == LIMIT
    size = 200_000 + 150_000 * (seed % 10)
    if limited:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    else:
        ballast.write_bytes(bytes(size))
    acknowledged, told = 0, {"error": "", "readable": False, "goes on": False}
    with StoreWriter(path) as store:
        try:
            for trial in range(10_000):
                store.append(episodes_of(trial))
                store.flush()
                acknowledged = trial + 1
        except StoreError as error:
            told["error"] = f"{type(error).__name__}: {error}".replace(str(path), path.name)
        with EpisodeStore(path, "r") as reader:
            told["readable"] = reader.trials(AGENT) == list(range(acknowledged)) and not reader.verify()
        if limited:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        ballast.unlink(missing_ok=True)
        with suppress(StoreError):
            store.flush()  # what it held meanwhile
            for trial in range(acknowledged + 1, acknowledged + BETWEEN):
                store.append(episodes_of(trial))
            store.flush()
            acknowledged += BETWEEN
            told["goes on"] = True
    with EpisodeStore(path, "r") as reader:
        lost = set(range(acknowledged)) - set(reader.trials(AGENT))
        whole = list(reader.episodes()) == list(_first(acknowledged)) and not reader.verify()
    print(json.dumps({**told, "acknowledged": acknowledged, "lost": len(lost), "damaged": not whole}))
    path.unlink()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", place, begin]:
            write(Path(place), int(begin))
        case ["record", place, who, count]:
            record(Path(place), int(who), int(count))
        case ["append", place, who, count]:
            append(Path(place), int(who), int(count))
        case ["fill", place, which, disk]:
            fill(Path(place), int(which), disk)
