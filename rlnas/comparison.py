"""What ``rlnas bench`` left in a folder, read back: arrays for statistics of one's own, and which designs were made."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import DataError
from rlnas.results import Results

Texts: TypeAlias = NDArray[np.str_]

DECIMALS = 6
"""Of accuracies in ``evaluations.csv``; the reference is rounded likewise, so that the best possible has no regret."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A finished comparison.

    Args:
        results: what every agent found.
        architectures: canonical texts of each agent's designs, of the shape of ``results.accuracy[agent]``; empty where
            an illegal action ended one.
        summary: the content of ``summary.json``.
        settings: that of ``config.json``.
    """

    results: Results
    architectures: Mapping[str, Texts]
    summary: Mapping[str, Any]
    settings: Mapping[str, Any]

    def chosen(self, agent: str, designs: int) -> Texts:
        """The best of the first so many designs of each search, the earliest where several are equal, (R, T)."""
        first = self.results.accuracy[agent][:, :, :designs].argmax(2)
        return np.asarray(np.take_along_axis(self.architectures[agent], first[:, :, None], 2)[:, :, 0])


def read_comparison(folder: str | Path) -> Comparison:
    """The comparison that ``rlnas bench --out FOLDER`` finished.

    Raises:
        DataError: if a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        summary, settings = (json.loads((folder / name).read_text()) for name in ("summary.json", "config.json"))
        seeds, tasks, designs = len(summary["seeds"]), len(summary["tasks"]), int(summary["designs"])
        rounds = int(summary["trials"]) // tasks
        shape = (seeds * rounds, tasks, designs)
        evaluations, times = (_columns(folder / name) for name in ("evaluations.csv", "times.csv"))
        of = {agent: np.array(evaluations["agent"]) == agent for agent in summary["agents"]}
        values = {
            "accuracy": np.array(evaluations["accuracy"], dtype=np.float64),
            "seconds": np.array(times["seconds"], dtype=np.float64),
        }
        found = {name: {agent: array[of[agent]].reshape(shape) for agent in of} for name, array in values.items()}
        texts = np.array(evaluations["architecture"], dtype=np.str_)
        best, mean = (np.round(np.array(summary[name]), DECIMALS) for name in ("best", "random_mean"))
        results = Results(
            tuple(summary["tasks"]),
            **found,
            best=best,
            mean=mean,
            best_is_known=summary["best_is_known"],
            rounds=rounds,
        )
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no finished comparison (there is no {Path(error.filename).name})") from None
    except Exception as error:  # whatever damaged JSON, or CSV, makes of its reader
        raise DataError(f"{folder} holds a damaged comparison: {' '.join(str(error).split())}") from None
    return Comparison(results, {agent: texts[rows].reshape(shape) for agent, rows in of.items()}, summary, settings)


def _columns(file: Path) -> dict[str, list[str]]:
    """The columns of a CSV file, whose rows are in the order in which the comparison writes them."""
    with file.open(newline="") as lines:
        header, *rows = csv.reader(lines)
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
