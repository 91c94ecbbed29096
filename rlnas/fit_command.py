"""``rlnas fit`` and ``rlnas models``: from a user's data to a trained network, and what was found so far."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlnas.cli_options import Device, Download, Json, Out, Seed, new_folder
from rlnas.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from rlnas.agents.fit_settings import FitSettings
    from rlnas.agents.fitting import Fit
    from rlnas.final_training import Epoch
    from rlnas.user_data import UserData


def fit(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A folder of images with one folder for each class, a .npz file, a .csv file of features with a "
            "column of labels, or a set of torchvision by name.",
        ),
    ] = None,
    agent: Annotated[
        str,
        typer.Option(help="Who designs: pretrained, random, evolution, tpe ...; the folder of a run; FILE.py:NAME."),
    ] = "pretrained",
    designs: Annotated[int, typer.Option(min=1, help="Designs to propose.")] = 20,
    fidelity: Annotated[
        str | None,
        typer.Option(help="EXAMPLESxSTEPS that each design is first evaluated with; by default 250x30."),
    ] = None,
    rungs: Annotated[
        int, typer.Option(min=1, help="Rungs of successive halving: a third goes on to twice the examples and steps.")
    ] = 3,
    finalists: Annotated[
        int,
        typer.Option(min=1, help="So many of the best are trained at full width for a sixth of the schedule first."),
    ] = 1,
    out: Out = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out from where it stopped; DATA may be left out.")
    ] = False,
    label: Annotated[str | None, typer.Option(help="Column of a .csv file that holds the labels.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Shorter side of larger images, 8 to 224 pixels; by default 32.")
    ] = None,
    validation: Annotated[float, typer.Option(help="Fraction of the data that designs are compared on.")] = 0.2,
    test: Annotated[
        float, typer.Option(help="Fraction that the search never sees, unless the data has a test part of its own.")
    ] = 0.2,
    max_params: Annotated[
        int | None, typer.Option(min=1, help="The trained network has at most so many parameters.")
    ] = None,
    max_flops: Annotated[
        int | None,
        typer.Option(min=1, help="Likewise multiply-accumulates of one example; by default 8 million, if it can be."),
    ] = None,
    pareto: Annotated[
        list[str] | None, typer.Option(help="Plot accuracy against params, flops or latency; may be repeated.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Times as wide as in the search, in place of as wide as allowed.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of the final training.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the final training, NAME=VALUE, such as learning_rate=0.001."),
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Time for search and training, at most half of it for the search.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    data: Annotated[Path | None, typer.Option(help="Folder that holds the set of torchvision.")] = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Find a network for your data, train it fully and write it down. Ctrl-C stops it so that it can go on."""
    from rlnas.agents.fit_settings import FitSettings
    from rlnas.agents.fitting import begin_fit, read_fit
    from rlnas.agents.registry import absolute_agent
    from rlnas.device import choose_device
    from rlnas.final_training import FinalTraining
    from rlnas.options import learner_options

    usual = FinalTraining()
    known = {n: v for n, v in asdict(replace(usual, threads=1, width=1)).items() if n not in ("seed", "max_seconds")}
    chosen = learner_options(option or [], known, "setting of the final training")
    for name, value in (("width", width), ("epochs", epochs)):
        if value is not None and chosen.setdefault(name, value) != value:
            raise ConfigurationError(f"{name} is said to be {value} and, by --set, {chosen[name]}")
    settings = FitSettings(
        agent=absolute_agent(agent),
        designs=designs,
        fidelity=fidelity,
        rungs=rungs,
        finalists=finalists,
        validation=validation,
        test=test,
        seed=seed,
        max_seconds=max_seconds,
        max_params=max_params,
        max_flops=max_flops,
        pareto=tuple(pareto or ()),
        training=replace(usual, **chosen),
    )
    choose_device(device)
    options = {"source": source, "image_size": image_size, "label": label, "data": data, "download": download}
    if not resume:
        if source is None:
            raise ConfigurationError("DATA is missing: a folder of images, a .npz or .csv file, or a set by name")
        out = out or new_folder("fit")
        _require_possible(out, settings.agent, source)
        read = _read(options)
        begin_fit(out, read, settings)
    elif out is None:
        raise ConfigurationError("--resume needs --out, the folder of the run")
    else:
        begun, about = read_fit(out)
        _require_same(out, begun, settings, context)
        settings, origin = begun, about["origin"]
        if origin is None:
            raise ConfigurationError(f"the data of the run in {out} came from arrays; go on from Python")
        read = _read(_origin(out, origin, options))
    _finish(out, read, settings, device, as_json)


