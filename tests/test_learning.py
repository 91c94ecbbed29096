"""What the README claims of the controller, measured again with its own commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .test_readme import COMMANDS


@pytest.mark.slow
def test_the_controller_searches_unseen_tasks_better_than_random_search_and_than_without_its_memory(
    tmp_path: Path,
) -> None:
    train, search = (next(c for c in COMMANDS if c.startswith(f"rlnas {job}")) for job in ("train", "search"))
    for command in (train, search):
        subprocess.run([sys.executable, "-m", "rlnas.cli", *command.split()[1:]], cwd=tmp_path, check=True)
    out = search.split()[search.split().index("--out") + 1]
    agents = json.loads((tmp_path / out / "summary.json").read_text())["agents"]
    regret = {name: agent["normalised_regret"]["value"] for name, agent in agents.items()}
    for designs in (3, 5, 10, 20):
        assert regret["rl2"][designs - 1] < regret["random"][designs - 1]
        assert regret["rl2"][designs - 1] < regret["evolution"][designs - 1]
    assert regret["rl2"][-1] < regret["wiped"][-1]
