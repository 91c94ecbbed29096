"""The search on a user's data: an agent proposes designs, and the better ones are judged again with more."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.utils import set_random_seed

from rlnas import pretrained
from rlnas.adaptation import Adaptation
from rlnas.batched_evaluator import BatchedEvaluator
from rlnas.checkpoint import write_durably
from rlnas.device import one_thread
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, DataError
from rlnas.evaluation_cache import EvaluationCache
from rlnas.evaluator import Evaluation, Evaluator, Proposal
from rlnas.leaderboard import Entry, Leaderboard
from rlnas.limited_evaluator import LimitedEvaluator
from rlnas.registration import BY_EDITS
from rlnas.rungs import Rung, promoted
from rlnas.search_space import SearchSpace
from rlnas.specs import space_from_spec
from rlnas.store import EpisodeStore
from rlnas.store_claim import claim
from rlnas.task import FewShotTask
from rlnas.user_source import UserSource
from rlnas.wide_network import Limits

from .agent import Agent
from .benchmark import seed_of_run
from .controller import Controller
from .problem import SearchProblem
from .registry import AGENTS, PREPARED, WIPED, agent_folder, resolve_agent
from .search_run import run_search

ENV = "rlnas/Trial-v0"
EPISODES, EVALUATIONS, LEADERBOARD = "episodes.sqlite", "evaluations.sqlite", "leaderboard.json"

PROPOSING, SEARCHING = 0.25, 0.5
"""Of the time there is, by when the last design is proposed and by when the last rung is over."""
AT_ONCE = 4
"""Designs of a rung that are evaluated together on a CPU, before anybody is asked whether there is still time."""

OnEvaluation: TypeAlias = Callable[[int, float], None]
"""Is told of evaluations: how many, and the best accuracy on their rung."""


@dataclass(frozen=True)
class SearchPlan:
    """What is searched, by whom and for how long.

    Args:
        agent: see :func:`rlnas.agents.registry.resolve_agent`.
        designs: to propose.
        rungs: what is spent on designs, rung by rung.
        seed: of everything random.
        limits: of the network that is trained in the end.
        max_seconds: for the search and the final training together; None for any time.
    """

    agent: str
    designs: int
    rungs: tuple[Rung, ...]
    seed: int
    limits: Limits
    max_seconds: float | None = None


class DataSearch:
    """One search, in a folder.

    Every design episode is in ``episodes.sqlite`` there, every evaluation in ``evaluations.sqlite``: a search that was
    interrupted is played again, finds in the latter what it had evaluated, and goes on from there.

    Args:
        folder: holds what was recorded; is there.
        source: of the tasks, one for each rung's number of examples.
        plan: the plan.
        device: of the networks, ``"cpu"`` or ``"cuda"``.
    """

    def __init__(self, folder: Path, source: UserSource, plan: SearchPlan, device: str = "cpu") -> None:
        self.folder, self.source, self.plan, self.device = folder, source, plan, device
        self.space = space_for(plan.agent, source.data.input_shape[1:])

    def run(self, stop: Callable[[], bool], on_evaluation: OnEvaluation) -> Leaderboard | None:
        """Search, or go on searching; None if ``stop`` said so before the end.

        Raises:
            ConfigurationError: if the agent cannot be had.
            RlnasError: if no design could be trained.
            StoreError: if another process searches in this folder.
        """
        if (done := self.finished()) is not None:
            return done
        self._clock = _Clock(self.plan.max_seconds)
        with (
            closing(EvaluationCache(self.folder / EVALUATIONS)) as cache,
            claim(self.folder / EPISODES),
            one_thread(),
            global_seed(seed_of_run(self.plan.seed, Path(self.plan.agent).name), self.device),  # users' own agents
        ):
            evaluator = self.evaluator(cache)
            board = Leaderboard()
            try:
                self._propose(evaluator, board, stop, on_evaluation)
                self._promote(evaluator, board, stop, on_evaluation)
            except _Stopped:
                return None
        board.winner  # noqa: B018 - or there is nothing to write down
        board.seconds = self._clock.spent
        self.keep(board)
        return board

    def keep(self, board: Leaderboard) -> None:
        """Write the leaderboard down, which ends the search."""
        write_durably(self.folder / LEADERBOARD, json.dumps(board.to_json(), indent=1).encode() + b"\n")

    def finished(self) -> Leaderboard | None:
        """The leaderboard, once the search is over.

        Raises:
            DataError: if its file is damaged.
        """
        file = self.folder / LEADERBOARD
        if not file.exists():
            return None
        try:
            return Leaderboard.from_json(json.loads(file.read_text()))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{file} is damaged: {' '.join(str(error).split())}; delete it to search again") from None

    def evaluator(self, cache: EvaluationCache | None = None) -> Evaluator:
        """Of the first rung's fidelity, unless a proposal says otherwise."""
        trained = BatchedEvaluator(Adaptation(steps=self.plan.rungs[0].steps), self.device, cache=cache)
        return LimitedEvaluator(trained, self.plan.limits) if self.plan.limits else trained

    def make_agent(self, env: Any, evaluator: Evaluator) -> Agent:
        """The agent, ready to search.

        Raises:
            RlnasError: as :func:`rlnas.agents.registry.resolve_agent`.
        """
        problem = SearchProblem(
            ENV, {"duplicates": "refuse"}, env.search_space, env.layout, self.plan.designs, evaluator, None, 1, "cpu"
        )
        agent = resolve_agent(require_searching(self.plan.agent))(problem, self.plan.seed)
        if not isinstance(agent, Agent):
            raise ConfigurationError(
                f"agent {self.plan.agent!r} must have a method predict, got a {type(agent).__name__}"
            )
        return agent

    def make_env(self, evaluator: Evaluator, **connections: Any) -> Any:
        """The environment of one trial, on the first rung's task."""
        return gym.make_vec(
            ENV,
            num_envs=1,
            space=self.space,
            tasks=(self.source, self._split(self.plan.rungs[0])),
            evaluator=evaluator,
            designs_per_trial=self.plan.designs,
            duplicates="refuse",
            evaluation_seed=self.plan.seed,
            agent=self.plan.agent,
            **connections,
        )

    def _propose(
        self, evaluator: Evaluator, board: Leaderboard, stop: Callable[[], bool], on_evaluation: OnEvaluation
    ) -> None:
        """Let the agent design; every design is evaluated on the first rung."""
        with EpisodeStore(self.folder / EPISODES) as store:
            store.forget(self.plan.agent, range(1))  # what an interrupted search left is about to be played again

            def record(episodes: Sequence[DesignEpisode]) -> None:
                store.append(episodes)
                board.entries.extend(self._entry(episode) for episode in episodes)
                self._clock.count(episode.evaluation for episode in episodes)

            def on_step(designs: int, best: float) -> None:
                on_evaluation(designs, best)
                if stop():
                    raise _Stopped
                if self._clock.is_past(PROPOSING):
                    raise _OutOfTime

            env = self.make_env(evaluator, recorder=record)
            try:
                run_search(self.make_agent(env, evaluator), env, [0], self.plan.seed, on_step=on_step)
            except _OutOfTime:
                pass
            finally:
                env.close()

    def _promote(
        self, evaluator: Evaluator, board: Leaderboard, stop: Callable[[], bool], on_evaluation: OnEvaluation
    ) -> None:
        """Evaluate the better designs of each rung on the next one."""
        at_once = AT_ONCE if self.device == "cpu" else self.plan.designs
        for number, rung in list(enumerate(self.plan.rungs))[1:]:
            going_on = promoted(board.on_rung(number - 1))
            for first in range(0, len(going_on), at_once):
                if stop():
                    raise _Stopped
                some = going_on[first : first + at_once]
                task = self._task(rung)
                work = len(task.support_x) * rung.steps
                likely = sum(entry.seconds * work / (entry.examples * entry.steps) for entry in some)
                if self._clock.is_past(SEARCHING, likely):
                    return
                designs = [self.space.decode(entry.choices) for entry in some]
                proposals = [Proposal(design, task, self.plan.seed, rung.steps) for design in designs]
                evaluations = evaluator.evaluate(proposals)
                self._clock.count(evaluations)
                spent = replace(rung, examples=len(task.support_x))
                for entry, evaluation in zip(some, evaluations, strict=True):
                    cost = entry.parameters, entry.flops
                    place = number, spent
                    board.entries.append(
                        Entry.of(entry.design, entry.architecture, entry.choices, place, evaluation, cost)
                    )
                on_evaluation(len(some), max(entry.accuracy for entry in board.entries if entry.rung == number))

    def _entry(self, episode: DesignEpisode) -> Entry:
        """What the first rung says of a design."""
        place = 0, replace(self.plan.rungs[0], examples=len(self._first_task.support_x))
        if not episode.architecture:  # an illegal choice ended it
            return Entry.of(episode.design + 1, "", (), place, episode.evaluation, (0, 0))
        design = self.space.decode(episode.actions)
        try:
            cost = self.plan.limits.cost_of(design, self._first_task.ways, self._first_task.image_shape)
        except ValueError:  # it does not fit the task, as its evaluation says
            cost = 0, 0
        return Entry.of(episode.design + 1, design.text, design.choices, place, episode.evaluation, cost)

    @cached_property
    def _first_task(self) -> FewShotTask:
        return self._task(self.plan.rungs[0])

    def _task(self, rung: Rung) -> FewShotTask:
        task = self.source.task(self._split(rung), 0)
        assert isinstance(task, FewShotTask)
        return task

    def _split(self, rung: Rung) -> str:
        """The name of the task that has a rung's number of examples."""
        return "all" if rung.examples >= len(self.source.division.train) else str(rung.examples)


