"""What a search on a user's data found: every evaluation of every design, and who won."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from rlnas.errors import RlnasError
from rlnas.evaluator import Evaluation, Status
from rlnas.rungs import Rung


@dataclass(frozen=True)
class Entry:
    """One evaluation of a design.

    Args:
        design: its number in the order of proposal, from 1 on.
        architecture: its text; empty where an illegal choice ended it.
        choices: that it makes in the space searched.
        rung: 0 for the first evaluation, one more for each promotion.
        examples: that it was trained on.
        steps: that it took.
        accuracy: on the validation part; 0 unless ``status`` is ``ok``.
        loss: mean cross-entropy there; None where there is none.
        status: how the evaluation ended, see :class:`~rlnas.evaluator.Status`.
        seconds: it took.
        parameters: of the network at the width at which a winner is trained; 0 where it cannot be built.
        flops: multiply-accumulates of one example's forward pass, likewise.
        message: what went wrong.
    """

    design: int
    architecture: str
    choices: tuple[int, ...]
    rung: int
    examples: int
    steps: int
    accuracy: float
    loss: float | None
    status: str
    seconds: float
    parameters: int
    flops: int
    message: str = ""

    @classmethod
    def of(
        cls,
        design: int,
        architecture: str,
        choices: Sequence[int],
        place: tuple[int, Rung],
        evaluation: Evaluation,
        cost: tuple[int, int],
    ) -> Entry:
        """The entry of an evaluation on a rung, ``place``, of a design that costs so much at full width."""
        rung, spent = place
        return cls(
            design,
            architecture,
            tuple(choices),
            rung,
            spent.examples,
            spent.steps,
            evaluation.accuracy,
            evaluation.loss,
            str(evaluation.status),
            evaluation.seconds,
            *cost,
            evaluation.message,
        )

    @property
    def order(self) -> tuple[float, ...]:
        """By which entries are ranked: the higher rung, then accuracy, loss, parameters, and who came first."""
        loss = math.inf if self.loss is None else self.loss
        return -self.rung, -self.accuracy, loss, self.parameters, self.design


class Leaderboard:
    """Every evaluation of a search.

    Args:
        entries: in the order in which they were made.
        seconds: that the search took.
    """

    def __init__(self, entries: Sequence[Entry] = (), seconds: float = 0.0) -> None:
        self.entries = list(entries)
        self.seconds = seconds

    @property
    def ranked(self) -> list[Entry]:
        """Of each network that could be trained its highest evaluation, best first."""
        best: dict[str, Entry] = {}
        for entry in sorted((e for e in self.entries if e.status == Status.OK), key=lambda e: e.order):
            best.setdefault(entry.architecture, entry)
        return list(best.values())

    @property
    def winner(self) -> Entry:
        """The best network.

        Raises:
            RlnasError: if none could be trained.
        """
        if ranked := self.ranked:
            return ranked[0]
        why = next((entry.message for entry in self.entries if entry.message), "no design was complete")
        raise RlnasError(f"none of {len(self.entries)} designs could be trained; the first one: {why}")

    def on_rung(self, rung: int) -> list[Entry]:
        """The networks that could be trained on a rung, best first, each once."""
        return Leaderboard([entry for entry in self.entries if entry.rung == rung]).ranked

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {"seconds": self.seconds, "entries": [{**asdict(e), "choices": list(e.choices)} for e in self.entries]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Leaderboard:
        """The leaderboard that :meth:`to_json` described."""
        return cls([Entry(**{**e, "choices": tuple(e["choices"])}) for e in data["entries"]], data["seconds"])

    def to_csv(self) -> str:
        """A table with a line for each network, best first, at its highest evaluation; failed ones at the end."""
        failed = [entry for entry in self.entries if entry.status != Status.OK]
        text = io.StringIO()
        names = [field.name for field in fields(Entry) if field.name != "choices"]
        table = csv.DictWriter(text, ["rank", *names], extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for rank, entry in enumerate(self.ranked, start=1):
            table.writerow({"rank": rank, **asdict(entry)})
        table.writerows({"rank": "", **asdict(entry)} for entry in failed)
        return text.getvalue()
