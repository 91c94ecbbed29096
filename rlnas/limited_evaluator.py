"""An evaluator that does not train what would be too large in the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlnas.errors import ConfigurationError
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.sequential_evaluator import with_images
from rlnas.wide_network import Limits, full_cost


class LimitedEvaluator:
    """Gives designs beyond the limits status ``INVALID`` and accuracy 0 without training them; others to ``evaluator``.

    Args:
        evaluator: of what is within the limits.
        limits: of the network at its full width, which is the least where the limits set the width.
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
        task = with_images(proposal.task)
        try:
            parameters, flops = self.limits.cost_of(proposal.architecture, task.ways, task.image_shape)
        except (ConfigurationError, ValueError):
            return None  # it does not fit the task, as the evaluator will say
        found = (("parameters", parameters, self.limits.max_params), ("FLOPs", flops, self.limits.max_flops))
        over = [f"{count:,} {what}, over {limit:,}" for what, count, limit in found if limit and count > limit]
        if not over:
            return None
        narrow = full_cost(proposal.architecture, 1, task.ways, task.image_shape)
        where = "even as narrow as in the search" if self.limits.width is None else "at full width"
        message = f"would have {' and '.join(over)}, {where}"
        return Evaluation(0.0, None, Status.INVALID, 0.0, *narrow, message)
