"""Replay: do recorded design episodes again and compare.

An episode holds what is needed to rebuild its space, its task and its evaluator; no environment and no agent takes
part. What cannot be recomputed from the record alone is believed: who designed it, and how its task was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice
from typing import Any

from rlnas.canonical import canonical_json
from rlnas.datasets import source_from_spec
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, RlnasError
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.retracing import Made, Retracing, retracing_of
from rlnas.reward import COMPARING, Reference, find_reference, reward_of
from rlnas.specs import evaluator_from_spec
from rlnas.task import Task, TaskSource

BATCH = 64
"""Proposals handed to the evaluator at once."""
RESULT_FIELDS = ("status", "accuracy", "loss", "parameters", "flops")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a recorded episode and its recomputation first part.

    Args:
        agent: the episode's agent.
        trial: its trial.
        design: its number within the trial.
        field: what differs, such as ``masks`` or ``evaluation.accuracy``.
        recorded: the value in the record.
        recomputed: the value found now.
        step: which decision, from 0; None where it is not one decision's.
    """

    agent: str
    trial: int
    design: int
    field: str
    recorded: object
    recomputed: object
    step: int | None = None

    def __str__(self) -> str:
        step = "" if self.step is None else f", step {self.step}"
        return (
            f"agent {self.agent!r}, trial {self.trial}, design {self.design}{step}: "
            f"{self.field} was recorded as {self.recorded!r}, recomputed as {self.recomputed!r}"
        )


def recompute(episodes: Iterable[DesignEpisode], evaluator: Evaluator | None = None) -> Iterator[Difference | None]:
    """Do every episode again: None for each that comes out the same, else its first difference, in the same order.

    The best accuracy before a design is known if the trial's earlier designs are among the episodes, in order; where
    they are not, ``best`` and the rewards of the form ``improvement`` are believed, and which choices were refused
    because they only repeat a design. Episodes are taken :data:`BATCH` at
    a time.

    Args:
        episodes: such as :meth:`rlnas.store.EpisodeStore.episodes` gives.
        evaluator: evaluates instead of the recorded evaluators; it must give results equal to theirs.

    Raises:
        ConfigurationError: if a space, task source or evaluator cannot be made here: CUDA is absent, say.
        DataError: if a task source's files are missing or corrupt.
    """
    trial, made = _Trial(), _MadeBefore()
    for _, group in groupby(episodes, lambda episode: canonical_json(episode.env)):
        world: _World | None = None
        while batch := list(islice(group, BATCH)):
            world = world or _World(batch[0].env, evaluator)
            yield from _recompute_batch(batch, world, trial, made)


class _World:
    """What the episodes of one environment are recomputed with."""

    def __init__(self, env: dict[str, Any], evaluator: Evaluator | None) -> None:
        self.retracing = retracing_of(env)
        self.source = source_from_spec(env["tasks"])
        self.evaluator = evaluator or evaluator_from_spec(env["evaluator"])
        self.reward_form: str = env["reward"]
        self.refuses_duplicates: bool = env.get("duplicates") == "refuse"
        self._reference_designs: int | None = env["reference_designs"]
        self._references: dict[str, Reference] = {}

    def reward(self, task: Task, accuracy: float, best_before: float) -> float:
        reference = self._reference(task) if self.reward_form in COMPARING else None
        return reward_of(self.reward_form, accuracy, best_before, reference)

    def _reference(self, task: Task) -> Reference:
        if task.digest not in self._references:
            designs = self._reference_designs
            self._references[task.digest] = find_reference(self.retracing.space, task, self.evaluator, designs)
        return self._references[task.digest]


def _follows(episode: DesignEpisode, previous: DesignEpisode | None) -> bool:
    """Whether ``previous`` is the design before in the same trial."""
    number = (episode.agent, episode.trial, episode.design - 1)
    return previous is not None and (previous.agent, previous.trial, previous.design) == number


@dataclass
class _Trial:
    """The best of the trial in progress, as recomputed: accuracy, None if earlier designs were not seen, and design."""

    previous: DesignEpisode | None = None
    best: float | None = None
    incumbent: str = ""

    def enter(self, episode: DesignEpisode) -> float | None:
        """The best accuracy before an episode."""
        if episode.design == 0:
            self.best, self.incumbent = 0.0, ""
        elif not _follows(episode, self.previous):
            self.best = None
        self.previous = episode
        return self.best

    def leave(self, accuracy: float, architecture: str) -> None:
        if self.best is not None and accuracy > self.best:
            self.best, self.incumbent = accuracy, architecture


@dataclass
class _MadeBefore:
    """The designs that the trial in progress has evaluated; None where earlier ones were not seen."""

    previous: DesignEpisode | None = None
    designs: Made | None = None

    def before(self, episode: DesignEpisode, world: _World) -> Made | None:
        """Those before an episode, whose own then joins them."""
        if episode.design == 0:
            self.designs = frozenset()
        elif not _follows(episode, self.previous):
            self.designs = None
        self.previous, found = episode, self.designs
        if self.designs is not None and episode.architecture:  # else an illegal action ended it
            self.designs |= {world.retracing.made(episode)}
        return found


