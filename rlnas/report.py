"""Results of a comparison, for people: a table for the terminal and curves as SVG."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlnas.summary import baseline_of, budgets, by_rank

if TYPE_CHECKING:
    from rich.table import Table


SHOWN_BUDGETS = 5
"""Columns of the terminal's table: the last of the budgets."""


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the table of :func:`summary_table` and what its numbers mean.

    Args:
        summary: as made by :func:`rlnas.summary.summarise`.
    """
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(summary_table(summary))
    known = "the best design in the table" if summary["best_is_known"] else "the best design that any agent found here"
    print(
        f"score: mean of the middle half of runs; 1 is {known}, 0 a random design on average\n"
        f"intervals: {100 * summary['interval']['level']:g}%, of resampled {summary['interval']['unit']}; "
        "±: standard deviation over runs"
    )


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Ranks, scores at a few budgets, regret, probability of improvement and what the chosen designs are worth.

    Args:
        summary: as made by :func:`rlnas.summary.summarise`.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    agents, baseline, shown = by_rank(summary), baseline_of(summary), summary["budgets"][-SHOWN_BUDGETS:]
    measures = list(dict.fromkeys(measure for _, row in agents for measure in row["chosen"]))
    title = (
        f"{summary['runs']} run(s) of {summary['evaluations']} evaluations on each of {len(summary['tasks'])} task(s)"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("agent", overflow="fold")
    for heading in (
        "mean\nrank",
        *(f"score\nat {n}" for n in shown),
        "\ninterval",
        "normalised\nregret",
        f"P(better than\n{baseline})",
        *(f"chosen:\n{measure}" for measure in measures),
    ):
        table.add_column(escape(heading), justify="right")
    for agent, row in agents:
        end, versus = row["end"]["iqm"], row["versus"].get(baseline)
        table.add_row(
            escape(agent),
            f"{row['rank']['value']:.2f}",
            *(f"{row['iqm']['value'][n - 1]:.3f}" for n in shown),
            f"{end['low']:.3f} to {end['high']:.3f}",
            f"{row['normalised_regret']['value'][-1]:.3f}",
            "{value:.2f} ({low:.2f} to {high:.2f})".format(**versus["probability_of_improvement"]) if versus else "",
            *("{value:.3f} ± {std:.3f}".format(**row["chosen"][m]) if m in row["chosen"] else "" for m in measures),
        )
    return table


def comparison_table(summary: Mapping[str, Any], title: str) -> Table:
    """Best accuracy so far and normalised regret at a few budgets, and what the chosen designs are really worth.

    Args:
        summary: as made by :func:`rlnas.agents.statistics.summarise`.
        title: of the table.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    table.add_column("agent")
    shown = budgets(len(next(iter(summary.values()))["best_so_far"]))
    for n in shown:
        table.add_column(f"best at {n}", justify="right")
    for heading in (f"norm. regret at {shown[-1]}", "last - first design", "chosen, fresh seeds", "chosen - random"):
        table.add_column(heading, justify="right")
    for name, row in summary.items():
        table.add_row(
            escape(name),
            *(f"{row['best_so_far'][n - 1]:.3f}" for n in shown),
            f"{row['normalised_regret'][-1]:.3f}",
            difference(row["last_minus_first"]),
            f"{row['chosen_on_fresh_seeds']:.3f}",
            difference(row["chosen_minus_random"]),
        )
    return table


def print_comparison(result: Mapping[str, Any], folder: Path) -> None:
    """Print what a comparison found and where it is written.

    Args:
        result: the content of its ``summary.json``.
        folder: of its files.
    """
    from rich.console import Console

    title = f"{result['trials']} tasks of {result['tasks']}, {len(result['seeds'])} seed(s), means and 95% intervals"
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(comparison_table(result["agents"], title))
    best = result["best_architecture"]
    print(
        f"best design by {best['agent']}: {best['architecture']} on {best['task']} ({best['family']}), "
        f"accuracy {best['accuracy_on_fresh_seeds']:.3f} on fresh seeds\n"
        "regret is to the best design that any of these agents found on the task\n"
        f"written to {folder}: evaluations.csv, summary.json, curves.svg, best_architecture.svg, episodes.sqlite"
    )


def difference(entry: Mapping[str, float]) -> str:
    """A difference with its 95% interval."""
    return f"{entry['mean']:+.3f} ({entry['low']:+.3f} to {entry['high']:+.3f})"


def save_curves(path: Path, summary: Mapping[str, Any], title: str) -> None:
    """Best accuracy so far and normalised regret against evaluations, as an SVG file.

    Only the regret has 95% intervals: those of the accuracy would mostly show how much easier some tasks are.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    best, regret = figure.subplots(1, 2)
    for name, row in summary.items():
        designs = range(1, len(row["best_so_far"]) + 1)
        best.plot(designs, row["best_so_far"], label=name, marker="o", markersize=3)
        (line,) = regret.plot(designs, row["normalised_regret"], label=name, marker="o", markersize=3)
        low, high = zip(*row["normalised_regret_interval"], strict=True)
        regret.fill_between(designs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    best.set(xlabel="evaluations", ylabel="best accuracy so far")
    regret.set(xlabel="evaluations", ylabel="normalised regret, 95% intervals")
    best.legend(frameon=False)
    for axes in (best, regret):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    with rc_context({"svg.hashsalt": title}):  # equal curves make equal files
        figure.savefig(path, format="svg", metadata={"Date": None})
