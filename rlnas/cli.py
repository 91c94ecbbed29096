"""The command line: the one place where the core and both wings meet. Nothing imports it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlnas.errors import ConfigurationError, RlnasError, one_of
from rlnas.registration import PRESETS

if TYPE_CHECKING:
    from rlnas.agents.controller import LSTMController
    from rlnas.agents.training import TrainSettings
    from rlnas.evaluator import Evaluator
    from rlnas.replay import Difference
    from rlnas.store import EpisodeStore

app = typer.Typer(
    name="rlnas",
    help="Reinforcement-learning controllers for neural-architecture search.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable line at the end.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that evaluate designs.")]
Designs = Annotated[int, typer.Option(min=1, help="Designs in each trial.")]
TrialCount = Annotated[int, typer.Option("--trials", min=1, help="Tasks to search.")]
Tasks = Annotated[str, typer.Option(help="Tasks as SOURCE:SPLIT, for example digits:test or npz:FILE:test.")]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision fetch a set that is missing.")]
Out = Annotated[Path | None, typer.Option(help="Folder of results; by default a new one under runs/.")]


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and status 2."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads fight over cores long before they help nets this small
    try:
        app()
    except RlnasError as error:
        print(f"rlnas: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        sys.exit(141)


@app.command()
def envs(as_json: Json = False) -> None:
    """List the environments."""
    if as_json:
        print(json.dumps(PRESETS))
        return
    for env_id, arguments in PRESETS.items():
        space = arguments.get("space", {"kind": "chain"})
        tasks, designs = arguments.get("tasks", "digits:train"), arguments["designs_per_trial"]
        print(f"{env_id:24} {designs:>3} design(s) an episode, space {space['kind']}, tasks {tasks}")


@app.command()
def train(
    env: Annotated[str, typer.Option(help="Id of a trial environment.")] = "rlnas/DigitsTrial-v0",
    steps: Annotated[int | None, typer.Option(min=1, help="Environment steps in all.")] = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    reward: Annotated[str, typer.Option(help="accuracy, improvement or normalised.")] = "normalised",
    tasks: Annotated[str | None, typer.Option(help="Tasks to train on, if not the environment's.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials played at a time.")] = 32,
    option: Annotated[list[str] | None, typer.Option("--set", help="A learner's setting, NAME=NUMBER.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Train a controller (RL²: an LSTM policy, by PPO over whole trials)."""
    from rlnas.agents.training import begin_run, read_run
    from rlnas.agents.training import train as run_training
    from rlnas.progress import Progress

    if resume:
        if out is None:
            raise ConfigurationError("--resume needs --out, the folder of the run")
        settings = read_run(out)
        if steps not in (None, settings.steps):
            raise ConfigurationError(f"the run in {out} is one of --steps {settings.steps}, not {steps}")
    else:
        one_of("environment", env, PRESETS)
        settings = _train_settings(env, steps or 100_000, seed, trials, reward, tasks, option or [])
        out = out or _new_folder("train")
        begin_run(out, settings)
    learner_device = _device(device)
    progress = Progress("train", settings.steps)

    def on_update(statistics: dict[str, float]) -> None:
        shown = {name: statistics[f"{name}_accuracy"] for name in ("best", "first", "last")}
        progress.advance(int(statistics["timesteps"]) - progress.done, int(statistics["designs"]), shown)

    with _evaluator(settings.env, device, workers) as evaluator, _Stop() as stop, progress:
        result = run_training(out, evaluator, learner_device, on_update, stop)
    if as_json:
        print(json.dumps(result))
    else:
        state = "finished" if result["finished"] else f"stopped; go on with: rlnas train --resume --out {out}"
        print(f"{out}: {result['timesteps']} steps, {result['episodes']} designs recorded, {state}")
    if not result["finished"]:
        sys.exit(128 + stop.signal)


