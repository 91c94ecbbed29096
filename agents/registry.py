"""Agents by name, and agents of users' own by where they are."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from rlnas.errors import ConfigurationError, one_of
from rlnas.search_space import SearchSpace

from .agent import Agent
from .bayesian import TPE, GaussianProcess, gaussian_process_for, tpe_for
from .evolution import GeneticAlgorithm, RegularizedEvolution, evolution_for, genetic_for
from .portfolio import best_on_average, nearest_portfolio, portfolio, warm_evolution, warm_tpe
from .problem import MakeAgent, SearchProblem
from .reinforce import Hybrid, Reinforce, reinforce_for
from .searcher_agent import searcher_agent
from .searchers import LocalSearch, RandomSearch, Searcher


def _hybrid(space: SearchSpace, designs: int, seed: int) -> Searcher:
    return Hybrid(space, seed, evolution_designs=max(1, designs // 2), **evolution_for(designs))


SEARCHERS: dict[str, Callable[[SearchSpace, int, int], Searcher]] = {
    "random": lambda space, designs, seed: RandomSearch(space, seed),
    "local-search": lambda space, designs, seed: LocalSearch(space, seed),
    "evolution": lambda space, designs, seed: RegularizedEvolution(space, seed, **evolution_for(designs)),
    "genetic": lambda space, designs, seed: GeneticAlgorithm(space, seed, **genetic_for(designs)),
    "tpe": lambda space, designs, seed: TPE(space, seed, **tpe_for(designs)),
    "gp": lambda space, designs, seed: GaussianProcess(space, seed, **gaussian_process_for(designs)),
    "reinforce": lambda space, designs, seed: Reinforce(space, seed, **reinforce_for(designs)),
    "hybrid": _hybrid,
}
"""How to make each searcher for a space, a budget of designs and a seed.

Settings are the classes' own, but for what a small budget could make no use of: the functions named ``..._for`` say."""

AGENTS: dict[str, MakeAgent] = {
    **{name: searcher_agent(make) for name, make in SEARCHERS.items()},
    "best-on-average": best_on_average,
    "portfolio": portfolio,
    "nearest-portfolio": nearest_portfolio,
    "evolution-warm": warm_evolution,
    "tpe-warm": warm_tpe,
}
"""How to make each agent for a problem and a seed; add your own here."""


def make_agent(name: str, problem: SearchProblem, seed: int) -> Agent:
    """The agent of that name, made for a problem.

    Args:
        name: one of :data:`AGENTS`, or where a user's own is, see :func:`find_agent`.
        problem: what it shall search, and what it may learn from.
        seed: of everything random.

    Raises:
        UnknownNameError: if there is no such agent.
        ConfigurationError: if a user's own cannot be had, or what it makes has no ``predict``.
    """
    agent = find_agent(name)(problem, seed)
    if not isinstance(agent, Agent):
        raise ConfigurationError(f"agent {name!r} must have a method predict, got a {type(agent).__name__}")
    return agent


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
    if inspect.isclass(found) and issubclass(found, Searcher):
        return searcher_agent(lambda space, designs, seed: found(space, seed))
    if isinstance(found, type) and hasattr(found, "predict"):
        bare = not inspect.signature(found).parameters
        return (lambda problem, seed: found()) if bare else found
    if hasattr(found, "predict"):
        return lambda problem, seed: found
    if callable(found) and not isinstance(found, type):
        return found  # type: ignore[no-any-return]
    raise ConfigurationError(
        f"agent {name!r} must be a Searcher class, a class or object with predict, or a function that makes one, "
        f"got {found!r}"
    )


def _import_file(path: Path) -> ModuleType:
    name = f"rlnas_agent_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None  # as for every .py
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
