"""Trains the controller that comes with the package, and writes it and its card to rlnas/controllers.

Candidates are trained on the 36 training tasks of the digits table and synthetic tasks drawn from them, some by PPO and
some by cloning; the one of least regret on the split ``val`` is taken. The splits ``test`` and ``unseen-families`` are
looked at afterwards, and, with --data, few-shot tasks of larger images, on which networks are trained. What --out holds
already is not done again.

    python benchmarks/pretrained.py --out runs/pretrained
    python benchmarks/pretrained.py --out runs/pretrained --data DATA  # the folder of RLNAS_DATA
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import rlnas  # noqa: F401 - registers the environments
from rlnas import statistics
from rlnas.agents.cloning import clone
from rlnas.agents.controller import Controller
from rlnas.agents.learned import AT_A_TIME, CLONED_TRIALS, SETTINGS, SYNTHETIC_TASKS, trials_at_a_time
from rlnas.agents.portfolio import StartWith, greedy_portfolio, portfolio, training_record
from rlnas.agents.pretrained import Pretrained
from rlnas.agents.problem import MakeAgent, SearchProblem
from rlnas.agents.registry import AGENTS
from rlnas.agents.rl2 import RL2
from rlnas.agents.search_run import run_search
from rlnas.agents.searcher_agent import searcher_agent
from rlnas.agents.searchers import RandomSearch
from rlnas.agents.transfer import transfer_gp
from rlnas.datasets import parse_tasks
from rlnas.envs.observation import LIMIT
from rlnas.pretrained import CARD, CONTROLLER, SHOWN, Range, each_network_once, space
from rlnas.results import Floats
from rlnas.synthetic_tasks import SPLIT, descriptors_of, synthesise
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator
from rlnas.task import DESCRIPTOR, TaskSource

ENV, DESIGNS, BUDGETS = "rlnas/DigitsTableTrial-v0", 20, (1, 3, 5, 10, 20)
OPTIONS: dict[str, Any] = {"duplicates": "refuse", "designs_per_trial": DESIGNS}
RECIPES = {"ppo": "RL² (PPO)", "cloned": "cloning of `transfer-gp`"}
STEPS = 600_000
"""Environment steps of PPO."""
RANDOM_RUNS = 10
"""Runs of random search over each of the table's tasks."""
SETS = {
    "MNIST": "mnist/mnist",
    "Fashion-MNIST": "fashion_mnist/fashion_t10k_first",
    "notMNIST": "notmnist/notmnist_t10k",
    "Kannada digits": "kannada_mnist/kannada",
    "CIFAR-10": "cifar10/cifar10_6k",
    "sign digits": "sign_digits/sign_digits32",
    "spoken digits": "spoken_digits/fsdd_logmel32",
    "Tiny ImageNet": "tiny_imagenet/tiny32_202x50",
}
DRAWN: dict[str, Any] = {"ways": 5, "shots": 5}
IMAGES = f"""\
## Accuracy on larger images, networks trained for real

One task each of {", ".join(SETS)}
(28x28 or 32x32 pixels, 1 or 3 channels), of {DRAWN["ways"]} classes and {DRAWN["shots"]} shots; width 8, 15 steps.
Best accuracy so far on the query images. "Not clamped" is the same controller, told descriptors as they are.

{{results}}"""
ANYTHING = Range((-LIMIT,) * len(DESCRIPTOR), (LIMIT,) * len(DESCRIPTOR))
OURS = "pretrained"
BUDGET = {
    "ppo": f"{STEPS:,} environment steps of PPO, four to a design, in trials of {DESIGNS} designs",
    "cloned": f"{CLONED_TRIALS:,} trials of {DESIGNS} designs, taught by the Bayesian search `transfer-gp`",
}
INTRODUCTION = """\
# The pretrained controller for chains of four layers

`chain.zip` beside this card is the agent `pretrained`. Both were written by

    python benchmarks/pretrained.py --out runs/pretrained --data DATA

- **Searches** chains of at most four layers, each a 3x3 or 5x5 convolution of one width, max or average pooling, or
  one of four rising sizes of fully connected layers, whatever these sizes are: `rlnas.pretrained.space()`. It refuses
  other spaces.
- **Trained on** the 36 training tasks of `rlnas/tables/digits.npz` (handwritten digits of 8x8 to 12x12 pixels,
  transformed; 3 to 10 classes, 1 to 20 shots; networks of width 8 after 15 gradient steps), through {synthetic}
  synthetic tasks drawn from what these teach. No task of the other splits and no other data was used.
- **Budget:** {budget}; {seconds} s of processor time.
- **Chosen:** {chosen}, of {count} candidates the one of least normalised regret on the 16 tasks of `val`, the mean over
  these budgets:

{candidates}
- **In use** it takes its likeliest actions and designs no network twice. A task's descriptor is clamped, entry by
  entry, to what the training tasks had: 1,000 classes are told to it as 10, and 224x224 pixels as 12x12. Features,
  which come as images of a single pixel, count as roughest.

{ranges}
- **It was never shown** larger images, more data or longer training than that: the last section says what it is worth
  on larger images.

Normalised regret is 0 for the table's best network on a task and 1 for a random one on average. Intervals are 95% and
resample tasks; differences are paired by task.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the candidates")
    parser.add_argument("--seeds", type=int, default=2, help="candidates of each kind")
    parser.add_argument("--data", type=Path, help="folder of image sets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table.from_spec("digits")
    candidates = train_all(table, options.out, options.seeds)
    chosen_by = {name: regret(table, "val", adapted(it))[0] for name, it in candidates.items()}
    chosen = min(chosen_by, key=lambda name: float(chosen_by[name].mean()))
    controller = candidates[chosen]
    controller.save(CONTROLLER)
    parts = [introduction(controller, chosen, chosen_by)]
    parts += [on_table(table, split, controller) for split in ("test", "unseen-families")]
    if options.data is not None:
        parts.append(on_images(table, controller, options.out, options.data))
    CARD.write_text("\n".join(parts))
    print(f"written to {CONTROLLER} ({CONTROLLER.stat().st_size:,} bytes) and {CARD}")


def train_all(table: Table, folder: Path, seeds: int) -> dict[str, Controller]:
    """The candidates; those that the folder lacks are trained."""
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
    """What agents may know that prepare themselves on the training tasks."""
    layout = make_env(table, "val", 1).layout
    training = (TableSource(table), "train")
    return SearchProblem(
        ENV, {"duplicates": "refuse"}, table.space, layout, DESIGNS, TabularEvaluator(table), training, STEPS
    )


def make_env(table: Table, split: str, num_envs: int, **options: Any) -> Any:
    places = {"space": table.space, "tasks": (TableSource(table), split), "evaluator": TabularEvaluator(table)}
    return gym.make_vec(ENV, num_envs=num_envs, **{**places, **OPTIONS, **options})


def adapted(controller: Controller, shown: Range | None = None) -> MakeAgent:
    """The controller as the package uses it."""
    shown = shown or Range.from_about(CONTROLLER, controller.about)
    return lambda problem, seed: Pretrained(controller, problem.space, problem.layout, shown)


def regret(table: Table, split: str, make: MakeAgent, runs: int = 1) -> Floats:
    """Normalised regret of an agent on a split's tasks, (runs, tasks, budgets)."""
    best, mean = (np.array([of(task) for task in columns(table, split)]) for of in (table.best, table.mean))
    env = make_env(table, split, runs * len(best))
    numbers = np.tile(np.arange(len(best)), runs)
    found = run_search(make(problem(table), 0), env, numbers.tolist(), seed=0).best_so_far
    found = found[:, [n - 1 for n in BUDGETS]].reshape(runs, len(best), len(BUDGETS))
    return np.asarray((best[:, None] - found) / (best - mean)[:, None])


