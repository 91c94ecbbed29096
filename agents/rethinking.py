"""What an agent thinks of recorded trials: a frozen one thinks the same again where it sees the same.

Nothing of it is recorded. The observations are rebuilt (:mod:`rlnas.rebuilding`), the agent is asked at every step, and
the recorded action is taken whatever it says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.utils import set_random_seed

from rlnas.checkpoint import MANIFEST
from rlnas.datasets import source_from_spec
from rlnas.device import one_thread
from rlnas.episode import DesignEpisode
from rlnas.errors import CheckpointError, DataError, RlnasError
from rlnas.evaluator import Evaluator
from rlnas.rebuilding import RecordedEnv, RecordedEvaluator, rebuilt_trials
from rlnas.specs import evaluator_from_spec
from rlnas.store import EpisodeStore
from rlnas.thought import Thought, Thoughts

from .agent import Agent, State, think
from .benchmark import IDENTITY, RUNS, SETTINGS, folder_name, read_json, seed_of_run
from .controller import Controller
from .learned import controller_agent, wiped
from .problem import MakeAgent, SearchProblem
from .registry import AGENTS, SEARCHERS, WIPED, agent_file, resolve_agent
from .training import AGENT

TRAINING_STEPS = 200_000
"""That an agent may learn for where no comparison says how many."""


def rethink(agent: Agent, trials: Sequence[Sequence[DesignEpisode]], deterministic: bool = False) -> list[Thoughts]:
    """What an agent thinks before each recorded action.

    An agent that samples its actions chooses what was recorded only if it was just made, or seeded, as it was then, and
    if the trials are those that it played side by side, in their order.

    Args:
        agent: whose state is that of the beginning of the trials.
        trials: of one environment, the designs of each in order. One without designs was not recorded: it counts in
            the batch alone.
        deterministic: as the agent was asked for.

    Returns:
        The thoughts on each trial.

    Raises:
        DataError: if a trial cannot be rebuilt.
        ConfigurationError: if the environment cannot be made here.
    """
    places = [place for place, episodes in enumerate(trials) if episodes]
    if not places:
        return [[] for _ in trials]
    rebuilt = [shown for _, shown in rebuilt_trials(chain.from_iterable(trials))]
    seen = [rebuilt[0].observations] * len(trials)
    for place, shown in zip(places, rebuilt, strict=True):
        seen[place] = shown.observations
    lengths = np.array([sum(len(episode.actions) for episode in episodes) for episodes in trials])
    thoughts: list[list[Thought]] = [[] for _ in trials]
    state: State = None
    for step in range(int(lengths.max())):
        # A trial that is over waits for the others; what the agent does in it then is of no account.
        observation = np.stack([row[min(step, len(row) - 1)] for row in seen])
        thinking = think(agent, observation, state, np.full(len(trials), step == 0), deterministic)
        state = thinking.state
        for row in np.flatnonzero(lengths > step).tolist():
            told, value = thinking.probabilities, thinking.value
            thoughts[row].append(
                Thought(
                    () if told is None else tuple(told[row].tolist()),
                    None if value is None else float(value[row]),
                    int(thinking.action[row]),
                )
            )
    return [_by_design(row, episodes) for row, episodes in zip(thoughts, trials, strict=True)]


def _by_design(thoughts: list[Thought], episodes: Sequence[DesignEpisode]) -> Thoughts:
    following = iter(thoughts)
    return [tuple(islice(following, len(episode.actions))) for episode in episodes]


@dataclass(frozen=True)
class Rethought:
    """Thoughts on recorded trials, and whose they are.

    Args:
        thoughts: by the trial's number.
        label: whose, for people.
        acted: whether that is the agent that acted, as it was then.
    """

    thoughts: dict[int, Thoughts]
    label: str
    acted: bool = False


def who_acted(store: EpisodeStore, agent: str, trials: Sequence[int]) -> Rethought | None:
    """What the agent thought that acted in trials, where a controller in a folder did and is still there.

    In the folder of a comparison its runs say who acted, and the thoughts are the agent's own. In that of a training
    run they are those of the agent as training left it, and make no choices: it was another when it acted.

    Args:
        store: in its run's folder.
        agent: name of the agent in the store.
        trials: their numbers.
    """
    folder = store.path.parent
    try:
        identity = _identity(folder, agent)
        if identity is not None:
            source = _found(folder, identity)
            if source is None or not Path(source.removeprefix(WIPED)).is_dir():
                return None
            thoughts = _rethink_stored(store, agent, trials, source)
            return Rethought(thoughts, f"{identity['agent']}, which acted here", acted=True)
        if (folder / AGENT / MANIFEST).is_file():
            thoughts = _rethink_stored(store, agent, trials, str(folder))
            silent = {trial: _without_choices(rows) for trial, rows in thoughts.items()}
            return Rethought(silent, f"{folder} at the end of its training, not as it acted here")
    except (RlnasError, OSError):
        return None  # there is a record to show without thoughts, too
    return None


def _without_choices(thoughts: Thoughts) -> Thoughts:
    return [[replace(thought, choice=None) for thought in row] for row in thoughts]


def rethink_as(store: EpisodeStore, agent: str, trials: Sequence[int], policy: str) -> Rethought:
    """What another agent, or the same one made anew, thinks of trials.

    In the folder of a comparison it is made with the same seeds as there and plays whole runs: the agent that acted
    makes the same choices again. Elsewhere nothing tells how actions were drawn, and it takes its likeliest ones.

    Args:
        store: of the record.
        agent: name of the agent in the store.
        trials: their numbers.
        policy: name of an agent of the comparison in whose folder the store is; a checkpoint, as a folder or ``.zip``;
            or what :func:`~.registry.resolve_agent` takes. What has to prepare itself, does so.

    Raises:
        RlnasError: if the agent cannot be had or serves another environment, or a trial cannot be rebuilt.
    """
    identity = _identity(store.path.parent, policy)
    if identity is None:
        return Rethought(_rethink_stored(store, agent, trials, policy), policy)
    name = identity["agent"]
    return Rethought(_rethink_stored(store, agent, trials, _found(store.path.parent, identity) or name), name)


def _rethink_stored(store: EpisodeStore, agent: str, trials: Sequence[int], source: str) -> dict[int, Thoughts]:
    description = next(store.episodes(agent, trials[0])).env
    settings = _comparison(store.path.parent)
    problem = _problem(settings or _settings_of(description), description, source)
    if settings is None:
        batches = {0: list(trials)}
    else:
        size = settings["trials"]
        batches = {seed: list(range(seed * size, (seed + 1) * size)) for seed in sorted({t // size for t in trials})}
    thoughts: dict[int, Thoughts] = {}
    with one_thread():
        for seed, numbers in batches.items():
            set_random_seed(seed_of_run(seed, agent))
            acting = _made(source, problem, seed)
            played = [list(store.episodes(agent, trial)) for trial in numbers]
            found = rethink(acting, played, deterministic=settings is None)
            thoughts |= {trial: rows for trial, rows in zip(numbers, found, strict=True) if trial in set(trials)}
    return thoughts


def _made(source: str, problem: SearchProblem, seed: int) -> Agent:
    agent = _maker(source)(problem, seed)
    if isinstance(agent, Controller) and (theirs := agent.config.observation_size) != problem.layout.size:
        raise CheckpointError(
            f"{source}: was trained on observations of {theirs} entries; those recorded have {problem.layout.size}"
        )
    return agent


def _maker(source: str) -> MakeAgent:
    if not _is_checkpoint(source):
        return resolve_agent(source)
    make = controller_agent(source.removeprefix(WIPED))
    return wiped(make) if source.startswith(WIPED) else make


def _is_checkpoint(source: str) -> bool:
    name = source.removeprefix(WIPED)
    is_zip = name.endswith(".zip") and Path(name).is_file()
    return name not in AGENTS and (is_zip or (Path(name) / MANIFEST).is_file())


def _problem(settings: dict[str, Any], description: dict[str, Any], source: str) -> SearchProblem:
    """What the agent of a text is made for; one that needs no preparation is given nothing to prepare itself with."""
    name = source.removeprefix(WIPED)
    is_trained = _is_checkpoint(source) or (name not in AGENTS and Path(name).is_dir())
    evaluator: Evaluator = RecordedEvaluator(settings["evaluator"])
    training = None
    if not (is_trained or "?" in name or name in SEARCHERS):
        evaluator = evaluator_from_spec(settings["evaluator"])
        if settings["training"] is not None:
            tasks, split = settings["training"]
            training = source_from_spec(tasks), split
    env: Any = RecordedEnv(description).env.unwrapped
    return SearchProblem(
        settings["env"],
        dict(settings["env_options"]),
        env.search_space,
        env.layout,
        settings["designs"],
        evaluator,
        training,
        settings["training_steps"],
    )


def _settings_of(description: dict[str, Any]) -> dict[str, Any]:
    """What a comparison's settings would be, from a recorded environment."""
    source, split = source_from_spec(description["tasks"]), description["split"]
    options = {name: description[name] for name in ("space", "duplicates", "descriptor") if name in description}
    return {
        "env": description["id"],
        "env_options": {**options, **description.get("edits", {})},
        "designs": description["designs_per_trial"],
        "training": [description["tasks"], "train"] if "train" in source.splits and split != "train" else None,
        "training_steps": TRAINING_STEPS,
        "evaluator": description["evaluator"],
    }


