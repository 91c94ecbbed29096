"""Trials in progress: the state and the rules that the single and the vector environment share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.canonical import canonical_json
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, at_least, one_of
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.reward import COMPARING, REWARDS, Reference, find_reference, reward_of
from rlnas.search_space import SearchSpace
from rlnas.tabular_evaluator import TabularEvaluator
from rlnas.task import DESCRIPTOR, Task, TaskSource

from .evaluated_designs import EvaluatedDesigns
from .observation import LIMIT, ObservationLayout
from .partial_designs import PartialDesigns

Recorder: TypeAlias = Callable[[Sequence[DesignEpisode]], None]
"""Is given the design episodes that ended in one step; what it has returned from is recorded."""

INVALID_ACTIONS = ("penalise", "raise")
DUPLICATES = ("count", "refuse")
ILLEGAL = Evaluation(0.0, status=Status.INVALID, message="illegal action")
"""What a design is worth that an illegal action ended."""


@dataclass(frozen=True)
class TrialSettings:
    """Everything that decides how trials go. See :class:`rlnas.envs.design.DesignEnv` for the fields' meaning."""

    env_id: str
    space: SearchSpace
    source: TaskSource
    split: str
    evaluator: Evaluator
    designs_per_trial: int
    reward: str
    reference_designs: int | None
    invalid_action: str
    evaluation_seed: int | None
    duplicates: str
    descriptor: bool

    def __post_init__(self) -> None:
        kinds = {"space": (self.space, SearchSpace), "evaluator": (self.evaluator, Evaluator)}
        for field, (value, kind) in {**kinds, "tasks": (self.source, TaskSource)}.items():
            if not isinstance(value, kind):
                raise ConfigurationError(f"{field} must be of type {kind.__name__} or describe one, got {value!r}")
        one_of("split", self.split, self.source.splits)
        one_of("reward", self.reward, REWARDS)
        one_of("invalid_action", self.invalid_action, INVALID_ACTIONS)
        one_of("duplicates", self.duplicates, DUPLICATES)
        if not isinstance(self.descriptor, bool):
            raise ConfigurationError(f"descriptor must be true or false, got {self.descriptor!r}")
        at_least("designs_per_trial", self.designs_per_trial, 1)
        if self.reference_designs is not None:
            at_least("reference_designs", self.reference_designs, 2)
        elif not isinstance(self.evaluator, TabularEvaluator):
            raise ConfigurationError("reference_designs must be a number unless the evaluator is a table")
        if self.evaluation_seed is not None:
            at_least("evaluation_seed", self.evaluation_seed, 0)

    @property
    def layout(self) -> ObservationLayout:
        """Of the observations."""
        return ObservationLayout(self.space)

    @property
    def num_actions(self) -> int:
        """Size of the action space."""
        return self.space.num_choices

    def designs(self, count: int) -> PartialDesigns:
        """``count`` designs to make."""
        refuse = self.duplicates == "refuse"
        evaluated = EvaluatedDesigns(self.space, count, self.designs_per_trial) if refuse else None
        return PartialDesigns(self.space, count, evaluated)

    def spec(self) -> dict[str, Any]:
        """What a record needs to rebuild the environment, as JSON."""
        return {
            "id": self.env_id,
            "space": self.space.spec(),
            "tasks": self.source.spec(),
            "split": self.split,
            "evaluator": self.evaluator.spec(),
            "designs_per_trial": self.designs_per_trial,
            "reward": self.reward,
            "reference_designs": self.reference_designs,
            "invalid_action": self.invalid_action,
            "evaluation_seed": self.evaluation_seed,
            # Left out by default: then descriptions are the same as before there was a choice, and so are records.
            **({} if self.duplicates == "count" else {"duplicates": self.duplicates}),
            **({} if self.descriptor else {"descriptor": False}),
        }


