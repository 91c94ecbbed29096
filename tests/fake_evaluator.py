"""Evaluators that train nothing, for tests of whatever asks one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rlnas.evaluator import Evaluation, Proposal


def fake_accuracy(proposal: Proposal) -> float:
    """An accuracy in 0.01 .. 1.00 that follows from architecture, task and seed alone."""
    said = repr((proposal.architecture.key, proposal.task.digest, proposal.seed))
    return (1 + int(hashlib.sha256(said.encode()).hexdigest(), 16) % 100) / 100


class FakeEvaluator:
    """Answers :func:`fake_accuracy`, or the given accuracies one after another, and keeps what it was asked."""

    def __init__(self, accuracies: Iterable[float] | None = None) -> None:
        self.calls: list[list[Proposal]] = []
        self._accuracies: Iterator[float] | None = None if accuracies is None else iter(accuracies)

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        self.calls.append(list(proposals))
        if self._accuracies is not None:
            return [Evaluation(next(self._accuracies)) for _ in proposals]
        return [Evaluation(fake_accuracy(proposal)) for proposal in proposals]

    def spec(self) -> dict[str, Any]:
        return {"kind": "fake"}
