"""The reference evaluator: one network after another."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rlnas.cached_evaluator import CachedEvaluator
from rlnas.device import arithmetic, choose_device, is_out_of_memory, one_thread
from rlnas.errors import CheckpointError, ConfigurationError, RlnasError
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.graph import count_flops, count_parameters
from rlnas.task import FewShotTask, Task

if TYPE_CHECKING:
    from rlnas.adaptation import Adaptation, Score
    from rlnas.evaluation_cache import EvaluationCache
    from rlnas.initialisation import Initialisation

EVALUATOR_VERSION = 1
"""Raise it with any change to the program that changes what a network is found to be worth, in the last digit even."""


class SequentialEvaluator(CachedEvaluator):
    """Trains one network after another: the reference for every faster evaluator.

    Args:
        adaptation: the inner loop; by default that of ``init``, or :class:`~rlnas.adaptation.Adaptation`'s defaults.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``.
        cache_size: evaluations to remember; 0 for none.
        init: the meta-learned start of every network, or its folder; None for seeded random starts.
        cache: evaluations of other runs; None for none.

    Raises:
        ConfigurationError: if the device is unknown or absent, or the adaptation has no start that serves it.
        CheckpointError: if the start cannot be read.
    """

    kind: ClassVar[str] = "sequential"

    def __init__(
        self,
        adaptation: Adaptation | None = None,
        device: str = "cpu",
        cache_size: int = 500_000,
        init: Initialisation | str | Path | None = None,
        cache: EvaluationCache | None = None,
    ) -> None:
        from rlnas.initialisation import matched

        super().__init__(cache_size, cache)
        self.adaptation, self.init = matched(adaptation, init)
        self.device = choose_device(device)

    def spec(self) -> dict[str, Any]:
        start = {} if self.init is None else {"init": self.init.spec()}
        return {"kind": self.kind, "device": self.device.type, "adaptation": asdict(self.adaptation), **start}

    def version(self) -> dict[str, Any] | None:
        """See :meth:`~rlnas.cached_evaluator.CachedEvaluator.version`: the description and where it runs."""
        start = {} if self.init is None else {"init": self.init.digest}  # not where its file is
        return {"version": EVALUATOR_VERSION, **self.spec(), **start, "arithmetic": arithmetic(self.device)}

    def _train_all(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        return [self._train(proposal) for proposal in proposals]

    def _train(self, proposal: Proposal) -> Evaluation:
        import torch

        from rlnas.adaptation import adapt, score, score_by_comparison, standardise
        from rlnas.initialisation import start
        from rlnas.network import Network

        task = with_images(proposal.task)
        graph = proposal.architecture.graph(task.ways)
        started = time.perf_counter()
        try:
            with torch.inference_mode(False), one_thread():  # whoever plays the rollout may have gradients off
                weights, rates = start(proposal.architecture, task, proposal.seed, self.init)
                network = Network(graph, task.image_shape)
                network.load_weights(weights)
                network.to(self.device)
                cost = count_parameters(graph, task.image_shape), count_flops(graph, task.image_shape)
                support_x, support_y, query_x, query_y = standardise(task, self.device)
                adapt(network, support_x, support_y, self.adaptation.with_steps(proposal.steps), rates)
                if self.adaptation.adapts == "none":
                    head = tuple(tensor.to(self.device) for tensor in self.init.head) if self.init else ()
                    result = score_by_comparison(network, support_x, support_y, query_x, query_y, head)
                else:
                    result = score(network, query_x, query_y)
        except CheckpointError:
            raise  # the start is at fault, not the candidate
        except (RlnasError, MemoryError, RuntimeError) as error:
            return failed(error)
        return judged(result, time.perf_counter() - started, *cost)


def with_images(task: Task) -> FewShotTask:
    """The task itself, if networks can be trained on it.

    Raises:
        ConfigurationError: if it has no images.
    """
    if not isinstance(task, FewShotTask):
        raise ConfigurationError(f"task {task.name} has no images to train on; use the evaluator of its table")
    return task


def judged(score: Score, seconds: float, parameters: int, flops: int) -> Evaluation:
    """The evaluation of a network that was trained and scored."""
    if not math.isfinite(score.loss):
        message = "the query loss is not finite"
        return Evaluation(0.0, None, Status.DIVERGED, seconds, parameters, flops, message)
    return Evaluation(score.accuracy, score.loss, Status.OK, seconds, parameters, flops)


def failed(error: Exception) -> Evaluation:
    """The evaluation of a network that could not be trained."""
    if isinstance(error, RlnasError):
        return Evaluation(0.0, status=Status.INVALID, message=str(error))
    status = Status.OUT_OF_MEMORY if is_out_of_memory(error) else Status.CRASHED
    return Evaluation(0.0, status=status, message=(str(error).splitlines() or [repr(error)])[0])