def models(
    folder: Annotated[Path, typer.Argument(help="Where to look, at any depth.")] = Path("runs"), as_json: Json = False
) -> None:
    """List the models that were found: network, test accuracy, size, data and date."""
    from rlnas.agents.fit_report import RESULT

    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: there is no such folder")
    rows = []
    for file in sorted(folder.rglob(RESULT)):
        try:
            found = json.loads(file.read_text())
            if found["kind"] != "fit":
                continue
            test = found["test"]
            rows.append(
                {
                    "folder": str(file.parent),
                    "architecture": found["architecture"],
                    "test_accuracy": test and test["accuracy"],
                    "interval": test and test["interval"],
                    "parameters": found["parameters"],
                    "data": found["data"]["name"],
                    "date": found["date"],
                }
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{file} is damaged, or of something else than rlnas fit") from None
    rows.sort(key=lambda row: row["date"])
    if as_json:
        print(json.dumps(rows))
        return
    print(f"{'date':12}{'test accuracy':>14}{'parameters':>13}  {'data':28}{'folder':28}architecture")
    for row in rows:
        accuracy = "-" if row["test_accuracy"] is None else f"{row['test_accuracy']:.4f}"
        places = f"{Path(row['data']).name:26}  {row['folder']:26}"
        print(f"{row['date'][:10]:12}{accuracy:>14}{row['parameters']:>13,}  {places}  {row['architecture']}")


def _finish(out: Path, data: UserData, settings: FitSettings, device: str, as_json: bool) -> None:
    """Search and train, showing how far it is, and tell what came of it."""
    from rlnas.agents.fitting import fit as run_fit
    from rlnas.interruption import Interruption
    from rlnas.progress import Progress
    from rlnas.rungs import evaluations

    with Interruption() as stop, ExitStack() as open_bars:
        bars: dict[str, Progress] = {}

        def bar(title: str, total: int, counted: str) -> Progress:
            if title not in bars:  # not before there is something to tell: a resumed run may have searched already
                open_bars.close()
                bars[title] = open_bars.enter_context(Progress(title, total, counted=counted))
            return bars[title]

        def on_evaluation(count: int, best: float) -> None:
            total = evaluations(settings.designs, settings.rungs) + (
                settings.finalists if settings.finalists > 1 else 0
            )
            bar("search", total, "evaluations").advance(count, count, {"accuracy": best})

        def on_epoch(epoch: Epoch) -> None:
            shown = bar(epoch.stage, 100, "epochs")  # a stage may end before its schedule does
            shown.advance(
                round(100 * epoch.progress) - shown.done, 1, {} if epoch.loss is None else {"loss": epoch.loss}
            )

        found = run_fit(out, data, device, stop, on_evaluation, on_epoch)
    if found is None:
        if as_json:
            print(json.dumps({"out": str(out), "finished": False}))
        else:
            print(f"{out}: stopped; go on with: rlnas fit --resume --out {out}")
        sys.exit(128 + stop.signal)
    _tell(out, found, as_json)


def _tell(out: Path, found: Fit, as_json: bool) -> None:
    from rlnas.agents.fit_report import CARD

    result = found.result
    if as_json:
        print(json.dumps({"out": str(out), "finished": True, **result}))
        return
    print(f"{out}: {result['architecture']}, {result['parameters']:,} parameters")
    part = "test" if result["test"] else "validation"
    scores = result[part]
    low, high = scores["interval"]
    before = ", before the validation part was trained on," if part == "validation" and result["refitted"] else ""
    print(
        f"{part} accuracy{before} {scores['accuracy']:.4f} ({low:.4f} to {high:.4f}), "
        f"balanced {scores['balanced_accuracy']:.4f}, calibration error {scores['calibration_error']:.4f}"
    )
    print(f"written to {out}: {CARD}, model/, model.py, leaderboard.csv and more")


def _require_possible(out: Path, agent: str, source: str) -> None:
    """Refuses a folder that cannot hold the run, and an unknown agent, before data is read, which may take a while."""
    from rlnas.agents.data_search import require_searching
    from rlnas.agents.fitting import require_new
    from rlnas.agents.registry import resolve_agent

    resolve_agent(require_searching(agent))
    require_new(out, source)


def _read(options: dict[str, Any]) -> UserData:
    from rlnas.torchvision_sets import TORCHVISION_SETS
    from rlnas.user_data import read_data

    if str(options["source"]) not in TORCHVISION_SETS and (options.get("data") or options.get("download")):
        raise ConfigurationError(f"--data and --download are for torchvision's sets; {options['source']} is none")
    return read_data(**options)


def _origin(run: Path, origin: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Where a run's data is read from again: as it was begun, but the command may say where the data is now."""
    for name in ("image_size", "label"):
        if options[name] is not None and options[name] != origin.get(name):
            raise ConfigurationError(
                f"the run in {run} was begun with {name} = {origin.get(name)}, not {options[name]}"
            )
    moved = {name: options[name] for name in ("source", "data") if options[name] is not None}
    return {**origin, **moved, "download": options["download"]}


def _require_same(run: Path, begun: FitSettings, now: FitSettings, context: typer.Context) -> None:
    """A run goes on with the settings it was begun with; the command may repeat them but not change them."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    typed = {name for name, place in sources.items() if place is not None and place.name == "COMMANDLINE"}
    typed |= {text.partition("=")[0] for text in context.params["option"] or []}
    was, is_now = ({**asdict(each.training), **asdict(each)} for each in (begun, now))
    for field in sorted(typed & is_now.keys()):
        if was[field] != is_now[field]:
            raise ConfigurationError(f"the run in {run} was begun with {field} = {was[field]}, not {is_now[field]}")
