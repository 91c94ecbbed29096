"""One network design: a legal, complete list of choices in a search space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rlnas.errors import ConfigurationError

if TYPE_CHECKING:
    from rlnas.graph import Graph, Shape
    from rlnas.search_space import SearchSpace


@dataclass(frozen=True)
class Architecture:
    """A design, made by :meth:`SearchSpace.decode`, :meth:`~SearchSpace.sample` or :meth:`~SearchSpace.parse`.

    Two architectures are equal when they make the same choices in equal spaces; two that differ in choices but are the
    same network share a :attr:`key`.

    Args:
        space: the space the choices belong to.
        choices: one choice (an index) for each of the space's decisions, in order.
    """

    space: SearchSpace
    choices: tuple[int, ...]

    @cached_property
    def text(self) -> str:
        """Canonical text: the same for architectures that are the same network; :meth:`SearchSpace.parse` reads it."""
        return self.space.text(self.choices)

    @cached_property
    def key(self) -> str:
        """The space's name and :attr:`text`: identifies the network among those of all spaces."""
        return f"{self.space.name}/{self.text}"

    def graph(self, ways: int) -> Graph:
        """The network's operations, with a classifier for ``ways`` classes; equal for equal keys."""
        return self.space.graph(self.choices, ways)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :func:`rlnas.specs.architecture_from_json` reads back."""
        return {"space": self.space.spec(), "choices": list(self.choices)}

    def __str__(self) -> str:
        return self.text

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        from rlnas.drawing import draw_svg  # which draws architectures

        return draw_svg(self)


def misfit(architecture: Architecture, image: Shape, error: ValueError) -> ConfigurationError:
    """What to raise where a network does not fit images of shape (C, H, W), as ``error`` says."""
    return ConfigurationError(f"{architecture.text} does not fit {image} images: {error}")
