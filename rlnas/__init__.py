"""rlnas: reinforcement-learning controllers for neural-architecture search, as Gymnasium environments.

Importing it registers the environments (``gymnasium.make("rlnas/DigitsTrial-v0")``) and loads neither torch nor them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlnas.registration import register_envs

if TYPE_CHECKING:
    from rlnas.model import load_model

__all__ = ["ArchitectureSearchClassifier", "__version__", "load_model"]

__version__ = "0.1.0"

_LAZY = {"ArchitectureSearchClassifier": "rlnas.agents.classifier", "load_model": "rlnas.model"}
"""Names that are imported from their modules when they are first asked for."""

register_envs()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
