"""The network that is trained fully: a found architecture with more channels and units than the search gave it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rlnas.architecture import Architecture, misfit
from rlnas.device import free_memory
from rlnas.errors import ConfigurationError, at_least
from rlnas.graph import Constant, Shape, count_parameters, input_shapes
from rlnas.network import Network, draw_parameters
from rlnas.search_space import CellSpace, ChainSpace

COPIES = 6
"""Of every parameter: itself, its gradient, two moments, the best value, the one being written."""


def widened(architecture: Architecture, factor: int) -> Architecture:
    """The same choices in a space whose layers have ``factor`` times as many channels and units.

    Raises:
        ConfigurationError: if the architecture's space has no width.
    """
    at_least("width", factor, 1)
    match architecture.space:
        case ChainSpace(widths=widths, dense_widths=dense) as space:
            wide = tuple(w * factor for w in widths), tuple(w * factor for w in dense)
            return replace(space, widths=wide[0], dense_widths=wide[1]).decode(architecture.choices)
        case CellSpace(width=width) as space:
            return replace(space, width=width * factor).decode(architecture.choices)
    raise ConfigurationError(f"architectures of {architecture.space.name} cannot be made wider")


def drawn_weights(architecture: Architecture, ways: int, image: Shape, seed: int) -> dict[str, Tensor]:
    """The state of a new network: weights as :func:`rlnas.network.random_weights` draws them, but whatever the data."""
    graph = architecture.graph(ways)
    reads = enumerate(zip(graph, input_shapes(graph, image), strict=True))
    network = Network(graph, image)
    network.load_weights(
        tuple(draw_parameters(node.operation, shape, (architecture.key, seed, index)) for index, (node, shape) in reads)
    )
    return network.state_dict()


def require_trainable(found: Architecture, width: int, ways: int, image: Shape, device: torch.device) -> None:
    """Make sure that an architecture can be trained at ``width`` times its width on inputs of shape (C, H, W).

    Raises:
        ConfigurationError: if nothing in it can be trained, it does not fit the inputs, or the memory does not hold it.
    """
    graph = widened(found, width).graph(ways)
    if isinstance(graph[-1].operation, Constant):
        raise ConfigurationError(f"{found.text} has nothing to train: no path leads from the input to the end")
    try:
        parameters = count_parameters(graph, image)
    except ValueError as error:
        raise misfit(found, image, error) from None
    needed, free = 4 * COPIES * parameters, free_memory(device)
    if needed > free:
        raise ConfigurationError(
            f"width {width} makes {parameters:,} parameters of {found.text} on {image} inputs: "
            f"training them takes {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free; choose a smaller width"
        )
