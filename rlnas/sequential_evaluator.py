"""The reference evaluator: one network after another."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlnas.device import choose_device, one_thread
from rlnas.errors import ConfigurationError, RlnasError
from rlnas.evaluator import CachedEvaluator, Evaluation, Proposal, Status
from rlnas.graph import count_flops, count_parameters
from rlnas.task import FewShotTask

if TYPE_CHECKING:
    from rlnas.adaptation import Adaptation


class SequentialEvaluator(CachedEvaluator):
    """Trains one network after another: the reference for every faster evaluator.

    Args:
        adaptation: the inner loop; by default :class:`~rlnas.adaptation.Adaptation`'s own defaults.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``.
        cache_size: evaluations to remember; 0 for none.

    Raises:
        ConfigurationError: if the device is unknown or absent.
    """

    def __init__(self, adaptation: Adaptation | None = None, device: str = "cpu", cache_size: int = 500_000) -> None:
        from rlnas.adaptation import Adaptation

        super().__init__(cache_size)
        self.adaptation = adaptation or Adaptation()
        self.device = choose_device(device)

    def spec(self) -> dict[str, Any]:
        return {"kind": "sequential", "device": self.device.type, "adaptation": asdict(self.adaptation)}

    def _train_all(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        return [self._train(proposal) for proposal in proposals]

    def _train(self, proposal: Proposal) -> Evaluation:
        import torch

        from rlnas.adaptation import adapt, score, standardise
        from rlnas.network import build_network

        task = proposal.task
        if not isinstance(task, FewShotTask):
            raise ConfigurationError(f"task {task.name} has no images to train on; use the evaluator of its table")
        graph = proposal.architecture.graph(task.ways)
        started = time.perf_counter()
        try:
            with torch.inference_mode(False), one_thread():  # whoever plays the rollout may have gradients off
                network = build_network(proposal.architecture, task, proposal.seed).to(self.device)
                cost = count_parameters(graph, task.image_shape), count_flops(graph, task.image_shape)
                support_x, support_y, query_x, query_y = standardise(task, self.device)
                adapt(network, support_x, support_y, self.adaptation.with_steps(proposal.steps))
                result = score(network, query_x, query_y)
        except RlnasError as error:
            return Evaluation(0.0, status=Status.INVALID, message=str(error))
        except (MemoryError, RuntimeError) as error:  # torch reports a lack of CPU memory as a plain RuntimeError
            memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
            status = Status.OUT_OF_MEMORY if memory else Status.CRASHED
            return Evaluation(0.0, status=status, message=(str(error).splitlines() or [repr(error)])[0])
        seconds = time.perf_counter() - started
        if not math.isfinite(result.loss):
            return Evaluation(0.0, None, Status.DIVERGED, seconds, *cost, message="the query loss is not finite")
        return Evaluation(result.accuracy, result.loss, Status.OK, seconds, *cost)
