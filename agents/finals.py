"""The last rung of a search: the best designs trained as the winner will be, but for a shorter while."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from rlnas.final_training import train_fully
from rlnas.leaderboard import Entry, Leaderboard
from rlnas.user_data import UserData

from .data_search import DataSearch, OnEvaluation
from .fit_settings import FitSettings

FINALISTS, FINALS = "finalists", 1 / 6
"""Folder of the finalists' models, and the share of the schedule, and of the time that is left, that they have."""


def hold_finals(
    folder: Path,
    data: UserData,
    settings: FitSettings,
    search: DataSearch,
    board: Leaderboard,
    device: str,
    stop: Callable[[], bool],
    on_evaluation: OnEvaluation,
) -> bool:
    """Train the finalists, who then are the leaderboard's highest rung; False if ``stop`` said so before the end."""
    rung = len(search.plan.rungs)
    finalists = board.ranked[: settings.finalists]
    if len(finalists) < 2 or finalists[0].rung == rung:
        return True
    left = settings.time_left(board)
    seconds = None if left is None else FINALS * left / len(finalists)
    division = replace(search.source.division, test=np.empty(0, dtype=np.int64))  # which nobody sees before the end
    entries: list[Entry] = []
    for entry in finalists:
        found = search.space.decode(entry.choices)
        whole = settings.full_training(data, found, seconds)
        epochs, steps = (max(1, round(FINALS * count)) for count in (whole.epochs, whole.min_steps))
        short = replace(whole, epochs=epochs, min_steps=steps, patience=1.0, refit=False)
        model = train_fully(found, data, division, short, folder / FINALISTS / str(entry.design), device, stop)
        if model is None:
            return False
        assert model.validation is not None
        history, examples = model.facts["epochs"], len(division.train)
        entries.append(
            replace(
                entry,
                rung=rung,
                examples=examples,
                steps=round(history[-1]["position"] * math.ceil(examples / short.batch)),
                accuracy=model.validation.accuracy,
                loss=model.validation.loss,
                seconds=model.facts["seconds"],
            )
        )
        on_evaluation(1, max(each.accuracy for each in entries))
    board.entries += entries
    board.seconds += sum(entry.seconds for entry in entries)
    search.keep(board)
    return True
