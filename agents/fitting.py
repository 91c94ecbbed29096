"""From a user's data to a trained network: search, train the winner fully, score it once, and write it all down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rlnas
from rlnas.architecture import Architecture
from rlnas.checkpoint import settings_of_run, write_durably
from rlnas.device import choose_device
from rlnas.drawing import draw_svg
from rlnas.errors import ConfigurationError, at_least, in_range, one_of, positive
from rlnas.final_training import FinalTraining, OnEpoch, train_fully
from rlnas.graph import count_flops, count_parameters
from rlnas.image_files import absolute
from rlnas.leaderboard import Leaderboard
from rlnas.model import Model
from rlnas.model_card import model_card
from rlnas.model_export import export_onnx, write_model_py
from rlnas.pareto import OBJECTIVES, front, plot, points
from rlnas.rungs import Rung, ladder
from rlnas.user_data import UserData
from rlnas.user_source import UserSource
from rlnas.wide_network import Limits

from .data_search import LEADERBOARD, DataSearch, OnEvaluation, SearchPlan

SETTINGS, RESULT, MODEL, CARD = "config.json", "result.json", "model", "MODEL.md"

EXAMPLES, STEPS = 250, 30
"""The first rung, unless told otherwise; where there are many classes, examples are two for each of them."""
LEAST_TRAINING = 0.2
"""The share of the time that is left to the final training whatever the search took."""


@dataclass(frozen=True)
class FitSettings:
    """What to do with a user's data; kept as ``config.json`` in a run's folder.

    Raises:
        ConfigurationError: if a value is not allowed.
    """

    agent: str = "pretrained"
    """Who proposes designs: see :func:`rlnas.agents.registry.resolve_agent`."""

    designs: int = 20
    """Designs to propose."""

    fidelity: str | None = None
    """EXAMPLESxSTEPS that every design is evaluated with at first; by default 250x30."""

    rungs: int = 3
    """Rungs of successive halving: a third of the designs goes on to twice the examples and steps, rung by rung."""

    validation: float = 0.2
    """Fraction of the data that designs are compared on."""

    test: float = 0.2
    """Fraction of the data that the search never sees; unused where the data has an official test part."""

    seed: int = 0
    """Of everything random."""

    max_seconds: float | None = None
    """Time for search and training, at most half of it for the search; writing the files comes on top."""

    max_params: int | None = None
    """Of the trained network, which is made as wide as this allows. Designs beyond it at the search's width, or at the
    one that ``training`` sets, are not trained and count as useless."""

    max_flops: int | None = None
    """Likewise multiply-accumulates of one example; by default :data:`rlnas.wide_network.FULL_FLOPS`, which refuses no
    design."""

    pareto: tuple[str, ...] = ()
    """Of :data:`rlnas.pareto.OBJECTIVES`, those to show the designs' accuracy against."""

    training: FinalTraining = field(default_factory=FinalTraining)
    """How the winner is trained; its ``seed`` and ``max_seconds`` are those above."""

    def __post_init__(self) -> None:
        limits = self.limits
        kept = {  # numbers of numpy become Python's
            "designs": at_least("designs", self.designs, 1),
            "rungs": at_least("rungs", self.rungs, 1),
            "seed": at_least("seed", self.seed, 0),
            "fidelity": None if self.fidelity is None else str(Rung.parse(self.fidelity)),
            "validation": in_range("validation", self.validation, 0, 1),
            "test": in_range("test", self.test, 0, 1),
            "max_seconds": None if self.max_seconds is None else positive("max_seconds", self.max_seconds),
            "max_params": limits.max_params,
            "max_flops": limits.max_flops,
            "pareto": tuple(one_of("objective", name, OBJECTIVES) for name in self.pareto),
        }
        for name, value in kept.items():
            object.__setattr__(self, name, value)

    @property
    def limits(self) -> Limits:
        """Of the network that is trained fully."""
        return Limits(self.training.width, self.max_params, self.max_flops)

    def plan(self, ways: int) -> SearchPlan:
        """The search's part, for data of so many classes."""
        first = Rung(max(EXAMPLES, 2 * ways), STEPS) if self.fidelity is None else Rung.parse(self.fidelity)
        return SearchPlan(
            self.agent,
            self.designs,
            tuple(ladder(first, self.rungs)),
            self.seed,
            self.limits,
            self.max_seconds,
        )


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
    search = DataSearch(folder, _source(data, settings), settings.plan(data.ways))
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
    source = _source(data, settings)
    search = DataSearch(folder, source, settings.plan(data.ways), choose_device(device).type)
    board = search.run(stop, on_evaluation)
    if board is None:
        return None
    data.require_unchanged()
    winner = search.space.decode(board.winner.choices)
    width = settings.limits.width_of(winner, data.ways, data.input_shape)
    seconds = _time_left(settings, board)
    training = replace(settings.training, width=width, seed=settings.seed, max_seconds=seconds)
    model = train_fully(winner, data, source.division, training, folder / MODEL, device, stop, on_epoch)
    if model is None:
        return None
    result = (_written(folder) or _write(folder, data, settings, search, board, model)) if report else {}
    data.require_unchanged()
    return Fit(folder, winner, model, board, result)


def _source(data: UserData, settings: FitSettings) -> UserSource:
    examples = [rung.examples for rung in settings.plan(data.ways).rungs]
    return UserSource(data, examples, seed=settings.seed, validation=settings.validation, test=settings.test)


