"""What damaged and forged files are answered with by everything that reads one.

Part of ``benchmarks/reliability.py``; run by itself it is the process that reads them, so that one which dies, hangs or
takes all memory is noticed and does no harm.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from reliability_mutations import (
    Files,
    Rng,
    changed_json,
    damaged,
    forged_checkpoint,
    forged_store,
    huge_array,
    pickled,
    tricked_zip,
    unzipped,
    zipped,
)
from reliability_store import episodes_of

from rlnas.adaptation import Adaptation
from rlnas.agents.controller import Controller, ControllerConfig
from rlnas.agents.rl2 import RL2
from rlnas.agents.search_run import SearchRun
from rlnas.agents.training import TrainSettings, read_run
from rlnas.comparison import read_comparison
from rlnas.errors import RlnasError, StoreError
from rlnas.image_files import read_folder, read_npz
from rlnas.initialisation import Initialisation
from rlnas.store import EpisodeStore
from rlnas.table import Table

SECONDS = 20
"""Longer than this takes no loader that does not hang."""
MEMORY = 2 * 2**30
"""Bytes that a loader may have beyond what its process needs anyway."""
ONE = "file"
"""The name of what is read where it is a single file."""


@dataclass(frozen=True)
class Reader:
    """One of the loaders.

    Args:
        make: writes a good file or folder.
        read: reads it; what it returns says all that was read.
        forge: changes it so that hashes and checksums agree; None where it has none.
        is_covered: whether hashes cover all of it, so that nothing but a forgery may be read as something else.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    forge: Callable[[Path, Rng, Path], None] | None
    is_covered: bool


