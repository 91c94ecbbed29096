"""``rlnas replay``: recorded trials listed, told step by step, trained again, thought over again, or as a page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlnas.cli_options import Json

if TYPE_CHECKING:
    from rlnas.agents.rethinking import Rethought
    from rlnas.episode import DesignEpisode
    from rlnas.store import EpisodeStore


def replay(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or its episodes.sqlite.")],
    trial: Annotated[int | None, typer.Argument(help="A trial's number; without it, trials are listed.")] = None,
    agent: Annotated[str | None, typer.Option(help="Whose trial, where several agents were recorded.")] = None,
    recompute: Annotated[bool, typer.Option("--recompute", help="Train every proposal again and compare.")] = False,
    policy: Annotated[
        str | None,
        typer.Option(
            help="Let an agent think over what was recorded, and compare its choices: one of the run, a checkpoint "
            "or the folder of a run, or any agent of bench; what must prepare itself does so."
        ),
    ] = None,
    pause: Annotated[float, typer.Option(min=0, help="Seconds between steps; 0: Enter steps.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Trials to list for each agent.")] = 20,
    as_json: Json = False,
) -> None:
    """Look at recorded search episodes, step by step; or do them again, where status 1 says that something differs."""
    from rlnas.replay_terminal import compare_recomputed, list_trials, step_through, trial_of
    from rlnas.store import EpisodeStore

    path = run / "episodes.sqlite" if run.is_dir() else run
    with EpisodeStore(path, mode="r") as store:
        if recompute:
            if not compare_recomputed(store, trial, agent, as_json):
                sys.exit(1)
        elif trial is not None:
            episodes = trial_of(store, trial, agent)
            if as_json and policy is None:
                print(json.dumps([episode.to_json() for episode in episodes]))
                return
            found = _rethought(store, episodes, policy)
            if not as_json:
                thoughts, whose = (None, None) if found is None else (found.thoughts[trial], found.label)
                step_through(episodes, pause, thoughts, whose)
            if policy is not None and found is not None:
                _compare_choices({trial: episodes}, found, as_json)
        elif policy is not None:
            _compare_all(store, agent, policy, as_json)
        else:
            list_trials(store, agent, limit, as_json)


def _rethought(store: EpisodeStore, episodes: list[DesignEpisode], policy: str | None) -> Rethought | None:
    """What was thought in a trial: by ``policy``, or else by whoever acted, where that can be had."""
    first = episodes[0]
    if policy is None and not (store.path.parent / "config.json").is_file():
        return None  # nothing there tells who acted, and agents take seconds to import
    from rlnas.agents.rethinking import rethink_as, who_acted

    if policy is None:
        return who_acted(store, first.agent, [first.trial])
    return rethink_as(store, first.agent, [first.trial], policy)


def _compare_all(store: EpisodeStore, agent: str | None, policy: str, as_json: bool) -> None:
    from rlnas.agents.rethinking import rethink_as
    from rlnas.replay_terminal import only_agent

    name = only_agent(store, agent)
    trials = {trial: list(store.episodes(name, trial)) for trial in store.trials(name)}
    _compare_choices(trials, rethink_as(store, name, list(trials), policy), as_json)


def _compare_choices(trials: dict[int, list[DesignEpisode]], found: Rethought, as_json: bool) -> None:
    """Print how many decisions an agent would take again; leaves with status 1 if not all."""
    from dataclasses import asdict

    from rlnas.thought import agreement

    agreed = agreement((episodes, found.thoughts[trial]) for trial, episodes in trials.items())
    if as_json:
        print(json.dumps(asdict(agreed)))
    elif agreed.difference is None:
        print(f"{found.label}: {agreed.decisions} decisions thought over again: all equal")
    else:
        print(f"{found.label}: {agreed.same} of {agreed.decisions} decisions are the same")
        print(f"DIFFERS: {agreed.difference}")
    if agreed.difference is not None:
        sys.exit(1)
