"""Spaces and evaluators by name: what a command line, a record or a preset says in JSON, made into objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rlnas.architecture import Architecture
from rlnas.batched_evaluator import BatchedEvaluator
from rlnas.errors import ConfigurationError, one_of
from rlnas.evaluator import Evaluator
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.table_presets import is_available, known_name, load_arguments, with_data
from rlnas.table_space import TableSpace
from rlnas.tabular_evaluator import TabularEvaluator


def _table_space(
    path: str | Path | None = None, digest: str | None = None, table: str | Mapping[str, Any] | None = None
) -> SearchSpace:
    """A file's space, or that of a table's spec, of which only the file matters here."""
    if (path is None) == (table is None):
        raise ConfigurationError("space 'table' needs either a path or a table")
    place: dict[str, Any] = {"path": path} if table is None else load_arguments(table)
    if "path" not in place:
        raise ConfigurationError("table needs a path or a name")
    return TableSpace(place["path"], digest, place.get("known_as"))


SPACES: dict[str, Callable[..., SearchSpace]] = {"chain": ChainSpace, "cell": CellSpace, "table": _table_space}
"""The spaces that can be asked for by name; add your own class here."""


def make_space(kind: str, **options: Any) -> SearchSpace:
    """The space of that name with these options.

    Raises:
        UnknownNameError: if there is no such space.
        ConfigurationError: if an option is unknown or has a value that is not allowed.
    """
    try:
        return SPACES[one_of("space", kind, SPACES)](**options)
    except TypeError as error:
        raise ConfigurationError(f"space {kind!r}: {error}") from None


def space_from_spec(spec: Mapping[str, Any]) -> SearchSpace:
    """The space that :meth:`SearchSpace.spec` described."""
    options = {field: tuple(v) if isinstance(v, list) else v for field, v in spec.items() if field != "kind"}
    return make_space(str(spec.get("kind")), **options)


def available_space(spec: Mapping[str, Any], data: str | Path | None = None) -> SearchSpace | None:
    """The space that a preset describes; None if it is that of a known table whose file is not there.

    Args:
        spec: the description.
        data: the folder of tables, see :func:`rlnas.table_presets.find_table`.
    """
    table = spec.get("table")
    name = None if table is None else known_name(table)
    if name is not None and not is_available(name, data):
        return None
    return space_from_spec(with_data(spec, data))


def architecture_from_json(data: Mapping[str, Any]) -> Architecture:
    """The architecture that :meth:`Architecture.to_json` described."""
    return space_from_spec(data["space"]).decode(data["choices"])


def evaluator_from_spec(spec: Mapping[str, Any], **options: Any) -> Evaluator:
    """The evaluator that :meth:`Evaluator.spec` described; it gives equal results. What is left out is the default.

    Args:
        spec: the description.
        options: of the evaluator's kind, in place of those described; such as ``cache_size``, which no description has.

    Raises:
        ConfigurationError: if its kind is unknown, an option is, or its device is absent here.
    """
    make = EVALUATORS[one_of("evaluator", str(spec.get("kind")), EVALUATORS)]
    try:
        return make(**{option: value for option, value in {**spec, **options}.items() if option != "kind"})
    except TypeError as error:
        raise ConfigurationError(f"evaluator {spec['kind']!r}: {error}") from None


def _training(
    make: type[SequentialEvaluator],
    adaptation: Mapping[str, Any] | None = None,
    init: Mapping[str, Any] | None = None,
    **options: Any,
) -> Evaluator:
    from rlnas.adaptation import Adaptation
    from rlnas.initialisation import Initialisation

    inner_loop = None if adaptation is None else Adaptation(**adaptation)
    start = None if init is None else Initialisation.from_spec(init)
    return make(inner_loop, init=start, **options)


def _table(**options: Any) -> Evaluator:
    return TabularEvaluator.from_spec(options)


def _limited(evaluator: Mapping[str, Any], **limits: Any) -> Evaluator:
    from rlnas.limited_evaluator import LimitedEvaluator
    from rlnas.wide_network import Limits

    return LimitedEvaluator(evaluator_from_spec(evaluator), Limits(**limits))


EVALUATORS: dict[str, Callable[..., Evaluator]] = {
    "batched": partial(_training, BatchedEvaluator),
    "limited": _limited,
    "sequential": partial(_training, SequentialEvaluator),
    "table": _table,
}
"""How to make each kind of evaluator from its description's options; add your own kind here."""