def _time_left(settings: FitSettings, board: Leaderboard) -> float | None:
    """For the final training; the same whenever it is asked for, as the training's settings must be."""
    if settings.max_seconds is None:
        return None
    return max(settings.max_seconds - board.seconds, LEAST_TRAINING * settings.max_seconds)


def _written(folder: Path) -> dict[str, Any] | None:
    """The summary that ends a run; None where it is not there yet, or damaged."""
    try:
        found = json.loads((folder / RESULT).read_text())
        return found if found["kind"] == "fit" else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(
    folder: Path, data: UserData, settings: FitSettings, search: DataSearch, board: Leaderboard, model: Model
) -> dict[str, Any]:
    """Write what a person wants to look at or take away; the summary of it, which is written last."""
    write_durably(folder / "leaderboard.csv", board.to_csv().encode())
    write_durably(folder / "architecture.svg", draw_svg(model.architecture, data.ways).encode())
    write_model_py(model, folder)
    files = {
        f"{MODEL}/": "the model, for `rlnas.load_model`",
        "model.py": "the network in plain PyTorch, which needs no rlnas; its weights are in `model.npz`",
        **_onnx(folder, model),
        LEADERBOARD: "every evaluation of the search; `leaderboard.csv` has the best of each network",
        "episodes.sqlite": "every design decision, for `rlnas replay`",
    }
    plots = _pareto(folder, data, settings, search, board)
    date, division = datetime.now(UTC).isoformat(timespec="seconds"), search.source.division
    graph, shape = model.architecture.graph(data.ways), data.input_shape
    sizes = {part: len(getattr(division, part)) for part in ("train", "validation", "test")}
    result = {
        "kind": "fit",
        "date": date,
        "agent": settings.agent,
        "designs": settings.designs,
        "data": {"name": data.name, "digest": data.digest, "classes": data.ways, **sizes},
        "architecture": model.architecture.text,
        "found": board.winner.architecture,
        "parameters": count_parameters(graph, shape),
        "flops": count_flops(graph, shape),
        "test": model.test and model.test.to_json(),
        "validation": model.validation and model.validation.to_json(),
        "search_seconds": board.seconds,
        "evaluations": len(board.entries),
        "width": model.facts["training"]["config"]["width"],
        "refitted": model.facts["refitted"],
        "files": [*files, *plots, CARD],
    }
    official = "official: as the data came" if data.test is not None else f"drawn by class with seed {settings.seed}"
    about = {
        "date": date[:10],
        "data": {"name": data.name, "digest": data.digest, "test_part": official if sizes["test"] else "none", **sizes},
        "protocol": _protocol(settings, search.plan, board, model),
        "plots": plots,
        "files": files,
    }
    write_durably(folder / CARD, model_card(model, board, about).encode("utf-8", "replace"))
    write_durably(folder / RESULT, json.dumps(result, indent=1).encode() + b"\n")
    return result


def _onnx(folder: Path, model: Model) -> dict[str, str]:
    """What is there of the model for other runtimes."""
    try:
        export_onnx(model, folder / "model.onnx")
    except ConfigurationError as error:  # the package is not installed
        return {"model.onnx (not written)": str(error)}
    return {"model.onnx": "the same network for ONNX Runtime"}


def _pareto(folder: Path, data: UserData, settings: FitSettings, search: DataSearch, board: Leaderboard) -> list[str]:
    """Write the fronts that were asked for; the plots' names."""
    found, plots = {}, []
    for objective in settings.pareto:
        designs = points(board, objective, search.space, settings.limits, data.ways, data.input_shape)
        svg = plot(designs, objective, board.winner.architecture)
        plots.append(f"pareto-{objective}.svg")
        write_durably(folder / plots[-1], svg.encode())
        found[objective] = {
            "cost": OBJECTIVES[objective],
            "designs": [asdict(point) for point in designs],
            "front": [point.architecture for point in front(designs)],
        }
    if found:
        write_durably(folder / "pareto.json", json.dumps(found, indent=1).encode() + b"\n")
    return plots


def _protocol(settings: FitSettings, plan: SearchPlan, board: Leaderboard, model: Model) -> dict[str, Any]:
    """What was asked for and done, for people."""
    evaluated = [sum(entry.rung == number for entry in board.entries) for number in range(len(plan.rungs))]
    spent = {entry.rung: f"{entry.examples}x{entry.steps}" for entry in board.entries}
    rungs = [f"{count} designs at {spent[number]}" for number, count in enumerate(evaluated) if count]
    limits = [
        f"{value:,} {name}"
        for name, value in (("parameters", settings.max_params), ("multiply-accumulates", settings.max_flops))
        if value is not None
    ]
    training = {name: value for name, value in asdict(settings.training).items() if value is not None}
    for name in ("seed", "max_seconds", "width"):
        training.pop(name, None)
    return {
        "agent": settings.agent,
        "search": f"{', '.join(rungs)} (examples x steps), {board.seconds:.0f} s",
        "limits at full width": " and ".join(limits) or "none",
        "time limit": "none" if settings.max_seconds is None else f"{settings.max_seconds:g} s",
        "seed": settings.seed,
        "width": f"{model.facts['training']['config']['width']} times that of the search",
        "final training": ", ".join(f"{name} {value}" for name, value in training.items()),
        "rlnas": rlnas.__version__,
    }
