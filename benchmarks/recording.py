"""What recording costs: RL² trains with and without a store, side by side.

Learners with the same seed train in turn, a few updates each: one records nothing, one appends every step's episodes to
an EpisodeStore, which waits for the disk each time, and one records as a training run does, by a StoreWriter, flushed
after each turn. They all do the same, so that each turn gives a ratio of their times; the medians over turns count. The
cost is a share of the time of training that records nothing: by the clock, and by the processor, where the background
thread counts and other programs disturb less.

    python benchmarks/recording.py            # a few minutes
    python benchmarks/recording.py --quick --json
"""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlnas.agents.rl2 import RL2
from rlnas.agents.training import TrainSettings
from rlnas.registration import PRESETS
from rlnas.specs import evaluator_from_spec
from rlnas.store import EpisodeStore
from rlnas.store_writer import StoreWriter

ENVS = ("rlnas/DigitsTable-v0", "rlnas/DigitsTableTrial-v0")
UNRECORDED, EACH_STEP, IN_GROUPS = "unrecorded", "each step", "in groups"
STEPS = 2_500
"""Environment steps of a turn, at least."""


@dataclass
class Contestant:
    """A learner, and what its turns took."""

    learner: RL2
    flush: Callable[[], None] = lambda: None
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)

    def take_turn(self, steps: int) -> None:
        started, processor_started = time.perf_counter(), time.process_time()
        self.learner.learn(steps, log_interval=None, reset_num_timesteps=False)
        self.flush()
        self.seconds.append(time.perf_counter() - started)
        self.processor_seconds.append(time.process_time() - processor_started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=ENVS, choices=ENVS, help="environments to train in")
    parser.add_argument("--trials", type=int, nargs="+", default=[32, 64, 256], help="trials played at a time")
    parser.add_argument("--turns", type=int, default=30, help="turns of each learner, after two that do not count")
    parser.add_argument("--quick", action="store_true", help="32 trials and 4 turns")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    trials, turns = ([32], 4) if options.quick else (options.trials, options.turns)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, SQLite {sqlite3.sqlite_version}, Python {platform.python_version()}")
    print(f"{'':49}{'cost by the clock':>22}{'by the processor':>22}")
    print(f"{'environment':28}{'trials':>7}{'episodes/s':>14}" + f"{EACH_STEP:>11}{IN_GROUPS:>11}" * 2)
    rows = []
    for env in options.envs:
        for count in trials:
            rows.append(row := measure(env, count, turns))
            costs = "".join(f"{row[kind][name]:11.1%}" for kind in ("clock", "processor") for name in row[kind])
            print(f"{env:28}{count:7}{row['episodes_per_second']:14,.0f}{costs}", flush=True)
    if options.json:
        print(json.dumps(rows))


def measure(env_id: str, trials: int, turns: int) -> dict[str, Any]:
    """What recording costs in one environment."""
    evaluator = evaluator_from_spec(PRESETS[env_id]["evaluator"])
    settings = TrainSettings(env_id, steps=1, trials=trials)
    with (
        tempfile.TemporaryDirectory() as folder,
        EpisodeStore(Path(folder) / "each.sqlite") as store,
        StoreWriter(Path(folder) / "groups.sqlite") as writer,
    ):

        def contestant(flush: Callable[[], None] = lambda: None, **recorder: Any) -> Contestant:
            return Contestant(settings.make_learner(settings.make_env(evaluator=evaluator, **recorder)), flush)

        everyone = {
            UNRECORDED: contestant(),
            EACH_STEP: contestant(recorder=store.append),
            IN_GROUPS: contestant(writer.flush, recorder=writer.append),
        }
        env: Any = everyone[UNRECORDED].learner.env
        designs = env.settings.designs_per_trial
        rollout = trials * designs * len(env.search_space.decisions)
        steps = rollout * -(-STEPS // rollout)
        for turn in range(turns + 2):
            names = list(everyone) if turn % 2 else list(everyone)[::-1]
            for name in names:
                everyone[name].take_turn(steps)
        episodes = (turns + 2) * steps // rollout * trials * designs
        assert len(store) == len(writer) == episodes
    plain = everyone.pop(UNRECORDED)
    return {
        "env": env_id,
        "trials": trials,
        "turns": turns,
        "episodes": episodes,
        "episodes_per_second": steps // rollout * trials * designs / statistics.median(plain.seconds[2:]),
        "clock": {name: cost(it.seconds, plain.seconds) for name, it in everyone.items()},
        "processor": {name: cost(it.processor_seconds, plain.processor_seconds) for name, it in everyone.items()},
    }


def cost(mine: Sequence[float], plain: Sequence[float]) -> float:
    """By what share turns took longer, in the median, the first two left out."""
    return statistics.median(a / b for a, b in zip(mine[2:], plain[2:], strict=True)) - 1


if __name__ == "__main__":
    main()