@app.command()
def search(
    agent: Annotated[Path, typer.Option(help="Folder of a training run.")],
    tasks: Tasks = "digits:test",
    trials: TrialCount = 20,
    designs: Designs = 10,
    against: Annotated[str, typer.Option(help="Compare with: random, evolution, wiped.")] = "random,evolution",
    out: Out = None,
    download: Download = False,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Search unseen tasks with a trained, frozen controller, beside other searchers at equal evaluations."""
    controllers = {"rl2": _controller(agent, device)}
    env = str(controllers["rl2"].about.get("env"))
    others = [name for name in against.split(",") if name]
    result = _compare(
        env,
        controllers,
        others,
        tasks,
        trials,
        designs,
        [seed],
        out or _new_folder("search"),
        download,
        device,
        workers,
    )
    _print_comparison(result, as_json)


@app.command()
def bench(
    env: Annotated[str, typer.Option(help="Id of a trial environment.")] = "rlnas/DigitsTrial-v0",
    agents: Annotated[str, typer.Option(help="random, evolution, or folders of training runs.")] = "random,evolution",
    tasks: Tasks = "digits:test",
    trials: TrialCount = 20,
    designs: Designs = 10,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions, each with its own seed.")] = 3,
    out: Out = None,
    download: Download = False,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Compare agents on the same tasks at equal evaluations, over several seeds; writes every evaluation as CSV."""
    names = [name for name in agents.split(",") if name]
    controllers = {name: _controller(Path(name), device) for name in names if Path(name).is_dir()}
    others = [name for name in names if name not in controllers]
    repeats = [seed + i for i in range(seeds)]
    result = _compare(
        env,
        controllers,
        others,
        tasks,
        trials,
        designs,
        repeats,
        out or _new_folder("bench"),
        download,
        device,
        workers,
    )
    _print_comparison(result, as_json)


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or its episodes.sqlite.")],
    trial: Annotated[int | None, typer.Argument(help="A trial's number; without it, trials are listed.")] = None,
    agent: Annotated[str | None, typer.Option(help="Whose trial, where several agents were recorded.")] = None,
    recompute: Annotated[bool, typer.Option("--recompute", help="Train every proposal again and compare.")] = False,
    pause: Annotated[float, typer.Option(min=0, help="Seconds between steps; 0: Enter steps.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Trials to list for each agent.")] = 20,
    as_json: Json = False,
) -> None:
    """Look at recorded search episodes, step by step, or train them again and compare."""
    from rlnas.replay import recompute as recompute_episodes
    from rlnas.store import EpisodeStore

    path = run / "episodes.sqlite" if run.is_dir() else run
    with EpisodeStore(path, mode="r") as store:
        if recompute:
            _recompute(recompute_episodes(store.episodes(agent, trial)), as_json)
        elif trial is None:
            _list_trials(store, agent, limit, as_json)
        else:
            _step_through(store, trial, agent, pause, as_json)


class _Stop:
    """Turns the first SIGINT or SIGTERM into an answer to "shall we stop?"; the second one ends the program."""

    signal = 0

    def __call__(self) -> bool:
        return self.signal != 0

    def __enter__(self) -> _Stop:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        print("rlnas: stopping; the run is being saved", file=sys.stderr, flush=True)


def _train_settings(
    env: str, steps: int, seed: int, trials: int, reward: str, tasks: str | None, options: list[str]
) -> TrainSettings:
    from rlnas.agents.rl2 import RL2Config
    from rlnas.agents.training import TrainSettings

    defaults = asdict(RL2Config())
    learner: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition("=")
        kind = type(defaults[one_of("learner's setting", name, defaults)])
        try:
            learner[name] = kind(value)
        except ValueError:
            raise ConfigurationError(f"--set {name} needs a number ({kind.__name__}), got {value!r}") from None
    env_options = {} if tasks is None else {"tasks": tasks}
    return TrainSettings(env, steps, seed, trials, reward, RL2Config(**learner), env_options)


@contextmanager
def _evaluator(env: str, device: str, workers: int) -> Iterator[Evaluator]:
    from rlnas.evaluator import evaluator_from_spec
    from rlnas.parallel_evaluator import ParallelEvaluator

    spec = PRESETS[one_of("environment", env, PRESETS)].get("evaluator", {"kind": "sequential"})
    evaluator = evaluator_from_spec(spec, device=device, workers=workers)
    try:
        yield evaluator
    finally:
        if isinstance(evaluator, ParallelEvaluator):
            evaluator.close()


