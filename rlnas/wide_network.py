"""The network that is trained fully: a found architecture with more channels and units than the search gave it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlnas.architecture import Architecture, misfit
from rlnas.device import free_memory
from rlnas.errors import ConfigurationError, at_least
from rlnas.graph import Constant, Shape, count_flops, count_parameters, input_shapes
from rlnas.network import Network, draw_parameters

COPIES = 6
"""Of every parameter: itself, its gradient, two moments, the best value, the one being written."""

WIDEST, FULL_FLOPS = 8, 8_000_000
"""Unless told otherwise, a network is made up to 8 times as wide, as long as it takes at most 8 million
multiply-accumulates an example: found networks then cost about equally much, whatever their layers."""


@dataclass(frozen=True)
class Limits:
    """What the network that is trained fully may cost, and how wide it therefore is.

    Args:
        width: times as many channels and units as the search's networks have; None for as many, up to
            :data:`WIDEST`, as keep the network within the other two.
        max_params: trainable parameters; None for any number.
        max_flops: multiply-accumulates of one example's forward pass; None for any number, yet no network is widened
            beyond :data:`FULL_FLOPS`.
    """

    width: int | None = None
    max_params: int | None = None
    max_flops: int | None = None

    def __post_init__(self) -> None:
        for field in ("width", "max_params", "max_flops"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, at_least(field, getattr(self, field), 1))

    def __bool__(self) -> bool:
        return self.max_params is not None or self.max_flops is not None

    def width_of(self, found: Architecture, ways: int, image: Shape) -> int:
        """Times as wide as an architecture is trained on inputs of shape (C, H, W).

        Raises:
            ConfigurationError: if the architecture's space has no width.
            ValueError: if it does not fit the inputs.
        """
        if self.width is not None:
            return self.width
        flops, width = self.max_flops or FULL_FLOPS, WIDEST
        while width > 1:
            parameters, multiplications = full_cost(found, width, ways, image)
            if multiplications <= flops and (self.max_params is None or parameters <= self.max_params):
                break
            width -= 1
        return width

    def cost_of(self, found: Architecture, ways: int, image: Shape) -> tuple[int, int]:
        """Parameters and multiply-accumulates at that width, under the same terms."""
        return full_cost(found, self.width_of(found, ways, image), ways, image)


def full_cost(found: Architecture, width: int, ways: int, image: Shape) -> tuple[int, int]:
    """Parameters and multiply-accumulates of an architecture on inputs of shape (C, H, W), ``width`` times as wide.

    Raises:
        ConfigurationError: if the architecture's space has no width.
        ValueError: if it does not fit the inputs.
    """
    graph = (found if width == 1 else widened(found, width)).graph(ways)
    return count_parameters(graph, image), count_flops(graph, image)


def widened(architecture: Architecture, factor: int) -> Architecture:
    """The same choices in a space whose layers have ``factor`` times as many channels and units.

    Raises:
        ConfigurationError: if the architecture's space has no width.
    """
    at_least("width", factor, 1)
    return architecture.space.widened(factor).decode(architecture.choices)


def drawn_weights(architecture: Architecture, ways: int, image: Shape, seed: int) -> dict[str, Tensor]:
    """The state of a new network: weights as :func:`rlnas.network.random_weights` draws them, but whatever the data."""
    graph = architecture.graph(ways)
    reads = enumerate(zip(graph, input_shapes(graph, image), strict=True))
    network = Network(graph, image)
    network.load_weights(
        tuple(draw_parameters(node.operation, shape, (architecture.key, seed, index)) for index, (node, shape) in reads)
    )
    return network.state_dict()


def require_trainable(found: Architecture, limits: Limits, ways: int, image: Shape, device: torch.device) -> int:
    """Make sure that an architecture can be trained on inputs of shape (C, H, W), at the width within the limits.

    Returns:
        That width, times the architecture's own.

    Raises:
        ConfigurationError: if nothing in it can be trained, it does not fit the inputs, or the memory does not hold it.
    """
    if isinstance(found.graph(ways)[-1].operation, Constant):
        raise ConfigurationError(f"{found.text} has nothing to train: no path leads from the input to the end")
    try:
        width = limits.width_of(found, ways, image)
        parameters, _ = full_cost(found, width, ways, image)
    except ValueError as error:
        raise misfit(found, image, error) from None
    needed, free = 4 * COPIES * parameters, free_memory(device)
    if needed > free:
        raise ConfigurationError(
            f"width {width} makes {parameters:,} parameters of {found.text} on {image} inputs: "
            f"training them takes {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free; choose a smaller width"
        )
    return width
