"""The controller that comes with the package: where it is, which spaces it searches, what it was shown in training.

How it was trained and what it reaches is on its card, ``rlnas/controllers/chain.md``; both were written by
``benchmarks/pretrained.py``. :mod:`rlnas.agents.pretrained` makes an agent of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import CheckpointError, ConfigurationError
from rlnas.search_space import ChainSpace, SearchSpace
from rlnas.task import DESCRIPTOR

NAME = "pretrained"
"""What commands call the agent."""
CONTROLLER = Path(__file__).parent / "controllers" / "chain.zip"
CARD = CONTROLLER.with_suffix(".md")
LAYERS = 4
WIDTHS, DENSE_WIDTHS = (8,), (16, 32, 64, 128)
"""Sizes of the layers that it was trained with; others in their places are as good."""
SHOWN = "descriptors"
"""The entry of a checkpoint's ``about`` that holds the :class:`Range` of the training tasks' descriptors."""
SIZE, ROUGHNESS = DESCRIPTOR.index("size"), [DESCRIPTOR.index(f"roughness_{axis}") for axis in "xy"]


def space(
    widths: tuple[int, ...] = WIDTHS, dense_widths: tuple[int, ...] = DENSE_WIDTHS, input_size: int = 8
) -> ChainSpace:
    """A space that the controller searches.

    Args:
        widths: channels of every convolution: one number.
        dense_widths: units that a fully connected layer may have: four numbers that rise.
        input_size: side in pixels of the smallest image, which says how often may be pooled; 1 for features.

    Raises:
        ConfigurationError: if there are more or fewer widths than that, or they do not rise.
    """
    chosen = ChainSpace(LAYERS, input_size, widths, dense_widths)
    controller_path(chosen)
    return chosen


def controller_path(space: SearchSpace) -> Path:
    """The checkpoint of the controller for a space, for :meth:`rlnas.agents.controller.Controller.load`.

    It serves chains, and tables of chains, that have its decisions and choices, whatever the layers' sizes.

    Raises:
        ConfigurationError: if the space is another.
    """
    theirs, ours = (_kinds(one) for one in (space, ChainSpace(LAYERS, 8, WIDTHS, DENSE_WIDTHS)))
    sizes = [int(name.rpartition("-")[2]) for name in space.decisions[0].choices if name.startswith("dense-")]
    if theirs != ours or sizes != sorted(sizes):
        raise ConfigurationError(
            f"the pretrained controller searches chains of {LAYERS} layers with {len(WIDTHS)} width of convolutions "
            f"and {len(DENSE_WIDTHS)} rising dense widths, such as rlnas.pretrained.space(), got {space.name}"
        )
    return CONTROLLER


def _kinds(space: SearchSpace) -> list[list[str]]:
    """What is chosen among at each decision, without the layers' sizes."""
    return [[name.rpartition("-")[0] or name for name in decision.choices] for decision in space.decisions]


def each_network_once(space: SearchSpace) -> SearchSpace:
    """A space of the same networks in which none can be designed in two ways; tables are taken to be such as it is."""
    if type(space) is not ChainSpace:
        return space
    return _EndedByIdentity(space.max_layers, space.input_size, space.widths, space.dense_widths, space.spatial)


class _EndedByIdentity(ChainSpace):
    """Chains in which nothing but identities follows an identity."""

    @cached_property
    def transitions(self) -> NDArray[np.int32]:
        table = ChainSpace.transitions.func(self)  # type: ignore[attr-defined]
        identity, ended = table.shape[1] - 1, len(table)
        table = np.vstack([table, np.full((1, table.shape[1]), -1, dtype=np.int32)])
        table[:, identity] = ended
        table.setflags(write=False)
        return table


@dataclass(frozen=True)
class Range:
    """The least and the greatest of each entry of the descriptors that a controller was shown; (D,) each."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, descriptors: NDArray[np.floating[Any]]) -> Range:
        """That of tasks' descriptors, (T, D)."""
        return cls(tuple(descriptors.min(0).tolist()), tuple(descriptors.max(0).tolist()))

    @classmethod
    def from_about(cls, path: str | Path, about: dict[str, Any]) -> Range:
        """What a checkpoint says.

        Raises:
            CheckpointError: if it does not.
        """
        try:
            said = cls(*(tuple(float(value) for value in about[SHOWN][end]) for end in ("low", "high")))
            if not len(said.low) == len(said.high) == len(DESCRIPTOR):
                raise ValueError(f"{len(DESCRIPTOR)} entries are needed")
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: does not say which descriptors were shown in training: {error}") from None
        return said

    def clamp(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Descriptors (N, D) moved to the nearest that was shown, entry by entry.

        Images of a single pixel, which is how features come, have no neighbours: they count as roughest.
        """
        clamped = np.clip(descriptors, self.low, self.high).astype(np.float32)
        for entry in ROUGHNESS:
            clamped[descriptors[:, SIZE] <= 0, entry] = self.high[entry]
        return clamped
