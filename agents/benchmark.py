"""Agents compared on the same tasks at equal numbers of evaluations, with intervals."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.drawing import draw_svg
from rlnas.episode import canonical_json
from rlnas.errors import CheckpointError, ConfigurationError, at_least, one_of
from rlnas.evaluator import Evaluator, Proposal
from rlnas.report import save_curves
from rlnas.store import EpisodeStore
from rlnas.task import FewShotTask, TaskSource

from .agent import Agent, State
from .controller import LSTMController
from .searchers import SEARCHERS, MemoryWiped, SearcherAgent

WIPED = "wiped"
"""Asks for the first controller with its memory wiped after every design."""

FRESH_SEEDS = (101, 102, 103)
"""Evaluation seeds on which chosen designs are scored again; no search uses them."""

OnStep: TypeAlias = Callable[[int, float], None]
"""Is told how many designs a step completed and the mean best accuracy of the trials so far."""


@dataclass(frozen=True)
class SearchRun:
    """What one agent found, one trial on each task.

    Args:
        tasks: names, of length ``trials``.
        accuracy: of each design, (trials, designs).
        architectures: the designs, one list for each trial.
    """

    tasks: list[str]
    accuracy: NDArray[np.float64]
    architectures: list[list[Architecture]]

    @property
    def best_so_far(self) -> NDArray[np.float64]:
        """Best accuracy after each design, (trials, designs)."""
        return np.maximum.accumulate(self.accuracy, axis=1)

    @property
    def chosen(self) -> list[Architecture]:
        """Each trial's best design, the earliest where several are equal."""
        return [designs[i] for designs, i in zip(self.architectures, self.accuracy.argmax(1).tolist(), strict=True)]

    @classmethod
    def concatenate(cls, runs: Sequence[SearchRun]) -> SearchRun:
        """All trials of several runs as one."""
        return cls(
            [name for run in runs for name in run.tasks],
            np.concatenate([run.accuracy for run in runs]),
            [designs for run in runs for designs in run.architectures],
        )


