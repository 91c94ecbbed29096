"""``rlnas store``: what a store of recorded episodes holds, whether it is sound, and other forms of its content."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlnas.cli_options import Json, store_of
from rlnas.errors import ConfigurationError, StoreError, one_of

if TYPE_CHECKING:
    from rlnas.store import EpisodeStore

app = typer.Typer(name="store", help="Recorded episodes: list, show, verify, export, merge.", no_args_is_help=True)

Run = Annotated[Path, typer.Argument(help="Folder of a run, or its episodes.sqlite.")]
Agent = Annotated[str | None, typer.Option(help="Whose episodes, where several agents were recorded.")]


@app.command("ls")
def ls(run: Run, as_json: Json = False) -> None:
    """What a store holds: its environments, and each agent's trials and designs."""
    from rlnas.store_printing import list_store

    with _open(run) as store:
        list_store(store, as_json)


@app.command()
def show(
    run: Run,
    trial: Annotated[int, typer.Argument(help="A trial's number.")],
    agent: Agent = None,
    design: Annotated[int | None, typer.Option(help="One design of the trial; by default all.")] = None,
    as_json: Json = False,
) -> None:
    """The record of a trial's designs, readable; with --json all of it, as it was recorded."""
    from rlnas.store_printing import show_trial

    with _open(run) as store:
        show_trial(store, trial, agent, design, as_json)


@app.command()
def verify(run: Run, as_json: Json = False) -> None:
    """Check every episode against its SHA-256 and the file's own structure; status 1 says that something is damaged."""
    from rlnas.store_printing import verify_store

    if not verify_store(store_of(run), as_json):
        sys.exit(1)


@app.command()
def export(
    run: Run,
    minari: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Write trials as the Minari dataset of this id, such as rlnas/digits-v0, where minari.load_dataset "
            "finds it: in MINARI_DATASETS_PATH or ~/.minari/datasets.",
        ),
    ] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write evaluations to this Parquet file, a row each.")] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Write evaluations as a table, .npz, on which agents can be compared without training."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task to keep in --table; again for more. By default all.")
    ] = None,
    agent: Agent = None,
    as_json: Json = False,
) -> None:
    """Write episodes in other forms."""
    if minari is None and parquet is None and table is None:
        raise ConfigurationError("say what to write: --minari ID, --parquet FILE or --table FILE")
    if task and table is None:
        raise ConfigurationError("--task needs --table")
    for file, ending in ((parquet, ".parquet"), (table, ".npz")):
        if file is not None and file.suffix != ending:
            raise ConfigurationError(f"{file} must end in {ending}")
        if file is not None and file.exists():  # before another form is written
            raise ConfigurationError(f"{file} exists already; choose another file")
    written: dict[str, dict[str, object]] = {}
    with _open(run) as store:
        if agent is not None:
            one_of("agent", agent, store.agents())
        if parquet is not None:
            from rlnas.parquet_export import export_parquet

            written["parquet"] = {"out": str(parquet), "rows": export_parquet(store.episodes(agent), parquet)}
        if table is not None:
            from rlnas.table_export import export_table

            size = export_table(store.episodes(agent), table, task or [])
            written["table"] = {"out": str(table), "rows": size.rows, "columns": size.columns, "cells": size.cells}
        if minari is not None:
            from rlnas.minari_export import export_minari

            made = export_minari(store.episodes(agent), minari)
            counts = {"episodes": made.episodes, "steps": made.steps, "truncated": made.truncated}
            written["minari"] = {"out": str(made.path), "id": minari, **counts}
    if as_json:
        print(json.dumps(written))
        return
    for form, facts in written.items():
        print(_TOLD[form].format(**facts))
        if form == "table" and size.cells < size.rows * size.columns:
            print("  not every design was evaluated on every task: to search the table, choose one with --task")


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(help="The store to add to; it is made if it is absent.")],
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RUN...",
            help="Folders of runs or their episodes.sqlite. With NAME= the run's agents are called NAME/AGENT, so "
            "that several runs of the same agent fit into one store.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Add the episodes of runs to one store: all, or none if two episodes of the same number differ."""
    from rlnas.merging import Part
    from rlnas.merging import merge as run_merge

    parts = [Part(store_of(path), prefix) for path, prefix in map(_prefixed, runs)]
    added = run_merge(store_of(out), parts)
    if as_json:
        print(json.dumps({"out": str(out), "added": added}))
    else:
        print(f"{out}: {added} episodes added")


_TOLD = {
    "parquet": "{out}: {rows} evaluations",
    "table": "{out}: {rows} designs on {columns} tasks, {cells} pairs evaluated",
    "minari": "{out}: {episodes} trials, {steps} steps, {truncated} trials cut short; minari.load_dataset({id!r})",
}


def _prefixed(text: str) -> tuple[Path, str]:
    """A run, and the name before it if there is one."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return Path(text), ""
    if not name:
        raise ConfigurationError(f"a run must be given as RUN or NAME=RUN, got {text!r}")
    return Path(path), name


@contextmanager
def _open(run: Path) -> Iterator[EpisodeStore]:
    from rlnas.store import EpisodeStore

    with EpisodeStore(store_of(run), mode="r") as store:
        if not len(store):
            raise StoreError(f"{store.path} holds no episodes yet")
        yield store