def columns(table: Table, split: str) -> list[str]:
    return [task for task, its in zip(table.tasks, table.splits or (), strict=True) if its == split]


def introduction(controller: Controller, chosen: str, chosen_by: dict[str, Floats]) -> str:
    """What the card says before the results."""
    about = controller.about["training"]
    shown = Range.from_about(CONTROLLER, controller.about)
    entries = zip(DESCRIPTOR, shown.low, shown.high, strict=True)
    return INTRODUCTION.format(
        synthetic=f"{SYNTHETIC_TASKS:,}",
        budget=BUDGET[about["recipe"]],
        seconds=about["seconds"],
        chosen=chosen,
        count=len(chosen_by),
        candidates=markdown(
            ["candidate", *map(after, BUDGETS)], [[name, *means(values)] for name, values in chosen_by.items()]
        ),
        ranges=markdown(["entry", "least", "greatest"], [[name, f"{a:.3g}", f"{b:.3g}"] for name, a, b in entries]),
    )


def on_table(table: Table, split: str, controller: Controller) -> str:
    """Regret on a split that nothing was chosen on."""
    found = {OURS: regret(table, split, adapted(controller))}
    found |= {
        name: regret(table, split, make)
        for name, make in (("portfolio", portfolio), ("evolution", AGENTS["evolution"]))
    }
    found["random"] = regret(table, split, AGENTS["random"], RANDOM_RUNS).mean(0, keepdims=True)
    tasks = len(columns(table, split))
    return f"## Normalised regret on the {tasks} tasks of `{split}`\n\n{comparison(found, -1)}"


