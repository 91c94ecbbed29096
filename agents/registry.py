"""Agents by name, and agents of users' own by where they are."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isabstract, isclass, signature
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from rlnas.checkpoint import MANIFEST
from rlnas.errors import CheckpointError, ConfigurationError, one_of
from rlnas.image_files import absolute
from rlnas.pretrained import CONTROLLER, NAME
from rlnas.search_space import SearchSpace

from .bayesian import TPE, GaussianProcess, gaussian_process_for, tpe_for
from .controls import rl2_hidden
from .evolution import GeneticAlgorithm, RegularizedEvolution, evolution_for, genetic_for
from .learned import LEARNED_AGENTS, controller_agent, wiped
from .portfolio import best_on_average, nearest_portfolio, portfolio, warm_evolution, warm_tpe
from .pretrained import pretrained
from .problem import MakeAgent, SearchProblem
from .reinforce import Hybrid, Reinforce, reinforce_for
from .sb3 import SB3_AGENTS
from .searcher_agent import searcher_agent
from .searchers import LocalSearch, RandomSearch, Searcher
from .training import AGENT
from .transfer import transfer_gp

MakeSearcher: TypeAlias = Callable[..., Searcher]
"""Makes a searcher for a space, a budget of designs and a seed, with settings by name."""


def _searcher(kind: type[Searcher], usual: Callable[[int], Mapping[str, Any]] = lambda designs: {}) -> MakeSearcher:
    """A searcher whose settings are its class's own, but for what ``usual`` says for a budget of designs."""

    def make(space: SearchSpace, designs: int, seed: int, **settings: Any) -> Searcher:
        known = [name for name in signature(kind).parameters if name not in ("space", "seed")]
        for name in settings:
            one_of(f"setting of {kind.__name__}", name, known)
        return kind(space, seed, **{**usual(designs), **settings})

    return make


