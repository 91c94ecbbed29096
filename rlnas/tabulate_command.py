"""The command that makes a table of recorded evaluations."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from rlnas.cli_options import (
    AdaptationName,
    AdaptationOption,
    Device,
    Download,
    Init,
    Json,
    TaskOptions,
    Timeout,
    Workers,
    evaluator_spec,
    space_of,
    tasks_of,
)
from rlnas.errors import ConfigurationError, one_of
from rlnas.registration import PRESETS


def tabulate(
    out: Annotated[Path, typer.Option(help="The table's file, .npz.")],
    tasks: Annotated[list[str], typer.Option(help="Tasks as SOURCE:SPLIT; give it again for more splits.")],
    limit: Annotated[
        list[int] | None, typer.Option(min=1, help="Tasks to take of each --tasks, in their order; by default all.")
    ] = None,
    env: Annotated[
        str, typer.Option(help="Environment that gives the space and how networks adapt.")
    ] = "rlnas/Digits-v0",
    space: Annotated[str | None, typer.Option(help="Another space: chain or cell.")] = None,
    space_option: Annotated[
        list[str] | None, typer.Option("--space-option", help="Of --space: max_layers=3, widths=8,16 ...")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Evaluations of a network on a task, each from its own start.")] = 1,
    replicate_every: Annotated[
        int, typer.Option(min=1, help="Evaluate only every so many networks with the seeds beyond the first.")
    ] = 1,
    task_option: TaskOptions = None,
    download: Download = False,
    init: Init = None,
    adaptation: AdaptationName = None,
    adaptation_option: AdaptationOption = None,
    evaluator: Annotated[str, typer.Option(help="batched: many networks in lock-step; or sequential.")] = "batched",
    workers: Workers = 1,
    timeout: Timeout = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Evaluate all networks of a space on all tasks, into a table. After Ctrl-C or a kill the same command goes on."""
    from rlnas.device import choose_device
    from rlnas.interruption import Interruption
    from rlnas.parallel_evaluator import ParallelEvaluator, evaluator_in_processes
    from rlnas.progress import Progress
    from rlnas.tabulate import Suite, Tabulation
    from rlnas.tabulate import tabulate as run_tabulation

    preset = PRESETS[one_of("environment", env, PRESETS)]
    designs = space_of(preset["space"], space, space_option)
    if limit is not None and len(limit) not in (1, len(tasks)):
        raise ConfigurationError(f"give --limit once, or once for each of the {len(tasks)} --tasks, got {len(limit)}")
    limits = [None] * len(tasks) if limit is None else limit * len(tasks) if len(limit) == 1 else limit
    sources = [tasks_of(text, task_option, download) for text in tasks]
    suites = tuple(Suite(source, split, count) for (source, split), count in zip(sources, limits, strict=True))
    tabulation = Tabulation(designs, suites, seeds, replicate_every)
    kind = choose_device(device).type
    spec = evaluator_spec(preset["evaluator"], evaluator, kind, init, adaptation, adaptation_option)
    if out.exists():
        raise ConfigurationError(f"{out} exists already; choose another --out")
    each = len(tabulation.cells(tabulation.rows()))
    before = tabulation.num_columns - len(tabulation.missing(out))
    trainer = evaluator_in_processes({**spec, "device": kind}, workers=workers, timeout=timeout, cache_size=0)
    try:
        with Interruption() as stop, Progress("tabulate", each * tabulation.num_columns, each * before) as progress:
            complete = run_tabulation(
                tabulation,
                trainer,
                out,
                lambda made, accuracy: progress.advance(made, made, {"accuracy": accuracy}),
                stop,
            )
    finally:
        if isinstance(trainer, ParallelEvaluator):
            trainer.close()
    missing = len(tabulation.missing(out)) if not complete else 0
    size = {"rows": len(tabulation.rows()), "columns": tabulation.num_columns, "missing": missing}
    if as_json:
        print(json.dumps({"out": str(out), **size}))
    elif complete:
        print(f"{out}: {size['rows']} networks on {size['columns']} tasks")
    else:
        print(f"{out}: {missing} of {size['columns']} columns are missing; the same command goes on")
    if not complete:
        sys.exit(128 + stop.signal)