def on_images(table: Table, controller: Controller, folder: Path, data: Path) -> str:
    """Accuracies of networks that are trained on tasks of images larger than any in training."""
    digest = hashlib.sha256(CONTROLLER.read_bytes()).hexdigest()[:8]
    agents = {
        OURS: (f"ours-{digest}", adapted(controller)),
        "pretrained, not clamped": (f"unclamped-{digest}", adapted(controller, ANYTHING)),
        "portfolio": ("portfolio", opening(table)),
        "random": ("random", AGENTS["random"]),
    }
    found: dict[str, list[Floats]] = {name: [] for name in agents}
    for shown, file in SETS.items():
        tasks = parse_tasks(f"npz:{data / file}.npz:test", **DRAWN)
        for name, (short, make) in agents.items():
            kept = folder / f"images-{short}-{Path(file).name}.json"
            if not kept.exists():
                began = time.process_time()
                kept.write_text(json.dumps(search_images(tasks, make).tolist()))
                print(f"{shown}, {name}: {time.process_time() - began:.0f} s", flush=True)
            found[name].append(np.array(json.loads(kept.read_text())))
    results = comparison({name: np.concatenate(values)[None] for name, values in found.items()}, 1)
    return IMAGES.format(results=results)


def search_images(tasks: tuple[TaskSource, str], make: MakeAgent) -> Floats:
    """Best accuracy so far, (tasks, budgets)."""
    chains = each_network_once(space())
    env: Any = gym.make_vec("rlnas/Trial-v0", num_envs=1, space=chains, tasks=tasks, **OPTIONS)
    known = SearchProblem(
        "rlnas/Trial-v0", {"duplicates": "refuse"}, chains, env.layout, DESIGNS, env.settings.evaluator, None, 1
    )
    found = run_search(make(known, 0), env, [0], seed=0).best_so_far
    return found[:, [n - 1 for n in BUDGETS]]


def opening(table: Table) -> MakeAgent:
    """The greedy portfolio of the digits table's training tasks, in another space."""
    record = training_record(problem(table))
    designs = [record.designs[i].choices for i in greedy_portfolio(record.regret, DESIGNS)]
    return searcher_agent(
        lambda space, budget, seed: StartWith([space.decode(design) for design in designs], RandomSearch(space, seed))
    )


def comparison(found: dict[str, Floats], sign: int) -> str:
    """Means of (1, tasks, budgets), and ours minus another's times ``sign``, which is good if it is positive."""
    rows = [[name, *means(values, intervals=True)] for name, values in found.items()]
    ahead = [
        [name, *means(sign * (found[OURS] - values), intervals=True, form="+.3f")]
        for name, values in found.items()
        if name != OURS
    ]
    titles = list(map(after, BUDGETS))
    return f"{markdown(['agent', *titles], rows)}\n{markdown(['better than', *titles], ahead)}"


def means(values: Floats, intervals: bool = False, form: str = ".3f") -> list[str]:
    """Means over tasks of (1, tasks, budgets) or (tasks, budgets)."""
    values = values.reshape(1, -1, len(BUDGETS))
    cells = [f"{mean:{form}}" for mean in values.mean((0, 1))]
    if intervals:
        ends = zip(*statistics.mean_interval(values), strict=True)
        cells = [f"{cell} ({low:{form}} to {high:{form}})" for cell, (low, high) in zip(cells, ends, strict=True)]
    return cells


def after(count: int) -> str:
    return f"{count} design{'s' if count > 1 else ''}"


def markdown(titles: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (titles, ["---"] * len(titles), *rows))


if __name__ == "__main__":
    main()
