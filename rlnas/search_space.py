"""Search spaces: ordered decisions with named choices, some of them illegal after some prefixes.

A space says which choices are legal with a small table, its :attr:`~SearchSpace.transitions`: row = state, column =
choice, entry = the state after that choice, or -1 where the choice is illegal. Everything a searcher or an environment
needs (masks, sampling, mutation, crossover, neighbours, enumeration, counting) is written once in terms of it, and a
batch of partial designs is masked by indexing it with an array of states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.cell import CELL_INPUT, EDGES, OPERATIONS, Cell, canonical_cell, cell_text
from rlnas.errors import ConfigurationError, IllegalChoiceError, at_least, one_of
from rlnas.graph import (
    INPUT,
    Add,
    AvgPool,
    Classifier,
    Constant,
    Conv,
    Dense,
    GlobalPool,
    Graph,
    MaxPool,
    Node,
    Operation,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of a space: its name and the names of its choices."""

    name: str
    choices: tuple[str, ...]


class SearchSpace(ABC):
    """A finite set of architectures, each an ordered list of choices. Spaces are hashable and compare by value."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def name(self) -> str:
        """The space's name with every parameter that changes its networks; part of each architecture's key."""

    @property
    @abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions, in the order in which they are taken."""

    @property
    @abstractmethod
    def transitions(self) -> NDArray[np.int32]:
        """The state after each choice, -1 if illegal, of shape (states, choices). State 0 is the empty design."""

    @abstractmethod
    def text(self, choices: tuple[int, ...]) -> str:
        """Canonical text of a complete design; the same for designs that are the same network."""

    @abstractmethod
    def graph(self, choices: tuple[int, ...], ways: int) -> Graph:
        """The operations of a complete design's network with a classifier for ``ways`` classes."""

    @abstractmethod
    def parse(self, text: str) -> Architecture:
        """The architecture whose canonical text is ``text``.

        Raises:
            IllegalChoiceError: if there is none.
            UnknownNameError: if the text has a choice that the space does not know.
        """

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """A JSON object from which :func:`rlnas.specs.space_from_spec` makes an equal space."""

    def widened(self, factor: int) -> SearchSpace:
        """The space of the same decisions whose layers have ``factor`` times as many channels and units.

        Raises:
            ConfigurationError: if the space has no width.
        """
        raise ConfigurationError(f"architectures of {self.name} cannot be made wider")

    @property
    def num_choices(self) -> int:
        """The largest number of choices of any decision: the size of an environment's action space."""
        return int(self.transitions.shape[1])

    @cached_property
    def completions(self) -> list[list[int]]:
        """``completions[k][state]``: in how many legal ways ``k`` further choices can be made from a state."""
        states = len(self.transitions)
        counts = [[1] * states]
        for _ in self.decisions:
            after = counts[-1]
            counts.append([sum(after[n] for n in self.transitions[s].tolist() if n >= 0) for s in range(states)])
        return counts

    @property
    def size(self) -> int:
        """Number of legal lists of choices (isomorphic designs counted apart)."""
        return self.completions[len(self.decisions)][0]

    def legal_choices(self, prefix: Sequence[int] = (), without: Collection[tuple[int, ...]] = ()) -> NDArray[np.bool_]:
        """Which choices are legal after ``prefix``, of shape (num_choices,).

        Args:
            prefix: the choices taken before.
            without: complete designs not to be made again: a choice that only they go on with is not legal. Where they
                are the whole space, they make no difference.

        Raises:
            IllegalChoiceError: if the prefix itself is illegal or already complete.
        """
        if len(prefix) >= len(self.decisions):
            raise IllegalChoiceError(f"a design of {self.name} has {len(self.decisions)} decisions; all are taken")
        following = self.transitions[self._state_after(prefix)]
        legal = following >= 0
        made = set(without)
        if made and len(made) < self.size:
            place = len(prefix)
            after = self.completions[len(self.decisions) - place - 1]
            goes_on = Counter(design[place] for design in made if design[:place] == tuple(prefix))
            legal[[choice for choice, count in goes_on.items() if count == after[following[choice]]]] = False
        return np.asarray(legal)

    def decode(self, choices: Sequence[int]) -> Architecture:
        """The architecture that makes these choices, one for each decision.

        Raises:
            IllegalChoiceError: if a choice is missing, unknown or illegal.
        """
        if len(choices) != len(self.decisions):
            raise IllegalChoiceError(
                f"a design of {self.name} has {len(self.decisions)} choices, got {len(choices)}: {list(choices)}"
            )
        self._state_after(choices)
        return Architecture(self, tuple(int(c) for c in choices))

    def encode(self, architecture: Architecture) -> NDArray[np.int64]:
        """The choices of an architecture of this space, of shape (decisions,); the inverse of :meth:`decode`.

        Raises:
            IllegalChoiceError: if the architecture belongs to another space.
        """
        if architecture.space != self:
            raise IllegalChoiceError(f"{architecture.text!r} belongs to {architecture.space.name}, not to {self.name}")
        return np.array(architecture.choices, dtype=np.int64)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A random architecture: every decision uniform over its legal choices, as a random agent would take it."""
        choices: list[int] = []
        state = 0
        for _ in self.decisions:
            choices.append(int(rng.choice(np.flatnonzero(self.transitions[state] >= 0))))
            state = int(self.transitions[state, choices[-1]])
        return Architecture(self, tuple(choices))

    def neighbours(self, architecture: Architecture) -> list[Architecture]:
        """Every legal architecture that differs in exactly one choice and is another network."""
        found = []
        for position, current in enumerate(self.encode(architecture).tolist()):
            for choice in range(len(self.decisions[position].choices)):
                choices = (*architecture.choices[:position], choice, *architecture.choices[position + 1 :])
                if choice != current and self.is_legal(choices):
                    other = Architecture(self, choices)
                    if other.key != architecture.key:
                        found.append(other)
        return found

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """A random neighbour (regularised evolution's mutation); the architecture itself where it has none."""
        near = self.neighbours(architecture)
        return near[int(rng.integers(len(near)))] if near else architecture

    def crossover(self, first: Architecture, second: Architecture, rng: np.random.Generator) -> Architecture:
        """Uniform crossover: each choice from a random parent, from the other where illegal, else random."""
        choices: list[int] = []
        state = 0
        for genes in zip(self.encode(first).tolist(), self.encode(second).tolist(), strict=True):
            legal = np.flatnonzero(self.transitions[state] >= 0)
            inherited = [gene for gene in rng.permutation(genes).tolist() if gene in legal]
            choices.append(inherited[0] if inherited else int(rng.choice(legal)))
            state = int(self.transitions[state, choices[-1]])
        return Architecture(self, tuple(choices))

    def enumerate(self) -> Iterator[Architecture]:
        """Every legal architecture once, in lexicographic order of choices."""
        yield from (Architecture(self, choices) for choices in self._extend((), 0))

    def is_legal(self, choices: Sequence[int]) -> bool:
        """Whether ``choices`` is a legal prefix or a legal complete design."""
        if len(choices) > len(self.decisions):
            return False
        try:
            self._state_after(choices)
        except IllegalChoiceError:
            return False
        return True

    def _state_after(self, choices: Sequence[int]) -> int:
        state = 0
        for decision, choice in zip(self.decisions, choices, strict=False):
            if not 0 <= choice < len(decision.choices):
                raise IllegalChoiceError(f"{decision.name}: choice {choice} is not in 0..{len(decision.choices) - 1}")
            following = int(self.transitions[state, choice])
            if following < 0:
                legal = [name for name, s in zip(decision.choices, self.transitions[state], strict=False) if s >= 0]
                raise IllegalChoiceError(
                    f"{decision.name}: {decision.choices[choice]!r} is illegal here (legal: {', '.join(legal)})"
                )
            state = following
        return state

    def _extend(self, prefix: tuple[int, ...], state: int) -> Iterator[tuple[int, ...]]:
        if len(prefix) == len(self.decisions):
            yield prefix
            return
        for choice, following in enumerate(self.transitions[state].tolist()):
            if following >= 0:
                yield from self._extend((*prefix, choice), following)


@dataclass(frozen=True)
class ChainSpace(SearchSpace):
    """A sequence of at most ``max_layers`` layers, then a classifier.

    Layers are convolutions of kernel 3 or 5, 2 x 2 max or average pooling, fully connected layers, and the identity,
    which makes shorter networks. Nothing spatial may follow a fully connected layer, and nothing smaller than 2 x 2 is
    pooled.

    Args:
        max_layers: number of decisions.
        input_size: side in pixels of the smallest image the networks must accept; larger ones always fit.
        widths: channels that a convolution may have.
        dense_widths: units that a fully connected layer may have.
        spatial: whether convolutions and poolings are legal; features, which have no neighbours, need none.
    """

    max_layers: int = 6
    input_size: int = 8
    widths: tuple[int, ...] = (8, 16, 32)
    dense_widths: tuple[int, ...] = (32, 128)
    spatial: bool = True

    kind: ClassVar[str] = "chain"

    def __post_init__(self) -> None:
        at_least("max_layers", self.max_layers, 1)
        at_least("input_size", self.input_size, 1)
        for field in ("widths", "dense_widths"):
            values = tuple(getattr(self, field))
            if not values or len(set(values)) < len(values):
                raise ConfigurationError(f"{field} must be distinct and not empty, got {list(values)}")
            for value in values:
                at_least(field, value, 1)
            object.__setattr__(self, field, values)
        if not isinstance(self.spatial, bool):
            raise ConfigurationError(f"spatial must be true or false, got {self.spatial!r}")

    @cached_property
    def _layers(self) -> tuple[tuple[str, Operation | None], ...]:
        convolutions = [(f"conv{k}x{k}-{w}", Conv(k, w)) for k in (3, 5) for w in self.widths]
        dense = [(f"dense-{w}", Dense(w)) for w in self.dense_widths]
        return (*convolutions, ("max-pool", MaxPool()), ("avg-pool", AvgPool()), *dense, ("identity", None))

    @cached_property
    def name(self) -> str:
        widths, dense = ("/".join(map(str, w)) for w in (self.widths, self.dense_widths))
        flat = "" if self.spatial else ",spatial=no"
        return f"chain(layers={self.max_layers},size={self.input_size},widths={widths},dense={dense}{flat})"

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        names = tuple(name for name, _ in self._layers)
        return tuple(Decision(f"layer {i + 1}", names) for i in range(self.max_layers))

    @cached_property
    def transitions(self) -> NDArray[np.int32]:
        # State p < flat: still spatial after p poolings; state `flat`: a fully connected layer came.
        poolings = self.input_size.bit_length() - 1
        flat = poolings + 1
        table = np.full((flat + 1, len(self._layers)), -1, dtype=np.int32)
        for choice, (_, operation) in enumerate(self._layers):
            for state in range(flat):
                if isinstance(operation, Dense):
                    table[state, choice] = flat
                elif operation is not None and not self.spatial:
                    continue
                elif not isinstance(operation, MaxPool | AvgPool):
                    table[state, choice] = state
                elif state < poolings:
                    table[state, choice] = state + 1
            if operation is None or isinstance(operation, Dense):
                table[flat, choice] = flat
        table.setflags(write=False)
        return table

    def text(self, choices: tuple[int, ...]) -> str:
        layers = [self._layers[c][0] for c in choices if self._layers[c][1] is not None]
        return " > ".join(layers) or "identity"

    def graph(self, choices: tuple[int, ...], ways: int) -> Graph:
        operations = [op for c in choices if (op := self._layers[c][1]) is not None]
        return tuple(Node(op, (i - 1,)) for i, op in enumerate([*operations, Classifier(ways)]))

    def parse(self, text: str) -> Architecture:
        names = [name for name, _ in self._layers]
        layers = [one_of("layer", layer.strip(), names) for layer in text.split(">")]
        layers += ["identity"] * (self.max_layers - len(layers))
        return self.decode([names.index(layer) for layer in layers])

    def widened(self, factor: int) -> ChainSpace:
        widths, dense = (tuple(width * factor for width in each) for each in (self.widths, self.dense_widths))
        return replace(self, widths=widths, dense_widths=dense)

    def spec(self) -> dict[str, Any]:
        spec = {"kind": self.kind, **asdict(self)}
        if self.spatial:  # as descriptions were before there was a choice
            del spec["spatial"]
        return spec


@dataclass(frozen=True)
class CellSpace(SearchSpace):
    """NAS-Bench-201's cell (Dong & Yang 2020): 4 nodes, 6 edges, 5 operations, 15,625 cells.

    The network is a 3 x 3 convolution to ``width`` channels, ``cells`` copies of the cell with 2 x 2 average pooling
    between them, global average pooling and a classifier. A cell's convolutions are convolution, batch norm, ReLU.

    Args:
        width: channels throughout the network.
        cells: number of copies; an image needs a side of at least 2 ** (cells - 1) pixels.
    """

    width: int = 16
    cells: int = 2

    kind: ClassVar[str] = "cell"

    def __post_init__(self) -> None:
        at_least("width", self.width, 1)
        at_least("cells", self.cells, 1)

    @property
    def name(self) -> str:
        return f"cell(width={self.width},cells={self.cells})"

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(Decision(f"edge {source}->{target}", OPERATIONS) for source, target in EDGES)

    @cached_property
    def transitions(self) -> NDArray[np.int32]:
        table = np.zeros((1, len(OPERATIONS)), dtype=np.int32)
        table.setflags(write=False)
        return table

    def text(self, choices: tuple[int, ...]) -> str:
        return cell_text(_representatives()[canonical_cell(choices)])

    def parse(self, text: str) -> Architecture:
        """Reads NAS-Bench-201's notation, of any of the isomorphic cells."""
        tokens = [token for group in text.split("+") for token in group.strip("|").split("|")]
        names = [one_of("operation", token.split("~")[0], OPERATIONS) for token in tokens]
        architecture = self.decode([OPERATIONS.index(name) for name in names])
        if cell_text(architecture.choices) != text:
            raise IllegalChoiceError(f"{text!r} is not in the notation |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
        return architecture

    def graph(self, choices: tuple[int, ...], ways: int) -> Graph:
        applied, output = canonical_cell(choices)
        if not output:
            return (Node(Constant(ways), (INPUT,)),)
        operations: dict[str, Operation] = {
            "nor_conv_1x1": Conv(1, self.width),
            "nor_conv_3x3": Conv(3, self.width),
            "avg_pool_3x3": AvgPool(3),
        }
        nodes = [Node(Conv(3, self.width), (INPUT,))]
        for copy in range(self.cells):
            if copy:
                nodes.append(Node(AvgPool(2), (len(nodes) - 1,)))
            start = len(nodes)  # index of the first applied operation; the cell's input is the node before it
            for name, reads in applied:
                nodes.append(Node(operations[name], tuple(start + r for r in reads)))
            nodes.append(Node(Add(), tuple(start + t for t in output)))
        nodes.append(Node(GlobalPool(), (len(nodes) - 1,)))
        nodes.append(Node(Classifier(ways), (len(nodes) - 1,)))
        return tuple(nodes)

    def widened(self, factor: int) -> CellSpace:
        return replace(self, width=self.width * factor)

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


@lru_cache(maxsize=1)
def _representatives() -> dict[Cell, tuple[int, ...]]:
    """The lexicographically first cell of every class of isomorphic ones; the same whatever the width."""
    first: dict[Cell, tuple[int, ...]] = {}
    for choices in product(range(len(OPERATIONS)), repeat=len(EDGES)):
        first.setdefault(canonical_cell(choices), choices)
    return first


assert CELL_INPUT == -1  # so that `start + CELL_INPUT` is the node before a cell's first operation
