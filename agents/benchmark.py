"""Agents compared on the same tasks at equal numbers of evaluations, with intervals."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rlnas.drawing import draw_svg
from rlnas.episode import canonical_json
from rlnas.errors import CheckpointError, ConfigurationError, at_least, one_of
from rlnas.evaluator import Evaluator, Proposal
from rlnas.report import save_curves
from rlnas.store import EpisodeStore
from rlnas.task import FewShotTask, TaskSource

from .agent import Agent
from .controller import LSTMController
from .registry import SEARCHERS
from .search_run import OnStep, SearchRun, run_search
from .searcher_agent import MemoryWiped, SearcherAgent
from .statistics import summarise

WIPED = "wiped"
"""Asks for the first controller with its memory wiped after every design."""

FRESH_SEEDS = (101, 102, 103)
"""Evaluation seeds on which chosen designs are scored again; no search uses them."""


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
        ConfigurationError: if there are fewer tasks, no seeds, or an agent is unknown or named like a searcher.
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
        at_least("designs", self.designs, 1)
        at_least("number of seeds", len(self.seeds), 1)
        for seed in self.seeds:
            at_least("seed", seed, 0)
        for name in self.controllers:
            if name in (*SEARCHERS, WIPED):
                raise ConfigurationError(f"a controller must not be called {name!r}: that is another agent's name")
        for name in self.others:
            one_of("agent", name, [*SEARCHERS, *([WIPED] if self.controllers else [])])

    @property
    def agents(self) -> list[str]:
        """Every agent once; random search is always among them."""
        return list(dict.fromkeys([*self.controllers, *self.others, "random"]))

    def run(self, folder: Path, evaluator: Evaluator, on_step: OnStep = lambda designs, best: None) -> dict[str, Any]:
        """Run every agent; write ``episodes.sqlite``, ``evaluations.csv``, ``summary.json`` and drawings to ``folder``.

        Args:
            folder: is made; may hold what an interrupted comparison with the same settings left.
            evaluator: of the designs.
            on_step: is told of progress.

        Returns:
            The content of ``summary.json``.

        Raises:
            ConfigurationError: if the folder holds a finished comparison.
            CheckpointError: if a controller was trained for another space; nothing is written then.
        """
        if (folder / "summary.json").exists() or (folder / "config.json").exists():  # finished, or a training run
            raise ConfigurationError(f"{folder} already holds results; choose another --out")
        self._require_their_space(evaluator)
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
        save_curves(folder / "curves.svg", result["agents"], f"{self.trials} tasks of {result['tasks']}")
        result["best_architecture"] = self._draw_best(folder / "best_architecture.svg", runs, fresh)
        (folder / "summary.json").write_text(json.dumps(result, indent=1) + "\n")
        return result

    def _make_env(self, evaluator: Evaluator, **options: Any) -> VectorEnv:
        options |= {"tasks": self.tasks, "designs_per_trial": self.designs, "evaluator": evaluator}
        return gym.make_vec(self.env, num_envs=self.trials, **options)

    def _require_their_space(self, evaluator: Evaluator) -> None:
        ours = canonical_json(self._make_env(evaluator).search_space.spec())  # type: ignore[attr-defined]
        for name, controller in self.controllers.items():
            theirs = canonical_json(controller.about.get("space"))
            if theirs != ours:
                raise CheckpointError(f"agent {name!r} was trained for the space {theirs}, not for {ours}")

    def _run_agent(self, name: str, store: EpisodeStore, evaluator: Evaluator, on_step: OnStep) -> SearchRun:
        env = self._make_env(evaluator, recorder=store.append, agent=name)
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
        controller = self.controllers[name if name in self.controllers else next(iter(self.controllers))]
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
