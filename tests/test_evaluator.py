from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlnas import network as network_module
from rlnas.adaptation import Adaptation
from rlnas.device import choose_device
from rlnas.digits import DigitsSource
from rlnas.errors import ConfigurationError
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.graph import count_flops, count_parameters
from rlnas.search_space import CellSpace, ChainSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.tabular_evaluator import TableTask
from rlnas.task import FewShotTask

from .contracts.evaluator import EvaluatorContract

CHAIN = ChainSpace(max_layers=4, widths=(4, 8), dense_widths=(16,))
CELL = CellSpace(width=4)
FAST = Adaptation(steps=4)
TASK = DigitsSource().task("train", 0)


def proposals() -> list[Proposal]:
    rng, source = np.random.default_rng(0), DigitsSource()
    designs = [CHAIN.sample(rng), CELL.sample(rng), CHAIN.sample(rng), CELL.decode([0] * 6)]
    return [Proposal(design, source.task("train", index), index) for design in designs for index in (0, 1)]


class TestSequentialEvaluator(EvaluatorContract):
    def make(self) -> Evaluator:
        return SequentialEvaluator(FAST)

    def make_proposals(self) -> list[Proposal]:
        return proposals()


class TestWithoutCache(EvaluatorContract):
    def make(self) -> Evaluator:
        return SequentialEvaluator(FAST, cache_size=0)

    def make_proposals(self) -> list[Proposal]:
        return proposals()


def test_what_an_evaluation_says() -> None:
    architecture = CHAIN.parse("conv3x3-8 > max-pool > dense-16")
    (found,) = SequentialEvaluator().evaluate([Proposal(architecture, TASK)])
    assert found.status is Status.OK
    assert found.accuracy > 1.5 / TASK.ways
    assert found.loss is not None
    assert found.seconds > 0
    assert found.parameters == count_parameters(architecture.graph(TASK.ways), TASK.image_shape)
    assert found.flops == count_flops(architecture.graph(TASK.ways), TASK.image_shape)
    assert not found.cached
    assert found.message == ""


def test_seeds_are_replicates() -> None:
    architecture = CHAIN.parse("conv3x3-8 > max-pool > dense-16")
    losses = {e.loss for e in SequentialEvaluator(FAST).evaluate([Proposal(architecture, TASK, s) for s in range(4)])}
    assert len(losses) == 4


def test_results_do_not_depend_on_the_global_generator() -> None:
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        runs.append(SequentialEvaluator(FAST).evaluate(proposals()))
        assert torch.equal(torch.get_rng_state(), before)
    assert all(a.same_result(b) for a, b in zip(*runs, strict=True))


def test_a_remembered_answer_is_marked_and_equal() -> None:
    evaluator = SequentialEvaluator(FAST)
    conv, none = (CHAIN.decisions[0].choices.index(name) for name in ("conv3x3-4", "identity"))
    twins = [CHAIN.decode([conv, none, none, none]), CHAIN.decode([none, none, conv, none])]
    first, second = evaluator.evaluate([Proposal(twin, TASK) for twin in twins])
    assert not first.cached
    assert second == replace(first, cached=True)
    other_seed, other_task = evaluator.evaluate(
        [Proposal(twins[0], TASK, 1), Proposal(twins[0], DigitsSource().task("train", 1))]
    )
    assert not other_seed.cached
    assert not other_task.cached


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_gets_the_same_answers(mode: Callable[[], AbstractContextManager[None]]) -> None:
    expected = SequentialEvaluator(FAST).evaluate(proposals())
    with mode():
        found = SequentialEvaluator(FAST).evaluate(proposals())
    assert all(a.same_result(b) for a, b in zip(found, expected, strict=True))


def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    evaluator = SequentialEvaluator(Adaptation(steps=0), cache_size=2)
    a, b, c = (Proposal(CHAIN.parse("identity"), TASK, seed) for seed in range(3))
    for proposal in (a, b, a, c):  # c takes the place of b
        evaluator.evaluate([proposal])
    assert [e.cached for e in evaluator.evaluate([a, c])] == [True, True]
    assert [e.cached for e in evaluator.evaluate([b, c])] == [False, True]
    assert not evaluator.evaluate([a])[0].cached


