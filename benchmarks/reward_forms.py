"""Which reward RL² learns to search from best: reward forms, discounts between designs, designs per trial.

    python benchmarks/reward_forms.py runs/reward-forms --picture docs/results/reward-forms.svg

makes every run that the folder lacks and prints the tables. Each run trains a controller on the training tasks of a
table, with duplicates refused, and lets it search tasks that it never saw. Figures are normalised regrets: 0 is the
best design of the table, 1 a random design on average. First come all reward forms with all discounts on the digits
table. What is best on its validation tasks goes on without the task's descriptor and in shorter and longer trials, and
together with the best other form on a published table, which needs RLNAS_DATA.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

import rlnas
from rlnas.agents.controller import Controller
from rlnas.agents.rl2 import RL2
from rlnas.agents.search_run import run_search
from rlnas.checkpoint import write_durably
from rlnas.device import one_thread
from rlnas.plots import colour
from rlnas.reward import REWARDS, SMALLEST_DEVIATION
from rlnas.statistics import mean_interval

Floats = NDArray[np.float64]
DIGITS = "rlnas/DigitsTableTrial-v0"
PUBLISHED = "rlnas/TransNASMicroTrial-v0"
HELD_OUT = {DIGITS: ("val", "test", "unseen-families"), PUBLISHED: ("test",)}
"""The splits that are searched; the first one decides what is best."""
DISCOUNTS, DESIGNS, LENGTHS = (0.0, 0.9, 1.0), 20, (10, 50)
SHOWN = (1, 3, 5, 10, 20, 50)
SEARCHES = 100
"""At least so many trials on each split."""
AT_A_TIME = 320
"""Designs that an update learns from: trials of 20 designs are played 16 at a time, shorter ones more."""
CURVE = 10
"""Points of a learning curve."""


@dataclass(frozen=True)
class Setting:
    """What runs have in common that differ in their seed alone."""

    reward: str
    discount: float
    designs: int = DESIGNS
    env: str = DIGITS
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        more = "".join(f", {name} {str(value).lower()}" for name, value in self.options.items())
        return f"{self.reward}, discount {self.discount:g}{more}"

    def arguments(self) -> dict[str, Any]:
        """Of the environment that is learned in."""
        return {"designs_per_trial": self.designs, "duplicates": "refuse", **self.options}


@dataclass(frozen=True)
class Study:
    """Runs in a folder; those that it lacks are made when they are asked for."""

    folder: Path
    steps: int
    seeds: int

    def regret(self, setting: Setting, split: str) -> Floats:
        """(seeds, tasks, designs)."""
        return np.array([self._run(setting, seed)["regret"][split] for seed in range(self.seeds)])

    def curve(self, setting: Setting) -> tuple[Floats, Floats]:
        """Steps and regret of the learning curves, (seeds, points) each."""
        runs = [self._run(setting, seed)["curve"] for seed in range(self.seeds)]
        return np.array([run["steps"] for run in runs]), np.array([run["regret"] for run in runs])

    def score(self, setting: Setting) -> float:
        """Regret on the first held-out split, averaged over all numbers of designs shown."""
        shown = [n - 1 for n in SHOWN if n <= setting.designs]
        return float(self.regret(setting, HELD_OUT[setting.env][0])[..., shown].mean())

    def _run(self, setting: Setting, seed: int) -> dict[str, Any]:
        said = f"{setting.env.split('/')[-1]}, {setting}, {setting.designs} designs, seed {seed}"
        path = self.folder / f"{said.replace(', ', '_').replace(' ', '-')}.json"
        if path.exists():
            run: dict[str, Any] = json.loads(path.read_text())
            if run["steps"] != self.steps:
                sys.exit(f"{path} was trained for {run['steps']} steps, not {self.steps}; name another folder")
            return run
        print(said, file=sys.stderr, flush=True)
        run = {"steps": self.steps, **train_and_search(setting, self.steps, seed)}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_durably(path, json.dumps(run).encode())
        return run


def train_and_search(setting: Setting, steps: int, seed: int) -> dict[str, Any]:
    """Regret of each task of each held-out split, averaged over its searches, and the learning curve."""
    arguments = {**setting.arguments(), "reward": setting.reward}
    trials = round(AT_A_TIME / setting.designs)
    learner = RL2(setting.env, seed=seed, num_envs=trials, env_options=arguments, design_discount=setting.discount)
    held_out = {split: Search(setting, split) for split in HELD_OUT[setting.env]}
    curve = Curve(next(iter(held_out.values())), steps)
    learner.learn(steps, callback=curve)
    regret = {split: search.regret(learner.controller, seed).tolist() for split, search in held_out.items()}
    return {"regret": regret, "curve": {"steps": curve.steps, "regret": curve.regret}}


class Search:
    """Several searches of each task of a split.

    Args:
        setting: of the environment.
        split: the tasks.
    """

    def __init__(self, setting: Setting, split: str) -> None:
        env_id, arguments = setting.env, setting.arguments()
        source = gym.make_vec(env_id, num_envs=1, **arguments).settings.source  # type: ignore[attr-defined]
        self._count = source.splits[split]
        self._rounds = -(-SEARCHES // self._count)
        trials = self._count * self._rounds
        self._env = gym.make_vec(env_id, num_envs=trials, **{**arguments, "tasks": (source, split)})
        evaluator = self._env.settings.evaluator  # type: ignore[attr-defined]
        tasks = [source.task(split, index) for index in range(self._count)]
        self._best = np.array([evaluator.best(task) for task in tasks])
        self._unit = np.maximum(self._best - [evaluator.mean(task) for task in tasks], SMALLEST_DEVIATION)

    def regret(self, controller: Controller, seed: int) -> Floats:
        """Normalised regret after each design, (tasks, designs)."""
        controller.seed(seed)
        run = run_search(controller, self._env, [*range(self._count)] * self._rounds, seed)
        found = run.best_so_far.reshape(self._rounds, self._count, -1).mean(0)
        return np.asarray((self._best[:, None] - found) / self._unit[:, None])


class Curve(BaseCallback):
    """Searches now and then with what has been learned so far.

    Args:
        search: what is searched.
        total: steps of the training.
    """

    def __init__(self, search: Search, total: int) -> None:
        super().__init__()
        self._search, self._total = search, total
        self.steps: list[int] = []
        self.regret: list[float] = []
        """Mean normalised regret after all designs of a trial."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= len(self.steps) * self._total / CURVE:
            self._note()

    def _on_training_end(self) -> None:
        self._note()

    def _note(self) -> None:
        self.steps.append(self.model.num_timesteps)
        self.regret.append(float(self._search.regret(self.model.controller, 0)[:, -1].mean()))  # type: ignore[attr-defined]


