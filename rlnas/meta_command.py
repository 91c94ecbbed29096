"""The command that learns a start for a search space."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rlnas.cli_options import AdaptationOption, Device, Download, Json, Seed, TaskOptions, portable, space_of, tasks_of
from rlnas.errors import ConfigurationError, one_of
from rlnas.registration import PRESETS

META_ADAPTATION: dict[str, Any] = {"steps": 10, "learning_rate": 0.1, "momentum": 0.5}
"""The inner loop that meta-train learns a start for, unless told otherwise."""


def meta_train(
    out: Annotated[Path, typer.Option(help="Folder of the start.")],
    adaptation: Annotated[
        str, typer.Option(help="maml, fomaml, reptile, anil, meta-sgd, prototype or relation.")
    ] = "meta-sgd",
    adaptation_option: AdaptationOption = None,
    env: Annotated[str, typer.Option(help="Environment that gives the space and the tasks.")] = "rlnas/DigitsTrial-v0",
    space: Annotated[str | None, typer.Option(help="Another space: chain or cell.")] = None,
    space_option: Annotated[
        list[str] | None, typer.Option("--space-option", help="Of --space: max_layers=3, widths=8,16 ...")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Other tasks to train on, as SOURCE:SPLIT.")] = None,
    task_option: TaskOptions = None,
    download: Download = False,
    iterations: Annotated[int, typer.Option(min=1, help="Steps of the outer optimiser.")] = 2000,
    minutes: Annotated[float | None, typer.Option(help="Stop after that time at the latest.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="Of the outer loop: episodes=NUMBER, learning_rate=NUMBER.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Learn a start for all networks of a space, from which they adapt well. Ctrl-C stops it and keeps the start."""
    from functools import partial

    from rlnas.adaptation import Adaptation
    from rlnas.checkpoint import MANIFEST
    from rlnas.device import choose_device
    from rlnas.interruption import Interruption
    from rlnas.meta_training import MetaTraining
    from rlnas.meta_training import meta_train as run_meta_training
    from rlnas.options import adaptation_options, learner_options
    from rlnas.progress import Progress

    preset = PRESETS[one_of("environment", env, PRESETS)]
    designs = space_of(preset["space"], space, space_option)
    source, split = tasks_of(tasks or preset["tasks"], task_option, download)
    usual = {**META_ADAPTATION, "method": adaptation}
    inner_loop = Adaptation(**{**usual, **adaptation_options(adaptation_option or [])})
    settings = MetaTraining(iterations, minutes=minutes, seed=seed)
    outer = {"episodes": settings.episodes, "learning_rate": settings.learning_rate}
    settings = replace(settings, **learner_options(option or [], outer, "setting of the outer loop"))
    if (out / MANIFEST).exists():
        raise ConfigurationError(f"{out} already holds a checkpoint; choose another --out")
    progress, recent = Progress("meta-train", iterations), deque[tuple[float, float]](maxlen=100)

    def on_iteration(done: int, loss: float, accuracy: float) -> None:
        recent.append((loss, accuracy))
        progress.advance(1, settings.episodes, {"accuracy": _mean(a for _, a in recent)})

    with Interruption() as stop, progress:
        init = run_meta_training(
            designs,
            partial(source.sample, split),
            inner_loop,
            settings,
            on_iteration=on_iteration,
            stop=stop,
            device=choose_device(device),
            about={"tasks": portable(source, split)},
        )
    init.save(out)
    done = init.about["meta_training"]["iterations_done"]
    loss, accuracy = (_mean(values) for values in zip(*recent, strict=True)) if recent else (None, None)
    if as_json:
        result = {"iterations": done, "loss": loss, "accuracy": accuracy, "tensors": len(init.weights)}
        print(json.dumps({"out": str(out), "digest": init.digest, **result}))
    else:
        told = (
            "" if accuracy is None else f", accuracy {accuracy:.3f} after adaptation in the last {len(recent)} of them"
        )
        print(f"{out}: a start of {len(init.weights)} tensors from {done} iterations{told}")
    if stop.signal:
        sys.exit(128 + stop.signal)


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)
