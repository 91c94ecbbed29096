"""An evaluator that does not train what would be too large in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlnas.errors import ConfigurationError, at_least
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.graph import count_flops, count_parameters
from rlnas.sequential_evaluator import with_images
from rlnas.wide_network import widened


@dataclass(frozen=True)
class Limits:
    """What the network that is trained fully may cost.

    Args:
        width: times as many channels and units as the search's networks have.
        max_params: trainable parameters; None for any number.
        max_flops: multiply-accumulates of one example's forward pass; None for any number.
    """

    width: int = 1
    max_params: int | None = None
    max_flops: int | None = None

    def __post_init__(self) -> None:
        for field in ("width", "max_params", "max_flops"):
            if getattr(self, field) is not None:
                at_least(field, getattr(self, field), 1)

    def __bool__(self) -> bool:
        return self.max_params is not None or self.max_flops is not None


class LimitedEvaluator:
    """Gives designs beyond the limits status ``INVALID`` and accuracy 0 without training them; others to ``evaluator``.

    Args:
        evaluator: of what is within the limits.
        limits: of the network at its full width.
    """

    kind = "limited"

    def __init__(self, evaluator: Evaluator, limits: Limits) -> None:
        self.evaluator = evaluator
        self.limits = limits

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        """See :meth:`rlnas.evaluator.Evaluator.evaluate`."""
        refused = [self._refusal(proposal) for proposal in proposals]
        trained = iter(
            self.evaluator.evaluate([p for p, refusal in zip(proposals, refused, strict=True) if refusal is None])
        )
        return [next(trained) if refusal is None else refusal for refusal in refused]

    def spec(self) -> dict[str, Any]:
        """See :meth:`rlnas.evaluator.Evaluator.spec`."""
        limits = {"max_params": self.limits.max_params, "max_flops": self.limits.max_flops}
        return {"kind": self.kind, "evaluator": self.evaluator.spec(), "width": self.limits.width, **limits}

    def _refusal(self, proposal: Proposal) -> Evaluation | None:
        """The evaluation of a design beyond the limits; None for one within."""
        try:
            parameters, flops = full_cost(proposal, self.limits.width)
        except (ConfigurationError, ValueError):
            return None  # it does not fit the task, as the evaluator will say
        found = (("parameters", parameters, self.limits.max_params), ("FLOPs", flops, self.limits.max_flops))
        over = [f"{count:,} {what}, over {limit:,}" for what, count, limit in found if limit and count > limit]
        if not over:
            return None
        narrow = full_cost(proposal, 1)
        message = f"would have {' and '.join(over)}, at full width"
        return Evaluation(0.0, None, Status.INVALID, 0.0, *narrow, message)


def full_cost(proposal: Proposal, width: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a design for its task, ``width`` times as wide.

    Raises:
        ConfigurationError: if the space has no width, or the task no images.
        ValueError: if the network does not fit the task's images.
    """
    task = with_images(proposal.task)
    architecture = proposal.architecture if width == 1 else widened(proposal.architecture, width)
    graph = architecture.graph(task.ways)
    return count_parameters(graph, task.image_shape), count_flops(graph, task.image_shape)
