"""What every evaluator promises; a test class that subclasses the suite gives it an evaluator and proposals."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status


def assert_same(found: list[Evaluation], expected: list[Evaluation]) -> None:
    assert len(found) == len(expected)
    for mine, its in zip(found, expected, strict=True):
        assert mine.same_result(its), (mine, its)


class EvaluatorContract(ABC):
    """Subclass it as ``Test...`` and give the two fixtures; no test here knows what kind of evaluator it judges."""

    @abstractmethod
    def make(self) -> Evaluator:
        """A new evaluator that has seen nothing; equal at every call."""

    @abstractmethod
    def make_proposals(self) -> list[Proposal]:
        """At least four different proposals that the evaluator can serve, on at least two tasks."""

    @pytest.fixture
    def evaluator(self) -> Evaluator:
        return self.make()

    @pytest.fixture
    def proposals(self) -> list[Proposal]:
        return self.make_proposals()

    def test_satisfies_the_protocol(self, evaluator: Evaluator) -> None:
        assert isinstance(evaluator, Evaluator)

    def test_nothing_asked_nothing_answered(self, evaluator: Evaluator) -> None:
        assert evaluator.evaluate([]) == []

    def test_evaluations_are_well_formed(self, evaluator: Evaluator, proposals: list[Proposal]) -> None:
        evaluations = evaluator.evaluate(proposals)
        assert len(evaluations) == len(proposals)
        for evaluation in evaluations:
            assert 0 <= evaluation.accuracy <= 1
            assert evaluation.status is Status.OK or (evaluation.accuracy == 0 and evaluation.message)
            assert evaluation.loss is None or math.isfinite(evaluation.loss)
            assert evaluation.seconds >= 0
            assert min(evaluation.parameters, evaluation.flops) >= 0
            text = json.dumps(evaluation.to_json(), allow_nan=False)
            assert Evaluation.from_json(json.loads(text)) == evaluation
        assert any(e.status is Status.OK and e.accuracy > 0 for e in evaluations)

    def test_order_and_neighbours_make_no_difference(self, evaluator: Evaluator, proposals: list[Proposal]) -> None:
        together = evaluator.evaluate(proposals)
        alone = [self.make().evaluate([proposal])[0] for proposal in proposals]
        assert_same(together, alone)
        order = np.random.default_rng(0).permutation(len(proposals))
        shuffled = self.make().evaluate([proposals[i] for i in order])
        assert_same(shuffled, [together[i] for i in order])

    def test_torchs_threads_make_no_difference(self, proposals: list[Proposal]) -> None:
        before, found = torch.get_num_threads(), []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(self.make().evaluate(proposals))
            assert torch.get_num_threads() == threads
        torch.set_num_threads(before)
        assert_same(*found)

    def test_duplicates_get_the_same_answer(self, evaluator: Evaluator, proposals: list[Proposal]) -> None:
        doubled = evaluator.evaluate([p for proposal in proposals for p in (proposal, replace(proposal))])
        assert_same(doubled[::2], doubled[1::2])

    def test_asking_again_gets_the_same_answer(self, evaluator: Evaluator, proposals: list[Proposal]) -> None:
        assert_same(evaluator.evaluate(proposals), evaluator.evaluate(proposals))

    def test_the_spec_is_json_and_stays_equal(self, evaluator: Evaluator, proposals: list[Proposal]) -> None:
        before = json.dumps(evaluator.spec(), allow_nan=False)
        evaluator.evaluate(proposals)
        assert json.dumps(evaluator.spec(), allow_nan=False) == before == json.dumps(self.make().spec())
