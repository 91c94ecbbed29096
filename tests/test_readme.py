"""Every command and snippet of the README is run, long trainings at a smaller size."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines() if line]
SMALLER = {
    "--steps": "120",
    "--training-steps": "200",
    "--iterations": "2",
    "--trials": "2",
    "--designs": "3",
    "--seeds": "1",
    "--workers": "1",
}
"""What a test can afford of the options that decide how long a command takes."""


def scaled(command: str) -> list[str]:
    words = shlex.split(command)
    for option, value in SMALLER.items():
        if option in words:
            words[words.index(option) + 1] = value
    if words[:2] == ["rlnas", "fit"]:
        words += ["--max-seconds", "15"]
    if words[:2] == ["rlnas", "train"] and "--resume" not in words:
        words += ["--trials", "4"]  # four trials of 30 steps are one update
    return words


def make_photos(folder: Path) -> None:
    """Thirty pictures of each of two classes, a dark and a light one."""
    rng = np.random.default_rng(0)
    for name, least in (("dark", 0), ("light", 120)):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            Image.fromarray(rng.integers(least, least + 136, (12, 12, 3), dtype=np.uint8)).save(
                folder / name / f"{number}.png"
            )


def test_every_rlnas_command_works_in_the_order_given(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MINARI_DATASETS_PATH": str(tmp_path / "minari")}
    make_photos(tmp_path / "photos")
    ran = 0
    for command in COMMANDS:
        if not command.startswith("rlnas "):
            continue
        words = [sys.executable, "-m", "rlnas.cli", *scaled(command)[1:]]
        result = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        ran += 1
    assert ran >= 6


def test_every_make_command_is_a_target() -> None:
    commands = [command for command in COMMANDS if command.startswith("make ")]
    assert "make demo" in commands
    assert "make test" in commands
    for command in commands:
        dry = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, check=False)
        assert dry.returncode == 0, dry.stderr


def test_no_command_is_left_unchecked() -> None:
    assert {command.split()[0] for command in COMMANDS} <= {"make", "rlnas", "pip"}
    assert [command for command in COMMANDS if command.startswith("pip")] == ["pip install ."]  # see test_package


@pytest.mark.parametrize("snippet", [text for kind, text in BLOCKS if kind == "python"])
def test_every_snippet_runs_and_is_short(snippet: str, tmp_path: Path) -> None:
    assert len(snippet.splitlines()) <= 15
    result = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_the_snippets_of_the_learners_page_run_in_their_order(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "learner.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(snippets) == 3
    program = "\n".join(snippets) + "\nassert again.num_timesteps == model.num_timesteps\n"
    program += "assert all(a.equal(b) for a, b in zip(again.controller.parameters(), model.controller.parameters()))\n"
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
