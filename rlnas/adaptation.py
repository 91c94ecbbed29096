"""The inner loop: adapt a network on a task's support set, score it on the query set."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from rlnas.errors import ConfigurationError, at_least
from rlnas.network import Network
from rlnas.task import FewShotTask


@dataclass(frozen=True)
class Adaptation:
    """How a network meets a task: SGD with momentum on the whole support set, from a seeded random start.

    Args:
        steps: gradient steps; the fidelity of an evaluation.
        learning_rate: of SGD.
        momentum: of SGD.
    """

    steps: int = 15
    learning_rate: float = 0.03
    momentum: float = 0.9

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 0)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigurationError(f"learning_rate must be a positive number, got {self.learning_rate!r}")
        if not 0 <= self.momentum < 1:
            raise ConfigurationError(f"momentum must be in [0, 1), got {self.momentum!r}")

    def with_steps(self, steps: int | None) -> Adaptation:
        """The same with another number of steps; None leaves it as it is."""
        return self if steps is None else replace(self, steps=steps)


@dataclass(frozen=True)
class Score:
    """What a network is worth on a query set: accuracy in [0, 1] and mean cross-entropy in nats."""

    accuracy: float
    loss: float


def standardise(task: FewShotTask, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Support and query tensors on ``device``, pixels shifted and scaled by the support set's mean and deviation."""
    support, query = torch.from_numpy(task.support_x.copy()), torch.from_numpy(task.query_x.copy())
    mean, deviation = support.mean(), support.std() + 1e-6
    labels = torch.from_numpy(task.support_y.copy()), torch.from_numpy(task.query_y.copy())
    parts = (support - mean) / deviation, labels[0], (query - mean) / deviation, labels[1]
    support_x, support_y, query_x, query_y = (part.to(device) for part in parts)
    return support_x, support_y, query_x, query_y


@torch.enable_grad()
def adapt(network: Network, support_x: Tensor, support_y: Tensor, adaptation: Adaptation) -> None:
    """Train ``network`` in place; afterwards its batch-norm statistics are those of the support set.

    Args:
        network: on the tensors' device.
        support_x: standardised images, of shape (S, C, H, W).
        support_y: classes, of shape (S,).
        adaptation: steps and rates.
    """
    network.train()
    parameters: list[Tensor] = list(network.parameters())
    if not parameters:
        return
    velocity = [torch.zeros_like(p) for p in parameters]
    for _ in range(adaptation.steps):
        loss = F.cross_entropy(network(support_x), support_y)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_mul_(velocity, adaptation.momentum)
            torch._foreach_add_(velocity, gradients)
            torch._foreach_add_(parameters, velocity, alpha=-adaptation.learning_rate)
    with torch.no_grad():
        network(support_x)


@torch.no_grad()
def score(network: Network, query_x: Tensor, query_y: Tensor) -> Score:
    """Accuracy and loss on standardised query images, each judged alone (no statistics of the query batch are used).

    Where all logits of an image are equal, every class is equally likely to be named: it counts as 1 / ways.
    """
    network.eval()
    logits = network(query_x)
    images, ways = logits.shape
    undecided = (logits == logits[:, :1]).all(1)
    right = (logits.argmax(1) == query_y) & ~undecided
    # Counted in integers, so that no order of summation can move the last digit.
    accuracy = (ways * int(right.sum()) + int(undecided.sum())) / (ways * images)
    return Score(accuracy, float(F.cross_entropy(logits, query_y)))
