from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlnas import batched_evaluator, stacked_operations
from rlnas import population as population_module
from rlnas.adaptation import METHODS, Adaptation, Score, adapt, relation_shapes, score_logits, standardise
from rlnas.batched_evaluator import BatchedEvaluator
from rlnas.device import one_thread
from rlnas.digits import DigitsSource
from rlnas.errors import CheckpointError, ConfigurationError
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.graph import input_shapes
from rlnas.initialisation import Initialisation, rate_name, tensor_names
from rlnas.network import build_network, parameter_shapes
from rlnas.population import Population
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.specs import evaluator_from_spec
from rlnas.tabular_evaluator import TableTask
from rlnas.task import FewShotTask

from .contracts.evaluator import EvaluatorContract, assert_same

SOURCE = DigitsSource()
CHAIN = ChainSpace(max_layers=4, widths=(4, 8), dense_widths=(16,))
CELL = CellSpace(width=4)
FAST = Adaptation(steps=4)
TASK = SOURCE.task("train", 0)
TILES = [None, (5, 25)]
EXACTLY_A_TILE = 25, 97, 207  # tasks of as many support images as a tile holds


def sample(space: SearchSpace, count: int, seed: int = 0) -> list[Proposal]:
    """Random designs, each on a digit task of its own: other ways, shots, families and image sizes."""
    rng = np.random.default_rng(seed)
    return [Proposal(space.sample(rng), SOURCE.task("train", i % 100), i) for i in range(count)]


@lru_cache
def proposals() -> list[Proposal]:
    """Chains and cells, one of which joins input and output by nothing, in turn on twelve tasks."""
    found = [*sample(CHAIN, 9), *sample(CELL, 9, 1), Proposal(CELL.decode([0] * 6), TASK)]
    return [replace(p, task=SOURCE.task("train", i % 12)) for i, p in enumerate(found)]


class TestBatchedEvaluator(EvaluatorContract):
    def make(self) -> Evaluator:
        return BatchedEvaluator(FAST)

    def make_proposals(self) -> list[Proposal]:
        return proposals()


class TestWithTiles(EvaluatorContract):
    def make(self) -> Evaluator:
        return BatchedEvaluator(FAST, tiles=(5, 25))

    def make_proposals(self) -> list[Proposal]:
        return proposals()


