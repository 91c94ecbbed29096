"""``rlnas replay``: recorded trials listed, told step by step, trained again, thought over again, or as a page."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlnas.cli_options import Json, store_of
from rlnas.errors import ConfigurationError

if TYPE_CHECKING:
    from rlnas.agents.rethinking import Rethought
    from rlnas.episode import DesignEpisode
    from rlnas.store import EpisodeStore
    from rlnas.thought import Thoughts
    from rlnas.viewer import TrialRecord


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
    html: Annotated[
        Path | None, typer.Option(help="Write the trial as one HTML file, to play, scrub and compare.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Beside it in that file: another agent's trial of the same number, or another's number."),
    ] = None,
    against_run: Annotated[Path | None, typer.Option(help="The run to take that from, if it is another.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Trials to list for each agent.")] = 20,
    as_json: Json = False,
) -> None:
    """Look at recorded search episodes, step by step; or do them again, where status 1 says that something differs."""
    from rlnas.replay_terminal import compare_recomputed, list_trials, step_through, trial_of
    from rlnas.store import EpisodeStore

    if html is None and (against is not None or against_run is not None):
        raise ConfigurationError("--against and --against-run need --html, the file to compare in")
    if html is not None and (trial is None or recompute):
        raise ConfigurationError("--html needs the number of a trial, and goes without --recompute")
    if policy is not None and recompute:
        raise ConfigurationError("--policy goes without --recompute")
    with EpisodeStore(store_of(run), mode="r") as store:
        if recompute:
            if not compare_recomputed(store, trial, agent, as_json):
                sys.exit(1)
        elif trial is not None:
            episodes = trial_of(store, trial, agent)
            found = _rethought(store, episodes, policy)
            if html is not None:
                other = None if against is None and against_run is None else (against, against_run)
                written = _write_page(html, store, episodes, found, other)
                if policy is None or not as_json:
                    print(json.dumps(written) if as_json else f"{html}: {written['bytes']:,} bytes")
            elif not as_json:
                thoughts, whose = (None, None) if found is None else (found.thoughts[trial], found.label)
                step_through(episodes, pause, thoughts, whose)
            elif policy is None:
                print(json.dumps(_told(episodes, None if found is None else found.thoughts[trial])))
            if policy is not None and found is not None:
                _compare_choices({trial: episodes}, found, as_json, {} if html is None else written)
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


def _write_page(
    out: Path,
    store: EpisodeStore,
    episodes: list[DesignEpisode],
    found: Rethought | None,
    other: tuple[str | None, Path | None] | None,
) -> dict[str, Any]:
    """Write the page; which file that is, and its size."""
    from rlnas.checkpoint import write_durably
    from rlnas.store import EpisodeStore
    from rlnas.viewer import trial_page

    first = episodes[0]
    title = f"Trial {first.trial} of {first.agent}"
    if other is None:
        trials = [_seen(episodes, found, first.agent)]
    else:
        against, run = other
        with EpisodeStore(store.path if run is None else store_of(run), mode="r") as beside:
            compared = _compared(beside, first, against)
            name, other_name = _told_apart(first, compared[0], store, beside)
            trials = [
                _seen(episodes, found, name),
                _seen(compared, _rethought(beside, compared, None), other_name),
            ]
        title = f"{title} beside trial {compared[0].trial} of {compared[0].agent}"
    page = trial_page(trials, title).encode()
    write_durably(out, page)
    return {"html": str(out), "bytes": len(page)}


def _compared(store: EpisodeStore, first: DesignEpisode, against: str | None) -> list[DesignEpisode]:
    """The trial that ``--against`` names, to stand beside that of an episode."""
    from rlnas.replay_terminal import trial_of

    agents = store.agents()
    if against is not None and (against in agents or not against.isdecimal()):
        return trial_of(store, first.trial, against)
    number = first.trial if against is None else int(against)
    return trial_of(store, number, first.agent if first.agent in agents else None)


def _told_apart(
    first: DesignEpisode, second: DesignEpisode, store: EpisodeStore, beside: EpisodeStore
) -> tuple[str, str]:
    """Names of two trials: their agents', or those and what the trials differ in."""
    if first.agent != second.agent:
        return first.agent, second.agent
    if first.trial != second.trial:
        return f"{first.agent}, trial {first.trial}", f"{second.agent}, trial {second.trial}"
    return f"{first.agent} in {store.path.parent}", f"{second.agent} in {beside.path.parent}"


def _seen(episodes: list[DesignEpisode], found: Rethought | None, name: str) -> TrialRecord:
    from rlnas.viewer import TrialRecord

    label = name if found is None or found.acted else f"{name} (policy and value: {found.label})"
    return TrialRecord(episodes, None if found is None else found.thoughts[episodes[0].trial], label)


def _told(episodes: list[DesignEpisode], thoughts: Thoughts | None) -> list[dict[str, Any]]:
    """A trial as JSON, with what was thought where that is known."""
    if thoughts is None:
        return [episode.to_json() for episode in episodes]
    return [
        {**episode.to_json(), "thoughts": [asdict(thought) for thought in row]}
        for episode, row in zip(episodes, thoughts, strict=True)
    ]


def _compare_all(store: EpisodeStore, agent: str | None, policy: str, as_json: bool) -> None:
    from rlnas.agents.rethinking import rethink_as
    from rlnas.replay_terminal import only_agent

    name = only_agent(store, agent)
    trials = {trial: list(store.episodes(name, trial)) for trial in store.trials(name)}
    _compare_choices(trials, rethink_as(store, name, list(trials), policy), as_json, {})


def _compare_choices(
    trials: dict[int, list[DesignEpisode]], found: Rethought, as_json: bool, written: dict[str, Any]
) -> None:
    """Print how many decisions an agent would take again, in JSON after what was written; status 1 if not all."""
    from rlnas.thought import agreement

    agreed = agreement((episodes, found.thoughts[trial]) for trial, episodes in trials.items())
    if as_json:
        print(json.dumps({**written, **asdict(agreed)}))
    elif agreed.difference is None:
        print(f"{found.label}: {agreed.decisions} decisions thought over again: all equal")
    else:
        print(f"{found.label}: {agreed.same} of {agreed.decisions} decisions are the same")
        print(f"DIFFERS: {agreed.difference}")
    if agreed.difference is not None:
        sys.exit(1)
