"""What ``rlnas replay`` prints: the trials of a store, one of them step by step, or how recomputing compares."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from rlnas.errors import ConfigurationError, one_of
from rlnas.progress import Progress
from rlnas.replay import recompute, render_steps
from rlnas.store import AgentSummary, EpisodeStore


def list_trials(store: EpisodeStore, agent: str | None, limit: int, as_json: bool) -> None:
    """Print each agent's figures, and the accuracies of its first ``limit`` trials.

    Raises:
        ConfigurationError: if the agent is unknown.
    """
    rows = _summaries(store, agent)
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    for row in rows:
        print(
            f"{row.agent}: {row.trials} trials, {row.episodes} designs, best {row.best_accuracy:.3f}, "
            f"first design {row.first_accuracy:.3f}, last {row.last_accuracy:.3f} on average"
        )
        trials = store.trials(row.agent)
        for trial in trials[:limit]:
            episodes = list(store.episodes(row.agent, trial))
            curve = " ".join(f"{episode.evaluation.accuracy:.2f}" for episode in episodes)
            print(f"  trial {trial:>5}  {episodes[0].task:24} {curve}")
        if len(trials) > limit:
            print(f"  ... and {len(trials) - limit} more (--limit)")


def step_through(store: EpisodeStore, trial: int, agent: str | None, pause: float, as_json: bool) -> None:
    """Print a trial step by step: after Enter on a terminal, otherwise at once or every ``pause`` seconds.

    Raises:
        ConfigurationError: if there is no such trial, or several agents played it and none is named.
    """
    agents = _agents_of(store, trial, agent)
    if len(agents) > 1:
        raise ConfigurationError(
            f"trial {trial} was played by several agents; choose with --agent: {', '.join(agents)}"
        )
    episodes = list(store.episodes(agents[0], trial))
    if as_json:
        print(json.dumps([episode.to_json() for episode in episodes]))
        return
    waits_for_enter = not pause and sys.stdin.isatty() and sys.stdout.isatty()
    best: float | None = 0.0
    for episode in episodes:
        for block in render_steps(episode, best):
            print(block, flush=True)
            if waits_for_enter:
                input()
            else:
                time.sleep(pause)
        best = episode.best


def compare_recomputed(store: EpisodeStore, trial: int | None, agent: str | None, as_json: bool) -> bool:
    """Train again what was recorded, until something differs; print how many designs were equal and what was not.

    Returns:
        Whether all were equal.

    Raises:
        ConfigurationError: if there is no such agent or trial, or what was recorded cannot be trained here.
    """
    if trial is None:
        total = sum(row.episodes for row in _summaries(store, agent))
    else:
        total = sum(len(list(store.episodes(name, trial))) for name in _agents_of(store, trial, agent))
    same, difference = 0, None
    with Progress("recompute", total) as progress:
        for difference in recompute(store.episodes(agent, trial)):
            progress.advance(1, 1, {})
            if difference is not None:
                break
            same += 1
    if as_json:
        print(json.dumps({"same": same, "difference": None if difference is None else str(difference)}))
    elif difference is not None:
        print(f"DIFFERS: {difference}")
    else:
        print(f"{same} designs trained again: all equal")
    return difference is None


def _summaries(store: EpisodeStore, agent: str | None) -> list[AgentSummary]:
    rows = store.summary()
    if not rows:
        raise ConfigurationError(f"{store.path} holds no episodes yet")
    if agent is None:
        return rows
    one_of("agent", agent, [row.agent for row in rows])
    return [row for row in rows if row.agent == agent]


def _agents_of(store: EpisodeStore, trial: int, agent: str | None) -> list[str]:
    """Who played a trial, or the one who is asked for."""
    agents = store.agents(trial)
    if not agents:
        raise ConfigurationError(f"{store.path} holds no trial {trial}")
    return agents if agent is None else [one_of(f"agent of trial {trial}", agent, agents)]