@dataclass(frozen=True)
class Comparison:
    """Agents that search the same tasks, one trial on each task for every seed.

    Args:
        env: id of a trial environment.
        tasks: source and split; the first ``trials`` tasks are searched.
        trials: number of tasks.
        designs: designs in each trial.
        seeds: one repetition for each.
        controllers: trained agents by name.
        others: names of searchers, and ``wiped`` for the first controller with its memory wiped after every design.

    Raises:
        ConfigurationError: if there are fewer tasks, or an agent is unknown.
        CheckpointError: if a controller was trained for another space.
    """

    env: str
    tasks: tuple[TaskSource, str]
    trials: int
    designs: int
    seeds: Sequence[int]
    controllers: Mapping[str, LSTMController]
    others: Sequence[str]

    def __post_init__(self) -> None:
        source, split = self.tasks
        count = source.splits[one_of("split", split, source.splits)]
        if at_least("trials", self.trials, 1) > count:
            raise ConfigurationError(
                f"trials must be at most {count}, the tasks of {source.name}:{split}; got {self.trials}"
            )
        for name in self.others:
            one_of("agent", name, [*SEARCHERS, *([WIPED] if self.controllers else [])])

    @property
    def agents(self) -> list[str]:
        """Every agent once; random search is always among them."""
        return list(dict.fromkeys([*self.controllers, *self.others, "random"]))

    def run(self, folder: Path, evaluator: Evaluator, on_step: OnStep = lambda designs, best: None) -> dict[str, Any]:
        """Run every agent; write ``episodes.sqlite``, ``evaluations.csv``, ``summary.json`` and drawings to ``folder``.

        Args:
            folder: is made; must not hold a comparison.
            evaluator: of the designs.
            on_step: is told of progress.

        Returns:
            The content of ``summary.json``.
        """
        if (folder / "summary.json").exists() or (folder / "episodes.sqlite").exists():
            raise ConfigurationError(f"{folder} already holds results; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        with EpisodeStore(folder / "episodes.sqlite") as store:
            runs = {name: self._run_agent(name, store, evaluator, on_step) for name in self.agents}
        fresh = {name: self._fresh(run, evaluator) for name, run in runs.items()}
        source, split = self.tasks
        result: dict[str, Any] = {
            "env": self.env,
            "tasks": f"{source.name}:{split}",
            "trials": self.trials,
            "designs": self.designs,
            "seeds": list(self.seeds),
            "agents": summarise(runs, "random", fresh),
        }
        _write_evaluations(folder / "evaluations.csv", runs, self.seeds)
        save_curves(folder / "curves.svg", result["agents"], f"{self.trials} unseen tasks of {result['tasks']}")
        result["best_architecture"] = self._draw_best(folder / "best_architecture.svg", runs, fresh)
        (folder / "summary.json").write_text(json.dumps(result, indent=1) + "\n")
        return result

    def _run_agent(self, name: str, store: EpisodeStore, evaluator: Evaluator, on_step: OnStep) -> SearchRun:
        source, split = self.tasks
        env = gym.make_vec(
            self.env,
            num_envs=self.trials,
            tasks=(source, split),
            designs_per_trial=self.designs,
            evaluator=evaluator,
            recorder=store.append,
            agent=name,
        )
        runs = []
        for repeat, seed in enumerate(self.seeds):
            agent = self._agent(name, env, seed)
            runs.append(run_search(agent, env, range(self.trials), seed, repeat * self.trials, on_step))
        env.close()
        return SearchRun.concatenate(runs)

    def _agent(self, name: str, env: VectorEnv, seed: int) -> Agent:
        space, layout = env.search_space, env.layout  # type: ignore[attr-defined]
        if name in SEARCHERS:
            first = int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1, np.uint64)[0])
            return SearcherAgent(lambda s: SEARCHERS[name](space, self.designs, s), layout, first)
        trained = name if name in self.controllers else next(iter(self.controllers))
        controller = self.controllers[trained]
        theirs, ours = (canonical_json(spec) for spec in (controller.about.get("space"), space.spec()))
        if theirs != ours:
            raise CheckpointError(f"agent {trained!r} was trained for the space {theirs}, not for {ours}")
        controller.seed(seed)
        return MemoryWiped(controller, layout) if name == WIPED else controller

    def _fresh(self, run: SearchRun, evaluator: Evaluator) -> NDArray[np.float64]:
        """Mean accuracy of each trial's best design under :data:`FRESH_SEEDS`, (trials,)."""
        source, _ = self.tasks
        chosen = [(a, source.named(t)) for a, t in zip(run.chosen, run.tasks, strict=True)]
        proposals = [Proposal(architecture, task, s) for architecture, task in chosen for s in FRESH_SEEDS]
        accuracies = [e.accuracy for e in evaluator.evaluate(proposals)]
        return np.asarray(np.reshape(accuracies, (len(chosen), len(FRESH_SEEDS))).mean(1))

    def _draw_best(
        self, path: Path, runs: Mapping[str, SearchRun], fresh: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, Any]:
        """Draw the first agent's design that did best on fresh seeds, and say what it is."""
        name = next(iter(runs))
        trial = int(fresh[name].argmax())
        architecture, task = runs[name].chosen[trial], self.tasks[0].named(runs[name].tasks[trial])
        if isinstance(task, FewShotTask):
            path.write_text(draw_svg(architecture, task.ways))
        return {
            "agent": name,
            "task": task.name,
            "family": task.family,
            "architecture": architecture.text,
            "accuracy_on_fresh_seeds": float(fresh[name][trial]),
        }


