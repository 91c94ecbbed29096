"""What a meta-learned start is told by one task: the gradient of what it is worth after adaptation.

In the notation of Finn et al. 2017 (https://arxiv.org/abs/1703.03400), the inner loop makes θ' from a start θ on the
support set, and the loss L of θ' on the query set is what θ should lower. ``maml``, ``anil`` and ``meta-sgd`` give its
exact gradient dL(θ')/dθ, second-order terms included; ``fomaml`` takes dL(θ')/dθ' for it; ``reptile`` takes θ - θ';
``prototype`` and ``relation`` have no inner loop, and their gradient is the ordinary one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from rlnas.adaptation import (
    METHODS,
    Adaptation,
    Score,
    clipped,
    prototype_logits,
    relation_logits,
    score_logits,
)
from rlnas.errors import ConfigurationError
from rlnas.functional import embed, run
from rlnas.graph import Graph
from rlnas.network import Weights

Parameters: TypeAlias = tuple[Tensor, ...]

Batches: TypeAlias = Sequence[tuple[Tensor, Tensor]]
"""Images and their classes for one step after another, from the first again after the last."""

LEARNED = tuple(name for name, method in METHODS.items() if not method.random_start)
"""The methods that learn a start."""


@dataclass(frozen=True)
class Episode:
    """One network that meets one task in meta-training.

    Args:
        graph: the network.
        weights: its start.
        support_x: standardised images, of shape (S, C, H, W), on the device of the weights.
        support_y: their classes, of shape (S,).
        query_x: (Q, C, H, W).
        query_y: (Q,).
        rates: of ``meta-sgd``, the learned rate of every weight.
        head: of ``relation``, the head's tensors.
        transductive: whether batch norm measures the query images together instead of using the support set's
            statistics.
    """

    graph: Graph
    weights: Weights
    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    rates: Weights = ()
    head: Parameters = ()
    transductive: bool = False

    @property
    def ways(self) -> int:
        """Number of classes."""
        return self.graph[-1].operation.output_shape(())[0]


@dataclass(frozen=True)
class MetaGradient:
    """What an episode says of the start that it had.

    Args:
        score: accuracy and loss on the query set after adaptation; flattering for ``reptile``, whose steps see it.
        weights: the gradient with respect to the start, shaped like it.
        rates: likewise of the rates; empty where there are none.
        head: likewise of the relation head.
    """

    score: Score
    weights: Weights
    rates: Weights = ()
    head: Parameters = ()


def meta_gradients(episodes: Sequence[Episode], adaptation: Adaptation) -> list[MetaGradient]:
    """One gradient for each episode, in the same order: the readable reference, one episode after another.

    Args:
        episodes: of any mixture of networks and tasks.
        adaptation: its method says what a gradient is.

    Raises:
        ConfigurationError: if an episode lacks the rates or the head that the method needs, or the method is ``sgd``,
            which learns no start.
    """
    return [_meta_gradient(episode, adaptation) for episode in episodes]


def adapted_logits(episode: Episode, adaptation: Adaptation) -> Tensor:
    """Logits of the query images after adaptation, of shape (Q, ways): what :func:`meta_gradients` judges.

    Raises:
        ConfigurationError: as :func:`meta_gradients`, but ``sgd`` is welcome.
    """
    with torch.enable_grad():
        return _query_logits(episode, _leaves(episode), adaptation, create_graph=False).detach()


@dataclass(frozen=True)
class _Leaves:
    """Copies of an episode's tensors, to differentiate by."""

    weights: Parameters
    rates: Parameters
    head: Parameters


def _leaves(episode: Episode) -> _Leaves:
    flat = _flat(episode.weights), _flat(episode.rates), episode.head
    return _Leaves(*(tuple(t.detach().requires_grad_() for t in tensors) for tensors in flat))


@torch.enable_grad()
def _meta_gradient(episode: Episode, adaptation: Adaptation) -> MetaGradient:
    leaves, method = _leaves(episode), adaptation.method
    if method == "sgd":
        raise ConfigurationError(f"adaptation sgd learns no start; use one of {', '.join(LEARNED)}")
    if method in ("fomaml", "reptile"):
        batches = reptile_batches(episode) if method == "reptile" else None
        adapted = _all_adapted(episode, leaves, adaptation, batches=batches)
        adapted = tuple(weight.detach().requires_grad_() for weight in adapted)
        logits = _judge(episode, adapted)
        if method == "fomaml":
            gradients = _gradients(logits, episode.query_y, adapted)
        else:
            gradients = tuple((a - b).detach() for a, b in zip(leaves.weights, adapted, strict=True))
    else:
        logits = _query_logits(episode, leaves, adaptation, create_graph=True)
        wanted = leaves.weights + leaves.rates * (method == "meta-sgd") + leaves.head * (method == "relation")
        gradients = _gradients(logits, episode.query_y, wanted)
    rest = iter(gradients)
    return MetaGradient(
        score_logits(logits.detach(), episode.query_y),
        _shaped(rest, episode.weights),
        _shaped(rest, episode.rates) if method == "meta-sgd" else (),
        tuple(rest),
    )


