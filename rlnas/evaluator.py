"""What an architecture is worth on a task, and who says so.

An :class:`Evaluator` takes proposals and gives evaluations, in the same order. It never raises for a candidate's own
fault: that is a :class:`Status` with the floor accuracy 0.0 and a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from rlnas.architecture import Architecture
from rlnas.task import Task


class Status(StrEnum):
    """How an evaluation ended; everything but ``OK`` has accuracy 0.0."""

    OK = "ok"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out of memory"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is sent to be evaluated. The same proposal has the same result, whatever is evaluated beside it.

    Args:
        architecture: the design.
        task: the task it adapts on.
        seed: which replicate of the random weights.
        steps: gradient steps of the adaptation, its fidelity; None for the evaluator's own number.
    """

    architecture: Architecture
    task: Task
    seed: int = 0
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What comes back.

    Args:
        accuracy: post-adaptation validation accuracy in [0, 1]; 0.0 unless ``status`` is ``OK``.
        loss: mean cross-entropy on the query set in nats; None where there is none.
        status: how it ended.
        seconds: time the evaluation took; that of the first one where ``cached``.
        parameters: trainable parameters of the network; 0 where unknown.
        flops: multiply-accumulates of one image's forward pass; 0 where unknown.
        message: what went wrong, for people.
        cached: whether the answer was remembered from an equal proposal, of this run or an earlier one.
    """

    accuracy: float
    loss: float | None = None
    status: Status = Status.OK
    seconds: float = 0.0
    parameters: int = 0
    flops: int = 0
    message: str = ""
    cached: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Evaluation:
        return cls(**{**data, "status": Status(data["status"])})

    def same_result(self, other: Evaluation) -> bool:
        """Whether both say the same of the network, however long they took."""
        mine, its = (replace(e, seconds=0.0, cached=False, message="") for e in (self, other))
        return mine == its


@runtime_checkable
class Evaluator(Protocol):
    """Gives each proposal its evaluation."""

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        """One evaluation for each proposal, in the same order; each depends on its proposal alone."""
        ...

    def spec(self) -> dict[str, Any]:
        """A JSON object; what :func:`rlnas.specs.evaluator_from_spec` makes of it gives equal results."""
        ...


LASTING = (Status.OK, Status.DIVERGED, Status.INVALID)
"""What follows from the proposal alone and is worth remembering; the rest may go better another time."""
