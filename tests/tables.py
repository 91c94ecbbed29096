"""A small table, the ids of environments whose tables are at hand, and the published tables themselves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlnas.registration import PRESETS
from rlnas.specs import available_space

OPS = np.array([[0, 1, 2], [0, 0, 1], [2, 1, 0], [2, 1, 1], [1, 0, 0]])
SCORE = np.array([[10.0, 0.2], [20.0, 0.4], [40.0, np.nan], [30.0, 0.1], [15.0, 0.3]])
TASKS = np.array(["digits", "letters"])


def save_table(path: Path, **changes: Any) -> Path:
    """Five designs on two tasks, with other arrays where they are given, without those given as None."""
    arrays: dict[str, Any] = {"ops": OPS, "tasks": TASKS, "score": SCORE, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


ENV_IDS = [
    pytest.param(
        env_id, marks=pytest.mark.skipif(available_space(arguments["space"]) is None, reason="needs RLNAS_DATA")
    )
    for env_id, arguments in PRESETS.items()
]
"""Every id; skipped where it needs a table that is not at hand."""


def published(name: str) -> Path:
    """A file of the folder that RLNAS_DATA names; the test is skipped without it."""
    path = Path(os.environ.get("RLNAS_DATA", "/nonexistent")) / name
    if not path.exists():
        pytest.skip(f"needs {name} in the folder that RLNAS_DATA names")
    return path