def _hybrid_for(designs: int) -> dict[str, int]:
    return {"evolution_designs": max(1, designs // 2), **evolution_for(designs)}


SEARCHERS: dict[str, MakeSearcher] = {
    "random": _searcher(RandomSearch),
    "local-search": _searcher(LocalSearch),
    "evolution": _searcher(RegularizedEvolution, evolution_for),
    "genetic": _searcher(GeneticAlgorithm, genetic_for),
    "tpe": _searcher(TPE, tpe_for),
    "gp": _searcher(GaussianProcess, gaussian_process_for),
    "reinforce": _searcher(Reinforce, reinforce_for),
    "hybrid": _searcher(Hybrid, _hybrid_for),
}
"""Searchers that know nothing but their task. What a small budget could make no use of is set by the functions named
``..._for``, unless it is given."""

PREPARED: dict[str, MakeAgent] = {
    "best-on-average": best_on_average,
    "portfolio": portfolio,
    "nearest-portfolio": nearest_portfolio,
    "evolution-warm": warm_evolution,
    "tpe-warm": warm_tpe,
    "transfer-gp": transfer_gp,
    **LEARNED_AGENTS,
    "rl2-hidden": rl2_hidden,
    **SB3_AGENTS,
}
"""Agents that prepare themselves on training tasks."""

AGENTS: dict[str, MakeAgent] = {
    **{name: searcher_agent(make) for name, make in SEARCHERS.items()},
    **PREPARED,
    NAME: pretrained,
}
"""How to make each agent for a problem and a seed; add your own here."""

WIPED = "wiped:"
"""Before an agent's text: the same agent, its memory wiped after every design."""


def named_agents(texts: Iterable[str]) -> dict[str, str]:
    """Agents' texts by the names they are shown under.

    >>> named_agents(["rl2", "large=genetic?population_size=200"])
    {'rl2': 'rl2', 'large': 'genetic?population_size=200'}

    Raises:
        ConfigurationError: if two are shown under one name.
    """
    named: dict[str, str] = {}
    for text in texts:
        shown, equals, rest = text.partition("=")
        name, agent = (shown, rest) if equals and "?" not in shown else (text, text)
        if not name or not agent:
            raise ConfigurationError(f"an agent must be AGENT or SHOWN=AGENT, got {text!r}")
        if named.get(name, agent) != agent:
            raise ConfigurationError(f"two agents are called {name!r}: {named[name]} and {agent}")
        named[name] = agent
    return named


def absolute_agent(text: str) -> str:
    """An agent's text whose folder or file is found from any directory."""
    prefix, agent = (WIPED, text.removeprefix(WIPED)) if text.startswith(WIPED) else ("", text)
    file, colon, rest = agent.partition(":")
    if agent not in AGENTS and Path(agent).is_dir():
        file, colon, rest = agent, "", ""
    elif not file.endswith(".py"):
        return text
    return f"{prefix}{absolute(file)}{colon}{rest}"


def resolve_agent(text: str) -> MakeAgent:
    """How to make the agent that a text names.

    Args:
        text: one of :data:`AGENTS`; a searcher with settings, ``genetic?population_size=50&mutation=.1``; the folder of
            a training run; ``package.module:attribute`` or ``path/to/file.py:attribute`` of a user's own (see
            :func:`find_agent`); any of these after ``wiped:``.

    Raises:
        UnknownNameError: if there is no such agent.
        ConfigurationError: if a user's own cannot be had, or a setting is not allowed.
        CheckpointError: if a folder holds no trained agent.
    """
    if text.startswith(WIPED):
        return wiped(resolve_agent(text.removeprefix(WIPED)))
    if "?" in text:
        return searcher_agent(_with_settings(text))
    if text not in AGENTS and Path(text).is_dir():
        return controller_agent(agent_folder(Path(text)))
    return find_agent(text)


def require_agent(text: str, problem: SearchProblem) -> None:
    """Returns if an agent can be had; trained controllers and searchers with settings are made to see.

    Raises:
        RlnasError: as :func:`resolve_agent`, or as making the agent does.
    """
    make, name = resolve_agent(text), text.removeprefix(WIPED)
    if name in PREPARED:
        problem.training_source()
    if "?" in name:
        _with_settings(name)(problem.space, problem.designs, 0)
    elif name == NAME or (name not in AGENTS and Path(name).is_dir()):
        make(problem, 0)


def agent_file(text: str) -> Path | None:
    """The file that decides what an agent is: a controller's or a user's own; None of those that code alone makes."""
    name = text.removeprefix(WIPED)
    if name == NAME:
        return CONTROLLER
    if name in AGENTS or "?" in name:
        return None
    if Path(name).is_dir():
        return agent_folder(Path(name)) / MANIFEST
    file = Path(name.rpartition(":")[0])
    return file if file.is_file() else None


def agent_folder(run: Path) -> Path:
    """The folder of the agent that a training run made.

    Raises:
        CheckpointError: if there is none.
    """
    if not (run / AGENT).is_dir():
        raise CheckpointError(f"{run} holds no trained agent (it has no folder {AGENT!r}); give the folder of a run")
    return run / AGENT


def _with_settings(agent: str) -> MakeSearcher:
    name, _, text = agent.partition("?")
    make = SEARCHERS[one_of("searcher with settings", name, SEARCHERS)]
    settings = {}
    for pair in text.split("&"):
        name, _, value = pair.partition("=")
        try:
            settings[name] = json.loads(value if not value.startswith(".") else f"0{value}")
        except ValueError:
            raise ConfigurationError(f"agent {agent!r}: a setting must be NAME=NUMBER, got {pair!r}") from None
    return partial(make, **settings)


def find_agent(name: str) -> MakeAgent:
    """How to make the agent of that name.

    Args:
        name: one of :data:`AGENTS`, or ``package.module:attribute`` or ``path/to/file.py:attribute`` of a user's own: a
            :class:`~rlnas.agents.searchers.Searcher` class, made with a space and a seed; a class with ``predict``,
            made with the problem and a seed or with nothing; an object with ``predict``; or a function of the problem
            and a seed that makes one.

    Raises:
        UnknownNameError: if there is no such agent.
        ConfigurationError: if a user's own cannot be had.
    """
    if ":" not in name:
        return AGENTS[one_of("agent", name, AGENTS)]
    place, _, attribute = name.rpartition(":")
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        found = getattr(module, attribute)
    except Exception as error:  # whatever a user's file does when it is read is for that user to mend
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigurationError(f"agent {name!r} cannot be had: {reason}") from error
    return _maker(name, found)


def _maker(name: str, found: Any) -> MakeAgent:
    if isclass(found) and issubclass(found, Searcher):
        if isabstract(found):
            raise ConfigurationError(f"agent {name!r} lacks {' and '.join(sorted(found.__abstractmethods__))}")
        _require_two_arguments(name, found, "a space and a seed")
        return searcher_agent(lambda space, designs, seed: found(space, seed))
    if isinstance(found, type) and hasattr(found, "predict"):
        if not signature(found).parameters:
            return lambda problem, seed: found()
        _require_two_arguments(name, found, "a problem and a seed, or nothing")
        return found
    if hasattr(found, "predict"):
        return lambda problem, seed: found
    if callable(found) and not isclass(found):
        _require_two_arguments(name, found, "a problem and a seed")
        return found  # type: ignore[no-any-return]
    raise ConfigurationError(
        f"agent {name!r} must be a Searcher class, a class or object with predict, or a function that makes one, "
        f"got {found!r}"
    )


def _require_two_arguments(name: str, found: Callable[..., Any], what: str) -> None:
    try:
        signature(found).bind(None, None)
    except TypeError as error:
        raise ConfigurationError(f"agent {name!r} must take {what}: {error}") from None


def _import_file(path: Path) -> ModuleType:
    name = f"rlnas_agent_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None  # as for every .py
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