def _compare(
    env: str,
    controllers: dict[str, LSTMController],
    others: list[str],
    tasks: str,
    trials: int,
    designs: int,
    seeds: list[int],
    out: Path,
    download: bool,
    device: str,
    workers: int,
) -> dict[str, Any]:
    from rlnas.agents.benchmark import Comparison
    from rlnas.datasets import parse_tasks
    from rlnas.progress import Progress

    one_of("environment", env, PRESETS)
    comparison = Comparison(env, parse_tasks(tasks, download=download), trials, designs, seeds, controllers, others)
    total = len(comparison.agents) * len(seeds) * trials * designs
    with _evaluator(env, device, workers) as evaluator, Progress("search", total) as progress:

        def on_step(designs_ended: int, best: float) -> None:
            progress.advance(designs_ended, designs_ended, {"best so far": best})

        return {**comparison.run(out, evaluator, on_step), "out": str(out)}


def _print_comparison(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    from rich.console import Console

    from rlnas.report import comparison_table

    title = f"{result['trials']} tasks of {result['tasks']}, {len(result['seeds'])} seed(s), means and 95% intervals"
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(comparison_table(result["agents"], title))
    best = result["best_architecture"]
    print(f"best design by {best['agent']}: {best['architecture']} on {best['task']} ({best['family']}),", end=" ")
    print(f"accuracy {best['accuracy_on_fresh_seeds']:.3f} on fresh seeds")
    print("regret is to the best design that any of these agents found on the task")
    print(
        f"written to {result['out']}: evaluations.csv, summary.json, curves.svg, best_architecture.svg, episodes.sqlite"
    )


def _controller(run: Path, device: str) -> LSTMController:
    from rlnas.agents.controller import LSTMController
    from rlnas.agents.training import AGENT

    return LSTMController.load(run / AGENT, _device(device))


def _device(name: str) -> str:
    from rlnas.evaluator import choose_device

    return choose_device(name).type


def _new_folder(job: str) -> Path:
    """The first of runs/JOB-001, runs/JOB-002 ... that does not exist."""
    number = 1
    while (folder := Path("runs") / f"{job}-{number:03}").exists():
        number += 1
    return folder


def _list_trials(store: EpisodeStore, agent: str | None, limit: int, as_json: bool) -> None:
    rows = [asdict(row) for row in store.summary() if agent in (None, row.agent)]
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['agent']}: {row['trials']} trials, {row['episodes']} designs, best {row['best_accuracy']:.3f}, "
            f"first design {row['first_accuracy']:.3f}, last {row['last_accuracy']:.3f} on average"
        )
        trials = store.trials(row["agent"])
        for trial in trials[:limit]:
            episodes = list(store.episodes(row["agent"], trial))
            curve = " ".join(f"{episode.evaluation.accuracy:.2f}" for episode in episodes)
            print(f"  trial {trial:>5}  {episodes[0].task:24} {curve}")
        if len(trials) > limit:
            print(f"  ... and {len(trials) - limit} more (--limit)")


def _step_through(store: EpisodeStore, trial: int, agent: str | None, pause: float, as_json: bool) -> None:
    from rlnas.replay import render_steps

    agents = [row.agent for row in store.summary() if trial in store.trials(row.agent)]
    if not agents:
        raise ConfigurationError(f"there is no trial {trial} in this store")
    if agent is None and len(agents) > 1:
        raise ConfigurationError(
            f"trial {trial} was played by several agents; choose with --agent: {', '.join(agents)}"
        )
    if agent is not None:
        one_of("agent of this trial", agent, agents)
    episodes = list(store.episodes(agent or agents[0], trial))
    if as_json:
        print(json.dumps([episode.to_json() for episode in episodes]))
        return
    best: float | None = 0.0
    for episode in episodes:
        for block in render_steps(episode, best):
            print(block, flush=True)
            if pause:
                time.sleep(pause)
            elif sys.stdin.isatty() and sys.stdout.isatty():
                input()
        best = episode.best


def _recompute(differences: Iterable[Difference | None], as_json: bool) -> None:
    """Exits with status 1 at the first difference, naming it."""
    same = 0
    for difference in differences:
        if difference is not None:
            print(json.dumps({"same": same, "difference": str(difference)}) if as_json else f"DIFFERS: {difference}")
            sys.exit(1)
        same += 1
    print(json.dumps({"same": same, "difference": None}) if as_json else f"{same} designs trained again: all equal")


if __name__ == "__main__":
    main()
