"""Rebuild recorded trials: all that the environment showed, from the actions and the evaluations; nothing is trained.

A record keeps what was decided and what came of it. What the agent saw follows from that: the recorded environment is
made again with an evaluator that answers what is recorded, and the recorded actions are taken in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlnas.datasets import source_from_spec
from rlnas.episode import DesignEpisode, canonical_json
from rlnas.errors import DataError, RlnasError
from rlnas.evaluator import Evaluation, Proposal

OPTIONS = ("designs_per_trial", "evaluation_seed", "duplicates", "descriptor")
"""What of a recorded environment's description is an argument of the environment as it stands there."""


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A trial of ``T`` actions as the environment showed it.

    Args:
        observations: float32 of shape (T + 1, D); what the agent saw before each action, and at the end.
        actions: int64 of shape (T,).
        rewards: as recorded, float64 of shape (T,).
        terminations: bool of shape (T,); the last is False where the trial was cut short.
        truncations: bool of shape (T,); the last is True where the trial was cut short.
        infos: ``info`` by its keys, the first axis of each of length T + 1; see :class:`rlnas.envs.design.DesignEnv`.
            ``infos["design"][t]`` is the number of the design that action ``t`` belongs to.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    infos: dict[str, NDArray[Any]]

    @property
    def action_masks(self) -> NDArray[np.int8]:
        """The legal actions, of shape (T + 1, actions)."""
        return self.infos["action_mask"]


class RecordedEvaluator:
    """Answers the proposals of recorded designs, in their order.

    Args:
        spec: of the evaluator that the evaluations are of.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._expected: deque[DesignEpisode] = deque()

    def expect(self, episodes: Iterable[DesignEpisode]) -> None:
        """Be ready to answer for these designs and no others."""
        # An illegal action ends a design without an evaluation.
        self._expected = deque(episode for episode in episodes if episode.architecture)

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        """The recorded evaluations.

        Raises:
            DataError: if a proposal is not the next of the recorded designs.
        """
        return [self._answer(proposal) for proposal in proposals]

    def spec(self) -> dict[str, Any]:
        """See :meth:`rlnas.evaluator.Evaluator.spec`."""
        return self._spec

    def _answer(self, proposal: Proposal) -> Evaluation:
        text = proposal.architecture.text
        recorded = self._expected.popleft() if self._expected else None
        if recorded is None or recorded.architecture != text:
            known = "nothing" if recorded is None else f"{recorded.architecture!r}"
            raise DataError(f"the recorded actions lead to the design {text!r}, but {known} was recorded")
        return recorded.evaluation


class RecordedEnv:
    """A recorded environment, made again, in which the trials recorded there can be rebuilt.

    Args:
        description: as episodes have it in ``env``.

    Attributes:
        env: the environment. Its reward form is ``accuracy``: others compare with designs that were not recorded.

    Raises:
        ConfigurationError: if the space, the tasks or the environment cannot be made here.
        DataError: if the tasks' files are missing or corrupt.
    """

    def __init__(self, description: dict[str, Any]) -> None:
        self._evaluator = RecordedEvaluator(description["evaluator"])
        self._source = source_from_spec(description["tasks"])
        self._split: str = description["split"]
        edits = description.get("edits")
        # Not the recorded id, which may be anybody's: what presets differ in besides is in the description.
        self.env: gymnasium.Env[NDArray[np.float32], np.int64] = gymnasium.make(
            "rlnas/Design-v0" if edits is None else "rlnas/Edit-v0",
            disable_env_checker=True,
            env_id=description["id"],
            space=description["space"],
            tasks=(self._source, self._split),
            evaluator=self._evaluator,
            reward="accuracy",
            reference_designs=2,
            **{name: description[name] for name in OPTIONS if name in description},
            **(edits or {}),
        )

    def rebuild(self, episodes: Sequence[DesignEpisode]) -> Rebuilt:
        """What the environment showed in a trial.

        Args:
            episodes: its designs from the first on, in order; the last ones may be missing.

        Raises:
            DataError: if designs are missing before the last one, or if the environment does not show what was
                recorded; the message names the design.
        """
        for number, episode in enumerate(episodes):
            if (episode.agent, episode.trial, episode.design) != (episodes[0].agent, episodes[0].trial, number):
                raise DataError(f"{_name(episode)} comes where design {number} of the same trial is expected")
        self._evaluator.expect(episodes)
        observation, info = self.env.reset(options={"task": self._task(episodes[0])})
        observations, infos, over = [observation], [info], False
        for episode in episodes:
            for action, mask in zip(episode.actions, episode.masks, strict=True):
                if over or "".join(map(str, info["action_mask"])) != mask:
                    raise DataError(f"{_name(episode)}: the rebuilt environment does not have the recorded choices")
                try:
                    observation, _, over, _, info = self.env.step(np.int64(action))
                except RlnasError as error:
                    raise DataError(f"{_name(episode)} cannot be rebuilt: {error}") from None
                observations.append(observation)
                infos.append(info)
            shown = (bool(info["design_ended"]), info["architecture"], info["accuracy"], info["best_accuracy"])
            if shown != (True, episode.architecture, episode.evaluation.accuracy, episode.best):
                raise DataError(f"{_name(episode)}: the rebuilt environment does not have the recorded result")
        ends = np.zeros(len(infos) - 1, dtype=np.bool_)
        ends[-1] = True
        return Rebuilt(
            observations=np.stack(observations),
            actions=np.array([action for episode in episodes for action in episode.actions], dtype=np.int64),
            rewards=np.array([reward for episode in episodes for reward in episode.rewards]),
            terminations=ends & over,
            truncations=ends & (not over),
            infos={key: np.array([info[key] for info in infos]) for key in infos[0]},
        )

    def _task(self, episode: DesignEpisode) -> int:
        """The number of an episode's task in the environment's split."""
        task = self._source.named(episode.task)
        number = episode.task.rpartition("/")[2]
        if task.digest != episode.task_digest or episode.task != f"{self._source.name}:{self._split}/{number}":
            raise DataError(f"{_name(episode)}: the task {episode.task} is not the recorded one")
        return int(number)


def rebuilt(episodes: Sequence[DesignEpisode]) -> Rebuilt:
    """One trial as the environment showed it, see :class:`RecordedEnv`.

    Args:
        episodes: the trial's designs from the first on, in order; the last ones may be missing.

    Raises:
        ConfigurationError: if the environment cannot be made here.
        DataError: if the trial cannot be rebuilt, or the tasks' files are missing or corrupt.
    """
    return RecordedEnv(episodes[0].env).rebuild(episodes)


def rebuilt_trials(episodes: Iterable[DesignEpisode]) -> Iterator[tuple[list[DesignEpisode], Rebuilt]]:
    """Each trial's designs and what the environment showed; successive trials of one environment share it.

    Args:
        episodes: such as :meth:`rlnas.store.EpisodeStore.episodes` gives.

    Raises:
        ConfigurationError: as :func:`rebuilt`.
        DataError: as :func:`rebuilt`.
    """
    for _, group in groupby(episodes, lambda episode: canonical_json(episode.env)):
        env: RecordedEnv | None = None
        for _, designs in groupby(group, lambda episode: (episode.agent, episode.trial)):
            trial = list(designs)
            env = env or RecordedEnv(trial[0].env)
            yield trial, env.rebuild(trial)


def _name(episode: DesignEpisode) -> str:
    return f"agent {episode.agent!r}, trial {episode.trial}, design {episode.design}"
