"""Meta-learned starts: one set of named weights that every network of a search space can begin from.

A tensor's name says where its node stands and what it does, so that architectures share what they have in common and a
network that was never trained begins from what others learned:

``DEPTH.OPERATION.INPUT.ORDINAL/PART``, such as ``2.conv3x3-16.8.0/kernel``, where DEPTH is the length of the longest
path of operations from the image (sums not counted), INPUT the channels that a convolution reads or the shape that a
fully connected layer does, and ORDINAL how many such nodes the graph has before this one.

A classifier begins at zero. One row, learned and repeated for each class so that it serves any number of ways (Ye &
Chao 2022, https://arxiv.org/abs/2106.16245), would come to the same: what is added to every logit alike changes neither
the softmax nor any gradient, so such a row is never told anything and never felt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlnas.adaptation import METHODS, Adaptation, relation_shapes
from rlnas.architecture import Architecture, misfit
from rlnas.checkpoint import load_checkpoint, one_line, save_checkpoint
from rlnas.errors import CheckpointError, ConfigurationError
from rlnas.graph import INPUT, Add, Classifier, Conv, Dense, Graph, Shape, input_shapes
from rlnas.network import Weights, random_weights
from rlnas.task import FewShotTask

KIND = "initialisation"
"""What such a checkpoint says it is."""


@dataclass(frozen=True, eq=False)
class Initialisation:
    """A meta-learned start.

    Args:
        weights: the learned tensors by name.
        adaptation: the inner loop that they were learned for.
        rates: of ``meta-sgd``, the learned rate of each number in ``weights``, by the same names; that of a classifier
            is one row, for every class.
        head: of ``relation``, the learned comparison (see :func:`rlnas.adaptation.relation_shapes`).
        about: what it was trained on and how, as JSON; ``space`` is the search space.
        path: the folder that it was read from.
    """

    weights: Mapping[str, Tensor]
    adaptation: Adaptation
    rates: Mapping[str, Tensor] = field(default_factory=dict)
    head: tuple[Tensor, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what decides where a network starts and how it adapts, in hexadecimal."""
        sha = hashlib.sha256(json.dumps(asdict(self.adaptation), sort_keys=True).encode())
        for name, tensor in sorted(self._tensors().items()):
            sha.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().data)
        return sha.hexdigest()

    def spec(self) -> dict[str, Any]:
        """A JSON object from which :meth:`from_spec` reads the same start again; ``path`` is None if it has no file."""
        return {"path": None if self.path is None else str(self.path), "digest": self.digest}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Initialisation:
        """The start that :meth:`spec` described.

        Raises:
            ConfigurationError: if it was never in a file.
            CheckpointError: as :meth:`load`, or if what is there now is another one.
        """
        if spec.get("path") is None:
            raise ConfigurationError("the meta-learned start was never saved, so it cannot be read again")
        found = cls.load(spec["path"])
        if found.digest != spec.get("digest", found.digest):
            raise CheckpointError(
                f"{found.path}: not the meta-learned start that the record was made with "
                f"(digest {found.digest[:12]}, recorded {str(spec['digest'])[:12]})"
            )
        return found

    def save(self, folder: str | Path) -> None:
        """Write it to a folder: JSON, safetensors and a manifest."""
        data = {"kind": KIND, "adaptation": asdict(self.adaptation), "about": dict(self.about)}
        save_checkpoint(folder, data, self._tensors())

    @classmethod
    def load(cls, folder: str | Path) -> Initialisation:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: if there is no such checkpoint, or it is damaged, of a newer version or of something else.
        """
        path = Path(folder).expanduser().resolve()
        data, tensors = load_checkpoint(path)
        if data.get("kind") != KIND:
            raise CheckpointError(f"{path}: holds no meta-learned start, but {data.get('kind', 'something else')!r}")
        try:
            adaptation, about = Adaptation(**data["adaptation"]), dict(data["about"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: the meta-learned start is damaged: {one_line(error)}") from None
        parts: dict[str, dict[str, Tensor]] = {"weight": {}, "rate": {}, "head": {}}
        for key, tensor in sorted(tensors.items()):
            part, _, name = key.partition(":")
            if part not in parts or tensor.dtype != torch.float32 or not tensor.isfinite().all():
                raise CheckpointError(f"{path}: tensor {key!r} is no finite part of a meta-learned start")
            parts[part][name] = tensor
        head = tuple(parts["head"].values())
        if adaptation.method == "relation" and tuple(tuple(t.shape) for t in head) != relation_shapes():
            raise CheckpointError(f"{path}: the head of relation has tensors of other shapes than {relation_shapes()}")
        return cls(parts["weight"], adaptation, parts["rate"], head, about, path)

    def to(self, device: torch.device) -> Initialisation:
        """The same with its tensors on ``device``."""
        weights, rates = ({n: t.to(device) for n, t in each.items()} for each in (self.weights, self.rates))
        return replace(self, weights=weights, rates=rates, head=tuple(t.to(device) for t in self.head))

    def _tensors(self) -> dict[str, Tensor]:
        parts = {"weight": self.weights, "rate": self.rates, "head": {str(i): t for i, t in enumerate(self.head)}}
        return {f"{part}:{name}": tensor for part, named in parts.items() for name, tensor in named.items()}


def tensor_names(graph: Graph, image: Shape) -> list[tuple[str, ...]]:
    """For each node of a graph the names of its parameters, in the order of :data:`rlnas.network.Weights`.

    Raises:
        ValueError: if the graph does not fit images of shape (C, H, W).
    """
    depth, counts, names = {INPUT: 0}, dict[str, int](), list[tuple[str, ...]]()
    for index, (node, shape) in enumerate(zip(graph, input_shapes(graph, image), strict=True)):
        depth[index] = max(depth[source] for source in node.inputs) + (not isinstance(node.operation, Add))
        parts: tuple[str, ...]
        match node.operation:
            case Conv(kernel, width):
                stem, parts = f"conv{kernel}x{kernel}-{width}.{shape[0]}", ("kernel", "scale", "shift")
            case Dense(width):
                stem, parts = f"dense-{width}.{'x'.join(map(str, shape))}", ("matrix", "bias")
            case Classifier(ways):
                stem, parts = f"classifier-{ways}.{prod(shape)}", ("matrix", "bias")
            case _:
                names.append(())
                continue
        stem = f"{depth[index]}.{stem}"
        ordinal = counts.get(stem, 0)
        counts[stem] = ordinal + 1
        names.append(tuple(f"{stem}.{ordinal}/{part}" for part in parts))
    return names


def rate_name(name: str) -> str:
    """What a tensor's rates are called: those of a classifier are the same for every number of ways."""
    depth, operation, rest = name.split(".", 2)
    return f"{depth}.classifier.{rest}" if operation.startswith("classifier-") else name