def _comparison(folder: Path) -> dict[str, Any] | None:
    """The settings of the comparison in a folder; None if there is none.

    Raises:
        DataError: if they are damaged.
    """
    if not (folder / RUNS).is_dir() or not (folder / SETTINGS).is_file():
        return None
    settings = read_json(folder / SETTINGS)
    kinds = {"env": str, "env_options": dict, "trials": int, "designs": int, "training_steps": int, "evaluator": dict}
    for name, kind in kinds.items():
        if not isinstance(settings.get(name), kind):
            raise DataError(f"{folder / SETTINGS} is damaged: {name} is {settings.get(name)!r}")
    return {"training": None, **settings}


def _found(folder: Path, identity: dict[str, Any]) -> str | None:
    """The text of an agent that a comparison read from a file or folder, where that is now; None if it is not there.

    Its path is relative to where the comparison was started: here, or else likely a folder above the comparison's.
    """
    wiped = WIPED if identity["agent"].startswith(WIPED) else ""
    path = identity["agent"].removeprefix(WIPED)
    for base in (Path(), folder.resolve(), *folder.resolve().parents):
        text = wiped + str(base / path)
        with suppress(RlnasError, OSError):
            file = agent_file(text)
            if file is not None and hashlib.sha256(file.read_bytes()).hexdigest() == identity.get("sha256"):
                return text
    return None


def _identity(folder: Path, agent: str) -> dict[str, Any] | None:
    """What the comparison in a folder says that an agent is; None if it says nothing."""
    file = folder / RUNS / folder_name(agent) / IDENTITY
    if not file.is_file():
        return None
    identity = read_json(file)
    if not isinstance(identity.get("agent"), str):
        raise DataError(f"{file} is damaged: agent is {identity.get('agent')!r}")
    return identity
