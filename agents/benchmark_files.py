"""What a comparison leaves for people and other programs: CSV, JSON, a report, and the best design drawn."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rlnas.checkpoint import write_durably
from rlnas.drawing import draw_svg
from rlnas.report_html import write_report
from rlnas.results import Results
from rlnas.summary import summarise
from rlnas.task import FewShotTask

from .benchmark import FRESH, Benchmark

EVALUATIONS, TIMES, SUMMARY, REPORT, DRAWING = (
    "evaluations.csv",
    "times.csv",
    "summary.json",
    "report.html",
    "best_architecture.svg",
)
_PACKAGES = ("rlnas", "torch", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib", "optuna", "scikit-learn")


def write_files(benchmark: Benchmark, folder: Path, results: Results, command: Sequence[str]) -> dict[str, Any]:
    """Write ``evaluations.csv``, ``times.csv``, ``summary.json``, ``report.html`` and, of networks, the best one drawn.

    All but the times and the report follow from the benchmark's settings alone.

    Args:
        benchmark: that was run.
        folder: where its runs are.
        results: what they found.
        command: that was typed.

    Returns:
        The content of ``summary.json``.
    """
    _write_tables(benchmark, folder)
    source, split = benchmark.tasks
    about = {**provenance(command), "seeds": list(benchmark.seeds), **results.about}
    found = summarise(replace(results, about=about))
    write_report(found, folder / REPORT)
    lasting: dict[str, Any] = {
        "env": benchmark.env,
        "searched": f"{source.name}:{split}",
        "trials": benchmark.task_count * benchmark.rounds,
        "designs": benchmark.designs,
        "seeds": list(benchmark.seeds),
        **{part: content for part, content in found.items() if part != "about"},
        "agents": {
            agent: {part: content for part, content in row.items() if part != "against_seconds"}
            for agent, row in found["agents"].items()
        },
    }
    best = _draw_best(benchmark, folder, results)
    if best is not None:
        lasting["best_architecture"] = best
    write_durably(folder / SUMMARY, json.dumps(lasting, indent=1).encode() + b"\n")
    return lasting


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """What was typed, when, with which versions, on what machine."""
    return {
        "command": " ".join(command),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "hardware": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def _write_tables(benchmark: Benchmark, folder: Path) -> None:
    """Every evaluation of every run as one line of CSV, and when each ended as one line of another."""
    place = ("agent", "seed", "round", "task", "design")
    with (folder / EVALUATIONS).open("w", newline="") as first, (folder / TIMES).open("w", newline="") as second:
        evaluations, times = csv.writer(first), csv.writer(second)
        evaluations.writerow([*place, "architecture", "accuracy", "best_so_far"])
        times.writerow([*place, "seconds"])
        for name in benchmark.contestants:
            for seed, run in zip(benchmark.seeds, benchmark.runs(folder, name), strict=True):
                best = run.best_so_far
                for trial, task in enumerate(run.tasks.tolist()):
                    for design in range(benchmark.designs):
                        row = (name, seed, trial // benchmark.task_count, task, design)
                        values = f"{run.accuracy[trial, design]:.6f}", f"{best[trial, design]:.6f}"
                        evaluations.writerow([*row, run.architectures[trial, design], *values])
                        times.writerow([*row, f"{run.seconds[trial, design]:.6f}"])


def _draw_best(benchmark: Benchmark, folder: Path, results: Results) -> dict[str, Any] | None:
    """Draw the first agent's design that did best on fresh seeds, and say what it is; tables have no networks."""
    name = next(iter(benchmark.contestants))
    if FRESH not in results.chosen[name]:
        return None
    runs = benchmark.runs(folder, name)
    fresh = np.stack([run.measures[FRESH] for run in runs])
    seed, trial = np.unravel_index(int(fresh.argmax()), fresh.shape)
    run = runs[int(seed)]
    task = benchmark.tasks[0].named(str(run.tasks[trial]))
    text = str(run.chosen[trial])
    if isinstance(task, FewShotTask):
        write_durably(folder / DRAWING, draw_svg(benchmark.space().parse(text), task.ways).encode())
    return {
        "agent": name,
        "task": task.name,
        "family": task.family,
        "architecture": text,
        "accuracy_on_fresh_seeds": float(fresh[seed, trial]),
    }
