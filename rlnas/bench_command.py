"""``rlnas bench`` and ``rlnas search``: agents compared on the same tasks."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlnas import pretrained
from rlnas.cli_options import (
    AdaptationName,
    AdaptationOption,
    Cache,
    Data,
    Designs,
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
    names_in,
    new_folder,
    problem_of,
    shared_evaluations,
)
from rlnas.errors import ConfigurationError, one_of

if TYPE_CHECKING:
    from rlnas.agents.benchmark import AgentSource, Benchmark
    from rlnas.task import TaskSource

Trials = Annotated[
    int | None,
    typer.Option(
        help="Trials in a run, by default one on each task, but 20 where networks are trained; more than there are "
        "tasks go round them in whole rounds.",
    ),
]
TrainingTasks = Annotated[
    str | None, typer.Option(help="Tasks on which agents may prepare themselves; by default the split 'train'.")
]
TrainingSteps = Annotated[int, typer.Option(min=1, help="Environment steps that agents which learn may learn for.")]
Record = Annotated[
    bool | None, typer.Option(help="Keep every design episode for replay; by default if networks are trained.")
]


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Takes the options of a TOML file as defaults."""
    if path is None:
        return None
    try:
        settings = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    known = {option.removeprefix("--"): parameter for parameter in context.command.params for option in parameter.opts}
    defaults = {}
    for option, value in settings.items():
        parameter = known[one_of(f"option in {path}", option.replace("_", "-"), [o for o in known if o != "config"])]
        if parameter.name == "agents" and isinstance(value, list):
            value = ",".join(map(str, value))
        elif parameter.multiple and not isinstance(value, list):
            value = [value]
        defaults[str(parameter.name)] = value
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def bench(
    config: Annotated[
        Path | None,
        typer.Argument(
            help="TOML file of these options (agents = [...], seeds = 10); what is typed beside it goes before it.",
            callback=_read_config,
            is_eager=True,
        ),
    ] = None,
    env: Annotated[str, typer.Option(help="Id of a trial environment.")] = "rlnas/DigitsTrial-v0",
    agents: Annotated[
        str,
        typer.Option(
            help="Names with commas between: random (always), evolution, tpe, portfolio, rl2, ppo ...; folders of "
            "runs; your own as FILE.py:NAME; wiped:AGENT without its memory; SHOWN=AGENT?option=value."
        ),
    ] = "random,evolution",
    tasks: Annotated[
        str | None, typer.Option(help="Tasks to search, as SOURCE:SPLIT or a split; by default the environment's test.")
    ] = None,
    task_option: TaskOptions = None,
    trials: Trials = None,
    designs: Designs = 10,
    seeds: Annotated[int, typer.Option(help="Runs of every agent, each with its own seed.")] = 3,
    training_tasks: TrainingTasks = None,
    training_steps: TrainingSteps = 200_000,
    duplicates: Duplicates = "count",
    out: Out = None,
    download: Download = False,
    data: Data = None,
    init: Init = None,
    adaptation: AdaptationName = None,
    adaptation_option: AdaptationOption = None,
    seed: Seed = 0,
    device: Device = "auto",
    evaluator: EvaluatorKind = None,
    workers: Workers = 1,
    timeout: Timeout = None,
    record: Record = None,
    cache: Cache = True,
    as_json: Json = False,
) -> None:
    """Compare agents on the same tasks at equal evaluations over several seeds. The same command again goes on."""
    from rlnas.agents.benchmark import Benchmark
    from rlnas.agents.registry import named_agents

    problem, searched = problem_of(env, tasks, task_option, download, data)
    training = None if training_tasks is None else problem_of(env, training_tasks, task_option, download, data)[1]
    chosen = device_of(device)
    spec = evaluator_spec(problem["evaluator"], evaluator, chosen, init, adaptation, adaptation_option)
    with shared_evaluations(cache, spec) as shared:
        benchmark = Benchmark(
            env,
            searched,
            named_agents(names_in(agents)),
            range(seed, seed + seeds),
            designs,
            spec,
            _usual_trials(spec, searched) if trials is None else trials,
            training,
            training_steps,
            {"space": problem["space"], **({} if duplicates == "count" else {"duplicates": duplicates})},
            timeout,
            chosen,
            spec["kind"] != "table" if record is None else record,
            cache=shared,
        )
        _compare(benchmark, out or new_folder("bench"), workers, as_json)


