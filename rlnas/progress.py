"""Progress for people: a bar on a terminal, a plain line every 30 seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as _RichBar

PLAIN_INTERVAL = 30.0
"""Seconds between plain lines."""


class Progress:
    """Shows how far a job is, its best accuracy so far, evaluations a second and the time left, on standard error.

    Args:
        title: what the job is.
        total: units of work in all.
        done: units done before (a resumed job).
        counted: what is made meanwhile and counted by the second.
    """

    def __init__(self, title: str, total: int, done: int = 0, counted: str = "evaluations") -> None:
        self.title = title
        self.counted = counted
        self.total = total
        self.done = self._before = min(done, total)
        self.evaluations = 0
        self.figures: Mapping[str, float] = {}
        self._started = self._printed = time.monotonic()
        self._bar = _bar(title, total, done, counted) if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            print(self._line(), file=sys.stderr, flush=True)

    def advance(self, units: int, evaluations: int, figures: Mapping[str, float]) -> None:
        """Report progress.

        Args:
            units: of work done since the last call; what goes beyond the total (the last rollout, say) is not shown.
            evaluations: made since the last call.
            figures: named numbers worth seeing, such as the best accuracy so far.
        """
        self.done = min(self.done + units, self.total)
        self.evaluations += evaluations
        self.figures = figures
        if self._bar is not None:
            rate, shown = f"{self._rate():.1f}", self._figures()
            self._bar.update(self._bar.task_ids[0], completed=self.done, rate=rate, figures=shown)
        elif time.monotonic() - self._printed >= PLAIN_INTERVAL:
            self._printed = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def _rate(self) -> float:
        return self.evaluations / max(time.monotonic() - self._started, 1e-9)

    def _figures(self) -> str:
        return "  ".join(f"{name} {value:.3f}" for name, value in self.figures.items())

    def _line(self) -> str:
        elapsed, worked = time.monotonic() - self._started, self.done - self._before
        parts = [f"{self.title}: {self.done}/{self.total}", self._figures(), f"{self._rate():.1f} {self.counted}/s"]
        parts.append(_duration(elapsed))
        if worked and self.done < self.total:
            parts.append(f"{_duration(elapsed / worked * (self.total - self.done))} left")
        return "  ".join(part for part in parts if part)


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds as ``0:01:30``."""
    return str(timedelta(seconds=round(seconds)))


def _bar(title: str, total: int, done: int, counted: str) -> _RichBar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TextColumn(f"{{task.fields[rate]}} {counted}/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bar.add_task(title, total=total, completed=done, rate="-", figures="")
    return bar