@contextmanager
def global_seed(seed: int, device: str) -> Iterator[None]:
    """Seeds the generators of Python, numpy and torch, and leaves them to their owner as they were.

    Those of GPUs are kept only where one is the device: asking for them takes memory there.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - whatever users draw from
    try:
        with torch.random.fork_rng(devices=None if device == "cuda" else []):
            set_random_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


class _Stopped(Exception):
    """Somebody wants the search to stop, and go on later."""


class _OutOfTime(Exception):
    """The time for proposals is over."""


class _Clock:
    """The time that a search took, also before it was interrupted: what was evaluated then is remembered with it.

    Args:
        limit: seconds for search and final training; None for any time.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit, self._started, self._evaluating = limit, time.monotonic(), 0.0

    def count(self, evaluations: Sequence[Evaluation] | Iterator[Evaluation]) -> None:
        """Take note of evaluations, remembered ones too."""
        self._evaluating += sum(evaluation.seconds for evaluation in evaluations)

    @property
    def spent(self) -> float:
        return max(self._evaluating, time.monotonic() - self._started)

    def is_past(self, share: float, likely: float = 0.0) -> bool:
        """Whether more than a share of the time is over, or will be after so many seconds."""
        return self._limit is not None and self.spent + likely > share * self._limit


def require_searching(agent: str) -> str:
    """The agent's text itself, if that agent can search without tasks to prepare itself on.

    Raises:
        ConfigurationError: if it cannot.
    """
    name = agent.removeprefix(WIPED)
    if name in PREPARED:
        raise ConfigurationError(
            f"agent {name!r} prepares itself on training tasks, and there is but the data; use pretrained, random, "
            "evolution ... or the folder of a training run"
        )
    return agent


def space_for(agent: str, size: Sequence[int]) -> SearchSpace:
    """The space that an agent searches for images of a size, (H, W); features are of size (1, 1).

    A controller of a training run searches the space that it was trained for; everybody else the space of the one
    that comes with the package, at the width at which it was trained.

    Raises:
        ConfigurationError: if the controller designs by edits, or its space has no networks to train.
        CheckpointError: if it is damaged.
    """
    name = agent.removeprefix(WIPED)
    folder = Path(name)
    if name in AGENTS or not folder.is_dir():
        if folder.is_absolute() and ":" not in folder.name:
            raise ConfigurationError(f"{folder}: the folder of the run's agent is not there")
        return replace(pretrained.space(input_size=min(8, *size)), spatial=max(size) > 1)
    about = Controller.load(agent_folder(folder), "cpu").about
    if about.get("env") in BY_EDITS or not about.get("space"):
        raise ConfigurationError(f"{folder}: its controller does not design networks choice by choice")
    space = space_from_spec(about["space"])
    space.widened(1)  # or it is refused
    return space