def run_search(
    agent: Agent, env: VectorEnv, tasks: Sequence[int], seed: int, first_trial: int = 0, on_step: OnStep | None = None
) -> SearchRun:
    """Let an agent, which no longer learns, search each task once.

    Args:
        agent: takes legal actions.
        env: native vector environment with one trial for each task.
        tasks: task numbers, of length ``env.num_envs``.
        seed: of the reset.
        first_trial: number of the first task's trial.
        on_step: is told of progress.
    """
    observation, info = env.reset(seed=seed, options={"task": list(tasks), "trial": first_trial})
    names = [str(name) for name in info["task"]]
    start, over = np.ones(env.num_envs, dtype=np.bool_), np.zeros(env.num_envs, dtype=np.bool_)
    state: State = None
    accuracy: list[NDArray[np.float64]] = []
    designs: list[NDArray[np.int64]] = []
    actions: list[NDArray[np.int64]] = []
    while not over.any():
        action, state = agent.predict(observation, state, start)
        actions.append(action)
        observation, _, terminated, truncated, info = env.step(action)
        start = over = terminated | truncated
        last = info["final_info"] if over.any() else info
        if last["design_ended"].all():
            accuracy.append(last["accuracy"])
            designs.append(np.stack(actions, axis=1))
            actions = []
            if on_step is not None:
                on_step(env.num_envs, float(last["best_accuracy"].mean()))
    space = env.search_space  # type: ignore[attr-defined]
    architectures = [[space.decode(c.tolist()) for c in trial] for trial in np.stack(designs, axis=1)]
    return SearchRun(names, np.stack(accuracy, axis=1), architectures)


def summarise(
    runs: Mapping[str, SearchRun], random: str, fresh: Mapping[str, NDArray[np.float64]], seed: int = 0
) -> dict[str, Any]:
    """Curves, regret and intervals of several agents on the same tasks, as JSON.

    The best accuracy possible on a live task is unknown; regret is to the best that any of these agents found there.
    Normalised regret divides by that best minus the mean of the random designs.

    Args:
        runs: each agent's run; all on the same tasks with equally many designs.
        random: the agent among them whose designs are random.
        fresh: accuracies of each agent's chosen designs under seeds that no search saw, (trials,).
        seed: of the bootstrap.
    """
    best = np.max([run.accuracy.max(1) for run in runs.values()], axis=0)[:, None]
    spread = np.maximum(best - runs[random].accuracy.mean(1, keepdims=True), 1e-9)
    summary: dict[str, Any] = {}
    for name, run in runs.items():
        regret = best - run.best_so_far
        summary[name] = {
            "accuracy": run.accuracy.mean(0).tolist(),
            "best_so_far": run.best_so_far.mean(0).tolist(),
            "best_so_far_interval": [list(bootstrap_interval(column, seed)) for column in run.best_so_far.T],
            "regret": regret.mean(0).tolist(),
            "normalised_regret": (regret / spread).mean(0).tolist(),
            "first_design": float(run.accuracy[:, 0].mean()),
            "last_design": float(run.accuracy[:, -1].mean()),
            "last_minus_first": _difference(run.accuracy[:, -1], run.accuracy[:, 0], seed),
            "chosen_on_fresh_seeds": float(fresh[name].mean()),
            "chosen_minus_random": _difference(fresh[name], fresh[random], seed),
        }
    return summary


def bootstrap_interval(
    values: NDArray[np.float64], seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979).

    Args:
        values: of shape (n,).
        seed: of the resampling.
        resamples: how many.
        level: of confidence.
    """
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _difference(one: NDArray[np.float64], other: NDArray[np.float64], seed: int) -> dict[str, float]:
    """Mean of the paired differences with its 95% interval."""
    low, high = bootstrap_interval(one - other, seed)
    return {"mean": float((one - other).mean()), "low": low, "high": high}


def _write_evaluations(path: Path, runs: Mapping[str, SearchRun], seeds: Sequence[int]) -> None:
    """Every evaluation of every run as one line of CSV."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["agent", "seed", "task", "design", "architecture", "accuracy", "best_so_far"])
        for name, run in runs.items():
            trials = len(run.tasks) // len(seeds)
            for trial, task in enumerate(run.tasks):
                rows = zip(run.architectures[trial], run.accuracy[trial], run.best_so_far[trial], strict=True)
                for design, (architecture, accuracy, best) in enumerate(rows):
                    seed = seeds[trial // trials]
                    writer.writerow([name, seed, task, design, architecture.text, f"{accuracy:.6f}", f"{best:.6f}"])
