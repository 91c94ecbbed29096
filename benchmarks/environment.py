"""How many steps a second the native vector environment takes where a table answers, on one core.

Trials of 10 designs with nothing recorded; every action is legal and drawn at random. The time of the environment's own
steps counts, not that of drawing actions, and it is this process's time alone, so that other programs disturb little.
The synthetic table holds 5^6 designs on 8 tasks; NAS-Bench-201 is measured too if RLNAS_DATA names the folder it is in.

    python benchmarks/environment.py            # a table, under a minute
    python benchmarks/environment.py --duplicates refuse --json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

from rlnas.envs.vector import DesignVectorEnv
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator

DESIGNS, DECISIONS, CHOICES, TASKS = 10, 6, 5, 8
TRIAL = DESIGNS * DECISIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, nargs="+", default=[256, 1024, 4096], help="trials side by side")
    parser.add_argument("--trials", type=int, default=5, help="rounds of trials to time; the fastest counts")
    parser.add_argument("--duplicates", default="count", choices=["count", "refuse"])
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    print(f"numpy {np.__version__}, Python {platform.python_version()}, duplicates: {options.duplicates}")
    print(f"{'table':16}{'envs':>8}{'steps/s':>14}")
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        tables = {"synthetic": synthetic_table(Path(folder) / "synthetic.npz")}
        if data := os.environ.get("RLNAS_DATA"):
            tables["nas-bench-201"] = Table.load(Path(data) / "nasbench201" / "nb201.npz", values="val_12")
        for name, table in tables.items():
            for envs in options.envs:
                rate = steps_per_second(table, envs, options.trials, options.duplicates)
                rates[f"{name}: {envs}"] = round(rate)
                print(f"{name:16}{envs:8,}{rate:14,.0f}", flush=True)
    if options.json:
        print(json.dumps({"duplicates": options.duplicates, "numpy": np.__version__, "steps_per_second": rates}))


def synthetic_table(path: Path) -> Table:
    """Every design of six decisions with five choices, worth noise."""
    ops = np.array(list(product(range(CHOICES), repeat=DECISIONS)), dtype=np.int8)
    score = np.random.default_rng(0).random((len(ops), TASKS))
    np.savez(path, ops=ops, tasks=np.array([f"task {i}" for i in range(TASKS)]), score=score)
    return Table.load(path)


def steps_per_second(table: Table, envs: int, rounds: int, duplicates: str) -> float:
    """Environment steps, one for each trial, in a second of the fastest round of trials after a first one."""
    env = DesignVectorEnv(
        envs,
        space=table.space,
        tasks=(TableSource(table), "all"),
        evaluator=TabularEvaluator(table),
        designs_per_trial=DESIGNS,
        duplicates=duplicates,
    )
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    seconds = []
    for _ in range(rounds + 1):
        spent = 0.0
        for _ in range(TRIAL):
            actions = (rng.random((envs, CHOICES), dtype=np.float32) * env.action_masks()).argmax(1)
            started = time.process_time()
            env.step(actions)
            spent += time.process_time() - started
        seconds.append(spent)
    return envs * TRIAL / min(seconds[1:])


if __name__ == "__main__":
    main()
