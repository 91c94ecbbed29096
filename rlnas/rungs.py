"""Successive halving: many designs judged cheaply, and the better ones again with more.

After Jamieson & Talwalkar 2016 (https://arxiv.org/abs/1502.07943). What is raised from rung to rung is the number of
training examples and the number of gradient steps, both to twice as many.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rlnas.errors import ConfigurationError, at_least

GROWTH = 2
"""Times as many examples and steps as on the rung below."""
REDUCTION = 3
"""One of so many designs goes on to the next rung."""

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Rung:
    """How much is spent on a design.

    >>> Rung.parse("250x30")
    Rung(examples=250, steps=30)
    >>> str(Rung(250, 30))
    '250x30'

    Args:
        examples: that it is trained on.
        steps: of gradient descent on all of them.

    Raises:
        ConfigurationError: if a number is not positive.
    """

    examples: int
    steps: int

    def __post_init__(self) -> None:
        at_least("examples of the fidelity", self.examples, 1)
        at_least("steps of the fidelity", self.steps, 1)

    @classmethod
    def parse(cls, text: str) -> Rung:
        """The rung that ``EXAMPLESxSTEPS`` names.

        Raises:
            ConfigurationError: if the text has another form.
        """
        if not re.fullmatch(r"\d{1,9}x\d{1,9}", text):
            raise ConfigurationError(f"fidelity must be EXAMPLESxSTEPS, such as 250x30, got {text!r}")
        examples, _, steps = text.partition("x")
        return cls(int(examples), int(steps))

    def __str__(self) -> str:
        return f"{self.examples}x{self.steps}"


def ladder(first: Rung, rungs: int) -> list[Rung]:
    """So many rungs, from the first one up.

    >>> [str(rung) for rung in ladder(Rung(250, 30), 3)]
    ['250x30', '500x60', '1000x120']
    """
    at_least("rungs", rungs, 1)
    return [Rung(first.examples * GROWTH**n, first.steps * GROWTH**n) for n in range(rungs)]


def promoted(ranked: Sequence[T]) -> list[T]:
    """The designs of a rung, best first, that go on to the next one; none where that would decide nothing.

    >>> [len(promoted(range(designs))) for designs in (20, 7, 3, 2, 1)]
    [7, 3, 2, 0, 0]
    """
    return list(ranked[: max(2, -(-len(ranked) // REDUCTION))]) if len(ranked) > 2 else []


def evaluations(designs: int, rungs: int) -> int:
    """How many evaluations the designs take, unless some fail or are equal.

    >>> evaluations(20, 3)
    30
    """
    total = 0
    for _ in range(rungs):
        total += designs
        designs = len(promoted(range(designs)))
    return total
