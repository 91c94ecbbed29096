"""Evaluations from a meta-learned start: worth having, told apart, and made again from their description."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from rlnas.adaptation import Adaptation
from rlnas.digits import DigitsSource
from rlnas.errors import CheckpointError, ConfigurationError
from rlnas.evaluator import Evaluator, Proposal, Status
from rlnas.initialisation import Initialisation
from rlnas.meta_training import MetaTraining, meta_train
from rlnas.search_space import CellSpace, ChainSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.specs import evaluator_from_spec
from rlnas.task import Task

from .contracts.evaluator import EvaluatorContract

SPACE = ChainSpace(max_layers=3, widths=(8,), dense_widths=(32,))
SOURCE = DigitsSource()
FEW = Adaptation(3, 0.1, 0.5, "maml")


@lru_cache
def similar_tasks(split: str) -> list[Task]:
    families = ("plain", "coarse", "noisy", "rotated")
    return [task for i in range(120) if (task := SOURCE.task(split, i)).family in families]


@lru_cache
def learned(method: str, iterations: int = 60) -> Initialisation:
    tasks = similar_tasks("train")
    settings = MetaTraining(iterations, 4, 0.01)
    return meta_train(SPACE, lambda rng: tasks[int(rng.integers(len(tasks)))], replace(FEW, method=method), settings)


def proposals(count: int = 8) -> list[Proposal]:
    rng = np.random.default_rng(1)
    return [Proposal(SPACE.sample(rng), task) for task in similar_tasks("test")[:count]]


def mean_accuracy(evaluator: Evaluator) -> float:
    return float(np.mean([e.accuracy for e in evaluator.evaluate(proposals(40))]))


class TestMetaLearnedStart(EvaluatorContract):
    def make(self) -> Evaluator:
        return SequentialEvaluator(init=learned("reptile"))

    def make_proposals(self) -> list[Proposal]:
        return proposals()


class TestPrototypes(EvaluatorContract):
    def make(self) -> Evaluator:
        return SequentialEvaluator(init=learned("prototype", 3))

    def make_proposals(self) -> list[Proposal]:
        return proposals()


@pytest.mark.parametrize("method", ["maml", "reptile"])
def test_a_learned_start_helps_on_unseen_tasks(method: str) -> None:
    scratch = mean_accuracy(SequentialEvaluator(replace(FEW, method="sgd")))
    init = learned(method)
    assert mean_accuracy(SequentialEvaluator(init=init)) > scratch + 0.1
    assert mean_accuracy(SequentialEvaluator(replace(FEW, method="sgd"), init=init)) > scratch + 0.1


def test_learned_embeddings_are_better_than_random_ones() -> None:
    untrained, init = learned("prototype", 1), learned("prototype")
    assert mean_accuracy(SequentialEvaluator(init=init)) > mean_accuracy(SequentialEvaluator(init=untrained)) + 0.05


@pytest.mark.parametrize("method", ["anil", "meta-sgd", "relation"])
def test_every_method_evaluates(method: str) -> None:
    found = SequentialEvaluator(init=learned(method, 2)).evaluate(proposals())
    assert all(e.status is Status.OK for e in found)


def test_meta_sgd_uses_its_learned_rates() -> None:
    init = learned("meta-sgd", 2)
    still = replace(init, rates={name: torch.zeros_like(rate) for name, rate in init.rates.items()})
    for evaluation, proposal in zip(SequentialEvaluator(init=still).evaluate(proposals(2)), proposals(2), strict=True):
        task = proposal.task
        assert evaluation.accuracy == pytest.approx(1 / task.ways)  # type: ignore[attr-defined]


def test_comparisons_answer_whatever_the_fidelity() -> None:
    evaluator = SequentialEvaluator(init=learned("prototype", 3))
    few, many = evaluator.evaluate([replace(proposals(1)[0], steps=steps) for steps in (1, 9)])
    assert few.same_result(many)


def test_a_disconnected_design_scores_chance() -> None:
    task = similar_tasks("test")[0]
    for method in ("maml", "prototype", "relation"):
        (found,) = SequentialEvaluator(init=learned(method, 2)).evaluate([Proposal(CellSpace().decode([0] * 6), task)])
        assert found.accuracy == pytest.approx(1 / task.ways)  # type: ignore[attr-defined]


def test_a_description_makes_an_equal_evaluator(tmp_path: Path) -> None:
    learned("reptile").save(tmp_path / "init")
    evaluator = SequentialEvaluator(replace(FEW, steps=2), init=tmp_path / "init")
    spec = json.loads(json.dumps(evaluator.spec()))
    assert spec["init"] == {"path": str(tmp_path / "init"), "digest": learned("reptile").digest}
    again = evaluator_from_spec(spec)
    assert again.spec() == spec
    pairs = zip(evaluator.evaluate(proposals()), again.evaluate(proposals()), strict=True)
    assert all(a.same_result(b) for a, b in pairs)


def test_an_evaluator_without_a_start_does_not_speak_of_one() -> None:
    assert "init" not in SequentialEvaluator().spec()


def test_other_contents_than_those_described_are_refused(tmp_path: Path) -> None:
    learned("reptile").save(tmp_path)
    spec = SequentialEvaluator(init=tmp_path).spec()
    learned("reptile", 2).save(tmp_path)
    with pytest.raises(CheckpointError, match="not the meta-learned start that the record was made with"):
        evaluator_from_spec(spec)


def test_a_start_that_does_not_serve_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="adaptation maml needs a meta-learned start"):
        SequentialEvaluator(FEW)
    with pytest.raises(ConfigurationError, match="anil cannot begin from a start that was learned for reptile"):
        SequentialEvaluator(replace(FEW, method="anil"), init=learned("reptile"))


def test_a_start_at_fault_is_not_the_candidates_fault() -> None:
    good = learned("reptile")
    wrong = replace(good, weights={name: torch.zeros(1, 2, 3) for name in good.weights})
    with pytest.raises(CheckpointError, match="no tensor"):
        SequentialEvaluator(init=wrong).evaluate(proposals())
