"""What ``rlnas replay`` prints: the trials of a store, one of them step by step, or how recomputing compares."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, one_of
from rlnas.progress import Progress
from rlnas.replay import recompute
from rlnas.replay_text import render_steps
from rlnas.store import AgentSummary, EpisodeStore
from rlnas.thought import Thoughts


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


def trial_of(store: EpisodeStore, trial: int, agent: str | None) -> list[DesignEpisode]:
    """The designs of a trial, in order.

    Raises:
        ConfigurationError: if there is no such trial, or several agents played it and none is named.
    """
    agents = _agents_of(store, trial, agent)
    if len(agents) > 1:
        raise ConfigurationError(
            f"trial {trial} was played by several agents; choose with --agent: {', '.join(agents)}"
        )
    return list(store.episodes(agents[0], trial))


def step_through(
    episodes: Sequence[DesignEpisode], pause: float, thoughts: Thoughts | None = None, whose: str | None = None
) -> None:
    """Print a trial step by step: after Enter on a terminal, otherwise at once or every ``pause`` seconds.

    Args:
        episodes: the trial's designs.
        pause: seconds between steps.
        thoughts: an agent's, if they are known.
        whose: the agent of the thoughts.
    """
    if whose is not None:
        print(f"policy and value: {whose}")
    waits_for_enter = not pause and sys.stdin.isatty() and sys.stdout.isatty()
    best: float | None = 0.0
    previous: DesignEpisode | None = None
    for episode, row in zip(episodes, thoughts or [()] * len(episodes), strict=True):
        for block in render_steps(episode, best, row, previous):
            _show(block)
            if not waits_for_enter:
                time.sleep(pause)
            elif not _wants_more():
                return
        best, previous = episode.best, episode if episode.architecture else previous


def _show(block: str) -> None:
    """Print a block of lines, on a terminal in colour: what it is, the choice that was taken, what is new."""
    if not sys.stdout.isatty():
        print(block, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    text = Text(block)
    text.stylize("bold", end=block.index("\n"))
    text.highlight_regex(r"(?m)^  (policy|value|reward|best so far|design|choice|task|start|architecture)", "dim")
    text.highlight_regex(r"(?m)^ .*<- taken$", "cyan")
    text.highlight_regex(r"(?m)^  (changed|would take) .*(\n {15}.*)*", "yellow")
    text.highlight_regex(r"(?m)^  accuracy .*", "green")
    Console().print(text, soft_wrap=True)


def _wants_more() -> bool:
    """Wait for Enter; false at the end of what is typed."""
    try:
        input()
    except EOFError:
        return False
    return True


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


def only_agent(store: EpisodeStore, agent: str | None) -> str:
    """The agent whose episodes a store has, or the one of them that is asked for.

    Raises:
        ConfigurationError: if there is no such agent, or there are several and none is named.
    """
    names = [row.agent for row in _summaries(store, agent)]
    if len(names) > 1:
        raise ConfigurationError(f"several agents were recorded; choose with --agent: {', '.join(names)}")
    return names[0]


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
