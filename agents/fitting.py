"""From a user's data to a trained network: search, train the winner fully, score it once, and write it all down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rlnas
from rlnas.architecture import Architecture
from rlnas.checkpoint import settings_of_run, write_durably
from rlnas.device import choose_device
from rlnas.errors import ConfigurationError
from rlnas.final_training import FinalTraining, OnEpoch, train_fully
from rlnas.image_files import absolute
from rlnas.leaderboard import Leaderboard
from rlnas.model import Model
from rlnas.user_data import UserData

from .data_search import DataSearch, OnEvaluation
from .finals import hold_finals
from .fit_report import MODEL, write_report, written
from .fit_settings import FitSettings

SETTINGS = "config.json"


@dataclass(frozen=True, eq=False)
class Fit:
    """What came of it.

    Args:
        folder: of the run.
        found: the winning architecture, at the width of the search.
        model: trained fully, at full width.
        leaderboard: of the search.
        result: the summary in ``result.json``; empty without a report.
    """

    folder: Path
    found: Architecture
    model: Model
    leaderboard: Leaderboard
    result: Mapping[str, Any]


def begin_fit(folder: Path, data: UserData, settings: FitSettings) -> None:
    """Make a run's folder.

    Raises:
        ConfigurationError: if a run is already there, the settings don't serve the data, or the folder lies in that of
            the data, where it would look like a class; nothing is written then.
        RlnasError: if the agent cannot be had.
    """
    require_new(folder, None if data.origin is None else str(data.origin["source"]))
    search = DataSearch(folder, settings.source(data), settings.plan(data.ways))
    evaluator = search.evaluator()
    search.make_agent(search.make_env(evaluator), evaluator)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"name": data.name, "digest": data.digest, "origin": data.origin and dict(data.origin)}
    kept = {"kind": "fit", "rlnas": rlnas.__version__, "settings": asdict(settings), "data": about}
    write_durably(folder / SETTINGS, json.dumps(kept, indent=1).encode() + b"\n")


def require_new(folder: Path, source: str | None) -> None:
    """Make sure that a run can begin in a folder, on data from ``source``.

    Raises:
        ConfigurationError: see :func:`begin_fit`.
    """
    if (folder / SETTINGS).exists():
        raise ConfigurationError(f"{folder} already holds a run; continue it with --resume or choose another --out")
    if source is not None and Path(source).is_dir() and absolute(folder).is_relative_to(absolute(source)):
        raise ConfigurationError(f"{folder} lies in the data's folder, {source}; choose another --out")


def read_fit(folder: Path) -> tuple[FitSettings, dict[str, Any]]:
    """The settings of a run, and what its data was: ``name``, ``digest``, and ``origin``, None for arrays.

    Raises:
        ConfigurationError: if the folder holds none, or they are damaged.
    """
    with settings_of_run(folder / SETTINGS) as kept:
        if kept["kind"] != "fit":
            raise KeyError("kind")
        settings = kept["settings"]
        training = FinalTraining(**settings["training"])
        return FitSettings(**{**settings, "training": training}), dict(kept["data"])


def fit(
    folder: Path,
    data: UserData,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
    on_evaluation: OnEvaluation = lambda evaluations, best: None,
    on_epoch: OnEpoch = lambda epoch: None,
    report: bool = True,
) -> Fit | None:
    """Search and train, or go on with it, in a folder that :func:`begin_fit` made.

    The data is divided once. The search sees its train and validation parts; the test part is what the trained winner
    is scored on, once. Whatever was evaluated or trained before an interruption is not done again.

    Args:
        folder: of the run; in the end it holds the leaderboard, the model in three forms, and its card.
        data: that the run was begun with.
        device: ``cpu``, ``cuda`` or ``auto``.
        stop: asked after every evaluation and before every training step.
        on_evaluation: is told of evaluations.
        on_epoch: is told of the final training's epochs.
        report: whether to write more than the leaderboard and the model: its card, plots, and other forms of it.

    Returns:
        What came of it; None if ``stop`` said so before the end: call again to go on.

    Raises:
        ConfigurationError: if the folder holds no run, or one of other data.
        DataError: if files of the data changed meanwhile; what was found so far stays in the folder.
        RlnasError: if no design could be trained.
    """
    settings, begun_with = read_fit(folder)
    if data.digest != begun_with["digest"]:
        raise ConfigurationError(f"the run in {folder} was begun with other data: {begun_with['name']} has changed")
    source = settings.source(data)
    search = DataSearch(folder, source, settings.plan(data.ways), choose_device(device).type)
    board = search.run(stop, on_evaluation)
    if board is None:
        return None
    data.require_unchanged()
    if not hold_finals(folder, data, settings, search, board, device, stop, on_evaluation):
        return None
    winner = search.space.decode(board.winner.choices)
    training = settings.full_training(data, winner, settings.time_left(board))
    model = train_fully(winner, data, source.division, training, folder / MODEL, device, stop, on_epoch)
    if model is None:
        return None
    result = (written(folder, model) or write_report(folder, data, settings, search, board, model)) if report else {}
    data.require_unchanged()
    return Fit(folder, winner, model, board, result)
