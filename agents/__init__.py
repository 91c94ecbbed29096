"""Agents that learn, or search, in the design environments."""

from typing import Any


def __getattr__(name: str) -> Any:
    """``rlnas.agents.RL2``, imported when it is asked for: torch and stable-baselines3 take their time."""
    if name == "RL2":
        from .rl2 import RL2

        return RL2
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
