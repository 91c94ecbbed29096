"""Edits: how a chain network is made from another, one layer at a time.

The other way to design: where a space's decisions build a network up from nothing, edits change one that is complete
(Cai et al. 2018, https://arxiv.org/abs/1707.04873).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError, IllegalChoiceError, at_least, one_of
from rlnas.graph import AvgPool, Conv, Dense, MaxPool, Operation
from rlnas.search_space import ChainSpace, SearchSpace

STARTS = ("empty", "incumbent")

WAIT = -1
"""The action that leaves a trial as it is while others go on: trials of edits differ in length."""

Choices: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class ChainEdits:
    """What may be done to a complete network of a chain space, and when its design is complete.

    ``N`` networks, each of ``L`` choices with the identities last; ``A`` actions. In order, the actions are: add each
    of the space's layers (a spatial one before the first fully connected layer, others at the end); for each of the
    ``L`` places in turn change the filter of the layer there (its kernel from 3 to 5 or back; of a pooling, maximum to
    average or back), make it wider, make it narrower, delete it; and submit. An edit is legal if the space has the
    network it makes.

    Args:
        space: whose networks are edited.
        max_edits: the edit that completes the design if none before it submitted.
        start: what the first edit of a design changes: ``"empty"``, the network without layers, or ``"incumbent"``,
            the best network of the trial so far, where there is one.

    Raises:
        ConfigurationError: if the space is no chain or an argument has a value that is not allowed.
    """

    space: ChainSpace
    max_edits: int
    start: str = "empty"

    def __post_init__(self) -> None:
        require_chain(self.space)
        at_least("max_edits", self.max_edits, 1)
        one_of("start", self.start, STARTS)

    def spec(self) -> dict[str, Any]:
        """The arguments but for the space, as JSON."""
        return {"max_edits": self.max_edits, "start": self.start}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each action, of length A."""
        adds = [f"add {self.space.decisions[0].choices[choice]}" for choice in self._added]
        places = range(1, self.space.max_layers + 1)
        changes = [f"{verb} layer {i}" for verb in ("change filter of", "widen", "narrow", "delete") for i in places]
        return (*adds, *changes, "submit")

    @property
    def submit(self) -> int:
        """The action that completes a design: the last."""
        return len(self.names) - 1

    @cached_property
    def empty(self) -> Choices:
        """The network without layers."""
        return (self._identity,) * self.space.max_layers

    def normal(self, choices: Sequence[int]) -> Choices:
        """The same network with its identities last."""
        layers = self._layers_of(choices)
        return (*layers, *self.empty[len(layers) :])

    def outcomes(self, networks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """What each action would make of networks of shape (N, L).

        Returns:
            The networks after it, of shape (N, A, L), and whether it is legal, of shape (N, A). What an illegal action
            would make is no network.
        """
        count, length = networks.shape
        is_layer = networks != self._identity
        padded = np.concatenate([networks, np.full((count, 1), self._identity)], axis=1)
        places = np.arange(length)
        spatial, layers = self._spatial[networks].sum(1), is_layer.sum(1)
        where = np.where(self._spatial[self._added], spatial[:, None], layers[:, None])[:, :, None]
        before, at = places < where, places == where
        pushed = np.roll(padded, 1, axis=1)[:, None, :-1]
        added = np.where(at, self._added[:, None], np.where(before, networks[:, None], pushed))
        here = np.eye(length, dtype=np.bool_)
        changed = [np.where(here, table[networks][:, None], networks[:, None]) for table in self._changes]
        deleted = np.where(places < places[:, None], networks[:, None], padded[:, None, 1:])
        made = np.concatenate([added, *changed, deleted, networks[:, None]], axis=1)
        legal = self._fits(made)
        legal[:, : len(self._added)] &= ~is_layer[:, -1:]
        legal[:, -1 - length : -1] &= is_layer
        return made, legal

    def follow(self, network: Sequence[int], actions: Sequence[int]) -> list[Choices]:
        """The network itself and after each action.

        Raises:
            IllegalChoiceError: if an action is illegal.
        """
        networks = [self.normal(network)]
        for action in actions:
            made, legal = self.outcomes(np.array(networks[-1:]))
            if not (0 <= action < len(self.names) and legal[0, action]):
                raise IllegalChoiceError(self.refusal(len(networks) - 1, action, legal[0]))
            networks.append(tuple(made[0, action].tolist()))
        return networks

    def unrepeated(
        self, made: NDArray[np.int64], legal: NDArray[np.bool_], edits: int, refused: Container[object]
    ) -> NDArray[np.bool_]:
        """The legal actions that do not complete a design again; all of them where each would.

        Args:
            made: the network after each action, of shape (A, L).
            legal: the legal actions, of shape (A,).
            edits: how many were made before.
            refused: canonical texts of designs that are not to be made again.
        """
        completing = range(len(self.names)) if edits == self.max_edits - 1 else [self.submit]
        fresh = legal.copy()
        for action in completing:
            fresh[action] = legal[action] and self.space.text(tuple(made[action].tolist())) not in refused
        return fresh if fresh.any() else legal

    def plan(self, target: Architecture, network: Sequence[int] = ()) -> list[int]:
        """Actions that make ``target`` of a network, by default of the empty one, and submit it.

        Layers from the first that differs are deleted, the last first; then the target's are added.
        """
        wanted, found = (self._layers_of(choices) for choices in (target.choices, network))
        same = 0
        while same < min(len(wanted), len(found)) and wanted[same] == found[same]:
            same += 1
        first_delete = self.submit - self.space.max_layers
        deletes = [first_delete + place for place in range(len(found) - 1, same - 1, -1)]
        adds = [self._added.tolist().index(choice) for choice in wanted[same:]]
        return [*deletes, *adds, self.submit]

    def steps(self, actions: Sequence[int]) -> int:
        """How many of the actions complete a design: those up to the first ``submit``, or ``max_edits``."""
        within = list(actions[: self.max_edits])
        return within.index(self.submit) + 1 if self.submit in within else self.max_edits

    def refusal(self, edits: int, action: int, legal: NDArray[np.bool_]) -> str:
        """What to say of an illegal action after a number of edits."""
        name = self.names[action] if 0 <= action < len(self.names) else f"action {action}"
        allowed = ", ".join(name for name, ok in zip(self.names, legal, strict=True) if ok)
        return f"edit {edits + 1}: {name!r} is illegal here (legal: {allowed})"

    def _layers_of(self, choices: Sequence[int]) -> list[int]:
        return [choice for choice in choices if choice != self._identity]

    def _fits(self, networks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the space has networks of shape (..., L), in which -1 is no layer."""
        legal = np.asarray((networks >= 0).all(-1))
        state = np.zeros(legal.shape, dtype=np.int32)
        for place in range(networks.shape[-1]):
            state = np.where(legal, self.space.transitions[state, networks[..., place]], -1)
            legal &= state >= 0
        return legal

    @cached_property
    def _operations(self) -> list[Operation | None]:
        """Each choice's operation, None for the identity."""
        graphs = [self.space.graph((choice,), 1) for choice in range(self.space.num_choices)]
        return [graph[0].operation if len(graph) > 1 else None for graph in graphs]

    @cached_property
    def _identity(self) -> int:
        return self._operations.index(None)

    @cached_property
    def _added(self) -> NDArray[np.int64]:
        """The choices that can be added, in order."""
        return np.array([choice for choice, op in enumerate(self._operations) if op is not None])

    @cached_property
    def _spatial(self) -> NDArray[np.bool_]:
        """Which choices are convolutions or poolings."""
        return np.array([isinstance(op, Conv | MaxPool | AvgPool) for op in self._operations])

    @cached_property
    def _changes(self) -> tuple[NDArray[np.int64], ...]:
        """What each choice becomes with another filter, wider, and narrower, each of shape (choices,); -1: nothing."""
        became = [(_refiltered(op), self._resized(op, 1), self._resized(op, -1)) for op in self._operations]
        known = {op: choice for choice, op in enumerate(self._operations) if op is not None}
        return tuple(
            np.array([-1 if op is None else known.get(op, -1) for op in ops]) for ops in zip(*became, strict=True)
        )

    def _resized(self, operation: Operation | None, step: int) -> Operation | None:
        """The same layer with the next width up or down, None where there is none."""
        if not isinstance(operation, Conv | Dense):
            return None
        widths = sorted(self.space.widths if isinstance(operation, Conv) else self.space.dense_widths)
        place = widths.index(operation.width) + step
        return replace(operation, width=widths[place]) if 0 <= place < len(widths) else None


def require_chain(space: SearchSpace) -> ChainSpace:
    """The space itself.

    Raises:
        ConfigurationError: if it is no chain.
    """
    if not isinstance(space, ChainSpace):
        raise ConfigurationError(f"space must be a chain, whose layers can be edited, got {space!r}")
    return space


def _refiltered(operation: Operation | None) -> Operation | None:
    """The same layer with a kernel of 5 for 3, the maximum for the average, or the other way about; None of others."""
    if isinstance(operation, Conv):
        return replace(operation, kernel=8 - operation.kernel)
    if isinstance(operation, MaxPool | AvgPool):
        return AvgPool() if isinstance(operation, MaxPool) else MaxPool()
    return None
