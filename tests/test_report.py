"""What a terminal shows of a comparison."""

from __future__ import annotations

import pytest
from rich.console import Console

from rlnas.report import print_summary, summary_table
from rlnas.summary import budgets, summarise

from .comparison import make_results


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


def test_a_printed_summary_names_the_best_design_of_trained_networks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    best = {"agent": "rl2", "task": "digits:test/4", "family": "noisy", "architecture": "dense-8"}
    found = {**summarise(make_results()), "best_architecture": {**best, "accuracy_on_fresh_seeds": 0.5}}
    print_summary(found)
    assert "best design by rl2: dense-8 on digits:test/4 (noisy), accuracy 0.500" in capsys.readouterr().out
