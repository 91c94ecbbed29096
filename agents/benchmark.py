"""Agents compared on the same tasks with equally many evaluations: resumable, in several processes, repeatable."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.utils import set_random_seed

from rlnas.canonical import canonical_json
from rlnas.checkpoint import write_durably
from rlnas.device import one_thread
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, DataError, RlnasError, at_least, one_of
from rlnas.evaluation_cache import EvaluationCache
from rlnas.evaluator import Evaluator, Proposal
from rlnas.parallel_evaluator import ParallelEvaluator, die_with_parent, evaluator_in_processes
from rlnas.results import Results
from rlnas.search_space import SearchSpace
from rlnas.store import EpisodeStore
from rlnas.store_claim import claim
from rlnas.task import Task, TaskSource

from .agent import Agent
from .problem import MakeAgent, SearchProblem
from .registry import agent_file, require_agent, resolve_agent
from .search_run import OnStep, SearchRun, run_search

SETTINGS, RUNS, EPISODES, IDENTITY = "config.json", "runs", "episodes.sqlite", "agent.json"
RANDOM = "random"

FRESH_SEEDS = (101, 102, 103)
"""Evaluation seeds on which chosen designs are scored again; no search uses them."""
FRESH = "accuracy on fresh seeds"

AgentSource: TypeAlias = str | MakeAgent
"""An agent's text (see :func:`rlnas.agents.registry.resolve_agent`) or what makes it."""
OnRun: TypeAlias = Callable[[str, int, float], None]
"""Is told of every run that is done: agent, seed, and the mean of the best accuracies that it found."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Agents that search the same tasks: one run for each agent and seed, one trial on each task in a run.

    A run follows from the agent, the seed and the settings alone, whoever else takes part, in whichever process.

    Args:
        env: id of a trial environment.
        tasks: source and split to search; the first ``trials`` tasks.
        agents: what is compared, by the name it is shown under; random search always takes part.
        seeds: of the runs.
        designs: evaluations in each trial.
        trials: trials in a run; by default one on each task. More than there are tasks go round them, and are rounded
            up to whole rounds.
        training: source and split on which agents may prepare themselves; by default the source's ``train``, unless
            tasks of it are searched.
        training_steps: environment steps that agents which learn may learn for.
        evaluator: of designs, or its description.
        env_options: further arguments of the environment.
        timeout: seconds after which an evaluation is given up; None for never.
        device: of networks that learn, ``"cpu"`` or ``"cuda"``.
        record: whether to keep every design episode for replay, in ``episodes.sqlite``.
        cache: evaluations of other runs, for an evaluator that is only described; None for none.

    Raises:
        ConfigurationError: if there are no seeds, tasks to prepare on are searched, or a value is not allowed.
    """

    env: str
    tasks: tuple[TaskSource, str]
    agents: Mapping[str, AgentSource]
    seeds: Sequence[int]
    designs: int
    evaluator: Evaluator | Mapping[str, Any]
    trials: int | None = None
    training: tuple[TaskSource, str] | None = None
    training_steps: int = 200_000
    env_options: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    device: str = "cpu"
    record: bool = True
    cache: EvaluationCache | None = None

    def __post_init__(self) -> None:
        source, split = self.tasks
        one_of("environment", self.env, [name for name in gym.registry if name.startswith("rlnas/")])
        one_of("split", split, source.splits)
        at_least("designs", self.designs, 1)
        at_least("trials", 1 if self.trials is None else self.trials, 1)
        at_least("training_steps", self.training_steps, 1)
        at_least("number of seeds", len(self.seeds), 1)
        for seed in self.seeds:
            at_least("seed", seed, 0)
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigurationError(f"seeds must be distinct, got {list(self.seeds)}")
        if self.agents.get(RANDOM, RANDOM) != RANDOM:
            raise ConfigurationError(f"what is called {RANDOM!r} must be random search; give the other another name")
        if self.training is not None and self._shares_tasks(self.training):
            raise ConfigurationError(f"{self.training[0].name}:{self.training[1]} has tasks that are to be searched")
        folders = [folder_name(name) for name in self.contestants]
        if len(set(folders)) < len(folders):
            raise ConfigurationError(f"agents must differ by more than case and punctuation: {list(self.contestants)}")

    @cached_property
    def contestants(self) -> dict[str, AgentSource]:
        """Every agent once, by name."""
        return {**self.agents, RANDOM: self.agents.get(RANDOM, RANDOM)}

    @property
    def task_count(self) -> int:
        """Different tasks that a run searches."""
        source, split = self.tasks
        count = source.splits[split]
        return count if self.trials is None else min(self.trials, count)

    @property
    def rounds(self) -> int:
        """How often a run searches each task."""
        return 1 if self.trials is None else -(-self.trials // self.task_count)

    def settings(self) -> dict[str, Any]:
        """All that decides what a run finds, but for its agent and seed, as JSON."""
        evaluator = self.evaluator.spec() if isinstance(self.evaluator, Evaluator) else self.evaluator
        training = None if self._training is None else [self._training[0].spec(), self._training[1]]
        settings = {
            "env": self.env,
            "env_options": {name: _described(value) for name, value in self.env_options.items()},
            "tasks": [self.tasks[0].spec(), self.tasks[1]],
            "trials": self.task_count * self.rounds,
            "designs": self.designs,
            "training": training,
            "training_steps": self.training_steps,
            "evaluator": evaluator,
        }
        plain: dict[str, Any] = json.loads(canonical_json(settings))
        return plain

    def run(
        self,
        folder: Path,
        workers: int = 1,
        on_run: OnRun = lambda agent, seed, run: None,
        on_step: OnStep | None = None,
    ) -> Results:
        """Do every run that the folder does not hold yet; each is a file there as soon as it is done.

        Args:
            folder: is made; may hold what the same comparison left when it was interrupted, and runs of other agents
                and seeds under the same settings.
            workers: processes.
            on_run: is told of every run that is done now.
            on_step: with one worker, is told of every step.

        Raises:
            ConfigurationError: if the folder holds runs under other settings, or an agent cannot be had; nothing is
                done then.
            RlnasError: if a worker process died; the same call again goes on.
            StoreError: if the runs are recorded and another process does so in this folder now.
        """
        self._begin(folder)
        # Its workers take turns in the store; another comparison there would take these runs for what was left of one.
        with claim(folder / EPISODES) if self.record else nullcontext():
            missing = self.missing(folder)
            if workers == 1 or len(missing) < 2:
                with self._judge() as evaluator:
                    for name, seed in missing:
                        on_run(name, seed, self.run_one(folder, name, seed, evaluator, on_step))
            else:
                self._in_processes(folder, missing, min(workers, len(missing)), on_run)
        return self.collect(folder)

    def missing(self, folder: Path) -> list[tuple[str, int]]:
        """The runs, by agent and seed, that the folder does not hold yet, in the order in which they are done."""
        return [
            (name, seed)
            for seed in self.seeds
            for name in self.contestants
            if not self._file(folder, name, seed).exists()
        ]

    def runs(self, folder: Path, name: str) -> list[SearchRun]:
        """An agent's runs, in the order of the seeds."""
        return [self._load(folder, name, seed) for seed in self.seeds]

    def collect(self, folder: Path) -> Results:
        """What all runs found."""
        runs = {name: self.runs(folder, name) for name in self.contestants}
        shape = (len(self.seeds) * self.rounds, self.task_count, self.designs)
        accuracy = {name: np.stack([run.accuracy for run in some]).reshape(shape) for name, some in runs.items()}
        seconds = {name: np.stack([run.seconds for run in some]).reshape(shape) for name, some in runs.items()}
        known = [
            measure
            for measure in runs[RANDOM][0].measures
            if not any(np.isnan(run.measures[measure]).any() for some in runs.values() for run in some)
        ]  # a table may not say everything of every design
        chosen = {
            name: {m: np.stack([self._per_task(run.measures[m]) for run in some]) for m in known}
            for name, some in runs.items()
        }
        names = tuple(str(getattr(task, "column", task.name)) for task in self._searched())
        agents = {name: _identity(source)["agent"] for name, source in self.contestants.items()}
        about = {"env": self.env, "agents": agents, "settings": self.settings()}
        best, mean, best_is_known = self._references(accuracy)
        return Results(names, accuracy, seconds, best, mean, best_is_known, chosen, about, self.rounds)

    def space(self) -> SearchSpace:
        """What is searched."""
        env = self._make_env(self.evaluator, num_envs=1)
        env.close()
        space: SearchSpace = env.search_space  # type: ignore[attr-defined]
        return space

    def _per_task(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means over the rounds of a run, (tasks,)."""
        return np.asarray(values.reshape(self.rounds, self.task_count).mean(0))

    def _references(
        self, accuracy: Mapping[str, NDArray[np.float64]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
        """The best and the mean accuracy on each task: a table knows them, else they are estimated."""
        with self._judge() as evaluator:
            if hasattr(evaluator, "best") and hasattr(evaluator, "mean"):
                tasks = self._searched()
                best, mean = (np.array([of(task) for task in tasks]) for of in (evaluator.best, evaluator.mean))
                return best, mean, True
        found = np.max([values.max((0, 2)) for values in accuracy.values()], axis=0)
        return found, accuracy[RANDOM].mean((0, 2)), False

    @cached_property
    def _training(self) -> tuple[TaskSource, str] | None:
        if self.training is not None or "train" not in self.tasks[0].splits:
            return self.training
        usual = self.tasks[0], "train"
        return None if self._shares_tasks(usual) else usual

    def _shares_tasks(self, training: tuple[TaskSource, str]) -> bool:
        source, split = training
        trained_on = {source.task(split, index).digest for index in range(source.splits[split])}
        return any(task.digest in trained_on for task in self._searched())

    def _searched(self) -> list[Task]:
        source, split = self.tasks
        return [source.task(split, index) for index in range(self.task_count)]

    def _file(self, folder: Path, name: str, seed: int) -> Path:
        return folder / RUNS / folder_name(name) / f"{seed}.npz"

    def _begin(self, folder: Path) -> None:
        file, settings = folder / SETTINGS, self.settings()
        with self._judge() as evaluator:
            problem = self._problem(self._make_env(evaluator, num_envs=1), evaluator)
            for source in self.contestants.values():
                if isinstance(source, str):
                    require_agent(source, problem)
        if file.exists():
            _require_same(folder, read_json(file), settings)
        elif folder.exists() and any(not path.name.endswith(".part") for path in folder.iterdir()):
            raise ConfigurationError(f"{folder} holds something else than a comparison; choose another --out")
        identities = {name: _identity(source) for name, source in self.contestants.items()}
        for name, identity in identities.items():
            kept = folder / RUNS / folder_name(name) / IDENTITY
            if kept.exists() and (was := read_json(kept)) != identity:
                raise ConfigurationError(
                    f"{folder} holds runs of another {name!r} ({_short(was)}, not {_short(identity)}); "
                    "show this one under another name"
                )
            for seed in self.seeds:
                if self._file(folder, name, seed).exists():
                    self._load(folder, name, seed)
        folder.mkdir(parents=True, exist_ok=True)
        # The settings come first: a folder with anything else and without them would be taken for somebody else's.
        write_durably(file, json.dumps(settings, indent=1).encode() + b"\n")
        for name, identity in identities.items():
            of_agent = folder / RUNS / folder_name(name)
            of_agent.mkdir(parents=True, exist_ok=True)
            write_durably(of_agent / IDENTITY, json.dumps(identity).encode() + b"\n")

    def _load(self, folder: Path, name: str, seed: int) -> SearchRun:
        return SearchRun.load(self._file(folder, name, seed), self.task_count * self.rounds, self.designs)

    @contextmanager
    def _judge(self) -> Iterator[Evaluator]:
        evaluator = self.evaluator_here()
        try:
            yield evaluator
        finally:
            if isinstance(evaluator, ParallelEvaluator) and evaluator is not self.evaluator:
                evaluator.close()

    def evaluator_here(self) -> Evaluator:
        """The evaluator, made in this process if it is only described."""
        if isinstance(self.evaluator, Evaluator):
            return self.evaluator
        return evaluator_in_processes(dict(self.evaluator), workers=1, timeout=self.timeout, cache=self.cache)

    def _make_env(self, evaluator: Evaluator | Mapping[str, Any], num_envs: int, **options: Any) -> VectorEnv:
        arguments = {**self.env_options, "tasks": self.tasks, "designs_per_trial": self.designs, **options}
        return gym.make_vec(self.env, num_envs=num_envs, evaluator=evaluator, **arguments)

    def run_one(self, folder: Path, name: str, seed: int, evaluator: Evaluator, on_step: OnStep | None = None) -> float:
        """Do one run and keep it as a file; the mean of the best accuracies that it found."""
        set_random_seed(seed_of_run(seed, name))  # users' own
        with one_thread():
            return self._run_one(folder, name, seed, evaluator, on_step)

    def _run_one(self, folder: Path, name: str, seed: int, evaluator: Evaluator, on_step: OnStep | None) -> float:
        trials = self.task_count * self.rounds
        store = EpisodeStore(folder / EPISODES) if self.record else None

        def keep(episodes: Sequence[DesignEpisode]) -> None:
            assert store is not None
            store.append([e for e in episodes if e.trial < (seed + 1) * trials])  # not of trials begun after these

        if store is not None:
            store.forget(name, range(seed * trials, (seed + 1) * trials))  # what a run left that was killed
        recorder = {} if store is None else {"recorder": keep}
        env = self._make_env(evaluator, trials, agent=name, **recorder)
        try:
            problem = self._problem(env, evaluator)
            source = self.contestants[name]
            agent = (resolve_agent(source) if isinstance(source, str) else source)(problem, seed)
            if not isinstance(agent, Agent):
                raise ConfigurationError(f"agent {name!r} must have a method predict, got a {type(agent).__name__}")
            tasks = [row % self.task_count for row in range(trials)]
            reset_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]) >> 1
            run = run_search(agent, env, tasks, reset_seed, seed * trials, on_step)
            run = replace(run, measures=self._measures(run, env, evaluator))
        finally:
            env.close()
            if store is not None:
                store.close()
        file = self._file(folder, name, seed)
        if log := getattr(agent, "log", None):
            write_durably(file.with_suffix(".csv"), _csv(log))
        run.save(file)
        return float(run.best_so_far[:, -1].mean())

    def _problem(self, env: VectorEnv, evaluator: Evaluator) -> SearchProblem:
        return SearchProblem(
            self.env,
            dict(self.env_options),
            env.search_space,  # type: ignore[attr-defined]
            env.layout,  # type: ignore[attr-defined]
            self.designs,
            evaluator,
            self._training,
            self.training_steps,
            self.device,
        )

    def _measures(self, run: SearchRun, env: VectorEnv, evaluator: Evaluator) -> dict[str, NDArray[np.float64]]:
        """What the chosen designs are worth where the search did not look: a table's other values, or fresh seeds."""
        space = env.search_space  # type: ignore[attr-defined]
        rows = [row for row, text in enumerate(run.chosen.tolist()) if text]
        architectures = [space.parse(str(run.chosen[row])) for row in rows]
        tasks = [self.tasks[0].named(str(run.tasks[row])) for row in rows]
        if hasattr(evaluator, "chosen_measures"):
            found = evaluator.chosen_measures(architectures, tasks)
        else:
            pairs = zip(architectures, tasks, strict=True)
            proposals = [Proposal(architecture, task, s) for architecture, task in pairs for s in FRESH_SEEDS]
            accuracies = [e.accuracy for e in evaluator.evaluate(proposals)]
            found = {FRESH: np.reshape(accuracies, (len(rows), len(FRESH_SEEDS))).mean(1)}
        measures = {name: np.zeros(len(run.tasks)) for name in found}  # 0 where every design was illegal
        for name, values in found.items():
            measures[name][rows] = values
        return measures

    def _in_processes(self, folder: Path, missing: Sequence[tuple[str, int]], workers: int, on_run: OnRun) -> None:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(self,)) as pool:
            jobs = {pool.submit(_work, folder, name, seed): (name, seed) for name, seed in missing}
            try:
                for job in as_completed(jobs):
                    on_run(*jobs[job], job.result())
            except BrokenProcessPool:
                raise RlnasError("a worker process of the comparison died; the same command again goes on") from None
            except BaseException:
                for process in list(pool._processes.values()):  # the runs they are in would go on to their ends
                    process.kill()
                raise


_in_worker: tuple[Benchmark, Evaluator]
"""What this process is a worker of, and the evaluator of all its runs."""


def _begin_worker(benchmark: Benchmark) -> None:
    import torch

    import rlnas  # noqa: F401 - registers the environments

    global _in_worker
    threading.Thread(target=die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _in_worker = benchmark, benchmark.evaluator_here()


def _work(folder: Path, name: str, seed: int) -> float:
    benchmark, evaluator = _in_worker
    return benchmark.run_one(folder, name, seed, evaluator)


def _csv(rows: Sequence[Mapping[str, float]]) -> bytes:
    lines = [",".join(rows[0]), *(",".join(f"{value:.6g}" for value in row.values()) for row in rows)]
    return "".join(f"{line}\n" for line in lines).encode()


def seed_of_run(seed: int, agent: str) -> int:
    """What the process is seeded with before an agent is made for a run."""
    return int(np.random.SeedSequence([seed, *agent.encode()]).generate_state(1)[0]) >> 1


def folder_name(agent: str) -> str:
    """A name for an agent's files, whatever its own contains."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", agent).strip("-").lower()
    return plain if plain == agent else f"{plain}-{hashlib.sha256(agent.encode()).hexdigest()[:8]}"


def _identity(source: AgentSource) -> dict[str, str]:
    """What an agent is, so that its runs are not taken for another's: its text, and what its file or folder holds."""
    if not isinstance(source, str):
        return {"agent": f"{source.__module__}.{getattr(source, '__qualname__', type(source).__qualname__)}"}
    file = agent_file(source)
    content = {} if file is None else {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    return {"agent": source, **content}


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a comparison.

    Raises:
        DataError: if it is damaged.
    """
    try:
        data = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is damaged: {error}") from None
    if not isinstance(data, dict):
        raise DataError(f"{file} is damaged: it holds no JSON object")
    return data


def _described(value: Any) -> Any:
    return value.spec() if hasattr(value, "spec") else value


def _require_same(folder: Path, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted(begun.keys() | now.keys()):
        if begun.get(name) != now.get(name):
            raise ConfigurationError(
                f"{folder} holds a comparison with another {name} ({_short(begun.get(name))}, not "
                f"{_short(now.get(name))}); choose another --out"
            )


def _short(value: Any) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
