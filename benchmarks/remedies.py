"""What helps RL² on unseen design tasks: the same learner with and without each remedy, on the digits table.

Everything is learned on the 36 training tasks and judged on the 16 of the split ``val``: normalised regret after 1, 3,
5, 10 and 20 designs, one trial on each task for each seed. Baselines have the same trials. A run is a file in the
folder; what is there is not done again.

    python benchmarks/remedies.py --seeds 3 --out runs/remedies
    python benchmarks/remedies.py --seeds 3 --out runs/remedies --variants plain,cloned  # a part of it
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

import rlnas  # noqa: F401 - registers the environments
from rlnas.agents.agent import Likeliest
from rlnas.agents.cloning import CloningConfig, clone
from rlnas.agents.learned import SETTINGS
from rlnas.agents.portfolio import best_on_average, nearest_portfolio, portfolio
from rlnas.agents.problem import MakeAgent, SearchProblem
from rlnas.agents.rl2 import RL2
from rlnas.agents.search_run import run_search
from rlnas.agents.transfer import TransferAgent, transfer_gp
from rlnas.errors import one_of
from rlnas.synthetic_tasks import prior_of_table, synthesise
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator

ENV, DESIGNS, BUDGETS = "rlnas/DigitsTableTrial-v0", 20, (1, 3, 5, 10, 20)
SYNTHETIC, CLONED = 2_000, 1_920

PLAIN: dict[str, Any] = {"duplicates": "count", "reward": "normalised"}
REFUSED: dict[str, Any] = {"duplicates": "refuse", "reward": "normalised"}
BASE: dict[str, Any] = {"duplicates": "refuse", "reward": "log-percentile", **SETTINGS}
MADE: dict[str, Any] = {**BASE, "synthetic": True}
CLONE: dict[str, Any] = {
    "duplicates": "refuse",
    "reward": "log-percentile",
    "synthetic": True,
    "teacher": "transfer-gp",
    "steps": 0,
}
TUNED: dict[str, Any] = {"learning_rate": 1e-4, "final_learning_rate": 1e-5, "entropy": 0.0, "epochs": 3}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("RL² as it was: normalised reward, duplicates count", PLAIN),
    "refuse": ("duplicates refused", REFUSED),
    "base": ("and log-percentile reward, each design credited with its own", BASE),
    "carried": ("and later designs' rewards credited, too (discount .9)", {**BASE, "design_discount": 0.9}),
    "improvement": ("and improvement for a reward instead", {**BASE, "reward": "improvement", "design_discount": 1.0}),
    "blind": ("and no task descriptor", {**BASE, "blind": True}),
    "wide": ("and 256 units", {**BASE, "hidden_size": 256}),
    "large-batch": ("and 256 trials an update", {**BASE, "num_envs": 256}),
    "entropy": ("and twice the entropy, not annealed", {**BASE, "entropy": 0.08, "final_entropy": 0.04}),
    "long": ("and three times the steps", {**BASE, "longer": 3}),
    "synthetic": ("and 2,000 synthetic tasks", MADE),
    "synthetic-long": ("and 2,000 synthetic tasks, three times the steps", {**MADE, "longer": 3}),
    "cloned-portfolio": ("cloned from the nearest portfolio, no PPO", {**CLONE, "teacher": "nearest-portfolio"}),
    "cloned": ("cloned from transfer-gp, no PPO", CLONE),
    "cloned-real": ("the same on the 36 training tasks", {**CLONE, "synthetic": False}),
    "cloned-blind": ("the same without a task descriptor", {**CLONE, "blind": True}),
    "cloned-ppo": ("cloned from transfer-gp, then PPO", {**CLONE, **TUNED, "steps": None, "num_envs": 256}),
}
"""Each variant's description and settings: of the environment, of what is learned from, and of RL2."""

BASELINES: dict[str, MakeAgent] = {
    "best-on-average": best_on_average,
    "portfolio": portfolio,
    "nearest-portfolio": nearest_portfolio,
    "transfer-gp": transfer_gp,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300_000, help="environment steps of PPO")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="names, separated by commas")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [one_of("variant", name, VARIANTS) for name in options.variants.split(",")]
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for name in names:
            file = options.out / f"{name}-{options.steps}-{seed}.json"
            if not file.exists():
                began = time.process_time()
                found = run(VARIANTS[name][1], seed, options.steps)
                found["seconds"] = time.process_time() - began
                file.write_text(json.dumps(found))
                print(f"{name} seed {seed}: {found['seconds']:.0f} s", flush=True)
    show(options.out, names, options.seeds, options.steps)