@dataclass
class _Retraced:
    """An episode whose every action was taken again.

    Args:
        episode: the record.
        retracing: what its actions mean.
        refused: designs that were not to be made again; None where they are not known.
    """

    episode: DesignEpisode
    retracing: Retracing
    refused: Made | None = frozenset()
    task: Task | None = None
    differences: list[Difference] = field(default_factory=list)

    @property
    def illegal(self) -> bool:
        """Whether the record says that an illegal action ended the design."""
        return self.episode.evaluation.status is Status.INVALID and not self.episode.architecture

    def differ(self, name: str, recorded: object, recomputed: object, step: int | None = None) -> None:
        """Note a difference, if the two values are one."""
        if recorded != recomputed:
            number = (self.episode.agent, self.episode.trial, self.episode.design)
            self.differences.append(Difference(*number, name, recorded, recomputed, step))

    def proposal(self, source: TaskSource) -> Proposal | None:
        """What was evaluated; None if nothing was, or if the record is wrong before that."""
        self._find_task(source)
        self._retrace_actions()
        if self.task is None or self.differences or self.illegal:
            return None
        architecture = self.retracing.complete(self.episode.start, self.episode.actions)
        self.differ("architecture", self.episode.architecture, architecture.text)
        return None if self.differences else Proposal(architecture, self.task, self.episode.evaluation_seed)

    def _find_task(self, source: TaskSource) -> None:
        try:
            self.task = source.named(self.episode.task)
        except ConfigurationError as error:
            self.differ("task", self.episode.task, f"none: {error}")
        else:
            self.differ("task_digest", self.episode.task_digest, self.task.digest)

    def _retrace_actions(self) -> None:
        actions, steps = self.episode.actions, self.retracing.steps(self.episode.actions)
        if self.illegal:
            steps = max(1, min(len(actions), steps))
        for name in ("actions", "masks", "rewards"):
            self.differ(f"number of {name}", len(getattr(self.episode, name)), steps)
        for step in range(steps):
            if self.differences:  # What follows a wrong action cannot be right or wrong.
                return
            self._retrace_action(step, is_illegal=self.illegal and step == steps - 1)

    def _retrace_action(self, step: int, is_illegal: bool) -> None:
        action, recorded, start = self.episode.actions[step], self.episode.masks[step], self.episode.start
        try:
            legal = self.retracing.legal(start, self.episode.actions[:step], self.refused or frozenset()).tolist()
        except RlnasError as error:
            return self.differ("start", start, f"none: {error}")
        if self.refused is None and len(recorded) == len(legal):  # believed where it refuses more than the space does
            legal = [allowed and said != "0" for allowed, said in zip(legal, recorded, strict=True)]
        self.differ("masks", recorded, "".join("1" if allowed else "0" for allowed in legal), step)
        if (0 <= action < len(legal) and legal[action]) == is_illegal:
            self.differ("actions", action, "a legal choice" if is_illegal else "an illegal choice", step)


def _recompute_batch(
    episodes: Sequence[DesignEpisode], world: _World, trial: _Trial, made: _MadeBefore
) -> Iterator[Difference | None]:
    retraced = [
        _Retraced(episode, world.retracing, made.before(episode, world) if world.refuses_duplicates else frozenset())
        for episode in episodes
    ]
    proposals = {i: p for i, again in enumerate(retraced) if (p := again.proposal(world.source)) is not None}
    evaluations = dict(zip(proposals, world.evaluator.evaluate(list(proposals.values())), strict=True))
    for i, again in enumerate(retraced):
        episode, best_before = again.episode, trial.enter(again.episode)
        if best_before is not None:
            again.differ("start", episode.start, world.retracing.start(trial.incumbent))
        if again.differences:
            trial.leave(episode.evaluation.accuracy, episode.architecture)
        else:
            evaluation = evaluations.get(i, Evaluation(0.0, status=Status.INVALID))
            trial.leave(evaluation.accuracy, episode.architecture)
            _compare_result(again, evaluation, best_before, world)
        yield again.differences[0] if again.differences else None


def _compare_result(again: _Retraced, evaluation: Evaluation, best_before: float | None, world: _World) -> None:
    episode, task = again.episode, again.task
    assert task is not None
    recorded, found = asdict(episode.evaluation), asdict(evaluation)
    for name in RESULT_FIELDS:
        again.differ(f"evaluation.{name}", recorded[name], found[name])
    *earlier, final = episode.rewards
    for step, reward in enumerate(earlier):
        again.differ("rewards", reward, 0.0, step)
    if best_before is not None or world.reward_form != "improvement":
        again.differ("rewards", final, world.reward(task, evaluation.accuracy, best_before or 0.0), len(earlier))
    if best_before is not None:
        again.differ("best", episode.best, max(best_before, evaluation.accuracy))