def start(
    architecture: Architecture, task: FewShotTask, seed: int = 0, init: Initialisation | None = None
) -> tuple[Weights, Weights]:
    """Where a network begins on a task.

    Args:
        architecture: the network.
        task: gives the image shape and the number of classes.
        seed: of what is not learned.
        init: the meta-learned start; None for random weights alone.

    Returns:
        The weights, and the rates of ``meta-sgd`` (empty without). Nodes that were never met in meta-training begin as
        :func:`~rlnas.network.random_weights` says, with the adaptation's own rate.

    Raises:
        ConfigurationError: if the task's images are too small for the architecture.
        CheckpointError: if a learned tensor has not the shape that its name says.
    """
    try:
        weights = random_weights(architecture, task, seed)
    except ValueError as error:
        raise misfit(architecture, task.image_shape, error) from None
    if init is None:
        return weights, ()
    graph = architecture.graph(task.ways)
    names = tensor_names(graph, task.image_shape)
    if isinstance(graph[-1].operation, Classifier):
        weights = (*weights[:-1], tuple(torch.zeros_like(tensor) for tensor in weights[-1]))
    weights = tuple(_named(init.weights, n, drawn) for n, drawn in zip(names, weights, strict=True))
    if not init.rates:
        return weights, ()
    rates = []
    for node, values in zip(names, weights, strict=True):
        same = tuple(torch.full_like(tensor, init.adaptation.learning_rate) for tensor in values)
        rates.append(_named(init.rates, tuple(map(rate_name, node)), same))
    return weights, tuple(rates)


def matched(
    adaptation: Adaptation | None, init: Initialisation | str | Path | None
) -> tuple[Adaptation, Initialisation | None]:
    """How networks adapt, and from what; the start's own adaptation where none is asked for.

    Raises:
        ConfigurationError: if the adaptation needs a meta-learned start and there is none, or this one does not serve.
        CheckpointError: if the start cannot be read.
    """
    if isinstance(init, str | Path):
        init = Initialisation.load(init)
    if init is None:
        adaptation = adaptation or Adaptation()
        if not METHODS[adaptation.method].random_start:
            raise ConfigurationError(
                f"adaptation {adaptation.method} needs a meta-learned start (init); `rlnas meta-train` makes one"
            )
        return adaptation, None
    adaptation = adaptation or init.adaptation
    served = METHODS[adaptation.method].starts
    if init.adaptation.method not in served:
        raise ConfigurationError(
            f"adaptation {adaptation.method} cannot begin from a start that was learned for {init.adaptation.method} "
            f"(it can from {', '.join(served)})"
        )
    if adaptation.method == "meta-sgd" and not init.rates:
        raise ConfigurationError("adaptation meta-sgd needs a start with learned rates; this one has none")
    return adaptation, init


def _named(tensors: Mapping[str, Tensor], names: tuple[str, ...], others: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The tensors of those names, the others where there are none."""
    if not any(name in tensors for name in names):
        return others
    found = []
    for name, other in zip(names, others, strict=True):
        try:
            found.append(tensors[name].expand(other.shape))
        except (KeyError, RuntimeError):
            raise CheckpointError(
                f"the meta-learned start has no tensor {name!r} of shape {tuple(other.shape)}"
            ) from None
    return tuple(found)
