"""How a network meets a task: adapt it on the support set, score it on the query set.

:data:`METHODS` names the ways there are. This is the readable reference of each, one network at a time; the starts that
all but ``sgd`` need are made by :mod:`rlnas.meta_learning`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlnas.errors import ConfigurationError, at_least, one_of
from rlnas.network import Network, Weights
from rlnas.task import FewShotTask


@dataclass(frozen=True, slots=True)
class Method:
    """What sets one way of adapting apart from the others.

    Args:
        starts: the methods whose meta-learned starts serve this one.
        random_start: whether a seeded random start serves it too.
        adapts: which parameters take gradient steps: ``all``, ``head`` (the classifier's) or ``none``.
    """

    starts: tuple[str, ...]
    random_start: bool = False
    adapts: str = "all"


_GRADIENT_STARTS = ("maml", "fomaml", "reptile")

METHODS: dict[str, Method] = {
    "sgd": Method(_GRADIENT_STARTS, random_start=True),
    "maml": Method(_GRADIENT_STARTS),
    "fomaml": Method(_GRADIENT_STARTS),
    "reptile": Method(_GRADIENT_STARTS),
    "anil": Method(("anil",), adapts="head"),
    "meta-sgd": Method(("meta-sgd",)),
    "prototype": Method(("prototype",), adapts="none"),
    "relation": Method(("relation",), adapts="none"),
}
"""The ways to adapt.

- ``sgd``: every parameter takes steps of SGD.
- ``maml``, ``fomaml`` (Finn et al. 2017, https://arxiv.org/abs/1703.03400), ``reptile`` (Nichol et al. 2018,
  https://arxiv.org/abs/1803.02999): the same, from a start that was learned in that way.
- ``anil`` (Raghu et al. 2020, https://arxiv.org/abs/1909.09157): only the classifier takes steps.
- ``meta-sgd`` (Li et al. 2017, https://arxiv.org/abs/1707.09835): every parameter has a learned rate of its own.
- ``prototype`` (Snell et al. 2017, https://arxiv.org/abs/1703.05175): no steps; the nearest class mean in the space of
  what the classifier would read.
- ``relation`` (Sung et al. 2018, https://arxiv.org/abs/1711.06025): no steps; a learned function compares a query
  image with the class means.
"""


@dataclass(frozen=True)
class Adaptation:
    """How a network meets a task: SGD with momentum on the whole support set, or a comparison with class means.

    Args:
        steps: gradient steps; the fidelity of an evaluation. ``prototype`` and ``relation`` take none, whatever it is.
        learning_rate: of SGD; of ``meta-sgd`` where the learned rates begin.
        momentum: of SGD.
        method: one of :data:`METHODS`.
        clip: the largest norm that the gradient of all parameters that are adapted may have in a step; larger ones are
            scaled down to it. None: there is no such limit.

    Raises:
        ConfigurationError: if a value is not allowed.
    """

    steps: int = 15
    learning_rate: float = 0.03
    momentum: float = 0.9
    method: str = "sgd"
    clip: float | None = None

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 0)
        if not _is_positive(self.learning_rate):
            raise ConfigurationError(f"learning_rate must be a positive number, got {self.learning_rate!r}")
        if not 0 <= self.momentum < 1:
            raise ConfigurationError(f"momentum must be in [0, 1), got {self.momentum!r}")
        one_of("adaptation", self.method, METHODS)
        if self.clip is not None and not _is_positive(self.clip):
            raise ConfigurationError(f"clip must be a positive number or None, got {self.clip!r}")

    @property
    def adapts(self) -> str:
        """Which parameters take gradient steps: see :class:`Method`."""
        return METHODS[self.method].adapts

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
def adapt(network: Network, support_x: Tensor, support_y: Tensor, adaptation: Adaptation, rates: Weights = ()) -> None:
    """Train ``network`` in place; afterwards its batch-norm statistics are those of the support set.

    Args:
        network: on the tensors' device.
        support_x: standardised images, of shape (S, C, H, W).
        support_y: classes, of shape (S,).
        adaptation: which parameters take how many steps of what size.
        rates: of ``meta-sgd``, a rate for every parameter, shaped like the network's weights.

    Raises:
        ConfigurationError: if ``meta-sgd`` is given no rates.
    """
    network.train()
    classifier = network.nodes[-1]
    adapted = {"all": network, "head": classifier, "none": nn.Identity()}[adaptation.adapts]
    parameters: list[Tensor] = list(adapted.parameters())
    if parameters:
        step_sizes = _step_sizes(parameters, adaptation, rates)
        if adapted is classifier:  # what it reads stays as it is
            with torch.no_grad():
                embedding = network.embed(support_x)
        velocity = [torch.zeros_like(p) for p in parameters]
        for _ in range(adaptation.steps):
            logits = classifier(embedding) if adapted is classifier else network(support_x)
            gradients = torch.autograd.grad(F.cross_entropy(logits, support_y), parameters)
            with torch.no_grad():
                torch._foreach_mul_(velocity, adaptation.momentum)
                torch._foreach_add_(velocity, clipped(gradients, adaptation.clip))
                if isinstance(step_sizes, float):
                    torch._foreach_add_(parameters, velocity, alpha=-step_sizes)
                else:
                    torch._foreach_addcmul_(parameters, velocity, step_sizes, value=-1)
    with torch.no_grad():
        network(support_x)


def clipped(gradients: tuple[Tensor, ...], limit: float | None) -> tuple[Tensor, ...]:
    """Gradients of one network, scaled down together where their norm exceeds ``limit``."""
    if limit is None:
        return gradients
    norm = torch.sqrt(sum(((g * g).sum() for g in gradients), start=gradients[0].new_zeros(())))
    factor = torch.where(norm > limit, limit / norm, torch.ones_like(norm))
    return tuple(gradient * factor for gradient in gradients)


@torch.no_grad()
def score(network: Network, query_x: Tensor, query_y: Tensor) -> Score:
    """Accuracy and loss on standardised query images, each judged alone (no statistics of the query batch are used).

    Where all logits of an image are equal, every class is equally likely to be named: it counts as 1 / ways.
    """
    network.eval()
    return score_logits(network(query_x), query_y)


@torch.no_grad()
def score_by_comparison(
    network: Network,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    head: tuple[Tensor, ...] = (),
) -> Score:
    """Like :func:`score`, for ``prototype``, or with the ``head`` of ``relation``: query images against class means."""
    network.train()
    support = network.embed(support_x)
    network.eval()
    query, ways = network.embed(query_x), int(support_y.max()) + 1
    if head:
        return score_logits(relation_logits(head, support, support_y, query, ways), query_y)
    return score_logits(prototype_logits(support, support_y, query, ways), query_y)


def score_logits(logits: Tensor, labels: Tensor) -> Score:
    """What logits of shape (N, ways) are worth, as :func:`score` counts it, where the classes are ``labels``."""
    images, ways = logits.shape
    undecided = (logits == logits[:, :1]).all(1)
    right = (logits.argmax(1) == labels) & ~undecided
    # Counted in integers, so that no order of summation can move the last digit.
    accuracy = (ways * int(right.sum()) + int(undecided.sum())) / (ways * images)
    return Score(accuracy, float(F.cross_entropy(logits, labels)))


def class_means(embedding: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Mean embedding of each class.

    Args:
        embedding: (..., S, features).
        labels: (..., S), every class at least once.
        ways: number of classes.

    Returns:
        (..., ways, features).
    """
    members = F.one_hot(labels, ways).to(embedding.dtype)
    return members.mT @ embedding / members.sum(-2).unsqueeze(-1)


def prototype_logits(support_embedding: Tensor, support_y: Tensor, query_embedding: Tensor, ways: int) -> Tensor:
    """Minus the squared Euclidean distance to each class mean (Snell et al. 2017, equation 2), scaled.

    Distances are divided by the root of the number of features: that keeps logits of one size through a search space
    whose embeddings have from a few to thousands of features, and changes no prediction. The query's own squared
    length, which is common to all classes and so is not seen by a softmax, is left out.

    Args:
        support_embedding: (..., S, features).
        support_y: (..., S).
        query_embedding: (..., Q, features).
        ways: number of classes.

    Returns:
        (..., Q, ways).
    """
    means = class_means(support_embedding, support_y, ways)
    centre = means.mean(-2, keepdim=True)  # distances are those between vectors near 0: little is lost to rounding
    means, query = means - centre, query_embedding - centre
    return (2 * query @ means.mT - (means * means).sum(-1).unsqueeze(-2)) / math.sqrt(means.shape[-1])


RELATION_WIDTH = 8
"""Units of each hidden layer of the relation head."""


def relation_shapes() -> tuple[tuple[int, ...], ...]:
    """The shapes of the relation head's tensors: three fully connected layers, each a matrix (out, in) and a bias."""
    width = RELATION_WIDTH
    return (width, 3), (width,), (width, width), (width,), (1, width), (1,)


def relation_logits(
    head: tuple[Tensor, ...], support_embedding: Tensor, support_y: Tensor, query_embedding: Tensor, ways: int
) -> Tensor:
    """How well each query image goes with each class, by a learned function (after Sung et al. 2018).

    So that one head serves embeddings of every size, a first layer sees one feature at a time (that of the query, that
    of the class mean, and their squared difference), its answers are averaged over the features, and two more layers
    make one number of them. Features are first divided by the root mean square of the class means'. The number is a
    logit of a softmax over the classes, where the paper has an independent score in [0, 1] for each.

    Args:
        head: tensors of the shapes that :func:`relation_shapes` gives.
        support_embedding: (..., S, features).
        support_y: (..., S).
        query_embedding: (..., Q, features).
        ways: number of classes.

    Returns:
        (..., Q, ways).
    """
    means = class_means(support_embedding, support_y, ways)
    size = torch.sqrt((means * means).mean((-2, -1), keepdim=True) + 1e-6)
    mean, query = (means / size).unsqueeze(-3), (query_embedding / size).unsqueeze(-2)
    first, first_bias, second, second_bias, last, last_bias = head
    # What three columns of a matrix make of (query, mean, difference), without ever laying the three side by side.
    pairs = [(x.unsqueeze(-1) * first[:, i]) for i, x in enumerate((query, mean, (query - mean) ** 2))]
    seen = F.relu(pairs[0] + pairs[1] + pairs[2] + first_bias).mean(-2)
    return F.linear(F.relu(F.linear(seen, second, second_bias)), last, last_bias).squeeze(-1)


def _step_sizes(parameters: list[Tensor], adaptation: Adaptation, rates: Weights) -> float | list[Tensor]:
    if adaptation.method != "meta-sgd":
        return float(adaptation.learning_rate)
    if not rates:
        raise ConfigurationError("meta-sgd needs the rates that were learned with its start")
    return [rate.to(parameters[0].device) for node in rates for rate in node]


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