def table(study: Study, settings: Sequence[Setting], split: str) -> str:
    """Rows of normalised regrets with intervals; each column's best is bold."""
    shown = [n for n in SHOWN if n <= settings[0].designs]
    columns = [n - 1 for n in shown]
    regrets = [study.regret(setting, split)[..., columns] for setting in settings]
    best = np.min([regret.mean((0, 1)).round(3) for regret in regrets], axis=0)
    lines = [f"| {settings[0].env}, {split} | {' | '.join(f'at {n}' for n in shown)} |", f"|---|{'---|' * len(shown)}"]
    for setting, regret in zip(settings, regrets, strict=True):
        cells = []
        for mean, low, high, least in zip(regret.mean((0, 1)), *mean_interval(regret), best, strict=True):
            value = f"**{mean:.3f}**" if mean.round(3) == least else f"{mean:.3f}"
            cells.append(f"{value} ({low:.3f} to {high:.3f})")
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(study: Study, settings: Sequence[Setting], path: Path) -> None:
    """Learning curves: mean over seeds, and the range of the seeds."""
    axes = Figure(figsize=(7, 4), layout="constrained").subplots()
    for index, setting in enumerate(settings):
        steps, regret = study.curve(setting)
        axes.plot(steps.mean(0), regret.mean(0), color=colour(index), label=str(setting))
        axes.fill_between(steps.mean(0), regret.min(0), regret.max(0), color=colour(index), alpha=0.15, linewidth=0)
    axes.set(xlabel="environment steps", ylabel=f"normalised regret after {settings[0].designs} designs")
    axes.legend(frameon=False, fontsize=8)
    axes.figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the runs; made if missing")
    parser.add_argument("--steps", type=int, default=200_000, help="environment steps of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--picture", type=Path, help="where to draw learning curves, as .svg")
    options = parser.parse_args()
    print(
        f"rlnas {rlnas.__version__}, torch {torch.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}; {options.steps:,} steps, {options.seeds} seeds\n"
    )
    with one_thread():
        study = Study(options.folder, options.steps, options.seeds)
        grid = [Setting(form, discount) for form, discount in product(REWARDS, DISCOUNTS)]
        show(study, grid)
        of_forms = [min((s for s in grid if s.reward == form), key=study.score) for form in REWARDS]
        if options.picture:
            draw(study, of_forms, options.picture)
        first, second = sorted(of_forms, key=study.score)[:2]
        show(study, [first, replace(first, options={"descriptor": False})])
        show(study, [replace(setting, env=PUBLISHED) for setting in (first, second)])
        for designs in LENGTHS:
            show(study, [replace(first, designs=designs)])


def show(study: Study, settings: Sequence[Setting]) -> None:
    for split in HELD_OUT[settings[0].env]:
        print(table(study, settings, split), flush=True)


if __name__ == "__main__":
    main()
