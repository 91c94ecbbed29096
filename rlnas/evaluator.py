"""What an architecture is worth on a task, and who says so.

An :class:`Evaluator` takes proposals and gives evaluations, in the same order. It never raises for a candidate's own
fault: that is a :class:`Status` with the floor accuracy 0.0 and a message.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
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
        cached: whether the answer was remembered from an equal proposal.
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


class CachedEvaluator(ABC):
    """Remembers evaluations and has each of several equal proposals trained once; how, a subclass says.

    Args:
        cache_size: evaluations to remember by (canonical architecture, task digest, seed, fidelity); 0 for none.
    """

    def __init__(self, cache_size: int = 500_000) -> None:
        self.cache_size = cache_size
        self._cache: OrderedDict[tuple[str, str, int, int | None], Evaluation] = OrderedDict()

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """See :meth:`Evaluator.spec`."""

    @abstractmethod
    def _train_all(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        """One evaluation for each of the proposals, all of them different, in the same order."""

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        """See :meth:`Evaluator.evaluate`."""
        keys = [(p.architecture.key, p.task.digest, p.seed, p.steps) for p in proposals]
        unknown = {key: p for key, p in zip(keys, proposals, strict=True) if key not in self._cache}
        trained = dict(zip(unknown, self._train_all(list(unknown.values())), strict=True))
        answers = []
        for key in keys:
            if key in unknown:  # the first of equal proposals is the one that was trained
                del unknown[key]
                answers.append(trained[key])
            elif key in trained:
                answers.append(replace(trained[key], cached=True))
            else:
                self._cache.move_to_end(key)
                answers.append(replace(self._cache[key], cached=True))
        self._cache.update({key: e for key, e in trained.items() if e.status in LASTING})
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return answers
