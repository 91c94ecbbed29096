"""What the actions of a recorded design mean: decisions that built it up, or edits that changed it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.edits import ChainEdits, require_chain
from rlnas.episode import DesignEpisode
from rlnas.errors import RlnasError
from rlnas.search_space import Decision, SearchSpace
from rlnas.specs import space_from_spec

Made: TypeAlias = frozenset[Any]
"""Designs of a trial, each as :meth:`Decisions.made` says it."""


class Told(NamedTuple):
    """One step of a design in words: which step it is, what was chosen, and the design after it."""

    step: str
    choice: str
    design: str


class Decisions:
    """Each action is the choice for the space's next decision.

    Args:
        space: whose decisions.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def steps(self, actions: Sequence[int]) -> int:
        """How many actions complete a design."""
        return len(self.space.decisions)

    def choices(self, step: int) -> tuple[str, ...]:
        """Names of what can be done in a step; none where there is no such step."""
        return self.space.decisions[step].choices if step < len(self.space.decisions) else ()

    def start(self, incumbent: str) -> str:
        """Canonical text of the network that a design begins with, given that of the trial's best so far or ""."""
        return ""

    def legal(self, start: str, actions: Sequence[int], refused: Made) -> NDArray[np.bool_]:
        """The legal actions after some legal ones, where designs are refused."""
        return self.space.legal_choices(actions, refused)

    def made(self, episode: DesignEpisode) -> Hashable:
        """What would be refused as the design of an episode made again."""
        return episode.actions

    def complete(self, start: str, actions: Sequence[int]) -> Architecture:
        """The design that legal actions complete."""
        return self.space.decode(actions)

    def tell(self, episode: DesignEpisode) -> Iterator[Told]:
        """A record's steps, whatever they are."""
        decisions = self.space.decisions
        taken: list[str] = []
        for step, action in enumerate(episode.actions):
            decision = decisions[step] if step < len(decisions) else Decision("?", ())
            known = 0 <= action < len(decision.choices)
            taken.append(decision.choices[action] if known else f"choice {action}")
            design = ", ".join([*taken, *["?"] * (len(decisions) - len(taken))])
            yield Told(f"step {step + 1} of {len(decisions)}: {decision.name}", taken[-1], design)


class Edits:
    """Each action changes a complete network; see :class:`Decisions` for the methods.

    Args:
        edits: what the actions are.
    """

    def __init__(self, edits: ChainEdits) -> None:
        self.space = edits.space
        self._edits = edits

    def steps(self, actions: Sequence[int]) -> int:
        return self._edits.steps(actions)

    def choices(self, step: int) -> tuple[str, ...]:
        return self._edits.names

    def start(self, incumbent: str) -> str:
        from_incumbent = incumbent and self._edits.start == "incumbent"
        return incumbent if from_incumbent else self.space.text(self._edits.empty)

    def legal(self, start: str, actions: Sequence[int], refused: Made) -> NDArray[np.bool_]:
        network = self._networks(start, actions)[-1]
        made, legal = self._edits.outcomes(np.array([network]))
        return self._edits.unrepeated(made[0], legal[0], len(actions), refused)

    def made(self, episode: DesignEpisode) -> Hashable:
        return episode.architecture

    def complete(self, start: str, actions: Sequence[int]) -> Architecture:
        return self.space.decode(self._networks(start, actions)[-1])

    def tell(self, episode: DesignEpisode) -> Iterator[Told]:
        names, design = self._edits.names, episode.start
        for step, action in enumerate(episode.actions):
            with suppress(RlnasError):  # an action that ended the design changed nothing
                design = self.complete(design, [action]).text
            choice = names[action] if 0 <= action < len(names) else f"action {action}"
            yield Told(f"step {step + 1} of at most {self._edits.max_edits}: edit", choice, design)

    def _networks(self, start: str, actions: Sequence[int]) -> list[tuple[int, ...]]:
        return self._edits.follow(self.space.parse(start).choices, actions)


Retracing: TypeAlias = Decisions | Edits


def retracing_of(env: dict[str, Any]) -> Retracing:
    """How designs were made in a recorded environment.

    Raises:
        ConfigurationError: if its space cannot be made here.
    """
    space = space_from_spec(env["space"])
    return Edits(ChainEdits(require_chain(space), **env["edits"])) if "edits" in env else Decisions(space)