class Trials:
    """``count`` trials side by side, each on a task of its own.

    Every public array has one row for each trial. Trials are advanced together; what an action does to a design in
    progress, :class:`~rlnas.envs.partial_designs.PartialDesigns` knows, and whatever designs one step completes are
    evaluated in one call.

    Args:
        settings: the rules.
        count: number of trials.
        recorder: is given every design episode that ends.
        agent: who is recorded to have designed.
    """

    def __init__(
        self, settings: TrialSettings, count: int, recorder: Recorder | None = None, agent: str = "agent"
    ) -> None:
        self.settings = settings
        self.count = count
        self.recorder = recorder
        self.layout = settings.layout
        self.agent = agent
        self.partial = settings.designs(count)
        self._lookup = _lookup_of(settings)
        self._references: dict[str, Reference] = {}
        self._texts = _Texts(settings.space)
        self._seeds: list[int | None] = [None] * count
        self.tasks: list[Task] = []
        self.trial = np.full(count, -1, dtype=np.int64)
        self.design = np.zeros(count, dtype=np.int64)
        self.best = np.zeros(count)
        self.incumbent = np.full_like(self.partial.choices, -1)
        self.accuracy = np.zeros(count)
        self.seconds = np.zeros(count)
        """What the evaluations of the designs that ended last took; no part of ``info``, which repeats exactly."""
        self.ended = np.zeros(count, dtype=np.bool_)
        self.descriptor = np.zeros((count, len(DESCRIPTOR)), dtype=np.float32)
        self.task_name = np.full(count, "", dtype=object)
        self.architecture = np.full(count, "", dtype=object)
        self.status = np.full(count, "", dtype=object)

    @cached_property
    def _spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(canonical_json(self.settings.spec()))  # as a record gives it back
        return spec

    def begin(
        self,
        rows: Sequence[int],
        rngs: Sequence[np.random.Generator],
        trials: Sequence[int],
        seeds: Sequence[int | None],
        tasks: Sequence[Task | int | None],
    ) -> None:
        """Start trials.

        Args:
            rows: where.
            rngs: a generator for each.
            trials: the number under which each is recorded.
            seeds: what each generator was seeded with, for the record.
            tasks: each one's task, its number, or None for one that the generator draws.
        """
        source, split = self.settings.source, self.settings.split
        chosen = [
            task if isinstance(task, Task) else source.sample(split, rng) if task is None else source.task(split, task)
            for rng, task in zip(rngs, tasks, strict=True)
        ]
        self.tasks = self.tasks or [chosen[0]] * self.count
        for row, task, seed in zip(rows, chosen, seeds, strict=True):
            self.tasks[row], self._seeds[row] = task, seed
        if self.settings.descriptor:
            descriptors = {task: np.clip(task.descriptor, -LIMIT, LIMIT) for task in set(chosen)}
            self.descriptor[rows] = [descriptors[task] for task in chosen]
        self.task_name[rows] = [task.name for task in chosen]
        self.trial[rows], self.design[rows], self.best[rows], self.incumbent[rows] = trials, 0, 0.0, -1
        self.accuracy[rows], self.ended[rows] = 0.0, False
        self.architecture[rows], self.status[rows] = "", ""
        self.partial.begin(rows)

    def legal(self) -> NDArray[np.bool_]:
        """The legal choices now, of shape (count, choices); not to be written to."""
        return self.partial.legal()

    def step(
        self, actions: NDArray[np.int64], rngs: Sequence[np.random.Generator]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Take one decision in every trial.

        Args:
            actions: integers of shape (count,).
            rngs: each trial's generator, used where evaluation seeds are drawn.

        Returns:
            Rewards and whether each trial is over, both of shape (count,).

        Raises:
            IllegalChoiceError: if an action is illegal and the settings say to raise, or is no action at all.
            ResetNeeded: if a trial is over or none was begun.
        """
        if not self.tasks or (self.design >= self.settings.designs_per_trial).any():
            raise ResetNeeded("no trial is in progress: call reset() before step()")
        self.ended = self.partial.take(actions, raises=self.settings.invalid_action == "raise")
        self.accuracy[:] = 0.0
        self.architecture[:] = ""
        self.status[:] = ""
        rewards = np.zeros(self.count)
        rows = np.flatnonzero(self.ended)
        if len(rows):
            rewards[rows] = self._finish_designs(rows, rngs)
            self.partial.clear(rows, self.incumbent[rows])
        return rewards, self.design >= self.settings.designs_per_trial

    def observe(self) -> NDArray[np.float32]:
        """Observations of shape (count, layout.size)."""
        observation = np.empty((self.count, self.layout.size), dtype=np.float32)
        parts = self.layout.split(observation)
        self.partial.observe(parts, self.incumbent)
        parts["reward"][:, 0] = self.accuracy
        parts["design_ended"][:, 0] = self.ended
        parts["designs_left"][:, 0] = 1 - self.design / self.settings.designs_per_trial
        parts["best"][:, 0] = self.best
        parts["descriptor"][:] = self.descriptor
        return observation

    def info(self) -> dict[str, NDArray[Any]]:
        """What Gymnasium's ``info`` holds at every step, one row for each trial."""
        return {
            "action_mask": self.legal().astype(np.int8),
            "design_ended": self.ended.copy(),
            "accuracy": self.accuracy.copy(),
            "best_accuracy": self.best.copy(),
            "design": self.design.copy(),
            "task": self.task_name.copy(),
            "architecture": self.architecture.copy(),
            "status": self.status.copy(),
        }

    def _finish_designs(self, rows: NDArray[np.int64], rngs: Sequence[np.random.Generator]) -> NDArray[np.float64]:
        """Evaluate, judge and record the designs that ended in some rows; their rewards."""
        evaluations = [ILLEGAL] * len(rows)
        seeds = [0] * len(rows)
        complete = np.flatnonzero(~self.partial.illegal[rows])
        for place, evaluation, seed in zip(complete.tolist(), *self._evaluate(rows[complete], rngs), strict=True):
            evaluations[place], seeds[place] = evaluation, seed
        accuracy = np.array([evaluation.accuracy for evaluation in evaluations])
        rewards = self._rewards(rows, accuracy)
        better = rows[accuracy > self.best[rows]]
        self.accuracy[rows] = accuracy
        self.seconds[rows] = [evaluation.seconds for evaluation in evaluations]
        self.best[better], self.incumbent[better] = self.accuracy[better], self.partial.choices[better]
        self.status[rows] = [str(evaluation.status) for evaluation in evaluations]
        if self.recorder is not None:
            self.recorder(self._episodes(rows, evaluations, seeds, rewards))
        self.design[rows] += 1
        return rewards

    def _evaluate(
        self, rows: NDArray[np.int64], rngs: Sequence[np.random.Generator]
    ) -> tuple[list[Evaluation], list[int]]:
        """The evaluation of the complete designs in some rows, and the seed of each."""
        settings = self.settings
        choices = self.partial.choices[rows]
        designs = list(map(tuple, choices.tolist()))
        self.architecture[rows] = [self._texts[design] for design in designs]
        tasks = [self.tasks[row] for row in rows.tolist()]
        if settings.evaluation_seed is None:
            seeds = [int(rngs[row].integers(2**31)) for row in rows.tolist()]
        else:
            seeds = [settings.evaluation_seed] * len(rows)
            if self._lookup is not None:
                return self._lookup(choices, tasks, settings.evaluation_seed), seeds
        proposals = [
            Proposal(Architecture(settings.space, design), task, seed)
            for design, task, seed in zip(designs, tasks, seeds, strict=True)
        ]
        return settings.evaluator.evaluate(proposals), seeds

    def _rewards(self, rows: NDArray[np.int64], accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
        form = self.settings.reward
        references = [self._reference(self.tasks[row]) if form in COMPARING else None for row in rows.tolist()]
        results = zip(accuracy.tolist(), self.best[rows].tolist(), references, strict=True)
        return np.array([reward_of(form, now, before, reference) for now, before, reference in results])

    def _reference(self, task: Task) -> Reference:
        if task.digest not in self._references:
            settings = self.settings
            self._references[task.digest] = find_reference(
                settings.space, task, settings.evaluator, settings.reference_designs
            )
        return self._references[task.digest]

    def _episodes(
        self,
        rows: NDArray[np.int64],
        evaluations: Sequence[Evaluation],
        seeds: Sequence[int],
        rewards: NDArray[np.float64],
    ) -> list[DesignEpisode]:
        """The records of the designs that ended in some rows."""
        numbers = (column[rows].tolist() for column in (self.trial, self.design, self.architecture, self.best))
        columns = zip(rows.tolist(), evaluations, seeds, rewards.tolist(), *numbers, strict=True)
        episodes = []
        for row, evaluation, seed, reward, trial, design, architecture, best in columns:
            task = self.tasks[row]
            actions, masks = self.partial.taken(row)
            episodes.append(
                DesignEpisode(
                    agent=self.agent,
                    trial=trial,
                    design=design,
                    seed=self._seeds[row],
                    env=self._spec,
                    task=task.name,
                    task_digest=task.digest,
                    evaluation_seed=seed,
                    actions=actions,
                    masks=masks,
                    rewards=(0.0,) * (len(actions) - 1) + (reward,),
                    architecture=architecture,
                    evaluation=evaluation,
                    best=best,
                    start=self.partial.start(row),
                )
            )
        return episodes


def _lookup_of(settings: TrialSettings) -> Callable[[NDArray[np.int64], Sequence[Task], int], list[Evaluation]] | None:
    """How bare choices are evaluated, which costs a table less than proposals do; None where it takes proposals."""
    if isinstance(settings.evaluator, TabularEvaluator):
        settings.evaluator.accept(settings.space)
        return settings.evaluator.lookup
    return None


class _Texts(dict[tuple[int, ...], str]):
    """The canonical text of each design by its choices, remembered: to make one costs more than a table's answer."""

    SIZE = 100_000

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self._space = space

    def __missing__(self, choices: tuple[int, ...]) -> str:
        if len(self) >= self.SIZE:
            self.clear()
        text = self[choices] = self._space.text(choices)
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return _Texts, (self._space,)


def reset_options(options: dict[str, Any] | None, trials: Trials) -> tuple[Sequence[Task | int | None], int | None]:
    """Reads ``reset``'s options: ``task`` (an index or one for each trial), ``new_task`` and ``trial``.

    Returns:
        The task of each trial, as :meth:`Trials.begin` takes it, and the first trial's number.

    Raises:
        ConfigurationError: if another option is given, one is no whole number, or tasks are not one for each trial.
    """
    given = dict(options or {})
    tasks = _numbers("task", given.pop("task", None), trials.count)
    (trial,) = _numbers("trial", given.pop("trial", None), 1)
    new_task = given.pop("new_task", True)
    if given:
        raise ConfigurationError(f"reset knows the options 'task', 'new_task' and 'trial', got {sorted(given)}")
    if not new_task and trials.tasks:
        return [now if number is None else number for now, number in zip(trials.tasks, tasks, strict=True)], trial
    return tasks, trial


def _numbers(option: str, given: Any, count: int) -> list[int | None]:
    values: list[Any] = [None] * count if given is None else np.ravel(given).tolist()
    if len(values) != count:
        raise ConfigurationError(f"option {option!r} must be {count} number(s), got {len(values)}")
    return [None if value is None else at_least(f"option {option!r}", value, 0) for value in values]
