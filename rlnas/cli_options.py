"""What the commands have in common: their options, and what these mean."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlnas.errors import CacheError, ConfigurationError, DataError, one_of
from rlnas.registration import PRESETS

if TYPE_CHECKING:
    from rlnas.evaluation_cache import EvaluationCache
    from rlnas.search_space import SearchSpace
    from rlnas.tabular_evaluator import TableSource
    from rlnas.task import TaskSource

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that evaluate designs.")]
Designs = Annotated[int, typer.Option(help="Designs in each trial.")]
Tasks = Annotated[str, typer.Option(help="Tasks as SOURCE:SPLIT, for example digits:test or npz:FILE:test.")]
TaskOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--task-option", help="How tasks are drawn from images, NAME=VALUE: ways=5, shots=1-5, image_size=28 ..."
    ),
]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision fetch a set that is missing.")]
Data = Annotated[Path | None, typer.Option(help="Folder of recorded tables, if not the variable RLNAS_DATA's.")]
Duplicates = Annotated[
    str, typer.Option(help="count a design proposed twice in a trial as an evaluation, or refuse it.")
]
Init = Annotated[Path | None, typer.Option(help="Folder of a meta-learned start, as meta-train writes it.")]
AdaptationName = Annotated[
    str | None, typer.Option("--adaptation", help="How networks adapt; by default as the start was learned for.")
]
AdaptationOption = Annotated[
    list[str] | None,
    typer.Option("--adaptation-option", help="steps=, learning_rate=, momentum= or clip=NUMBER of the inner loop."),
]
EvaluatorKind = Annotated[
    str | None,
    typer.Option("--evaluator", help="sequential, or batched: many networks in lock-step; by default batched on CUDA."),
]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds after which a worker process that hangs is killed and replaced.")
]
Cache = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache",
        help="Share evaluations with earlier and later runs through one file, which may be deleted: $RLNAS_CACHE, "
        "else rlnas/evaluations.sqlite in $XDG_CACHE_HOME or ~/.cache. Tables need none.",
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder of results; by default a new one under runs/.")]


def tasks_of(text: str, options: Sequence[str] | None, download: bool) -> tuple[TaskSource, str]:
    """The source and the split that ``SOURCE:SPLIT`` names, see :func:`rlnas.datasets.parse_tasks`.

    Raises:
        ConfigurationError: if they cannot be had, or are a table's.
    """
    from rlnas.datasets import parse_tasks
    from rlnas.options import task_options

    if text.startswith("table:"):
        raise ConfigurationError("this command trains networks, and a table's evaluations are recorded; name images")
    return parse_tasks(text, download=download, **task_options(options or []))


def problem_of(
    env: str, tasks: str | None, options: Sequence[str] | None, download: bool, data: Path | None
) -> tuple[dict[str, Any], tuple[TaskSource, str]]:
    """What an environment searches with, and what it is to search.

    Args:
        env: id of a preset.
        tasks: ``SOURCE:SPLIT``, or a split of the preset's own source; None for its ``test`` if it has one.
        options: of the tasks, as typed.
        download: whether torchvision may fetch a set.
        data: folder of recorded tables and of torchvision's sets.

    Returns:
        The descriptions of ``space`` and ``evaluator``, and source and split. The tasks of a table bring the table's.

    Raises:
        UnknownNameError: if there is no such preset, source or split.
        ConfigurationError: if an option is not allowed, or the preset is a table's and the tasks are images.
        DataError: if data is missing or damaged.
    """
    from rlnas.datasets import parse_tasks
    from rlnas.options import task_options
    from rlnas.tabular_evaluator import TableSource

    preset = PRESETS[one_of("environment", env, PRESETS)]
    own = preset["tasks"]
    text = own if tasks is None else tasks if ":" in tasks else f"{own.rpartition(':')[0]}:{tasks}"
    source, split = parse_tasks(text, download=download, data=data, **task_options(options or []))
    if tasks is None and "test" in source.splits:
        split = "test"
    if isinstance(source, TableSource):
        _require_whole(source, split)
        return source.environment(), (source, split)
    if preset["evaluator"]["kind"] == "table":
        raise ConfigurationError(f"{env} answers from a table: its tasks are those of {own.rpartition(':')[0]}")
    return {"space": preset["space"], "evaluator": preset["evaluator"]}, (source, split)


def portable(source: TaskSource, split: str) -> list[Any]:
    """Tasks as a run keeps them: with absolute paths, and so that images that have changed are noticed."""
    kept: list[Any] = json.loads(json.dumps([source.spec(), split]))
    return kept


def space_of(preset: dict[str, Any], kind: str | None, options: Sequence[str] | None) -> SearchSpace:
    """The space of that kind, or the preset's.

    Raises:
        ConfigurationError: if no space of that kind has networks to train, or an option is not allowed.
    """
    from rlnas.options import space_options
    from rlnas.specs import SPACES, make_space, space_from_spec

    if kind is None:
        if options:
            raise ConfigurationError("--space-option needs --space")
        return space_from_spec(preset)
    one_of("space", kind, [name for name in SPACES if name != "table"])
    defaults = {field.name: field.default for field in fields(SPACES[kind])}  # type: ignore[arg-type]
    return make_space(kind, **space_options(options or [], defaults))


def evaluator_spec(
    preset: dict[str, Any],
    kind: str | None,
    device: str,
    init: Path | None,
    method: str | None,
    options: Sequence[str] | None,
) -> dict[str, Any]:
    """The preset's evaluator, of another kind, with another start or another way to adapt where these are given.

    Raises:
        ConfigurationError: if the start does not serve the adaptation, or an option is not allowed.
        CheckpointError: if the start cannot be read.
    """
    spec = dict(preset)
    if spec["kind"] == "table":
        if kind is not None or init is not None or method is not None or options:
            raise ConfigurationError("a table's evaluations are recorded: how networks adapt cannot be chosen")
        return spec
    if kind is not None or device == "cuda":
        spec["kind"] = one_of("evaluator", kind or "batched", ("batched", "sequential"))
    if init is None and method is None and not options:
        return spec
    from rlnas.adaptation import Adaptation
    from rlnas.initialisation import Initialisation, matched
    from rlnas.options import adaptation_options

    start = None if init is None else Initialisation.load(init)
    usual = Adaptation(**spec.get("adaptation", {})) if start is None else start.adaptation
    adaptation, _ = matched(replace(usual, method=method or usual.method, **adaptation_options(options or [])), start)
    spec["adaptation"] = asdict(adaptation)
    return spec if start is None else {**spec, "init": start.spec()}


def _require_whole(source: TableSource, split: str) -> None:
    """Refuses columns with gaps: a search would pay for designs that no mean or best of the table counts."""
    import numpy as np

    for index in range(source.splits[split]):
        column = source.column(split, index)
        missing = int(np.isnan(source.table.main.accuracy[:, source.table.column(column), 0]).sum())
        if missing:
            raise DataError(
                f"{source.table.space.path}: column {column!r} has NaN for {missing} of {source.table.space.size} "
                "designs; search other columns (--task-option tasks=...) or fill it"
            )


@contextmanager
def shared_evaluations(wanted: bool, evaluator: Mapping[str, Any]) -> Iterator[EvaluationCache | None]:
    """The cache of all runs; None if it is not wanted, not needed, or cannot be opened, which a line says.

    Args:
        wanted: as ``--cache`` says.
        evaluator: description of the evaluator; that of a table needs none.
    """
    from rlnas.evaluation_cache import EvaluationCache, default_cache_path

    cache = None
    if wanted and evaluator["kind"] != "table":
        try:
            cache = EvaluationCache(default_cache_path())
        except CacheError as error:
            print(f"rlnas: going on without sharing evaluations: {error}", file=sys.stderr)
    try:
        yield cache
    finally:
        if cache is not None:
            cache.close()


def names_in(text: str) -> list[str]:
    """What stands between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def device_of(name: str) -> str:
    """``cpu`` or ``cuda``, as ``--device`` says.

    Raises:
        ConfigurationError: if that device is absent.
    """
    from rlnas.device import choose_device

    return choose_device(name).type


def new_folder(job: str) -> Path:
    """The first of runs/JOB-001, runs/JOB-002 ... that does not exist."""
    number = 1
    while (folder := Path("runs") / f"{job}-{number:03}").exists():
        number += 1
    return folder


def store_of(run: Path) -> Path:
    """The store of a run's folder, or the store itself."""
    return run / "episodes.sqlite" if run.is_dir() else run