def search(
    agent: Annotated[Path, typer.Option(help="Folder of a training run, or 'pretrained', which comes with rlnas.")],
    tasks: Annotated[
        str | None, typer.Option(help="Tasks to search, as SOURCE:SPLIT or a split; by default the environment's test.")
    ] = None,
    task_option: TaskOptions = None,
    trials: Trials = None,
    designs: Designs = 10,
    against: Annotated[
        str, typer.Option(help="Compare with: evolution, wiped or any agent of bench; random always.")
    ] = "random,evolution",
    duplicates: Duplicates = "count",
    out: Out = None,
    download: Download = False,
    data: Data = None,
    init: Init = None,
    adaptation: AdaptationName = None,
    adaptation_option: AdaptationOption = None,
    seed: Seed = 0,
    device: Device = "auto",
    evaluator: EvaluatorKind = None,
    workers: Workers = 1,
    timeout: Timeout = None,
    cache: Cache = True,
    as_json: Json = False,
) -> None:
    """Search unseen tasks with a trained, frozen controller, beside other searchers at equal evaluations."""
    from rlnas.agents.benchmark import Benchmark
    from rlnas.agents.controller import Controller
    from rlnas.agents.registry import agent_folder, named_agents

    shipped = str(agent) == pretrained.NAME
    if shipped:
        env = "rlnas/Trial-v0" if tasks is not None and ":" in tasks else "rlnas/DigitsTableTrial-v0"
    else:
        env = str(Controller.load(agent_folder(agent), "cpu").about.get("env"))
    problem, searched = problem_of(env, tasks, task_option, download, data)
    if shipped and problem["evaluator"]["kind"] != "table":
        problem["space"] = pretrained.space().spec()
    chosen = device_of(device)
    spec = evaluator_spec(problem["evaluator"], evaluator, chosen, init, adaptation, adaptation_option)
    others = ["wiped=wiped:" + str(agent) if name == "wiped" else name for name in names_in(against)]
    agents: dict[str, AgentSource] = dict(named_agents([f"{pretrained.NAME if shipped else 'rl2'}={agent}", *others]))
    with shared_evaluations(cache, spec) as shared:
        benchmark = Benchmark(
            env,
            searched,
            agents,
            [seed],
            designs,
            spec,
            _usual_trials(spec, searched) if trials is None else trials,
            env_options={"space": problem["space"], **({} if duplicates == "count" else {"duplicates": duplicates})},
            timeout=timeout,
            device=chosen,
            cache=shared,
        )
        _compare(benchmark, out or new_folder("search"), workers, as_json)


def _usual_trials(evaluator: dict[str, Any], searched: tuple[TaskSource, str]) -> int:
    """All tasks of a table, which cost nothing; of others, the first 20."""
    tasks = searched[0].splits[searched[1]]
    return tasks if evaluator["kind"] == "table" else min(20, tasks)


def _compare(benchmark: Benchmark, out: Path, workers: int, as_json: bool) -> None:
    from rlnas.agents.benchmark_files import REPORT, write_files
    from rlnas.progress import Progress
    from rlnas.report import print_summary

    per_run = benchmark.task_count * benchmark.rounds * benchmark.designs
    runs = len(benchmark.contestants) * len(benchmark.seeds)
    with Progress("search", runs * per_run, (runs - len(benchmark.missing(out))) * per_run) as progress:
        alone = workers == 1

        def on_step(designs: int, best: float) -> None:
            progress.advance(designs, designs, {"best so far": best})

        def on_run(agent: str, seed: int, best: float) -> None:
            if not alone:
                progress.advance(per_run, per_run, {"best so far": best})

        results = benchmark.run(out, workers, on_run, on_step if alone else None)
    summary = write_files(benchmark, out, results, ["rlnas", *map(shlex.quote, sys.argv[1:])])
    if as_json:
        print(json.dumps({**summary, "out": str(out)}))
    else:
        print_summary(summary)
        print(f"written to {out}: {REPORT}, summary.json, evaluations.csv and more")
