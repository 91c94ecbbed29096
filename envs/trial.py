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
from rlnas.episode import DesignEpisode, canonical_json
from rlnas.errors import ConfigurationError, IllegalChoiceError, at_least, one_of
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.reward import REWARDS, Reference, random_reference, reward_of
from rlnas.search_space import SearchSpace
from rlnas.task import DESCRIPTOR, Task, TaskSource

from .observation import LIMIT, ObservationLayout

Recorder: TypeAlias = Callable[[Sequence[DesignEpisode]], None]
"""Is given the design episodes that ended in one step; what it has returned from is recorded."""

INVALID_ACTIONS = ("penalise", "raise")


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
    reference_designs: int
    invalid_action: str
    evaluation_seed: int | None

    def __post_init__(self) -> None:
        kinds = {"space": (self.space, SearchSpace), "evaluator": (self.evaluator, Evaluator)}
        for field, (value, kind) in {**kinds, "tasks": (self.source, TaskSource)}.items():
            if not isinstance(value, kind):
                raise ConfigurationError(f"{field} must be of type {kind.__name__} or describe one, got {value!r}")
        one_of("split", self.split, self.source.splits)
        one_of("reward", self.reward, REWARDS)
        one_of("invalid_action", self.invalid_action, INVALID_ACTIONS)
        at_least("designs_per_trial", self.designs_per_trial, 1)
        at_least("reference_designs", self.reference_designs, 2)
        if self.evaluation_seed is not None:
            at_least("evaluation_seed", self.evaluation_seed, 0)

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
        }


