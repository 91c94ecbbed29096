"""Many different networks in lock-step: their parameters, their optimisers, and the passes through them.

:mod:`rlnas.schedule` says which nodes are computed together and in which order, :mod:`rlnas.stacked` how, and
:mod:`rlnas.routes` where each group finds what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlnas import network
from rlnas.adaptation import Adaptation
from rlnas.graph import Graph, Shape
from rlnas.routes import Images
from rlnas.schedule import Group, Plan
from rlnas.stacked import Statistics, Weights


class Population:
    """Networks with their parameters and optimisers, each trained on a task of its own.

    Args:
        graphs: one for each candidate; none may be a :class:`~rlnas.graph.Constant`.
        shapes: the image shape (C, H, W) of each candidate's task.
        device: where to train.
        dtype: of parameters and activations.
        half: whether to convolve in bfloat16.
        alone: whether there is one candidate, whose images are always one tile: faster if they are large.
    """

    def __init__(
        self,
        graphs: Sequence[Graph],
        shapes: Sequence[Shape],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        half: bool = False,
        alone: bool = False,
    ) -> None:
        self.plan, self.device, self.dtype = Plan(graphs, shapes, alone), device, dtype
        self.groups = self.plan.groups
        for group in self.groups:
            group.half = half

    def __len__(self) -> int:
        return len(self.plan)

    def images(self, images: Sequence[Tensor], labels: Sequence[Tensor] | None = None, tile: int = 25) -> Images:
        """Images for every candidate, ready to pass through the population.

        Args:
            images: for each candidate a tensor of shape (N, C, H, W).
            labels: for each candidate its classes, of shape (N,), if gradients are asked for.
            tile: see :class:`~rlnas.routes.Images`.
        """
        return Images(self.plan, images, labels, tile, self.device, self.dtype)

    def load(self, weights: Sequence[network.Weights], rates: Sequence[network.Weights] | float) -> None:
        """Set the parameters of every candidate, and how fast they learn.

        Args:
            weights: for each candidate, as :func:`rlnas.network.random_weights` gives them.
            rates: one for all, or one for each number of each candidate's weights.
        """
        for group in self.groups:
            group.weights = self._stack(weights, group)
            if isinstance(rates, int | float):
                group.rates = [w.new_full((len(w), *[1] * (w.ndim - 1)), rates) for w in group.weights]
            else:
                group.rates = self._stack(rates, group)

    def weights_of(self, candidate: int) -> network.Weights:
        """The parameters of one candidate, as :meth:`load` takes them."""
        return self._collect(candidate, [group.weights for group in self.groups])

    @torch.no_grad()
    def adapt(self, support: Images, adaptation: Adaptation, steps: NDArray[np.int64] | None = None) -> None:
        """Train every candidate on its own images by gradient descent with momentum.

        Args:
            support: the images with their labels.
            adaptation: what is adapted, momentum, clipping and the number of steps; learning rates are those of
                :meth:`load`.
            steps: the number of steps of each candidate, if they differ.
        """
        steps = np.full(len(self), adaptation.steps) if steps is None else steps
        head = adaptation.adapts == "head"
        groups = [g for i, g in enumerate(self.groups) if not head or i in support.last]
        owners = [group for group in groups for _ in group.weights]
        weights = [w for group in groups for w in group.weights]
        rates = [r for group in groups for r in group.rates]
        velocity = [torch.zeros_like(w) for w in weights]
        saved: list[Any] = []
        for step in range(int(steps.max(initial=0)) if adaptation.adapts != "none" else 0):
            saved = self._forward(support, keep=True, head=head and step > 0)
            gradients = [g for own in self._backward(support, saved, head) for g in own]
            if adaptation.clip is not None:
                self._clip(owners, gradients, adaptation.clip)
            torch._foreach_mul_(velocity, adaptation.momentum)
            torch._foreach_add_(velocity, gradients)
            if (steps <= step).any():  # those that are done keep their weights, even if their gradient is infinite
                done = torch.from_numpy(steps <= step).to(self.device)
                for group, v in zip(owners, velocity, strict=True):
                    v.masked_fill_(group.per_candidate(done, v), 0)
            torch._foreach_addcmul_(weights, velocity, rates, value=-1)

    @torch.no_grad()
    def statistics(self, support: Images) -> list[Statistics | None]:
        """The batch-norm statistics of each group on the images, by which others can be judged one by one."""
        saved = self._forward(support, keep=True)
        routes = zip(self.groups, saved, support.routes, strict=True)
        return [group.stacked.statistics(own, route.rows) for group, own, route in routes]

    @torch.no_grad()
    def logits(self, images: Images, statistics: list[Statistics | None] | None = None) -> list[Tensor]:
        """The logits of each candidate's images, (images, ways).

        Args:
            images: the images; labels play no part.
            statistics: what to normalise by; by default the images' own.
        """
        self._forward(images, fixed=statistics)
        return images.logits()

    @torch.no_grad()
    def embeddings(self, images: Images, statistics: list[Statistics | None] | None = None) -> list[Tensor]:
        """What each candidate's classifier reads of its images, (images, features); else like :meth:`logits`."""
        self._forward(images, fixed=statistics)
        return images.embeddings()

    @torch.no_grad()
    def gradients(
        self, images: Images, statistics: list[Statistics | None] | None = None
    ) -> tuple[list[Tensor], list[network.Weights]]:
        """The logits of each candidate's images, and the gradient of their mean cross-entropy.

        Args:
            images: the images with their labels.
            statistics: what to normalise by, taken as constants; by default the images' own, which are not.
        """
        saved = self._forward(images, keep=True, fixed=statistics)
        logits = images.logits()
        gradients = self._backward(images, saved, head=False)
        return logits, [self._collect(candidate, gradients) for candidate in range(len(self))]

    def _stack(self, values: Sequence[network.Weights], group: Group) -> Weights:
        own = [values[candidate][node] for candidate, node in group.members]
        return [torch.stack(part).to(self.device, self.dtype) for part in zip(*own, strict=True)]

    def _collect(self, candidate: int, stacked: Sequence[Weights]) -> network.Weights:
        """One candidate's part of something stacked by group; nodes that are folded into others have nothing."""
        found: list[tuple[Tensor, ...]] = []
        for node in range(len(self.plan.graphs[candidate])):
            group, member = self.plan.place.get((candidate, node), (None, 0))
            found.append(() if group is None else tuple(part[member] for part in stacked[group]))
        return tuple(found)

    def _forward(
        self,
        images: Images,
        keep: bool = False,
        fixed: list[Statistics | None] | None = None,
        head: bool = False,
    ) -> list[Any]:
        """Fill the images' buffers with the outputs of every group; return what each saved, if it is to be kept.

        With ``head`` only the last nodes' are computed anew.
        """
        saved: list[Any] = []
        for index, (group, route) in enumerate(zip(self.groups, images.routes, strict=True)):
            own = None
            if not head or index in images.last:
                statistics = fixed[index] if fixed else None
                own = group.stacked.forward(group.weights, route.gather(), route.out, route.rows, statistics)
            saved.append(own if keep else None)
        return saved

    def _backward(self, images: Images, saved: list[Any], head: bool) -> list[Weights]:
        """The gradient of every group's parameters, with ``head`` of the last nodes' alone; ``saved`` is used up."""
        gradients: list[Weights] = [[] for _ in self.groups]
        for index in range(len(self.groups) - 1, -1, -1):
            group, route, last = self.groups[index], images.routes[index], index in images.last
            if last or (not head and (group.trains or group.weights)):
                g = images.loss_gradient(index) if last else route.gather_gradient()
                g_x = None if head else route.g_x
                gradients[index] = group.stacked.backward(group.weights, saved[index], g, g_x, route.rows)
            saved[index] = None
        return gradients

    def _clip(self, owners: Sequence[Group], gradients: Weights, limit: float) -> None:
        """Scale each candidate's gradient to a norm of at most ``limit``; ``owners`` are the gradients' groups."""
        squares = torch.zeros(len(self), max(map(len, self.plan.graphs)), dtype=torch.float64, device=self.device)
        for group, g in zip(owners, gradients, strict=True):
            place = torch.tensor(group.members, device=self.device).unbind(1)
            squares[place] += g.flatten(1).double().square().sum(1)
        norm = squares.cumsum(1)[:, -1].sqrt()  # node after node: no order of the groups can change the sum
        factor = torch.where(norm > limit, limit / norm, 1.0)
        for group, g in zip(owners, gradients, strict=True):
            g.mul_(group.per_candidate(factor.to(g.dtype), g))