def run(settings: dict[str, Any], seed: int, steps: int) -> dict[str, Any]:
    """Train a controller and let it search each task of ``val`` once, by its likeliest and by sampled actions."""
    chosen = dict(settings)
    synthetic, blind = chosen.pop("synthetic", False), chosen.pop("blind", False)
    teacher, longer, fixed = chosen.pop("teacher", None), chosen.pop("longer", 1), chosen.pop("steps", None)
    options = {"duplicates": chosen.pop("duplicates"), "designs_per_trial": DESIGNS}
    table = digits(blind)
    learned_on, split = (
        (synthesise(table, training(table), SYNTHETIC, seed + 1), "synthetic") if synthetic else (table, "train")
    )
    num_envs = chosen.pop("num_envs", 64)
    env = make_env(learned_on, split, num_envs, reward=chosen.pop("reward"), **options)
    learner = RL2(env, seed=seed, **chosen)
    if teacher is not None:
        school = make_env(learned_on, split, 64, reward="log-percentile", **options)
        if teacher == "transfer-gp":
            adviser: Any = TransferAgent(prior_of_table(table, training(table)), table.space.codes, school.layout)
        else:
            adviser = BASELINES[teacher](problem(table), seed)
        clone(learner.controller, school, adviser, CLONED, seed, CloningConfig())
    if fixed is None:
        learner.learn(steps * longer)
    learner.controller.seed(seed)
    test = make_env(table, "val", len(columns(table, "val")), **options)
    return {
        way: run_search(agent, test, range(test.num_envs), seed).best_so_far.tolist()
        for way, agent in (("likeliest", Likeliest(learner.controller)), ("sampled", learner.controller))
    }


@cache
def digits(blind: bool = False) -> Table:
    table = Table.from_spec("digits")
    return replace(table, descriptors=None) if blind else table


def columns(table: Table, split: str) -> list[str]:
    return [task for task, its in zip(table.tasks, table.splits or (), strict=True) if its == split]


def training(table: Table) -> list[str]:
    return columns(table, "train")


def make_env(table: Table, split: str, num_envs: int, **options: Any) -> Any:
    places = {"space": table.space, "tasks": (TableSource(table), split), "evaluator": TabularEvaluator(table)}
    return gym.make_vec(ENV, num_envs=num_envs, **{**places, **options})


def problem(table: Table) -> SearchProblem:
    env = make_env(table, "val", 1)
    refuse = {"duplicates": "refuse"}
    tasks = (TableSource(table), "train")
    return SearchProblem(ENV, refuse, table.space, env.layout, DESIGNS, TabularEvaluator(table), tasks, 0)


def show(folder: Path, names: list[str], seeds: int, steps: int) -> None:
    """The table: means over tasks and seeds, and the standard deviation of a seed's mean over tasks."""
    table = digits()
    best, mean = (np.array([of(task) for task in columns(table, "val")]) for of in (table.best, table.mean))

    def regret(found: NDArray[np.float64]) -> NDArray[np.float64]:
        """(tasks, designs) to means over tasks at the budgets."""
        at = found[:, [budget - 1 for budget in BUDGETS]]
        return np.asarray(((best[:, None] - at) / (best - mean)[:, None]).mean(0))

    print(f"\n| on 16 unseen tasks (`val`) | actions |{'|'.join(f' {n} ' for n in BUDGETS)}| seconds |")
    print(f"|---|---|{'---|' * (len(BUDGETS) + 1)}")
    test = make_env(table, "val", len(best), designs_per_trial=DESIGNS, duplicates="refuse")
    for name, make in BASELINES.items():
        found = regret(run_search(make(problem(table), 0), test, range(len(best)), 0).best_so_far)
        print(f"| {name} | |{'|'.join(f' {value:.3f} ' for value in found)}| |")
    for name in names:
        runs = [json.loads((folder / f"{name}-{steps}-{seed}.json").read_text()) for seed in range(seeds)]
        seconds = np.mean([one["seconds"] for one in runs])
        for way in ("likeliest", "sampled"):
            found = np.array([regret(np.array(one[way])) for one in runs])
            figures = [
                f" {m:.3f} ± {s:.3f} " for m, s in zip(found.mean(0), found.std(0, ddof=min(1, seeds - 1)), strict=True)
            ]
            print(f"| {VARIANTS[name][0]} | {way} |{'|'.join(figures)}| {seconds:.0f} |")


if __name__ == "__main__":
    main()