def test_without_a_cache_nothing_is_remembered() -> None:
    evaluator = SequentialEvaluator(Adaptation(steps=0), cache_size=0)
    proposal = Proposal(CHAIN.parse("identity"), TASK)
    assert [evaluator.evaluate([proposal])[0].cached for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("text", ["conv3x3-8 > max-pool", "dense-16 > dense-16", "identity"])
def test_a_diverged_network_is_worth_nothing(text: str) -> None:
    evaluator = SequentialEvaluator(Adaptation(steps=20, learning_rate=1e38))
    (found,) = evaluator.evaluate([Proposal(CHAIN.parse(text), TASK)])
    assert found.status is Status.DIVERGED
    assert found.accuracy == 0.0
    assert found.loss is None
    assert found.message
    assert found.parameters > 0
    json.dumps(found.to_json(), allow_nan=False)


def test_an_image_too_small_is_the_candidates_fault() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.random((4, 1, 3, 3)), np.array([0, 1, 0, 1])
    small = FewShotTask("t:train/0", "noise", images, labels, images, labels)
    deep, shallow = CHAIN.parse("max-pool > max-pool"), CHAIN.parse("max-pool")
    bad, good = SequentialEvaluator(FAST).evaluate([Proposal(deep, small), Proposal(shallow, small)])
    assert bad.status is Status.INVALID
    assert bad.accuracy == 0
    assert "does not fit (1, 3, 3) images" in bad.message
    assert good.status is Status.OK


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore"), Status.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), Status.OUT_OF_MEMORY),
        (MemoryError(), Status.OUT_OF_MEMORY),
        (RuntimeError("cuDNN error"), Status.CRASHED),
    ],
)
def test_a_candidate_that_fails_harms_no_other(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: Status
) -> None:
    def forward(self: network_module.Network, images: torch.Tensor) -> torch.Tensor:
        if len(self.nodes) > 2:
            raise error
        return original(self, images)

    original = network_module.Network.forward
    monkeypatch.setattr(network_module.Network, "forward", forward)
    good, bad = CHAIN.parse("identity"), CHAIN.parse("dense-16 > dense-16")
    found = SequentialEvaluator(FAST).evaluate([Proposal(a, TASK) for a in (good, bad, good)])
    assert [e.status for e in found] == [Status.OK, status, Status.OK]
    assert found[1].accuracy == 0
    assert found[1].message
    assert "\n" not in found[1].message


def test_a_candidate_that_had_bad_luck_is_tried_again_but_a_bad_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: network_module.Network, images: torch.Tensor) -> torch.Tensor:
        if lucky:
            return original(self, images)
        raise MemoryError

    original, lucky = network_module.Network.forward, False
    monkeypatch.setattr(network_module.Network, "forward", forward)
    evaluator, proposal = SequentialEvaluator(FAST), Proposal(CHAIN.parse("identity"), TASK)
    assert evaluator.evaluate([proposal])[0].status is Status.OUT_OF_MEMORY
    lucky = True
    again = evaluator.evaluate([proposal])[0]
    assert (again.status, again.cached) == (Status.OK, False)
    assert evaluator.evaluate([proposal])[0].cached


def test_a_network_larger_than_the_memory_is_the_candidates_fault() -> None:
    space = ChainSpace(dense_widths=(2**44,))
    (found,) = SequentialEvaluator(FAST).evaluate([Proposal(space.parse(f"dense-{2**44}"), TASK)])
    assert found.status is Status.OUT_OF_MEMORY
    assert "allocate" in found.message


def test_a_task_without_images_is_the_callers_fault() -> None:
    column = TableTask("t:all/0", "images", "cifar10", "digest")
    with pytest.raises(ConfigurationError, match="task t:all/0 has no images to train on"):
        SequentialEvaluator(FAST).evaluate([Proposal(CHAIN.parse("identity"), column)])


def test_evaluations_survive_json() -> None:
    evaluation = Evaluation(0.5, 1.25, Status.OK, 0.1, 7, 8, "", True)
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json()))) == evaluation
    assert evaluation.same_result(replace(evaluation, seconds=9.0, cached=False))
    assert not evaluation.same_result(replace(evaluation, accuracy=0.51))
    assert not evaluation.same_result(replace(evaluation, status=Status.TIMEOUT))


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigurationError, match="device must be auto, cpu or cuda, got 'tpu'"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_an_absent_device_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="finds no CUDA device; use cpu or auto"):
        SequentialEvaluator(device="cuda")
