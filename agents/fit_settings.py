"""What is asked of a fit: the search, its limits, and how the winner is trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rlnas.architecture import Architecture
from rlnas.errors import at_least, in_range, one_of, positive
from rlnas.final_training import FinalTraining
from rlnas.leaderboard import Leaderboard
from rlnas.pareto import OBJECTIVES
from rlnas.rungs import Rung, ladder
from rlnas.user_data import UserData
from rlnas.user_source import UserSource
from rlnas.wide_network import Limits

from .data_search import SearchPlan

EXAMPLES, STEPS = 250, 30
"""The first rung, unless told otherwise; where there are many classes, examples are two for each of them."""
LEAST_TRAINING = 0.2
"""The share of the time that is left to the final training whatever the search took."""


@dataclass(frozen=True)
class FitSettings:
    """What to do with a user's data; kept as ``config.json`` in a run's folder.

    Raises:
        ConfigurationError: if a value is not allowed.
    """

    agent: str = "pretrained"
    """Who proposes designs: see :func:`rlnas.agents.registry.resolve_agent`."""

    designs: int = 20
    """Designs to propose."""

    fidelity: str | None = None
    """EXAMPLESxSTEPS that every design is evaluated with at first; by default 250x30."""

    rungs: int = 3
    """Rungs of successive halving: a third of the designs goes on to twice the examples and steps, rung by rung."""

    finalists: int = 1
    """So many designs, the best of the search, are trained at full width for a sixth of the final training's schedule;
    the best of these is trained to the end. 1 for the best of the search."""

    validation: float = 0.2
    """Fraction of the data that designs are compared on."""

    test: float = 0.2
    """Fraction of the data that the search never sees; unused where the data has an official test part."""

    seed: int = 0
    """Of everything random."""

    max_seconds: float | None = None
    """Time for search and training, at most half of it for the search; writing the files comes on top."""

    max_params: int | None = None
    """Of the trained network, which is made no wider than this allows. Designs beyond it at the search's width, or at
    the one that ``training`` sets, are not trained and count as useless."""

    max_flops: int | None = None
    """Likewise multiply-accumulates of one example; by default :data:`rlnas.wide_network.FULL_FLOPS`, which refuses no
    design."""

    pareto: tuple[str, ...] = ()
    """Of :data:`rlnas.pareto.OBJECTIVES`, those to show the designs' accuracy against."""

    training: FinalTraining = field(default_factory=FinalTraining)
    """How the winner is trained; its ``seed`` and ``max_seconds`` are those above."""

    def __post_init__(self) -> None:
        limits = self.limits
        kept = {  # numbers of numpy become Python's
            "designs": at_least("designs", self.designs, 1),
            "rungs": at_least("rungs", self.rungs, 1),
            "finalists": at_least("finalists", self.finalists, 1),
            "seed": at_least("seed", self.seed, 0),
            "fidelity": None if self.fidelity is None else str(Rung.parse(self.fidelity)),
            "validation": in_range("validation", self.validation, 0, 1),
            "test": in_range("test", self.test, 0, 1),
            "max_seconds": None if self.max_seconds is None else positive("max_seconds", self.max_seconds),
            "max_params": limits.max_params,
            "max_flops": limits.max_flops,
            "pareto": tuple(one_of("objective", name, OBJECTIVES) for name in self.pareto),
        }
        for name, value in kept.items():
            object.__setattr__(self, name, value)

    @property
    def limits(self) -> Limits:
        """Of the network that is trained fully."""
        return Limits(self.training.width, self.max_params, self.max_flops)

    def plan(self, ways: int) -> SearchPlan:
        """The search's part, for data of so many classes."""
        first = Rung(max(EXAMPLES, 2 * ways), STEPS) if self.fidelity is None else Rung.parse(self.fidelity)
        return SearchPlan(
            self.agent,
            self.designs,
            tuple(ladder(first, self.rungs)),
            self.seed,
            self.limits,
            self.max_seconds,
        )

    def source(self, data: UserData) -> UserSource:
        """The division of the data and the tasks that are searched on."""
        examples = [rung.examples for rung in self.plan(data.ways).rungs]
        return UserSource(data, examples, seed=self.seed, validation=self.validation, test=self.test)

    def time_left(self, board: Leaderboard) -> float | None:
        """For the final training; the same whenever it is asked for, as the training's settings must be."""
        if self.max_seconds is None:
            return None
        return max(self.max_seconds - board.seconds, LEAST_TRAINING * self.max_seconds)

    def full_training(self, data: UserData, found: Architecture, seconds: float | None) -> FinalTraining:
        """How an architecture is trained at its full width."""
        width = self.limits.width_of(found, data.ways, data.input_shape)
        return replace(self.training, width=width, seed=self.seed, max_seconds=seconds)
