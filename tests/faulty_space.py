"""Designs that do real harm to the process that builds their network, for tests of whoever runs such processes."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from rlnas.evaluator import Proposal
from rlnas.graph import Graph
from rlnas.search_space import ChainSpace


def die(path: Path) -> NoReturn:
    os._exit(9)


def die_once(path: Path) -> None:
    """End the process, unless another has died of it before."""
    if not path.exists():
        path.touch()
        os._exit(9)


def hang(path: Path) -> None:
    while True:
        signal.pause()


def hang_deaf(path: Path) -> None:
    """Hang in native code, with the interpreter locked and every signal that can be blocked blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.PyDLL(None).pause()


def hang_while_announced(path: Path) -> None:
    """While there is a FIFO, write the process's id into it and hang."""
    if path.exists():
        path.write_text(str(os.getpid()))
        hang(path)


FAULTS: dict[str, Callable[[Path], None]] = {
    f.__name__: f for f in (die, die_once, hang, hang_deaf, hang_while_announced)
}


@dataclass(frozen=True)
class FaultySpace(ChainSpace):
    """A space whose networks cannot be built without harm, but in the process that made the space.

    Args:
        fault: a name in :data:`FAULTS`.
        path: of a file that the fault uses.
        spared: the process that takes no harm.
    """

    fault: str = "die"
    path: str = ""
    spared: int = field(default_factory=os.getpid)

    @property
    def name(self) -> str:
        return f"{self.fault}:{super().name}"

    def graph(self, choices: tuple[int, ...], ways: int) -> Graph:
        if os.getpid() != self.spared:
            FAULTS[self.fault](Path(self.path))
        return super().graph(choices, ways)


def faulty(proposal: Proposal, fault: str, path: Path | str = "") -> Proposal:
    """The proposal, of the same design in a faulty space."""
    space, choices = proposal.architecture.space, proposal.architecture.choices
    assert isinstance(space, ChainSpace)
    same = {name: getattr(space, name) for name in ("max_layers", "input_size", "widths", "dense_widths")}
    return replace(proposal, architecture=FaultySpace(**same, fault=fault, path=str(path)).decode(choices))
