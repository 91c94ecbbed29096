"""Packages that rlnas does without until they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

from rlnas.errors import ConfigurationError


def imported(package: str, needed_for: str, extra: str) -> Any:
    """A module of an optional package.

    Args:
        package: the module's name.
        needed_for: what the user asked for, such as an option of the command line.
        extra: which of rlnas's extras installs it.

    Raises:
        ConfigurationError: if the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        name = package.partition(".")[0]
        raise ConfigurationError(f"{name} is needed for {needed_for}: pip install 'rlnas[{extra}]'") from None
