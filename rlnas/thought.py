"""What an agent thought before an action: recomputed from the record, since a frozen agent thinks the same again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rlnas.episode import DesignEpisode
from rlnas.retracing import retracing_of


@dataclass(frozen=True, slots=True)
class Thought:
    """What an agent thought before one action.

    Args:
        probabilities: of all choices, 0 where illegal; () where the agent tells none.
        value: its estimate of the rewards to come; None where it has none.
        choice: what it chooses itself, given the same observations; None where that is not known.
    """

    probabilities: tuple[float, ...] = ()
    value: float | None = None
    choice: int | None = None


Thoughts: TypeAlias = Sequence[Sequence[Thought]]
"""Of one trial: a row for each design, with a thought for each action."""


@dataclass(frozen=True)
class Agreement:
    """How often an agent would have chosen what was recorded.

    Args:
        decisions: how many were compared.
        same: how many are the same.
        difference: the first that is not, in words; None if all are the same.
    """

    decisions: int
    same: int
    difference: str | None = None


def agreement(trials: Iterable[tuple[Sequence[DesignEpisode], Thoughts]]) -> Agreement:
    """Compare what was recorded with what an agent chooses.

    Args:
        trials: the designs of each and the thoughts on them, all with a ``choice``.
    """
    decisions, same, difference = 0, 0, None
    for episodes, rows in trials:
        for episode, row in zip(episodes, rows, strict=True):
            for step, (action, thought) in enumerate(zip(episode.actions, row, strict=True)):
                decisions += 1
                same += action == thought.choice
                if action != thought.choice and difference is None:
                    difference = _difference(episode, step, thought)
    return Agreement(decisions, same, difference)


def _difference(episode: DesignEpisode, step: int, thought: Thought) -> str:
    names = dict(enumerate(retracing_of(episode.env).choices(step)))
    taken, chosen = (names.get(choice, f"choice {choice}") for choice in (episode.actions[step], thought.choice or 0))
    return (
        f"agent {episode.agent!r}, trial {episode.trial}, design {episode.design}, step {step}: "
        f"{taken} was recorded, it chooses {chosen}"
    )
