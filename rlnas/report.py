"""A comparison's results in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlnas.summary import baseline_of, by_rank

if TYPE_CHECKING:
    from rich.table import Table


SHOWN_BUDGETS = 5
"""Columns of the terminal's table: the last of the budgets."""


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the table of :func:`summary_table` and what its numbers mean.

    Args:
        summary: as made by :func:`rlnas.summary.summarise`, perhaps with the ``best_architecture`` that was found.
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
    if best := summary.get("best_architecture"):
        print(
            f"best design by {best['agent']}: {best['architecture']} on {best['task']} ({best['family']}), "
            f"accuracy {best['accuracy_on_fresh_seeds']:.3f} on fresh seeds"
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
    form = "{value:.3f} ± {std:.3f}" if summary["runs"] > 1 else "{value:.3f}"
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
            *(form.format(**row["chosen"][m]) if m in row["chosen"] else "" for m in measures),
        )
    return table