class Trials:
    """``count`` trials side by side, each on a task of its own.

    Every public array has one row for each trial. Trials are begun one by one and advanced together; whatever designs
    one step completes are evaluated in one call.

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
        self.layout = ObservationLayout(settings.space)
        self.agent = agent
        self._transitions = settings.space.transitions
        self._decisions = len(settings.space.decisions)
        self._rows = np.arange(count)
        self._references: dict[str, Reference] = {}
        self._seeds: list[int | None] = [None] * count
        self.tasks: list[Task] = []
        self.state = np.zeros(count, dtype=np.int32)
        self.position = np.zeros(count, dtype=np.int64)
        self.choices = np.full((count, self._decisions), -1, dtype=np.int64)
        self.trial = np.full(count, -1, dtype=np.int64)
        self.design = np.zeros(count, dtype=np.int64)
        self.best = np.zeros(count)
        self.incumbent = np.full_like(self.choices, -1)
        self.action = np.full(count, -1, dtype=np.int64)
        self.accuracy = np.zeros(count)
        self.ended = np.zeros(count, dtype=np.bool_)
        self.descriptor = np.zeros((count, len(DESCRIPTOR)), dtype=np.float32)
        self.task_name = np.full(count, "", dtype=object)
        self.architecture = np.full(count, "", dtype=object)
        self.status = np.full(count, "", dtype=object)

    @cached_property
    def _spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(canonical_json(self.settings.spec()))  # as a record gives it back
        return spec

    def begin(self, row: int, rng: np.random.Generator, trial: int, seed: int | None, task: int | None = None) -> None:
        """Start trial number ``trial`` in a row, on task number ``task`` or, where None, on one that ``rng`` draws."""
        source, split = self.settings.source, self.settings.split
        chosen = source.sample(split, rng) if task is None else source.task(split, task)
        if len(self.tasks) < self.count:
            self.tasks = [chosen] * self.count
        self.tasks[row] = chosen
        self._seeds[row] = seed
        self.trial[row], self.design[row], self.best[row] = trial, 0, 0.0
        self.action[row], self.accuracy[row], self.ended[row] = -1, 0.0, False
        self.descriptor[row] = np.clip(chosen.descriptor, -LIMIT, LIMIT)
        self.task_name[row], self.architecture[row], self.status[row] = chosen.name, "", ""
        self._clear_design(row)

    def legal(self) -> NDArray[np.bool_]:
        """The legal choices now, of shape (count, choices)."""
        return np.asarray(self._transitions[self.state] >= 0)

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
        actions = self._known(actions)
        following = self._transitions[self.state, actions]
        illegal = following < 0
        if illegal.any() and self.settings.invalid_action == "raise":
            self._refuse(int(np.flatnonzero(illegal)[0]), actions)
        self.choices[self._rows, self.position] = actions
        self.position += 1
        self.state = np.where(illegal, 0, following).astype(np.int32)
        self.action = actions.copy()
        self.accuracy[:] = 0.0
        self.architecture[:] = ""
        self.status[:] = ""
        self.ended = illegal | (self.position == self._decisions)
        rewards = np.zeros(self.count)
        rows = np.flatnonzero(self.ended).tolist()
        if rows:
            self._finish_designs(rows, illegal, rewards, rngs)
        return rewards, self.design >= self.settings.designs_per_trial

    def observe(self) -> NDArray[np.float32]:
        """Observations of shape (count, layout.size)."""
        observation = np.zeros((self.count, self.layout.size), dtype=np.float32)
        parts = self.layout.split(observation)
        design = parts["design"].reshape(self.count, self._decisions, -1)
        rows, taken = np.nonzero(self.choices >= 0)
        design[rows, taken, self.choices[rows, taken]] = 1
        known = np.flatnonzero(self.best > 0)  # elsewhere no design has been worth anything yet
        parts["incumbent"][known, self.incumbent[known, self.position[known]]] = 1
        parts["position"][self._rows, self.position] = 1
        acted = np.flatnonzero(self.action >= 0)
        parts["action"][acted, self.action[acted]] = 1
        parts["reward"][:, 0] = self.accuracy
        parts["design_ended"][:, 0] = self.ended
        parts["designs_left"][:, 0] = 1 - self.design / self.settings.designs_per_trial
        parts["best"][:, 0] = self.best
        parts["descriptor"][:] = self.descriptor
        parts["legal"][:] = self.legal()
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

    def _known(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        # A negative index would silently be another choice, and a single number the choice of every trial.
        choices = self._transitions.shape[1]
        whole = actions.shape == (self.count,) and actions.dtype.kind in "iu"
        if not whole or ((actions < 0) | (actions >= choices)).any():
            raise IllegalChoiceError(f"{self.count} action(s) in 0 .. {choices - 1} are needed, got {actions.tolist()}")
        return actions.astype(np.int64)

    def _finish_designs(
        self,
        rows: list[int],
        illegal: NDArray[np.bool_],
        rewards: NDArray[np.float64],
        rngs: Sequence[np.random.Generator],
    ) -> None:
        proposals = {row: self._proposal(row, rngs[row]) for row in rows if not illegal[row]}
        evaluations = dict(zip(proposals, self.settings.evaluator.evaluate(list(proposals.values())), strict=True))
        episodes = []
        for row in rows:
            evaluation = evaluations.get(row) or Evaluation(0.0, status=Status.INVALID, message="illegal action")
            best_before = float(self.best[row])
            rewards[row] = self._reward(row, evaluation.accuracy, best_before)
            self.accuracy[row] = evaluation.accuracy
            if evaluation.accuracy > best_before:
                self.best[row], self.incumbent[row] = evaluation.accuracy, self.choices[row]
            self.status[row] = str(evaluation.status)
            if row in proposals:
                self.architecture[row] = proposals[row].architecture.text
            if self.recorder is not None:
                episodes.append(self._episode(row, evaluation, proposals.get(row), float(rewards[row])))
            self.design[row] += 1
            self._clear_design(row)
        if self.recorder is not None:
            self.recorder(episodes)

    def _proposal(self, row: int, rng: np.random.Generator) -> Proposal:
        architecture = Architecture(self.settings.space, tuple(self.choices[row].tolist()))
        seed = self.settings.evaluation_seed
        return Proposal(architecture, self.tasks[row], int(rng.integers(2**31)) if seed is None else seed)

    def _reward(self, row: int, accuracy: float, best_before: float) -> float:
        form, reference = self.settings.reward, None
        if form == "normalised":
            reference = self._reference(self.tasks[row])
        return reward_of(form, accuracy, best_before, reference)

    def _reference(self, task: Task) -> Reference:
        if task.digest not in self._references:
            settings = self.settings
            self._references[task.digest] = random_reference(
                settings.space, task, settings.evaluator, settings.reference_designs
            )
        return self._references[task.digest]

    def _episode(self, row: int, evaluation: Evaluation, proposal: Proposal | None, reward: float) -> DesignEpisode:
        actions = tuple(self.choices[row, : self.position[row]].tolist())
        masks, state = [], 0
        for action in actions:
            masks.append("".join("1" if s >= 0 else "0" for s in self._transitions[state].tolist()))
            state = int(self._transitions[state, action])
        return DesignEpisode(
            agent=self.agent,
            trial=int(self.trial[row]),
            design=int(self.design[row]),
            seed=self._seeds[row],
            env=self._spec,
            task=self.tasks[row].name,
            task_digest=self.tasks[row].digest,
            evaluation_seed=proposal.seed if proposal else 0,
            actions=actions,
            masks=tuple(masks),
            rewards=(0.0,) * (len(actions) - 1) + (reward,),
            architecture=proposal.architecture.text if proposal else "",
            evaluation=evaluation,
            best=float(self.best[row]),
        )

    def _clear_design(self, row: int) -> None:
        self.state[row], self.position[row], self.choices[row] = 0, 0, -1

    def _refuse(self, row: int, actions: NDArray[np.int64]) -> None:
        decision = self.settings.space.decisions[int(self.position[row])]
        legal = [n for n, ok in zip(decision.choices, self.legal()[row], strict=False) if ok]
        raise IllegalChoiceError(f"{decision.name}: action {actions[row]} is illegal here (legal: {', '.join(legal)})")


def task_options(options: dict[str, Any] | None, count: int) -> tuple[list[int | None], int | None]:
    """Reads ``reset``'s options: ``task``, an index or one for each trial, and ``trial``, the first trial's number.

    Raises:
        ConfigurationError: if another option is given, one is no whole number, or tasks are not one for each trial.
    """
    given = dict(options or {})
    tasks = _numbers("task", given.pop("task", None), count)
    (trial,) = _numbers("trial", given.pop("trial", None), 1)
    if given:
        raise ConfigurationError(f"reset knows the options 'task' and 'trial', got {sorted(given)}")
    return tasks, trial


def _numbers(option: str, given: Any, count: int) -> list[int | None]:
    values: list[Any] = [None] * count if given is None else np.ravel(given).tolist()
    if len(values) != count:
        raise ConfigurationError(f"option {option!r} must be {count} number(s), got {len(values)}")
    return [None if value is None else at_least(f"option {option!r}", value, 0) for value in values]
