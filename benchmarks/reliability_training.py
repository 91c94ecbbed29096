"""Whether a training run that is told to stop, again and again, ends as one that is not.

Part of ``benchmarks/reliability.py``.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rlnas.agents.training import AGENT, CHECKPOINT, EPISODES, LOGS
from rlnas.checkpoint import MANIFEST, TENSORS
from rlnas.store import EpisodeStore

COMMAND = [sys.executable, "-m", "rlnas.cli", "train", "--env", "rlnas/DigitsTableTrial-v0", "--device", "cpu"]
SETTINGS = ["--trials", "16", "--designs", "4", "--seed", "3", "--set", "hidden_size=32"]
STOPPED = 128 + signal.SIGTERM


def stopped_training(folder: Path, stops: int, steps: int, longest: float) -> dict[str, Any]:
    """Train without a pause, and with SIGTERM at random moments; compare weights, optimizer and episodes.

    Args:
        folder: for the runs.
        stops: signals to send; a run that finishes before is followed by another one.
        steps: environment steps of a run.
        longest: seconds from the beginning of training to a signal, at most.
    """
    whole = folder / "whole"
    subprocess.run([*COMMAND, *SETTINGS, "--steps", str(steps), "--out", str(whole)], check=True, **_QUIET)
    rng, sent, runs, differ, episodes, failed = random.Random(0), 0, 0, 0, 0, 0
    while sent < stops:
        run, finished = folder / f"stopped-{runs}", False
        while not finished:
            child = _train(run, steps)
            if sent < stops and _begins(run, child):
                time.sleep(rng.uniform(0.0, longest))
                child.send_signal(signal.SIGTERM)
            status = child.wait()
            sent += status == STOPPED
            failed += status not in (0, STOPPED)
            finished = status != STOPPED
        runs += 1
        differ += _tensors(run) != _tensors(whole)
        episodes += _episodes_that_differ(run, whole)
    return {
        "signals": sent,
        "runs": runs,
        "updates": json.loads(_part(whole, CHECKPOINT, "checkpoint.json").read_text())["learner"]["updates"],
        "runs that failed": failed,
        "runs with other weights": differ,
        "episodes that differ": episodes,
        "weights": _tensors(whole)[0],
    }


_QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def _train(run: Path, steps: int) -> subprocess.Popen[bytes]:
    """Begin a run, or go on with it."""
    how = ["--resume"] if run.exists() else [*SETTINGS, "--steps", str(steps)]
    return subprocess.Popen([*COMMAND, *how, "--out", str(run)], **_QUIET)


def _begins(run: Path, child: subprocess.Popen[bytes]) -> bool:
    """Waits for training to begin; False if the run had nothing left to do."""
    logs = _logs(run)
    while _logs(run) == logs:
        if child.poll() is not None:
            return False
        time.sleep(0.005)
    return True


def _logs(run: Path) -> set[str]:
    """The files that every start of a run adds to."""
    return {f"{path.name} {path.stat().st_mtime_ns}" for path in (run / LOGS).glob("*")}


def _part(run: Path, folder: str, name: str) -> Path:
    return run / folder / str(json.loads((run / folder / MANIFEST).read_text())[name]["file"])


def _tensors(run: Path) -> tuple[str, str]:
    """SHA-256 of the agent's weights, and of the learner's weights and moments."""
    manifests = [json.loads((run / folder / MANIFEST).read_text()) for folder in (AGENT, CHECKPOINT)]
    agent, learner = (str(manifest[TENSORS]["sha256"]) for manifest in manifests)
    return agent, learner


def _episodes_that_differ(run: Path, whole: Path) -> int:
    with EpisodeStore(run / EPISODES, "r") as mine, EpisodeStore(whole / EPISODES, "r") as its:
        missing = abs(len(mine) - len(its))
        pairs = zip(mine.episodes(), its.episodes(), strict=False)
        return missing + sum(not a.same_record(b) for a, b in pairs) + len(mine.verify())
