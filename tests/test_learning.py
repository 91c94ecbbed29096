"""What the README claims of the controller, measured again with its own commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .test_readme import COMMANDS


@pytest.mark.slow
def test_the_controller_improves_within_a_trial_on_unseen_tasks_and_not_without_its_memory(tmp_path: Path) -> None:
    train, search = (next(c for c in COMMANDS if c.startswith(f"rlnas {job}")) for job in ("train", "search"))
    for command in (train, search):
        subprocess.run([sys.executable, "-m", "rlnas.cli", *command.split()[1:]], cwd=tmp_path, check=True)
    out = search.split()[search.split().index("--out") + 1]
    agents = json.loads((tmp_path / out / "summary.json").read_text())["agents"]
    assert agents["rl2"]["last_minus_first"]["low"] > 0
    assert agents["wiped"]["last_minus_first"]["low"] < 0
    assert agents["rl2"]["chosen_minus_random"]["low"] > 0
