"""What an architecture is worth on a task, and who says so.

An :class:`Evaluator` takes proposals and gives evaluations, in the same order. It never raises for a candidate's own
fault: that is a :class:`Status` with the floor accuracy 0.0 and a message.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError, RlnasError
from rlnas.graph import count_flops, count_parameters
from rlnas.task import FewShotTask, Task

if TYPE_CHECKING:
    import torch

    from rlnas.adaptation import Adaptation


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
    """

    architecture: Architecture
    task: Task
    seed: int = 0


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


class SequentialEvaluator:
    """Trains one network after another: the reference for every faster evaluator.

    Args:
        adaptation: the inner loop; by default :class:`~rlnas.adaptation.Adaptation`'s own defaults.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``.
        cache_size: evaluations to remember by (canonical architecture, task digest, seed, fidelity); 0 for none.

    Raises:
        ConfigurationError: if the device is unknown or absent.
    """

    def __init__(self, adaptation: Adaptation | None = None, device: str = "cpu", cache_size: int = 500_000) -> None:
        from rlnas.adaptation import Adaptation

        self.adaptation = adaptation or Adaptation()
        self.device = choose_device(device)
        self.cache_size = cache_size
        self._cache: OrderedDict[tuple[str, str, int], Evaluation] = OrderedDict()

    def spec(self) -> dict[str, Any]:
        return {"kind": "sequential", "device": self.device.type, "adaptation": asdict(self.adaptation)}

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        keys = [(p.architecture.key, p.task.digest, p.seed) for p in proposals]
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
            with torch.inference_mode(False), _one_thread():  # whoever plays the rollout may have gradients off
                network = build_network(proposal.architecture, task, proposal.seed).to(self.device)
                cost = count_parameters(graph, task.image_shape), count_flops(graph, task.image_shape)
                support_x, support_y, query_x, query_y = standardise(task, self.device)
                adapt(network, support_x, support_y, self.adaptation)
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


@contextmanager
def _one_thread() -> Iterator[None]:
    """Lets torch use one thread: sums are split by threads, so their last digits depend on how many there are."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` names.

    Raises:
        ConfigurationError: if it is none of these, or CUDA is asked for where there is none.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ConfigurationError(f"device must be auto, cpu or cuda, got {name!r}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigurationError("device cuda was asked for, but torch finds no CUDA device; use cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