def _query_logits(episode: Episode, leaves: _Leaves, adaptation: Adaptation, create_graph: bool) -> Tensor:
    if adaptation.adapts == "all":
        return _judge(episode, _all_adapted(episode, leaves, adaptation, create_graph))
    support, query = _embeddings(episode, leaves.weights)
    if adaptation.adapts == "head":
        if not leaves.weights:
            return query.new_zeros(len(query), episode.ways)
        loss = _Loss(lambda classifier, images: F.linear(images, *classifier), [(support, episode.support_y)])
        return F.linear(query, *descend(loss, leaves.weights[-2:], adaptation, create_graph=create_graph))
    if adaptation.method == "prototype":
        return prototype_logits(support, episode.support_y, query, episode.ways)
    if not leaves.head:
        raise ConfigurationError("relation needs the head that compares images with classes")
    return relation_logits(leaves.head, support, episode.support_y, query, episode.ways)


def _all_adapted(
    episode: Episode,
    leaves: _Leaves,
    adaptation: Adaptation,
    create_graph: bool = False,
    batches: Batches | None = None,
) -> Parameters:
    """All of a network's weights after the inner loop, whose steps see the support set unless told of ``batches``."""
    rates = None
    if adaptation.method == "meta-sgd":
        if len(leaves.rates) != len(leaves.weights):
            raise ConfigurationError("meta-sgd needs a rate for every weight")
        rates = leaves.rates
    support = episode.support_x, episode.support_y
    loss = _Loss(lambda weights, images: _run(episode, weights, images), batches or [support])
    return descend(loss, leaves.weights, adaptation, rates, create_graph)


@dataclass(frozen=True)
class _Loss:
    """Cross-entropy on the images of one step after another."""

    logits: Callable[[Parameters, Tensor], Tensor]
    batches: Batches

    def __call__(self, parameters: Parameters, step: int) -> Tensor:
        images, labels = self.batches[step % len(self.batches)]
        return F.cross_entropy(self.logits(parameters, images), labels)


def descend(
    loss: Callable[[Parameters, int], Tensor],
    parameters: Parameters,
    adaptation: Adaptation,
    rates: Parameters | None = None,
    create_graph: bool = False,
) -> Parameters:
    """The inner loop: SGD with momentum, v = m v + g and w = w - r v.

    Args:
        loss: of the parameters and the number of the step.
        parameters: where to start; they require gradients.
        adaptation: how many steps of what size.
        rates: a rate for every number in ``parameters``, in place of the adaptation's one.
        create_graph: whether the result may be differentiated by the start, and the rates.
    """
    if not parameters:
        return parameters
    velocity = tuple(torch.zeros_like(p) for p in parameters)
    sizes: Sequence[Tensor | float] = rates or [adaptation.learning_rate] * len(parameters)
    for step in range(adaptation.steps):
        gradients = torch.autograd.grad(loss(parameters, step), parameters, create_graph=create_graph)
        gradients = clipped(gradients, adaptation.clip)
        velocity = tuple(adaptation.momentum * v + g for v, g in zip(velocity, gradients, strict=True))
        parameters = tuple(p - r * v for p, r, v in zip(parameters, sizes, velocity, strict=True))
        if not create_graph:
            parameters = tuple(p.detach().requires_grad_() for p in parameters)
    return parameters


def reptile_batches(episode: Episode) -> Batches:
    """The images of reptile's steps, which begins again from the first when all have been used.

    Reptile lives on steps that see different images of one task, and knows no query set. First comes the support set,
    then disjoint parts of the query set of the same size (or all of it, if it is smaller), each of them every n-th
    image, so that a query set that is sorted by class is divided evenly.
    """
    size = len(episode.support_y)
    count = max(1, len(episode.query_y) // size)
    parts = [(episode.query_x[i::count][:size], episode.query_y[i::count][:size]) for i in range(count)]
    return [(episode.support_x, episode.support_y), *parts]


def _judge(episode: Episode, weights: Parameters) -> Tensor:
    if episode.transductive:
        return _run(episode, weights, episode.query_x)
    support = len(episode.support_x)
    return _run(episode, weights, torch.cat([episode.support_x, episode.query_x]), support)[support:]


def _embeddings(episode: Episode, weights: Parameters) -> tuple[Tensor, Tensor]:
    shaped = _shaped(iter(weights), episode.weights)
    if episode.transductive:
        return embed(episode.graph, shaped, episode.support_x), embed(episode.graph, shaped, episode.query_x)
    support = len(episode.support_x)
    both = embed(episode.graph, shaped, torch.cat([episode.support_x, episode.query_x]), support)
    return both[:support], both[support:]


def _run(episode: Episode, weights: Parameters, images: Tensor, support: int | None = None) -> Tensor:
    return run(episode.graph, _shaped(iter(weights), episode.weights), images, support)


def _gradients(logits: Tensor, labels: Tensor, parameters: Parameters) -> Parameters:
    """Of the cross-entropy; 0 where it does not depend on a parameter."""
    if not logits.requires_grad:
        return tuple(torch.zeros_like(p) for p in parameters)
    return torch.autograd.grad(F.cross_entropy(logits, labels), parameters, allow_unused=True, materialize_grads=True)


def _flat(weights: Weights) -> Parameters:
    return tuple(tensor for node in weights for tensor in node)


def _shaped(tensors: Iterator[Tensor], like: Weights) -> Weights:
    return tuple(tuple(next(tensors) for _ in node) for node in like)