def refused_or_same(folder: Path, count: int, names: list[str] | None = None) -> dict[str, Any]:
    """Give every loader ``count`` damaged or forged files, and count what comes of it."""
    canary, left, first = folder / "canary", list(names or READERS), 0
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in left}
    bad: list[str] = []
    memory = 0
    while left:
        command = [sys.executable, __file__, ",".join(left), str(first), str(count), str(folder), str(canary)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        reached = (left[0], first - 1)
        for line in child.communicate()[0].splitlines():
            told = json.loads(line)
            reached, memory = (told["reader"], told["number"]), max(memory, told["memory"] // 1024)
            outcomes[told["reader"]][told["outcome"]] += 1
            if told["outcome"] in BAD:
                bad.append("{reader} {number}: {outcome}: {detail}".format(**told))
        if not child.returncode:
            break
        left, first = left[left.index(reached[0]) :], reached[1] + 1
        if first == count:
            left, first = left[1:], 0
        died = left[0] if left else reached[0]
        outcomes[died]["killed its process"] += 1
        bad.append(f"{died} {first}: killed its process ({child.returncode})")
        first += 1
    total = sum(outcomes.values(), Counter[str]())
    return {
        "loaders": len(outcomes),
        "files for each": count,
        **{f"{outcome}": total[outcome] for outcome in ("typed error", "same content", "another content, allowed")},
        **{outcome: total[outcome] for outcome in (*BAD, "killed its process")},
        "canaries": int(canary.exists()),
        "largest memory, MiB": memory,
        "by loader": {name: dict(found) for name, found in outcomes.items()},
        "bad": bad,
    }


BAD = ("another error", "another content", "hangs", "canary sang")


def spoil(reader: Reader, path: Path, rng: Rng, canary: Path) -> bool:
    """Damage or forge a good file or folder; says whether it may be read as something else now."""
    if reader.forge is not None and rng.randrange(2):
        reader.forge(path, rng, canary)
        return True
    files = _files(path)
    name = rng.choice(sorted(files))
    content = files[name]
    match rng.randrange(12):
        case 0:
            files[name] = pickled(canary, rng)
        case 1:
            del files[name]
        case 2:
            other = rng.choice(sorted(files))
            files[name], files[other] = files[other], content
        case 3:
            files[name] = rng.choice(
                [b"", b"\0" * 5000, rng.randbytes(5000), b"SQLite format 3\0", b"PK\x05\x06" + bytes(18)]
            )
        case 4 if path.name.endswith(".sqlite"):
            files[name + rng.choice(["-wal", "-journal", "-shm"])] = rng.choice([rng.randbytes(4096), content, b""])
        case 4 if content.startswith(b"PK"):
            files[name] = tricked_zip(content, rng, canary)
        case _:
            files[name] = damaged(content, rng)
    _write(path, files)
    return not reader.is_covered or not (path.is_dir() or files.get(path.name))  # without a file a store is begun


def _files(path: Path) -> Files:
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def _write(path: Path, files: Files) -> None:
    folder = path.parent if path.is_file() else path
    for name in _files(path):
        (folder / name).unlink()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def try_one(reader: Reader, path: Path, expected: object, may_differ: bool) -> tuple[str, str]:
    """What a loader makes of a spoiled file, and in which words."""
    try:
        signal.alarm(SECONDS)
        try:
            found = reader.read(path)
        finally:
            signal.alarm(0)
    except RlnasError as error:
        return "typed error", type(error).__name__
    except TimeoutError:
        return "hangs", f"for {SECONDS} s"
    except Exception as error:
        return "another error", f"{type(error).__name__}: {str(error)[:200]}"
    if found == expected:
        return "same content", ""
    return ("another content, allowed" if may_differ else "another content"), ""


def work(name: str, first: int, count: int, folder: Path, canary: Path) -> None:
    """Give one loader its files from number ``first`` on, and tell of each in a line of JSON."""
    reader = READERS[name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    good = folder / ("good" + _suffix(name))
    reader.make(good)
    expected = reader.read(_copied(good, folder / "first"))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    for number in range(first, count):
        rng = random.Random(f"{name} {number}")
        path = _copied(good, folder / str(number))
        may_differ = spoil(reader, path, rng, canary)
        outcome, detail = try_one(reader, path, expected, may_differ)
        if canary.exists():
            outcome, detail = "canary sang", detail
            canary.unlink()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        told = {"reader": name, "number": number, "outcome": outcome, "detail": detail, "memory": memory}
        os.write(1, json.dumps(told).encode() + b"\n")
        shutil.rmtree(path.parent)


def _too_late(number: int, frame: object) -> None:
    raise TimeoutError


def _suffix(name: str) -> str:
    kinds = {"zip": ".zip", "store": ".sqlite", "npz": ".npz"}
    return next((suffix for kind, suffix in kinds.items() if kind in name), "")


def _copied(good: Path, folder: Path) -> Path:
    """A copy in a folder of its own, which takes what is written beside it along when it goes."""
    folder.mkdir()
    copy = folder / good.name
    shutil.copytree(good, copy) if good.is_dir() else shutil.copy(good, copy)
    return copy


def _tensors(tensors: Any) -> dict[str, str]:
    return {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in tensors.items()}


def _array(array: Any) -> Any:
    return None if array is None else (array.shape, array.dtype.str, np.ascontiguousarray(array).tobytes())


def _make_controller(path: Path) -> None:
    controller = Controller(ControllerConfig(12, (3,), legal=(0, 3), hidden_size=4), seed=1)
    controller.about = {"env": "rlnas/Trial-v0", "space": {"kind": "chain"}}
    controller.save(path)


def _read_controller(path: Path) -> object:
    controller = Controller.load(path)
    controller.predict(np.zeros((1, controller.config.observation_size), dtype=np.float32))
    return repr(controller.config), repr(controller.about), _tensors(controller.tensors())


def _make_learner(path: Path) -> None:
    options = {"designs_per_trial": 1}
    learner = RL2("rlnas/DigitsTableTrial-v0", num_envs=2, env_options=options, hidden_size=4, epochs=1)
    learner.learn(1).save(path)


def _read_learner(path: Path) -> object:
    learner = RL2.load(path)
    counts = learner.seed, learner.updates, learner.num_timesteps, learner.return_variance
    moments = {
        f"{index} {name}": tensor
        for index, entries in learner.optimizer.state_dict()["state"].items()
        for name, tensor in entries.items()
    }
    return repr(learner.config), counts, _tensors(learner.controller.tensors()), _tensors(moments)


def _make_start(path: Path) -> None:
    weights = {"1.conv3x3-8.1.0/kernel": torch.randn(8, 1, 3, 3), "2.classifier-5.8.0/bias": torch.zeros(5)}
    Initialisation(weights, Adaptation(), about={"space": {"kind": "chain"}}).save(path)


def _read_start(path: Path) -> object:
    start = Initialisation.load(path)
    return start.digest, repr(start.about)


def _forge_folder(path: Path, rng: Rng, canary: Path) -> None:
    _write(path, forged_checkpoint(_files(path), rng, canary))


def _forge_zip(path: Path, rng: Rng, canary: Path) -> None:
    path.write_bytes(zipped(forged_checkpoint(unzipped(path.read_bytes()), rng, canary)))


def _make_store(path: Path) -> None:
    with EpisodeStore(path) as store:
        for trial in range(6):
            store.append(episodes_of(trial))


def _read_store(path: Path) -> object:
    with EpisodeStore(path, "r") as store:
        if faults := store.verify():
            raise StoreError(faults[0])
        store.summary()
        return [repr(episode) for episode in store.episodes()]


def _append_to_store(path: Path) -> object:
    with EpisodeStore(path) as store:
        store.append(episodes_of(99))
        return [repr(episode) for episode in store.episodes()]


def _forge_store(path: Path, rng: Rng, canary: Path) -> None:
    forged_store(path, rng, canary)


def _make_table(path: Path) -> None:
    ops = np.array([[0, 1, 2], [0, 0, 1], [2, 1, 0], [2, 1, 1], [1, 0, 0]])
    score = np.random.default_rng(0).random((5, 2))
    np.savez(path, ops=ops, tasks=np.array(["digits", "letters"]), score=score, params_m=np.ones(5))


def _read_table(path: Path) -> object:
    table = Table.load(path, values="score")
    return table.digest, repr(table.tasks), _array(table.main.accuracy), _array(table.parameters)


def _make_images(path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez_compressed(path, images=rng.integers(0, 256, (3, 4, 6, 6)).astype(np.uint8), split=np.array([0, 1, 2]))


def _read_images(path: Path) -> object:
    images = read_npz(path)
    return images.classes, [_array(each) for each in images.images], [_array(each) for each in images.parts or ()]


def _make_image_folder(path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("cats", "dogs"):
        (path / kind).mkdir(parents=True)
        for number, ending in enumerate(("png", "jpg", "gif", "bmp", "tif")):
            Image.fromarray(rng.integers(0, 256, (6, 6)).astype(np.uint8)).save(path / kind / f"{number}.{ending}")


def _read_image_folder(path: Path) -> object:
    images = read_folder(path)
    return images.classes, [_array(each) for each in images.images]


def _make_run(path: Path) -> None:
    rng = np.random.default_rng(0)
    accuracy = rng.random((3, 4))
    texts = np.array([[f"conv3x3-{row}{column}" for column in range(4)] for row in range(3)])
    SearchRun(np.array(["a", "b", "c"]), accuracy, accuracy, texts, {"fresh": accuracy[:, 0]}).save(path)


def _read_search_run(path: Path) -> object:
    run = SearchRun.load(path, 3, 4)
    measures = {name: _array(values) for name, values in run.measures.items()}
    return [_array(each) for each in (run.tasks, run.accuracy, run.seconds, run.architectures)], measures


def _forge_npz(path: Path, rng: Rng, canary: Path) -> None:
    members = unzipped(path.read_bytes())
    name = rng.choice(sorted(members))
    match rng.randrange(5):
        case 0:
            members[name] = pickled(canary, rng)
        case 1:
            members[name] = huge_array(rng)
        case 2:
            other = rng.choice(sorted(members))
            members[name], members[other] = members[other], members[name]
        case 3:
            del members[name]
        case _:
            members[name] = damaged(members[name], rng)
    path.write_bytes(zipped(members))


def _make_settings(path: Path) -> None:
    path.mkdir()
    settings = TrainSettings("rlnas/DigitsTableTrial-v0", 1000, env_options={"designs_per_trial": 4})
    (path / "config.json").write_text(json.dumps(asdict(settings), indent=1))


def _read_settings(path: Path) -> object:
    return repr(read_run(path))


def _forge_json(path: Path, rng: Rng, canary: Path) -> None:
    file = rng.choice(sorted(path.glob("*.json")))
    file.write_bytes(changed_json(file.read_bytes(), rng, canary))


def _make_comparison(path: Path) -> None:
    path.mkdir()
    agents, tasks = ["rl2", "random"], ["digits:test/0", "digits:test/1"]
    about = {"seeds": [0], "tasks": tasks, "designs": 2, "trials": 2, "agents": {name: {} for name in agents}}
    known = {"best": [0.9, 0.8], "random_mean": [0.5, 0.4], "best_is_known": True}
    (path / "summary.json").write_text(json.dumps({**about, **known}))
    (path / "config.json").write_text(json.dumps({"env": "rlnas/Trial-v0", "designs": 2}))
    rows = [f"{agent},0,0,{task},{design}" for agent in agents for task in tasks for design in range(2)]
    header = "agent,seed,round,task,design"
    evaluations = [f"{header},architecture,accuracy,best_so_far", *(f"{row},dense-8,0.500000,0.500000" for row in rows)]
    (path / "evaluations.csv").write_text("\n".join(evaluations) + "\n")
    (path / "times.csv").write_text("\n".join([f"{header},seconds", *(f"{row},0.1" for row in rows)]) + "\n")


def _read_comparison(path: Path) -> object:
    found = read_comparison(path)
    values = [{name: _array(a) for name, a in of.items()} for of in (found.results.accuracy, found.architectures)]
    return values, repr(found.summary), repr(found.settings)


READERS: dict[str, Reader] = {
    "controller": Reader(_make_controller, _read_controller, _forge_folder, True),
    "controller zip": Reader(_make_controller, _read_controller, _forge_zip, True),
    "learner": Reader(_make_learner, _read_learner, _forge_folder, True),
    "learner zip": Reader(_make_learner, _read_learner, _forge_zip, True),
    "start": Reader(_make_start, _read_start, _forge_folder, True),
    "start zip": Reader(_make_start, _read_start, _forge_zip, True),
    "store to read": Reader(_make_store, _read_store, _forge_store, True),
    "store to append": Reader(_make_store, _append_to_store, _forge_store, True),
    "table npz": Reader(_make_table, _read_table, _forge_npz, False),
    "images npz": Reader(_make_images, _read_images, _forge_npz, False),
    "images in a folder": Reader(_make_image_folder, _read_image_folder, None, False),
    "search run npz": Reader(_make_run, _read_search_run, _forge_npz, False),
    "settings of a run": Reader(_make_settings, _read_settings, _forge_json, False),
    "comparison": Reader(_make_comparison, _read_comparison, _forge_json, False),
}
"""Every loader. What is not covered by hashes is written by people, or read by other programs too."""


if __name__ == "__main__":
    which, begin, end, place, bird = sys.argv[1:]
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_late)
    for number, loader in enumerate(which.split(",")):
        work(loader, 0 if number else int(begin), int(end), Path(place) / loader.replace(" ", "-"), Path(bird))
