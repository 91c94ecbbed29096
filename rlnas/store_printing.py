"""What ``rlnas store`` prints of a store: what it holds, the record of a trial, or what is damaged."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from rlnas.canonical import canonical_json, sha256
from rlnas.episode import SCHEMA_VERSION, DesignEpisode
from rlnas.errors import ConfigurationError, StoreError, one_of
from rlnas.store import EpisodeStore


@dataclass(frozen=True, slots=True)
class AgentContent:
    """What one agent has in a store.

    Args:
        agent: its name.
        trials: number of its trials.
        designs: number of its design episodes.
        tasks: number of different tasks.
        envs: ids of the environments.
        best_accuracy: the highest of any design.
    """

    agent: str
    trials: int
    designs: int
    tasks: int
    envs: tuple[str, ...]
    best_accuracy: float


def list_store(store: EpisodeStore, as_json: bool) -> None:
    """Print what a store holds; every episode is read and checked.

    Raises:
        StoreError: naming the first damaged episode.
    """
    by_agent = groupby(store.episodes(), lambda episode: episode.agent)
    agents = [_content(agent, list(map(_facts, episodes))) for agent, episodes in by_agent]
    size = sum(file.stat().st_size for file in _files(store.path))
    if as_json:
        facts = {"path": str(store.path), "schema": SCHEMA_VERSION, "bytes": size}
        print(json.dumps({**facts, "agents": [asdict(agent) for agent in agents]}))
        return
    designs = sum(agent.designs for agent in agents)
    print(f"{store.path}: {designs} designs, schema {SCHEMA_VERSION}, {size / 2**20:.1f} MiB")
    width = max(len("agent"), *(len(agent.agent) for agent in agents)) + 2
    print(f"{'agent':{width}}{'trials':>8}{'designs':>9}{'tasks':>7}{'best':>7}  environments")
    for row in agents:
        figures = f"{row.trials:>8}{row.designs:>9}{row.tasks:>7}{row.best_accuracy:>7.3f}"
        print(f"{row.agent:{width}}{figures}  {', '.join(row.envs)}")


def show_trial(store: EpisodeStore, trial: int, agent: str | None, design: int | None, as_json: bool) -> None:
    """Print the records of a trial's designs, or of one.

    Raises:
        ConfigurationError: if there is no such trial or design, or several agents played it and none is named.
    """
    agents = store.agents(trial)
    if not agents:
        raise ConfigurationError(f"{store.path} holds no trial {trial}")
    if agent is None and len(agents) > 1:
        raise ConfigurationError(f"trial {trial} was played by several agents: choose --agent {' or '.join(agents)}")
    name = agents[0] if agent is None else one_of(f"agent of trial {trial}", agent, agents)
    episodes = list(store.episodes(name, trial))
    if design is not None:
        episodes = [episode for episode in episodes if episode.design == design]
        if not episodes:
            raise ConfigurationError(f"{store.path}: trial {trial} of agent {name!r} has no design {design}")
    if as_json:
        records = [episode.to_json() for episode in episodes]
        print(canonical_json(records if design is None else records[0]))
        return
    print("\n\n".join(map(record_text, episodes)))


def record_text(episode: DesignEpisode) -> str:
    """An episode's record, a line for each field."""
    evaluation, env = episode.evaluation, episode.env
    loss = "none" if evaluation.loss is None else f"{evaluation.loss:.6g}"
    lines = {
        "environment": f"{env['id']}, {env['designs_per_trial']} designs a trial",
        "SHA-256": f"{sha256(canonical_json(env))} of its description",
        "seed": "none" if episode.seed is None else episode.seed,
        "task": f"{episode.task}, SHA-256 {episode.task_digest}",
        **({"start": episode.start} if episode.start else {}),
        "actions": ", ".join(map(str, episode.actions)),
        "legal": ", ".join(f"{mask.count('1')} of {len(mask)}" for mask in episode.masks),
        "rewards": ", ".join(f"{reward:.6g}" for reward in episode.rewards),
        "architecture": episode.architecture or "none: an illegal action ended the design",
        "accuracy": f"{evaluation.accuracy:.6g}, best of the trial so far {episode.best:.6g}",
        "loss": loss,
        "status": f"{evaluation.status}{', from the cache' if evaluation.cached else ''}",
        "cost": f"{evaluation.seconds:.3f} s, {evaluation.parameters:,} parameters, "
        f"{evaluation.flops:,} multiply-accumulates",
        "replicate": f"evaluation seed {episode.evaluation_seed}",
        **({"message": evaluation.message} if evaluation.message else {}),
    }
    head = f"{episode.agent}: trial {episode.trial}, design {episode.design}"
    return "\n".join([head, *(f"  {name:13}{value}" for name, value in lines.items())])


def verify_store(path: Path, as_json: bool) -> bool:
    """Print a line for each damage of a store, and how many episodes were checked.

    Returns:
        Whether nothing is damaged.

    Raises:
        StoreError: if there is no such file.
    """
    if not path.is_file():
        raise StoreError(f"there is no episode store at {path}")
    checked, damages = 0, list[str]()
    try:
        with EpisodeStore(path, mode="r") as store:
            damages = store.verify()
            checked = len(store)
    except StoreError as error:
        damages.append(str(error))
    if as_json:
        print(json.dumps({"path": str(path), "episodes": checked, "damages": damages}))
    else:
        for damage in damages:
            print(" ".join(damage.split()))
        state = "all sound" if not damages else f"DAMAGED in {len(damages)} place{'s' * (len(damages) > 1)}"
        print(f"{path}: {checked} episodes checked, {state}")
    return not damages


def _facts(episode: DesignEpisode) -> tuple[int, str, str, float]:
    """The little of an episode that a list needs: not all of a store's episodes at once need be in memory."""
    return episode.trial, episode.task_digest, str(episode.env["id"]), episode.evaluation.accuracy


def _content(agent: str, facts: list[tuple[int, str, str, float]]) -> AgentContent:
    trials, tasks, envs, accuracies = zip(*facts, strict=True)
    return AgentContent(agent, len(set(trials)), len(facts), len(set(tasks)), tuple(sorted(set(envs))), max(accuracies))


def _files(path: Path) -> list[Path]:
    """A store's files: its own, and a writer's log beside it."""
    return [file for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()]
