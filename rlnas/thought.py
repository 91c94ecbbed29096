"""What an agent thought before an action: recomputed from the record, since a frozen agent thinks the same again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


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
