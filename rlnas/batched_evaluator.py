"""Many different networks trained at once, each on a task of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rlnas.architecture import misfit
from rlnas.device import free_memory, one_thread
from rlnas.errors import RlnasError, at_least, one_of
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.graph import Constant, Graph, count_flops, count_parameters, input_shapes
from rlnas.sequential_evaluator import SequentialEvaluator, failed, judged, with_images
from rlnas.task import FewShotTask

if TYPE_CHECKING:
    from torch import Tensor

    from rlnas.adaptation import Adaptation, Score
    from rlnas.evaluation_cache import EvaluationCache
    from rlnas.initialisation import Initialisation
    from rlnas.population import Population
    from rlnas.routes import Images

QUERY_TILE = 25
"""Query images that are computed together."""

CUDA_TILES = (5, 25)
"""Numbers of support images that are computed together on CUDA, so that tasks of different sizes share kernels."""

CPU_BYTES, CPU_ALONE_BYTES = 96e6, 30e6
"""Bytes that the networks of one population may need together on a CPU, and from where on one is trained by itself.
Larger populations wait for memory, smaller ones for the interpreter (measured by ``benchmarks/evaluator.py``)."""


class BatchedEvaluator(SequentialEvaluator):
    """Trains many different networks in lock-step on one device: see :mod:`rlnas.population`.

    What a proposal is worth does not depend on what is evaluated beside it; on a CPU, not in the last bit. It equals
    what :class:`~rlnas.sequential_evaluator.SequentialEvaluator` says but for the order in which numbers are summed. A
    network that needs more memory than there is, is not tried; should memory run out nevertheless, the batch is
    divided until only the culprit is without.

    Args:
        adaptation: as for :class:`~rlnas.sequential_evaluator.SequentialEvaluator`.
        device: likewise.
        cache_size: likewise.
        init: likewise.
        memory: bytes that may be used; by default most of what is free.
        tiles: numbers of support images that are computed together: a support set is cut into tiles of one of them,
            the last one filled up, and sets in tiles of one size are trained together. By default on CUDA
            :data:`CUDA_TILES`; on a CPU every set is one tile and sets of equally many images are trained together,
            which is faster there.
        precision: ``"float32"``, or ``"bfloat16"`` for convolutions that are faster and less exact.
        cache: as for :class:`~rlnas.sequential_evaluator.SequentialEvaluator`.

    Raises:
        ConfigurationError: if the device is unknown or absent, the adaptation has no start that serves it, or
            ``memory`` or a tile is no positive number, or the precision is unknown.
        CheckpointError: if the start cannot be read.
    """

    kind: ClassVar[str] = "batched"

    def __init__(
        self,
        adaptation: Adaptation | None = None,
        device: str = "cpu",
        cache_size: int = 500_000,
        init: Initialisation | str | Path | None = None,
        memory: int | None = None,
        tiles: Sequence[int] | None = None,
        precision: str = "float32",
        cache: EvaluationCache | None = None,
    ) -> None:
        super().__init__(adaptation, device, cache_size, init, cache)
        self.memory = None if memory is None else at_least("memory", memory, 1)
        self.tiles = CUDA_TILES if tiles is None and self.device.type == "cuda" else tuple(tiles or ())
        for tile in self.tiles:
            at_least("tiles", tile, 1)
        self.precision = one_of("precision", precision, ("float32", "bfloat16"))

    def spec(self) -> dict[str, Any]:
        return {**super().spec(), "tiles": list(self.tiles), "precision": self.precision}

    def version(self) -> dict[str, Any] | None:
        return super().version()  # of a description that says more

    def _train_all(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        import torch

        results: dict[int, Evaluation] = {}
        candidates = []
        memory = self.memory or 0.8 * free_memory(self.device)
        for index, proposal in enumerate(proposals):
            task = with_images(proposal.task)
            try:
                candidate = _Candidate.of(index, proposal, task, self.adaptation, self.tiles)
            except RlnasError as error:
                results[index] = failed(error)
                continue
            if candidate.bytes > memory:
                message = f"it needs about {candidate.bytes / 1e9:.3g} GB, {memory / 1e9:.3g} GB are free"
                results[index] = Evaluation(0.0, None, Status.OUT_OF_MEMORY, 0.0, *candidate.cost, message)
            else:
                candidates.append(candidate)
        limit = memory if self.device.type == "cuda" else min(memory, CPU_BYTES)
        with torch.inference_mode(False), torch.no_grad(), one_thread():
            for batch in _batches(candidates, limit, self._alone):
                self._train_batch(batch, results)
        return [results[index] for index in range(len(proposals))]

    def _alone(self, candidate: _Candidate) -> bool:
        """Whether a candidate is trained by itself: nothing but the candidate decides it."""
        return self.device.type == "cpu" and not self.tiles and candidate.bytes > CPU_ALONE_BYTES

    def _train_batch(self, batch: Sequence[_Candidate], results: dict[int, Evaluation]) -> None:
        started = time.perf_counter()
        try:
            scores = self._scores(batch)
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1:
                results[batch[0].index] = failed(error)
                return
        else:
            seconds = (time.perf_counter() - started) / len(batch)
            for candidate, score in zip(batch, scores, strict=True):
                results[candidate.index] = judged(score, seconds, *candidate.cost)
            return
        half = len(batch) // 2  # only here, where the error no longer holds the memory of the whole batch
        self._train_batch(batch[:half], results)
        self._train_batch(batch[half:], results)

    def _scores(self, batch: Sequence[_Candidate]) -> list[Score]:
        import torch

        from rlnas.adaptation import score_logits, standardise

        tasks = {c.task.digest: c.task for c in batch}
        tensors = {digest: standardise(task, torch.device("cpu")) for digest, task in tasks.items()}
        data = [tensors[c.task.digest] for c in batch]
        if isinstance(batch[0].graph[-1].operation, Constant):
            logits = [torch.zeros(len(c.task.query_x), c.task.ways) for c in batch]
        else:
            logits = self._logits(batch, data)
        # One copy from the device for the whole batch.
        together = torch.split(torch.cat([each.flatten() for each in logits]).cpu(), [each.numel() for each in logits])
        return [
            score_logits(flat.view(each.shape), query_y)
            for flat, each, (_, _, _, query_y) in zip(together, logits, data, strict=True)
        ]

    def _logits(self, batch: Sequence[_Candidate], data: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
        """Of each candidate's query images after adaptation, (images, ways)."""
        from rlnas.adaptation import prototype_logits, relation_logits
        from rlnas.initialisation import start
        from rlnas.population import Population

        support_x, support_y, query_x, _ = zip(*data, strict=True)
        starts = [start(c.proposal.architecture, c.task, c.proposal.seed, self.init) for c in batch]
        weights, rates = zip(*starts, strict=True)
        graphs, shapes = [c.graph for c in batch], [c.task.image_shape for c in batch]
        alone = self._alone(batch[0])
        population = Population(graphs, shapes, self.device, half=self.precision == "bfloat16", alone=alone)
        population.load(weights, rates if all(rates) else self.adaptation.learning_rate)
        support = population.images(support_x, support_y, batch[0].tile)
        population.adapt(support, self.adaptation, np.array([c.steps for c in batch]))
        statistics = population.statistics(support)
        if self.adaptation.adapts != "none":
            return self._judge(population, query_x, lambda images: population.logits(images, statistics))
        others = self._judge(population, query_x, lambda images: population.embeddings(images, statistics))
        pairs = zip(support.embeddings(), others, support_y, batch, strict=True)
        head = () if self.init is None else tuple(tensor.to(self.device) for tensor in self.init.head)
        return [
            relation_logits(head, own, labels.to(self.device), queries, candidate.task.ways)
            if head
            else prototype_logits(own, labels.to(self.device), queries, candidate.task.ways)
            for own, queries, labels, candidate in pairs
        ]

    def _judge(
        self, population: Population, images: Sequence[Tensor], say: Callable[[Images], list[Tensor]]
    ) -> list[Tensor]:
        """What ``say`` says of each candidate's images; on a CPU a few at a time, so that they stay in its cache."""
        import torch

        if self.tiles:
            return say(population.images(images, tile=QUERY_TILE))
        said, passing = [], None
        for start in range(0, len(images[0]), QUERY_TILE):
            some = [each[start : start + QUERY_TILE] for each in images]
            if passing is None or len(some[0]) < passing.tile:
                passing = population.images(some, tile=len(some[0]))
            else:
                passing.fill(some)
            said.append(say(passing))
        return [torch.cat(own) for own in zip(*said, strict=True)]


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A proposal and what has to be known of it to find its place in a population.

    Args:
        index: its number among the proposals.
        proposal: the proposal.
        task: its task.
        graph: its network.
        cost: parameters and multiply-accumulates.
        steps: how many gradient steps it takes.
        bytes: about how much memory its training takes.
        tile: how many of its support images are computed together.
        queries: its number of query images, if only candidates with equally many may share a population; else 0.
    """

    index: int
    proposal: Proposal
    task: FewShotTask
    graph: Graph
    cost: tuple[int, int]
    steps: int
    bytes: float
    tile: int
    queries: int

    @classmethod
    def of(
        cls, index: int, proposal: Proposal, task: FewShotTask, adaptation: Adaptation, tiles: Sequence[int]
    ) -> _Candidate:
        """Make one.

        Raises:
            ConfigurationError: if the task's images are too small for the network, or the number of steps is none.
        """
        graph = proposal.architecture.graph(task.ways)
        try:
            cost = count_parameters(graph, task.image_shape), count_flops(graph, task.image_shape)
        except ValueError as error:
            raise misfit(proposal.architecture, task.image_shape, error) from None
        tile = choose_tile(len(task.support_x), tiles)
        at_once = len(task.query_x) if tiles else min(len(task.query_x), QUERY_TILE)
        footprint = _footprint(graph, task, cost[0], tile, at_once)
        steps = adaptation.with_steps(proposal.steps).steps
        queries = 0 if tiles else len(task.query_x)
        return cls(index, proposal, task, graph, cost, steps, footprint, tile, queries)

    @property
    def kind(self) -> tuple[int, bool, bool, int]:
        """Candidates of one kind may share a population; what theirs is, follows from each alone."""
        return (
            self.tile,
            len(self.task.support_x) == self.tile,
            isinstance(self.graph[-1].operation, Constant),
            self.queries,
        )


def choose_tile(images: int, tiles: Sequence[int]) -> int:
    """The number of images to compute together of a set of so many; all of them if there is no choice.

    Blank images cost time, and so does every row, for its own copy of the weights: about as much as two images.
    """
    return min(tiles, key=lambda tile: -(-images // tile) * (tile + 2), default=images)


def _footprint(graph: Graph, task: FewShotTask, parameters: int, tile: int, queries: int) -> float:
    """About how many bytes a network takes: activations with their gradients, and the parameters' copies.

    Args:
        graph: the network.
        task: what it is trained and judged on.
        parameters: how many it has.
        tile: support images that are computed together.
        queries: query images that are judged at once.
    """
    rows, shapes = -(-len(task.support_x) // tile), input_shapes(graph, task.image_shape)
    reads = sum(prod(shape) for shape in shapes)
    gives = sum(prod(node.operation.output_shape(shape)) for node, shape in zip(graph, shapes, strict=True))
    activations = max(rows * tile * (2 * reads + 3 * gives), queries * (reads + gives))
    return 4.0 * (activations + (6 + 2 * max(rows, queries // QUERY_TILE)) * parameters)


def _batches(
    candidates: Sequence[_Candidate], limit: float, alone: Callable[[_Candidate], bool]
) -> Iterator[list[_Candidate]]:
    """Candidates of one kind that together need at most ``limit`` bytes, or one who must be ``alone``."""
    batch: list[_Candidate] = []
    total = 0.0
    for candidate in sorted(candidates, key=lambda c: (c.kind, c.bytes)):
        new_kind = bool(batch) and batch[0].kind != candidate.kind
        if batch and (new_kind or alone(candidate) or total + candidate.bytes > limit):
            yield batch
            batch, total = [], 0.0
        batch.append(candidate)
        total += candidate.bytes
    if batch:
        yield batch
