"""What a fit writes for people to look at or take away: the model in other forms, its card, plots and a summary."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rlnas
from rlnas.checkpoint import write_durably
from rlnas.drawing import draw_svg
from rlnas.errors import ConfigurationError
from rlnas.graph import count_flops, count_parameters
from rlnas.leaderboard import Leaderboard
from rlnas.model import Model
from rlnas.model_card import model_card
from rlnas.model_export import export_onnx, write_model_py
from rlnas.pareto import OBJECTIVES, front, plot, points
from rlnas.user_data import UserData

from .data_search import LEADERBOARD, DataSearch, SearchPlan
from .fit_settings import FitSettings

MODEL, CARD, RESULT = "model", "MODEL.md", "result.json"
"""The folder of the model, its card, and the summary, which is written last."""


def written(folder: Path, model: Model) -> dict[str, Any] | None:
    """The summary that ends a run; None where it, or a file that it names, is not there or of another model."""
    try:
        found: dict[str, Any] = json.loads((folder / RESULT).read_text())
        test = model.test and model.test.to_json()
        same = found["kind"] == "fit" and (found["architecture"], found["test"]) == (model.architecture.text, test)
        return found if same and all((folder / name).exists() for name in found["files"]) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_report(
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
    finalists = sum(entry.rung == len(plan.rungs) for entry in board.entries)
    if finalists:
        rungs.append(f"{finalists} finalists, at full width, at {spent[len(plan.rungs)]}")
    return {
        "agent": settings.agent,
        "search": f"{', '.join(rungs)} (examples x steps), {board.seconds:.0f} s",
        "limits of the trained network": " and ".join(limits) or "none",
        "time limit": "none" if settings.max_seconds is None else f"{settings.max_seconds:g} s",
        "seed": settings.seed,
        "width": f"{model.facts['training']['config']['width']} times that of the search",
        "final training": ", ".join(f"{name} {value}" for name, value in training.items()),
        "rlnas": rlnas.__version__,
    }
