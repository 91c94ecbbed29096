"""Trains the controller that comes with the package and writes it and its card to rlnas/controllers.

Candidates are trained on the 36 training tasks of the digits table and synthetic tasks drawn from them, some by PPO and
some by cloning; the one of least regret on the split ``val`` is taken. The splits ``test`` and ``unseen-families`` are
looked at afterwards. Each candidate is a file in --out; what is there is not trained again.

    python benchmarks/pretrained.py --out runs/pretrained
    python benchmarks/pretrained.py --out runs/pretrained --data $RLNAS_DATA  # and few-shot tasks of image sets
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

import rlnas  # noqa: F401 - registers the environments
from rlnas.agents.cloning import clone
from rlnas.agents.controller import Controller
from rlnas.agents.learned import AT_A_TIME, CLONED_TRIALS, SETTINGS, SYNTHETIC_TASKS, trials_at_a_time
from rlnas.agents.problem import SearchProblem
from rlnas.agents.rl2 import RL2
from rlnas.agents.transfer import transfer_gp
from rlnas.pretrained import SHOWN, Range, space
from rlnas.synthetic_tasks import SPLIT, descriptors_of, synthesise
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator

ENV, DESIGNS, BUDGETS = "rlnas/DigitsTableTrial-v0", 20, (1, 3, 5, 10, 20)
OPTIONS: dict[str, Any] = {"duplicates": "refuse", "designs_per_trial": DESIGNS}
RECIPES = {"ppo": "PPO", "cloned": "cloning of `transfer-gp`"}
STEPS = 600_000
"""Environment steps of PPO."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the candidates")
    parser.add_argument("--seeds", type=int, default=4, help="candidates of each kind")
    options = parser.parse_args()
    torch.set_num_threads(1)
    candidates = train_all(options.out, options.seeds)


def train_all(folder: Path, seeds: int) -> dict[str, Controller]:
    """The candidates, those that the folder lacks trained."""
    table = Table.from_spec("digits")
    for seed in range(seeds):
        for recipe in RECIPES:
            file = folder / f"{recipe}-{seed}.zip"
            if not file.exists():
                train(table, recipe, seed).save(file)
    return {f"{r}, seed {s}": Controller.load(folder / f"{r}-{s}.zip") for r in RECIPES for s in range(seeds)}


def train(table: Table, recipe: str, seed: int) -> Controller:
    """A controller that was trained on synthetic tasks, none of which is met twice, made of the training tasks."""
    began = time.process_time()
    columns = [task for task, split in zip(table.tasks, table.splits or (), strict=True) if split == "train"]
    made = synthesise(table, columns, SYNTHETIC_TASKS, seed)
    if recipe == "ppo":
        env = make_env(made, SPLIT, trials_at_a_time(problem(table)), reward="normalised")
        controller = RL2(env, seed=seed, **SETTINGS).learn(STEPS).controller
    else:
        env = make_env(made, SPLIT, AT_A_TIME, reward="normalised")
        controller = RL2(env, seed=seed).controller
        clone(controller, env, transfer_gp(problem(table), seed), CLONED_TRIALS, seed)
    seconds = time.process_time() - began
    shown = Range.of(descriptors_of(table)[[table.column(column) for column in columns]])
    controller.about = {
        "env": ENV,
        "space": space().spec(),
        SHOWN: asdict(shown),
        "training": {"recipe": recipe, "seed": seed, "seconds": round(seconds)},
    }
    print(f"{recipe} seed {seed}: {seconds:.0f} s", flush=True)
    return controller


def problem(table: Table) -> SearchProblem:
    env = make_env(table, "val", 1)
    return SearchProblem(
        ENV,
        {"duplicates": "refuse"},
        table.space,
        env.layout,
        DESIGNS,
        TabularEvaluator(table),
        (TableSource(table), "train"),
        STEPS,
    )


def make_env(table: Table, split: str, num_envs: int, **options: Any) -> Any:
    places = {"space": table.space, "tasks": (TableSource(table), split), "evaluator": TabularEvaluator(table)}
    return gym.make_vec(ENV, num_envs=num_envs, **{**places, **OPTIONS, **options})


if __name__ == "__main__":
    main()
