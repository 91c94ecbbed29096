"""The command line: the one place where the core and both wings meet. Nothing imports it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from rlnas.bench_command import bench, search
from rlnas.cli_options import (
    AdaptationName,
    AdaptationOption,
    Cache,
    Data,
    Device,
    Download,
    Duplicates,
    EvaluatorKind,
    Init,
    Json,
    Out,
    Seed,
    TaskOptions,
    Timeout,
    Workers,
    device_of,
    evaluator_spec,
    new_folder,
    portable,
    problem_of,
    shared_evaluations,
)
from rlnas.errors import ConfigurationError, RlnasError, one_of
from rlnas.fit_command import fit, models
from rlnas.meta_command import meta_train
from rlnas.registration import PRESETS
from rlnas.replay_command import replay
from rlnas.store_command import app as store_app
from rlnas.tabulate_command import tabulate

if TYPE_CHECKING:
    from rlnas.agents.training import TrainSettings
    from rlnas.evaluation_cache import EvaluationCache
    from rlnas.evaluator import Evaluator

app = typer.Typer(
    name="rlnas",
    help="Reinforcement-learning controllers for neural-architecture search.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and status 2."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads fight over cores long before they help nets this small
    try:
        try:
            app(prog_name="rlnas")
        finally:
            _flush()
    except RlnasError as error:
        _refuse(str(error))
    except BrokenPipeError:  # the reader of our output went away
        sys.exit(1)
    except OSError as error:
        _refuse(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))


@app.command()
def envs(data: Data = None, as_json: Json = False) -> None:
    """List the environments: their search space, their tasks and how many designs an episode has."""
    from rlnas.specs import available_space

    rows: list[dict[str, Any]] = []
    for env_id, arguments in PRESETS.items():
        space = available_space(arguments["space"], data)
        rows.append(
            {
                "id": env_id,
                "space": None if space is None else space.name,
                "decisions": None if space is None else len(space.decisions),
                "architectures": None if space is None else space.size,
                "tasks": arguments["tasks"],
                "designs": arguments["designs_per_trial"],
            }
        )
    if as_json:
        print(json.dumps(rows))
        return
    print(f"{'id':30}{'space':52}{'decisions':>9}{'architectures':>15}  {'tasks':26}designs an episode")
    for row in rows:
        if row["space"] is None:
            row |= {"space": "(its table is not here: see --data)", "decisions": "-", "architectures": "-"}
        else:
            row["architectures"] = f"{row['architectures']:,}"
        print("{id:30}{space:52}{decisions:>9}{architectures:>15}  {tasks:26}{designs:>3}".format(**row))


@app.command()
def train(
    context: typer.Context,
    env: Annotated[str, typer.Option(help="Id of a trial environment.")] = "rlnas/DigitsTrial-v0",
    steps: Annotated[int, typer.Option(min=1, help="Environment steps in all.")] = 100_000,
    out: Out = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out from where it stopped.")
    ] = False,
    reward: Annotated[str, typer.Option(help="accuracy, improvement, normalised or log-percentile.")] = "normalised",
    designs: Annotated[int | None, typer.Option(min=1, help="Designs of a trial, if not the environment's.")] = None,
    duplicates: Duplicates = "count",
    tasks: Annotated[str | None, typer.Option(help="Tasks to train on, if not the environment's.")] = None,
    task_option: TaskOptions = None,
    download: Download = False,
    data: Data = None,
    init: Init = None,
    adaptation: AdaptationName = None,
    adaptation_option: AdaptationOption = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials played at a time.")] = 32,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="A learner's setting, NAME=VALUE, such as learning_rate=0.0003.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    evaluator: EvaluatorKind = None,
    workers: Workers = 1,
    timeout: Timeout = None,
    cache: Cache = True,
    as_json: Json = False,
) -> None:
    """Train a controller (RL²: an LSTM policy, by PPO over whole trials). Ctrl-C stops it so that it can go on."""
    from rlnas.agents.rl2_config import RL2Config
    from rlnas.agents.training import TrainSettings, begin_run, read_run
    from rlnas.agents.training import train as run_training
    from rlnas.interruption import Interruption
    from rlnas.options import learner_options
    from rlnas.progress import Progress

    learner_device = device_of(device)
    preset = PRESETS[one_of("environment", env, PRESETS)]
    if tasks is None and (task_option or download):
        raise ConfigurationError("--task-option and --download need --tasks")
    problem, searched = problem_of(env, tasks or preset["tasks"], task_option, download, data)
    spec = evaluator_spec(problem["evaluator"], evaluator, learner_device, init, adaptation, adaptation_option)
    env_options: dict[str, Any] = {}
    if spec["kind"] == "table":
        env_options["space"] = problem["space"]
    if tasks is not None or spec["kind"] == "table":
        env_options["tasks"] = portable(*searched)
    if spec != preset["evaluator"]:
        env_options["evaluator"] = spec
    if designs is not None:
        env_options["designs_per_trial"] = designs
    if duplicates != "count":
        env_options["duplicates"] = duplicates
    learner = RL2Config(**learner_options(option or [], asdict(RL2Config())))
    settings = TrainSettings(env, steps, seed, trials, reward, learner, env_options)
    if not resume:
        out = out or new_folder("train")
        begin_run(out, settings)
    elif out is None:
        raise ConfigurationError("--resume needs --out, the folder of the run")
    else:
        wanted, settings = settings, read_run(out)
        _require_same(out, settings, wanted, context)
    progress = Progress("train", settings.steps, _steps_done(out))

    def on_update(statistics: dict[str, float]) -> None:
        shown = {name: statistics[f"{name}_accuracy"] for name in ("best", "first", "last")}
        progress.advance(int(statistics["timesteps"]) - progress.done, int(statistics["designs"]), shown)

    spec = settings.env_options.get("evaluator") or PRESETS[settings.env]["evaluator"]
    with (
        Interruption() as stop,
        shared_evaluations(cache, spec) as shared,
        _evaluator(spec, device, workers, timeout, shared) as judge,
        progress,
    ):
        result = run_training(out, judge, learner_device, on_update, stop)
    if as_json:
        print(json.dumps(result))
    else:
        state = "finished" if result["finished"] else f"stopped; go on with: rlnas train --resume --out {out}"
        print(f"{out}: {result['timesteps']} steps, {result['episodes']} designs recorded, {state}")
    if not result["finished"]:
        sys.exit(128 + stop.signal)


app.command("meta-train")(meta_train)
app.command()(tabulate)
app.command()(bench)
app.command()(search)
app.command()(fit)
app.command()(models)
app.command()(replay)
app.add_typer(store_app)


def _require_same(run: Path, settings: TrainSettings, wanted: TrainSettings, context: typer.Context) -> None:
    """A run goes on with the settings it was begun with; the command may repeat them but not change them."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    typed = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    typed |= {text.partition("=")[0] for text in context.params["option"] or []}
    if typed & {"init", "adaptation", "adaptation_option"}:
        typed.add("evaluator")
    if "designs" in typed:
        typed.add("designs_per_trial")
    usual = {"duplicates": "count"}
    begun, now = ({**usual, **asdict(each), **asdict(each.learner), **each.env_options} for each in (settings, wanted))
    for field in sorted(typed & now.keys()):
        if begun.get(field) != now[field]:
            raise ConfigurationError(f"the run in {run} was begun with {field} = {begun.get(field)}, not {now[field]}")


def _steps_done(run: Path) -> int:
    """Environment steps in a run's last checkpoint."""
    from rlnas.agents.training import CHECKPOINT
    from rlnas.checkpoint import MANIFEST, load_checkpoint

    folder = run / CHECKPOINT
    return int(load_checkpoint(folder)[0]["learner"]["num_timesteps"]) if (folder / MANIFEST).exists() else 0


@contextmanager
def _evaluator(
    spec: dict[str, Any], device: str, workers: int, timeout: float | None, cache: EvaluationCache | None
) -> Iterator[Evaluator]:
    from rlnas.parallel_evaluator import ParallelEvaluator, evaluator_in_processes

    evaluator = evaluator_in_processes(spec, device=device, workers=workers, timeout=timeout, cache=cache)
    try:
        yield evaluator
    finally:
        if isinstance(evaluator, ParallelEvaluator):
            evaluator.close()


def _flush() -> None:
    """Write out what was printed while an error in doing so can still be told."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would try, and tell, again
        raise


def _refuse(message: str) -> NoReturn:
    print("rlnas:", " ".join(message.splitlines()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
