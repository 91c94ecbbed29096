"""Options of the form ``NAME=VALUE``, as a person types them on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from rlnas.errors import ConfigurationError, one_of
from rlnas.few_shot import FewShotOptions

TABLE_OPTIONS = ("test", "tasks", "values", "scale", "replicates")
TASK_OPTIONS = (*(field.name for field in fields(FewShotOptions)), "image_size", *TABLE_OPTIONS)
"""What a person may say of how tasks are drawn from images or read from a table."""


def learner_options(
    texts: Iterable[str], defaults: Mapping[str, Any], field: str = "learner's setting"
) -> dict[str, Any]:
    """Numbers, words and truths by name, each of the type of its default.

    >>> learner_options(["epochs=3", "clip=0.1", "autocast=true"], {"epochs": 6, "clip": 0.2, "autocast": False})
    {'epochs': 3, 'clip': 0.1, 'autocast': True}

    Args:
        texts: of the form ``NAME=VALUE``.
        defaults: a value by each name that is allowed.
        field: what errors call it.

    Raises:
        ConfigurationError: if a name is not among the defaults' or a value is not of that type.
    """
    forms = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    values: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        kind = type(defaults[one_of(field, name, defaults)])
        try:
            values[name] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            raise ConfigurationError(f"{field} {name!r} must be {forms[kind]}, got {text!r}") from None
    return values


def adaptation_options(texts: Iterable[str]) -> dict[str, Any]:
    """Numbers of an inner loop by name.

    >>> adaptation_options(["steps=5", "learning_rate=0.1"])
    {'steps': 5, 'learning_rate': 0.1}

    Raises:
        ConfigurationError: as :func:`learner_options`.
    """
    numbers = {"steps": 15, "learning_rate": 0.03, "momentum": 0.9, "clip": 1.0}
    return learner_options(texts, numbers, "adaptation option")


def space_options(texts: Iterable[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Whole numbers by name, or several with commas between them where the default is several.

    >>> space_options(["max_layers=3", "widths=8,16"], {"max_layers": 6, "widths": (8, 16, 32)})
    {'max_layers': 3, 'widths': (8, 16)}

    Raises:
        ConfigurationError: if a name is not among the defaults' or a value has another form.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        several = isinstance(defaults[one_of("space option", name, defaults)], tuple)
        parts = value.split(",")
        if not all(part.isdecimal() for part in parts) or (len(parts) > 1 and not several):
            form = "whole numbers, such as 8,16" if several else "a whole number"
            raise ConfigurationError(f"space option {name!r} must be {form}, got {text!r}")
        values[name] = tuple(map(int, parts)) if several else int(value)
    return values


def task_options(texts: Iterable[str]) -> dict[str, Any]:
    """Numbers, ranges and words by name.

    >>> task_options(["ways=5", "shots=1-5", "split_by=images"])
    {'ways': 5, 'shots': (1, 5), 'split_by': 'images'}

    Raises:
        UnknownNameError: if a name is not one of :data:`TASK_OPTIONS`.
        ConfigurationError: if one is not of the form ``NAME=VALUE``.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        one_of("task option", name, TASK_OPTIONS)
        if not value:
            raise ConfigurationError(f"a task option must be NAME=VALUE, such as ways=5, got {text!r}")
        parts = value.split("-")
        if not all(part.isdecimal() for part in parts):
            values[name] = value
        else:
            values[name] = int(value) if len(parts) == 1 else tuple(map(int, parts))
    return values
