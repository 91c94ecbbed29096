"""Meta-training: learn one start for a whole search space, or for one network, over many tasks."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from rlnas.adaptation import Adaptation, relation_shapes, standardise
from rlnas.architecture import Architecture, misfit
from rlnas.device import one_thread
from rlnas.errors import ConfigurationError, at_least, one_of, positive
from rlnas.graph import Classifier, Dense, Operation, Shape, input_shapes
from rlnas.initialisation import Initialisation, rate_name, start, tensor_names
from rlnas.meta_learning import LEARNED, Episode, MetaGradient, meta_gradients
from rlnas.network import draw_parameters, parameter_shapes
from rlnas.search_space import SearchSpace
from rlnas.task import FewShotTask, Task

Engine: TypeAlias = Callable[[Sequence[Episode], Adaptation], Sequence[MetaGradient]]
"""What computes the gradients of a batch of episodes: :func:`rlnas.meta_learning.meta_gradients` or a faster one."""

OnIteration: TypeAlias = Callable[[int, float, float], None]
"""Is told the iterations done, and the mean loss and accuracy after adaptation in the last one."""


Names: TypeAlias = list[tuple[str, ...]]
"""For each node of a graph the names of its parameters."""


@dataclass(frozen=True)
class MetaTraining:
    """How long and how fast to learn a start.

    Args:
        iterations: steps of Adam.
        episodes: (network, task) pairs in each.
        learning_rate: of Adam, decayed to 0 along a cosine.
        minutes: stop after that time at the latest; the decay then follows the clock too, so results depend on it.
        seed: of the initial weights and what is sampled.
        transductive: whether batch norm measures the query images together (see :class:`~rlnas.meta_learning.Episode`).
        learn_classifier: whether the classifier's start is learned as well; only useful where all tasks have equally
            many ways.

    Raises:
        ConfigurationError: if a value is not allowed.
    """

    iterations: int = 2000
    episodes: int = 4
    learning_rate: float = 0.003
    minutes: float | None = None
    seed: int = 0
    transductive: bool = False
    learn_classifier: bool = False

    def __post_init__(self) -> None:
        at_least("iterations", self.iterations, 1)
        at_least("episodes", self.episodes, 1)
        at_least("seed", self.seed, 0)
        for name, value in (("learning_rate", self.learning_rate), ("minutes", self.minutes)):
            if value is not None:
                positive(name, value)


def meta_train(
    designs: SearchSpace | Architecture,
    tasks: Callable[[np.random.Generator], Task],
    adaptation: Adaptation,
    settings: MetaTraining | None = None,
    engine: Engine = meta_gradients,
    on_iteration: OnIteration | None = None,
    stop: Callable[[], bool] | None = None,
    device: torch.device | None = None,
    about: Mapping[str, Any] | None = None,
) -> Initialisation:
    """Learn a start from which networks adapt well.

    In each iteration some tasks are sampled, with a random architecture for each; the gradients that their episodes
    give are averaged for every shared tensor, and Adam takes a step on those that took part; with ``reptile``, whose
    difference of weights takes the gradient's place, too. Episodes whose loss or gradient is not finite are left out.
    On a CPU the same arguments give the same start to the last bit, unless there is a time limit.

    Args:
        designs: a space to sample from, uniformly decision by decision, or the one network to train.
        tasks: samples a task, such as ``partial(source.sample, "train")``.
        adaptation: what the start is learned for.
        settings: how long and how fast.
        engine: what computes gradients.
        on_iteration: is told of progress.
        stop: is asked before every iteration whether to be content with what there is.
        device: where; by default the CPU.
        about: what the start shall say of its making, besides the space and the settings.

    Raises:
        ConfigurationError: if the adaptation is ``sgd``, a task has no images, or its images do not fit.
    """
    one_of("adaptation to meta-train for", adaptation.method, LEARNED)
    settings, device = settings or MetaTraining(), device or torch.device("cpu")
    shared = _Shared(adaptation, settings, device)
    started = time.monotonic()
    done = 0
    with torch.inference_mode(False), one_thread():
        for iteration in range(settings.iterations):
            spent = 0.0 if settings.minutes is None else (time.monotonic() - started) / 60 / settings.minutes
            if spent >= 1 or (stop is not None and stop()):
                break
            rng = np.random.default_rng([settings.seed, iteration])
            entries = [shared.entry(_sampled(designs, rng), tasks(rng)) for _ in range(settings.episodes)]
            found = engine([episode for _, episode in entries], adaptation)
            shared.step([names for names, _ in entries], found, max(spent, iteration / settings.iterations))
            done = iteration + 1
            if on_iteration is not None:
                loss, accuracy = (float(np.mean([getattr(g.score, s) for g in found])) for s in ("loss", "accuracy"))
                on_iteration(done, loss, accuracy)
    space = designs if isinstance(designs, SearchSpace) else designs.space
    trained = {"space": space.spec(), "meta_training": {**asdict(settings), "iterations_done": done}}
    if isinstance(designs, Architecture):
        trained["architecture"] = designs.to_json()
    # As a file would give it back: tuples are lists there.
    return shared.initialisation(json.loads(json.dumps({**trained, **(about or {})})))


def _sampled(designs: SearchSpace | Architecture, rng: np.random.Generator) -> Architecture:
    return designs.sample(rng) if isinstance(designs, SearchSpace) else designs


class _Shared:
    """The tensors that architectures share, made when they are first met, and their optimiser."""

    def __init__(self, adaptation: Adaptation, settings: MetaTraining, device: torch.device) -> None:
        self.adaptation, self.settings, self.device = adaptation, settings, device
        self.weights: dict[str, Tensor] = {}
        self.rates: dict[str, Tensor] = {}
        self.head: list[Tensor] = []
        # Adam cannot begin with nothing to optimise; an empty tensor never gets a gradient.
        self.optimiser = torch.optim.Adam([torch.zeros(0, requires_grad=True)], lr=settings.learning_rate)
        if adaptation.method == "relation":
            for layer, matrix in enumerate(relation_shapes()[::2]):
                parameters = draw_parameters(Dense(matrix[0]), matrix[1:], (settings.seed, "relation", layer))
                self.head += [self._optimised(tensor) for tensor in parameters]

    def entry(self, architecture: Architecture, task: Task) -> tuple[Names, Episode]:
        """An episode that begins from what is shared, and the names of its tensors."""
        if not isinstance(task, FewShotTask):
            raise ConfigurationError(f"task {task.name} has no images to train on")
        graph = architecture.graph(task.ways)
        try:
            shapes, names = input_shapes(graph, task.image_shape), tensor_names(graph, task.image_shape)
        except ValueError as error:
            raise misfit(architecture, task.image_shape, error) from None
        for node, shape, own in zip(graph, shapes, names, strict=True):
            self._meet(node.operation, shape, own)
        weights, rates = (
            tuple(tuple(tensor.to(self.device) for tensor in node) for node in nodes)
            for nodes in start(architecture, task, self.settings.seed, self.initialisation({}))
        )
        tensors = standardise(task, self.device)
        return names, Episode(graph, weights, *tensors, rates, tuple(self.head), self.settings.transductive)

    @torch.no_grad()
    def step(self, names: Sequence[Names], gradients: Sequence[MetaGradient], progress: float) -> None:
        """Move every shared tensor that took part; ``progress``, from 0 to 1, is how much of the training is over."""
        told: dict[int, tuple[Tensor, list[Tensor]]] = {}

        def tell(parameter: Tensor, gradient: Tensor) -> None:
            # What is shared by all classes is told the sum of what each of them says.
            told.setdefault(id(parameter), (parameter, []))[1].append(gradient.sum_to_size(parameter.shape))

        for own, gradient in zip(names, gradients, strict=True):
            everything = [*_flat(gradient.weights), *_flat(gradient.rates), *gradient.head]
            if not (math.isfinite(gradient.score.loss) and all(bool(t.isfinite().all()) for t in everything)):
                continue
            for name, part in zip(_flat(own), _flat(gradient.weights), strict=True):
                if name in self.weights:
                    tell(self.weights[name], part)
            if gradient.rates:
                for name, part in zip(_flat(own), _flat(gradient.rates), strict=True):
                    tell(self.rates[rate_name(name)], part)
            for parameter, part in zip(self.head if gradient.head else (), gradient.head, strict=True):
                tell(parameter, part)
        for parameter, parts in told.values():
            parameter.grad = torch.stack(parts).mean(0)
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        self.optimiser.step()
        self.optimiser.zero_grad()

    def initialisation(self, about: Mapping[str, Any]) -> Initialisation:
        """What has been learned so far."""
        weights, rates = ({n: t.detach() for n, t in named.items()} for named in (self.weights, self.rates))
        head = tuple(tensor.detach() for tensor in self.head)
        return Initialisation(weights, self.adaptation, rates, head, about)

    def _meet(self, operation: Operation, shape: Shape, names: tuple[str, ...]) -> None:
        """Have tensors of these names."""
        classifier = isinstance(operation, Classifier)
        if names and names[0] not in self.weights and (self.settings.learn_classifier or not classifier):
            drawn = draw_parameters(operation, shape, (self.settings.seed, *names))
            self.weights.update({n: self._optimised(tensor) for n, tensor in zip(names, drawn, strict=True)})
        if self.adaptation.method != "meta-sgd":
            return
        for name, size in zip(names, parameter_shapes(operation, shape), strict=True):
            if rate_name(name) not in self.rates:
                rates = torch.full((1, *size[1:]) if classifier else size, self.adaptation.learning_rate)
                self.rates[rate_name(name)] = self._optimised(rates)

    def _optimised(self, tensor: Tensor) -> Tensor:
        parameter = tensor.to(self.device).requires_grad_()
        self.optimiser.add_param_group({"params": [parameter]})
        return parameter


T = TypeVar("T")


def _flat(nodes: Iterable[Iterable[T]]) -> list[T]:
    return [each for node in nodes for each in node]
