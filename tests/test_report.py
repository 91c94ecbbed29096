"""The table and the curves of a comparison."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlnas.report import (
    budgets,
    comparison_table,
    difference,
    print_comparison,
    print_summary,
    save_curves,
    summary_table,
)
from rlnas.summary import summarise

from .comparison import make_results


def make_row(designs: int, best: float) -> dict[str, Any]:
    """An agent's entry of a ``summary.json``."""
    curve = [best * (i + 1) / designs for i in range(designs)]
    entry = {"mean": 0.05, "low": -0.01, "high": 0.11}
    return {
        "best_so_far": curve,
        "best_so_far_interval": [[value - 0.01, value + 0.01] for value in curve],
        "normalised_regret_interval": [[0.0, 1.0 - value] for value in curve],
        "normalised_regret": [0.5] * (designs - 1) + [0.125],
        "last_minus_first": entry,
        "chosen_on_fresh_seeds": best - 0.1,
        "chosen_minus_random": entry,
    }


SUMMARY = {"rl2": make_row(12, 0.9), "runs/[bold]": make_row(12, 0.6)}


def rendered(table: object) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(table)
    return console.export_text()


@pytest.mark.parametrize(
    ("designs", "shown"), [(1, [1]), (3, [1, 3]), (10, [1, 3, 5, 10]), (60, [1, 3, 5, 10, 20, 50, 60])]
)
def test_the_last_budget_is_always_shown(designs: int, shown: list[int]) -> None:
    assert budgets(designs) == shown


def test_the_table_has_a_row_for_each_agent_and_a_column_for_each_budget() -> None:
    text = rendered(comparison_table(SUMMARY, "3 tasks of npz:[x]:test"))
    assert "3 tasks of npz:[x]:test" in text
    for heading in ("best at 1 ", "best at 10", "best at 12", "norm. regret at 12"):
        assert heading in text
    (row,) = (line for line in text.splitlines() if "rl2" in line)
    for value in ("0.075", "0.900", "0.125", "0.800", "+0.050 (-0.010 to +0.110)"):
        assert value in row
    assert "runs/[bold]" in text  # a path is no markup


def test_a_difference_shows_its_sign_and_interval() -> None:
    assert difference({"mean": -0.25, "low": -0.5, "high": 0.0}) == "-0.250 (-0.500 to +0.000)"


def test_curves_are_an_svg_file_that_names_every_agent(tmp_path: Path) -> None:
    path = tmp_path / "curves.svg"
    save_curves(path, SUMMARY, "2 < 3 tasks & more")
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    comments = path.read_text()
    for words in ("rl2", "runs/[bold]", "evaluations", "best accuracy so far"):
        assert f"<!-- {words} -->" in comments  # matplotlib draws text as paths and keeps it beside them


def test_equal_curves_make_equal_files(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        save_curves(tmp_path / name, SUMMARY, "3 tasks")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_comparison_ends_with_its_best_design_and_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = {
        "agent": "rl2",
        "task": "digits:test/4",
        "family": "noisy",
        "architecture": "dense-8",
        "accuracy_on_fresh_seeds": 0.5,
    }
    result = {"agents": SUMMARY, "trials": 3, "tasks": "digits:test", "seeds": [0, 1], "best_architecture": best}
    print_comparison(result, tmp_path)
    text = capsys.readouterr().out
    assert "3 tasks of digits:test, 2 seed(s)" in text
    assert "best design by rl2: dense-8 on digits:test/4 (noisy), accuracy 0.500 on fresh seeds" in text
    assert f"written to {tmp_path}: evaluations.csv, summary.json" in text


def test_the_terminals_summary_has_every_agent_within_160_columns() -> None:
    results = make_results(agents=("random", "rl2 [bold]", "regularised evolution"), designs=50)
    lines = rendered(summary_table(summarise(results))).splitlines()
    assert max(map(len, lines)) <= 160
    text = "\n".join(lines)
    for words in ("rl2 [bold]", "regularised evolution", "at 50", "chosen:", "test accuracy", "P(better than"):
        assert words in text


def test_a_printed_summary_says_what_its_numbers_mean(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summarise(make_results(agents=("only",), runs=1)))
    printed = capsys.readouterr().out
    assert "1 run(s) of 6 evaluations on each of 4 task(s)" in printed
    assert "the best design that any agent found here" in printed
    assert "resampled tasks" in printed