class Recorded(BatchedEvaluator):
    """Remembers the logits of the query images, by the number of the proposal."""

    def _train_all(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        self.recorded: dict[int, Tensor] = {}
        return super()._train_all(proposals)

    def _logits(self, batch: Any, data: Any) -> list[Tensor]:
        found = super()._logits(batch, data)
        self.recorded.update(zip((c.index for c in batch), found, strict=True))
        return found


def reference(proposal: Proposal, adaptation: Adaptation) -> tuple[Tensor, Score]:
    """Logits of the query images and what they are worth, in float64."""
    assert isinstance(proposal.task, FewShotTask)
    network = build_network(proposal.architecture, proposal.task, proposal.seed).double()
    support_x, support_y, query_x, query_y = standardise(proposal.task, torch.device("cpu"))
    adapt(network, support_x.double(), support_y, adaptation)
    with torch.no_grad():
        logits = network.eval()(query_x.double())
    return logits, score_logits(logits, query_y)


def images_apart(found: Evaluation, expected: Evaluation | Score, proposal: Proposal) -> int:
    assert isinstance(proposal.task, FewShotTask)
    return round(abs(found.accuracy - expected.accuracy) * len(proposal.task.query_x))


@pytest.mark.parametrize(
    "count", [6, pytest.param(200, marks=pytest.mark.slow)], ids=["some architectures", "many architectures"]
)
@pytest.mark.parametrize("space", [ChainSpace(), CellSpace()], ids=["chain", "cell"])
def test_it_equals_the_reference(space: SearchSpace, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64 but for rounding, and in float32 to within one query image for 99 % of the architectures."""
    adaptation, them = Adaptation(10), sample(space, count, 7)
    with one_thread():
        exact = [reference(proposal, adaptation) for proposal in them]
    for tiles in TILES:
        evaluator = Recorded(adaptation, tiles=tiles)
        with monkeypatch.context() as patch:
            patch.setattr(population_module, "Population", partial(Population, dtype=torch.float64))
            found = evaluator.evaluate(them)
        assert len(evaluator.recorded) > 0.9 * count  # the others give constants
        for number, logits in evaluator.recorded.items():
            assert (logits - exact[number][0]).abs().max() < 1e-8
        assert [e.accuracy for e in found] == [score.accuracy for _, score in exact]
    expected = SequentialEvaluator(adaptation).evaluate(them)
    for tiles in TILES:
        pairs = zip(BatchedEvaluator(adaptation, tiles=tiles).evaluate(them), expected, them, strict=True)
        assert np.mean([images_apart(mine, its, proposal) <= 1 for mine, its, proposal in pairs]) >= 0.99


def learned(method: str, them: Sequence[Proposal]) -> Initialisation:
    """A start of every tensor that the proposals' networks have, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}
    rates: dict[str, Tensor] = {}
    for proposal in them:
        assert isinstance(proposal.task, FewShotTask)
        graph, image = proposal.architecture.graph(proposal.task.ways), proposal.task.image_shape
        for node, names, shape in zip(graph, tensor_names(graph, image), input_shapes(graph, image), strict=True):
            for name, size in zip(names, parameter_shapes(node.operation, shape), strict=True):
                own = torch.randn(size, generator=generator) * (2 / max(1, np.prod(size[1:]))) ** 0.5
                rate = torch.rand((1, *size[1:]) if "classifier" in name else size, generator=generator) * 0.05
                if "classifier" not in name:
                    weights.setdefault(name, 1 + own / 10 if name.endswith("scale") else own)
                rates.setdefault(rate_name(name), rate)
    head = tuple(torch.randn(size, generator=generator) for size in relation_shapes()) if method == "relation" else ()
    adaptation = Adaptation(5, 0.05, method=method)
    return Initialisation(weights, adaptation, rates if method == "meta-sgd" else {}, head)


@pytest.mark.parametrize(("clip", "tiles"), [(None, None), (0.5, (5, 25))], ids=["whole sets", "tiles, clipped"])
@pytest.mark.parametrize("method", ["sgd", "fomaml", "anil", "meta-sgd", "prototype", "relation"])
def test_every_way_to_adapt_equals_the_reference(method: str, clip: float | None, tiles: Sequence[int] | None) -> None:
    them = [replace(p, steps=(None, 0, 1, 7)[i % 4]) for i, p in enumerate(proposals())]
    start = None if method == "sgd" else learned(METHODS[method].starts[-1], them)
    adaptation = Adaptation(5, 0.05, method=method, clip=clip)
    expected = SequentialEvaluator(adaptation, init=start).evaluate(them)
    found = BatchedEvaluator(adaptation, init=start, tiles=tiles).evaluate(them)
    assert len({e.loss for e in expected}) > 12  # not all alike
    for mine, its in zip(found, expected, strict=True):
        assert mine.status is its.status is Status.OK
        assert mine.loss == pytest.approx(its.loss, rel=2e-3)
        assert mine.accuracy == pytest.approx(its.accuracy, abs=0.05)
        assert (mine.parameters, mine.flops) == (its.parameters, its.flops)
    assert np.mean([a.accuracy == b.accuracy for a, b in zip(found, expected, strict=True)]) > 0.8


@pytest.mark.parametrize("tiles", TILES)
def test_nobody_feels_the_neighbours(tiles: Sequence[int] | None) -> None:
    """In halves, in another order, beside themselves, beside one that diverges, and whatever the batches' size."""
    ways = Adaptation(6, 0.1, clip=1.0)
    design = CHAIN.parse("conv3x3-8 > max-pool > conv3x3-8")
    alike = [Proposal(design, SOURCE.task("train", index)) for index in (*EXACTLY_A_TILE, 0, 2, 5, 8)]
    them = [replace(p, steps=(None, 2)[i % 2]) for i, p in enumerate([*proposals()[::2], *alike])]

    def evaluate(chosen: Sequence[Proposal], **options: Any) -> list[Evaluation]:
        return BatchedEvaluator(ways, cache_size=0, tiles=tiles, **options).evaluate(chosen)

    together = evaluate(them)
    assert {e.status for e in together} == {Status.OK}
    half = len(them) // 2
    assert_same([*evaluate(them[:half]), *evaluate(them[half:])], together)
    order = np.random.default_rng(0).permutation(len(them))
    assert_same(evaluate([them[i] for i in order]), [together[i] for i in order])
    assert_same(evaluate([*them, *[replace(p) for p in them]]), [*together, *together])
    assert_same([evaluate([p])[0] for p in alike], evaluate(alike))


def test_large_networks_are_trained_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which they are, follows from each alone; what comes of it, is the same but for rounding."""
    them = proposals()
    together = BatchedEvaluator(FAST).evaluate(them)
    limit = float(np.median([batched_evaluator._Candidate.of(0, p, p.task, FAST, ()).bytes for p in them]))
    monkeypatch.setattr(batched_evaluator, "CPU_ALONE_BYTES", limit)
    found = BatchedEvaluator(FAST).evaluate(them)
    assert_same([BatchedEvaluator(FAST).evaluate([p])[0] for p in them], found)
    apart = [mine.loss != its.loss for mine, its in zip(found, together, strict=True)]
    assert 0 < sum(apart) < len(them)
    assert [e.loss for e in found] == pytest.approx([e.loss for e in together], rel=1e-3)


@pytest.mark.parametrize("tiles", TILES)
def test_one_that_diverges_harms_no_other(tiles: Sequence[int] | None) -> None:
    wild = Adaptation(1, 1e38)
    calm = [replace(p, steps=0) for p in proposals()]
    diverging = [replace(p, steps=20) for p in proposals()[::2]]
    expected = BatchedEvaluator(wild, tiles=tiles).evaluate(calm)
    found = BatchedEvaluator(wild, tiles=tiles).evaluate([*diverging, *calm])
    assert_same(found[len(diverging) :], expected)
    statuses = [e.status for e in found[: len(diverging)]]
    assert statuses == [e.status for e in SequentialEvaluator(wild).evaluate(diverging)]
    assert statuses.count(Status.DIVERGED) > 5
    for evaluation in found[: len(diverging)]:
        if evaluation.status is Status.DIVERGED:
            assert (evaluation.accuracy, evaluation.loss) == (0.0, None)
            assert evaluation.message


@pytest.mark.parametrize("method", ["sgd", "prototype", "relation"])
def test_a_design_without_a_path_scores_exactly_chance(method: str) -> None:
    constant = CELL.decode([0] * 6)
    them = [Proposal(constant, SOURCE.task("train", i)) for i in range(5)] + proposals()
    start = None if method == "sgd" else learned(method, them)
    evaluator = BatchedEvaluator(Adaptation(method=method), init=start)
    for proposal, found in zip(them[:5], evaluator.evaluate(them), strict=False):
        assert isinstance(proposal.task, FewShotTask)
        assert found.accuracy == 1 / proposal.task.ways
        assert found.loss == pytest.approx(np.log(proposal.task.ways))
        assert found.parameters == 0


def test_images_that_do_not_fit_are_the_candidates_fault() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.random((4, 1, 3, 3)), np.array([0, 1, 0, 1])
    small = FewShotTask("t:train/0", "noise", images, labels, images, labels)
    deep, shallow = CHAIN.parse("max-pool > max-pool"), CHAIN.parse("max-pool")
    them = [Proposal(deep, small), Proposal(shallow, small), Proposal(shallow, TASK)]
    found, expected = BatchedEvaluator(FAST).evaluate(them), SequentialEvaluator(FAST).evaluate(them)
    assert [e.status for e in found] == [Status.INVALID, Status.OK, Status.OK]
    assert found[0].message == expected[0].message


@pytest.mark.parametrize("steps", [-1, 1.5])
def test_impossible_steps_are_the_candidates_fault(steps: Any) -> None:
    constant = Proposal(CELL.decode([0] * 6), TASK)
    them = [replace(proposals()[0], steps=steps), proposals()[0], replace(constant, steps=steps)]
    found, expected = BatchedEvaluator(FAST).evaluate(them), SequentialEvaluator(FAST).evaluate(them)
    assert [e.status for e in found] == [e.status for e in expected] == [Status.INVALID, Status.OK, Status.INVALID]
    assert found[0].message == expected[0].message


def test_a_task_without_images_is_the_callers_fault() -> None:
    column = TableTask("t:all/0", "images", "cifar10", "digest")
    with pytest.raises(ConfigurationError, match="task t:all/0 has no images to train on"):
        BatchedEvaluator(FAST).evaluate([proposals()[0], Proposal(CHAIN.parse("identity"), column)])


def test_a_start_at_fault_is_not_the_candidates_fault() -> None:
    good = learned("reptile", proposals())
    wrong = replace(good, weights={name: torch.zeros(1, 2, 3) for name in good.weights})
    with pytest.raises(CheckpointError, match="no tensor"):
        BatchedEvaluator(init=wrong).evaluate(proposals())


def test_what_needs_more_memory_than_there_is_is_not_tried() -> None:
    space = ChainSpace(dense_widths=(2**44, 16))
    big, small = (Proposal(space.parse(text), TASK) for text in (f"dense-{2**44}", "dense-16"))
    (expected,) = BatchedEvaluator(FAST).evaluate([small])
    for options in ({}, {"memory": 10_000_000}):
        found = BatchedEvaluator(FAST, **options).evaluate([big, small])
        assert found[0].status is Status.OUT_OF_MEMORY
        assert found[0].accuracy == 0
        assert "GB" in found[0].message
        assert found[0].parameters > 2**44
        assert_same(found[1:], [expected])
    assert {e.status for e in BatchedEvaluator(FAST, memory=1).evaluate([small])} == {Status.OUT_OF_MEMORY}


def test_less_memory_makes_smaller_batches_and_the_same_results() -> None:
    expected = BatchedEvaluator(FAST, tiles=(5, 25)).evaluate(proposals())
    sizes: list[list[int]] = []

    class Counted(BatchedEvaluator):
        def _scores(self, batch: Any) -> list[Score]:
            sizes[-1].append(len(batch))
            return super()._scores(batch)

    for memory in (10**9, 10_000_000):
        sizes.append([])
        assert_same(Counted(FAST, memory=memory, tiles=(5, 25)).evaluate(proposals()), expected)
    assert sum(sizes[0]) == sum(sizes[1]) == len(proposals())
    assert max(sizes[1]) < max(sizes[0])
    assert len(sizes[1]) > len(sizes[0])


ERRORS = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore"), Status.OUT_OF_MEMORY),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), Status.OUT_OF_MEMORY),
    (MemoryError(), Status.OUT_OF_MEMORY),
    (RuntimeError("cuDNN error"), Status.CRASHED),
]


@pytest.mark.parametrize(("error", "status"), ERRORS, ids=str)
def test_a_batch_is_divided_until_only_the_culprit_fails(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: Status
) -> None:
    def forward(self: stacked_operations.StackedDense, *arguments: Any) -> Any:
        if self.shape == (16,):  # the classifier of one, or what the culprit reads in its second layer
            raise error
        return original(self, *arguments)

    space = ChainSpace(max_layers=3, widths=(4, 8), dense_widths=(16,))
    texts = ("conv3x3-4", "dense-16", "identity", "conv3x3-8 > max-pool", "max-pool", "avg-pool > conv3x3-4")
    them = [Proposal(space.parse(text), TASK, seed) for text in texts for seed in range(1 + (text != "dense-16"))]
    expected = BatchedEvaluator(FAST).evaluate(them)
    original = stacked_operations.StackedDense.forward
    monkeypatch.setattr(stacked_operations.StackedDense, "forward", forward)
    found = BatchedEvaluator(FAST).evaluate(them)
    (culprit,) = (i for i, p in enumerate(them) if p.architecture.text == "dense-16")
    assert found[culprit].status is status
    assert (found[culprit].accuracy, found[culprit].loss) == (0.0, None)
    assert found[culprit].message
    assert "\n" not in found[culprit].message
    others = [i for i in range(len(them)) if i != culprit]
    assert {found[i].status for i in others} == {Status.OK}
    assert_same([found[i] for i in others], [expected[i] for i in others])


def test_a_divided_batch_has_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def adapt_few(self: Population, *arguments: Any) -> None:
        assert not [one for one in earlier if one() is not None]
        earlier.append(weakref.ref(self))
        if len(self) > 1:
            raise MemoryError
        original(self, *arguments)

    earlier: list[weakref.ref[Population]] = []
    original = Population.adapt
    monkeypatch.setattr(Population, "adapt", adapt_few)
    them = [replace(proposals()[0], seed=seed) for seed in range(4)]
    assert {e.status for e in BatchedEvaluator(FAST).evaluate(them)} == {Status.OK}
    assert len(earlier) == 1 + 2 + 4


def test_one_that_had_bad_luck_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(self: Population, *arguments: Any) -> None:
        raise MemoryError

    evaluator = BatchedEvaluator(FAST)
    with monkeypatch.context() as patch:
        patch.setattr(Population, "adapt", out_of_memory)
        assert evaluator.evaluate(proposals()[:1])[0].status is Status.OUT_OF_MEMORY
    again = evaluator.evaluate(proposals()[:1])[0]
    assert (again.status, again.cached) == (Status.OK, False)


def test_networks_are_trained_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def adapt_and_count(self: Population, *arguments: Any) -> None:
        threads.add(torch.get_num_threads())
        original(self, *arguments)

    threads: set[int] = set()
    original, before = Population.adapt, torch.get_num_threads()
    monkeypatch.setattr(Population, "adapt", adapt_and_count)
    torch.set_num_threads(2)
    BatchedEvaluator(FAST).evaluate(proposals()[:2])
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert threads == {1}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_mode_makes_no_difference(mode: Callable[[], AbstractContextManager[None]]) -> None:
    expected = BatchedEvaluator(FAST).evaluate(proposals())
    with mode():
        found = BatchedEvaluator(FAST).evaluate(proposals())
    assert_same(found, expected)


def test_results_do_not_depend_on_the_global_generator() -> None:
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        runs.append(BatchedEvaluator(FAST).evaluate(proposals()))
        assert torch.equal(torch.get_rng_state(), before)
    assert_same(*runs)


def test_a_whole_learning_rate_serves() -> None:
    found = [BatchedEvaluator(Adaptation(2, rate)).evaluate(proposals()[:3]) for rate in (1, 1.0)]
    assert_same(*found)


@pytest.mark.parametrize("tiles", [None, (), (5, 25)])
def test_a_description_makes_an_equal_evaluator(tiles: Sequence[int] | None) -> None:
    evaluator = BatchedEvaluator(FAST, tiles=tiles)
    again = evaluator_from_spec(evaluator.spec())
    assert isinstance(again, BatchedEvaluator)
    assert again.spec() == evaluator.spec()
    assert_same(again.evaluate(proposals()[:4]), evaluator.evaluate(proposals()[:4]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 0}, "memory must be an integer >= 1, got 0"),
        ({"memory": 1.5}, "memory must be an integer >= 1, got 1.5"),
        ({"tiles": (5, 0)}, "tiles must be an integer >= 1, got 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        BatchedEvaluator(**options)


def test_bfloat16_stays_near_and_no_neighbour_matters() -> None:
    exact = BatchedEvaluator(FAST).evaluate(proposals())
    rounded = BatchedEvaluator(FAST, precision="bfloat16").evaluate(proposals())
    losses = np.array([[e.loss for e in found] for found in (exact, rounded)], dtype=float)
    assert 0 < np.abs(losses[1] - losses[0]).max() < 0.2
    assert_same([BatchedEvaluator(FAST, precision="bfloat16").evaluate([p])[0] for p in proposals()[:6]], rounded[:6])


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    expected = BatchedEvaluator(FAST).evaluate(proposals())
    found = BatchedEvaluator(FAST, device="cuda").evaluate(proposals())
    for proposal, mine, its in zip(proposals(), found, expected, strict=True):
        assert isinstance(proposal.task, FewShotTask)
        assert mine.status is its.status
        assert abs(mine.accuracy - its.accuracy) <= 2 / len(proposal.task.query_x)
