"""The tables of docs/results/benchmark.md and the README, from the folders that `rlnas bench` wrote.

python benchmarks/comparison_tables.py runs/nasbench201 --chosen
python benchmarks/comparison_tables.py runs/digits-table --at 5 10 20 50
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at", type=int, nargs="*", default=[], help="numbers of evaluations")
    parser.add_argument("--chosen", action="store_true", help="what the chosen designs are worth, task by task")
    options = parser.parse_args()
    summary = json.loads((options.folder / "summary.json").read_text())
    if any(not 1 <= n <= summary["evaluations"] for n in options.at):
        parser.error(f"--at must lie in 1 .. {summary['evaluations']}, got {options.at}")
    columns = [f"regret at {n}" for n in options.at]
    columns += ["IQM of score at the end", "P(better than random)", "mean rank"] if options.at else []
    columns += chosen_columns(summary) if options.chosen else []
    print(f"{summary['env']}, {summary['searched']}, {summary['runs']} runs of {summary['evaluations']} evaluations\n")
    print(f"| agent | {' | '.join(columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for agent, row in sorted(summary["agents"].items(), key=lambda item: item[1]["rank"]["value"]):
        cells = [interval(row["normalised_regret"], n - 1) for n in options.at]
        if options.at:
            better = row["versus"].get("random", {}).get("probability_of_improvement")
            cells += [interval(row["end"]["iqm"]), interval(better) if better else "", f"{row['rank']['value']:.1f}"]
        cells += chosen_cells(row) if options.chosen else []
        print(f"| {agent} | {' | '.join(cells)} |")


def chosen_columns(summary: dict[str, Any]) -> list[str]:
    row = next(iter(summary["agents"].values()))
    tasks = summary["tasks"]
    return [measure if len(tasks) == 1 else f"{task}: {measure}" for measure in row["chosen"] for task in tasks]


def chosen_cells(row: dict[str, Any]) -> list[str]:
    cells = []
    for chosen in row["chosen"].values():
        of_tasks = zip(chosen["tasks"]["mean"], chosen["tasks"]["std"], strict=True)
        cells += [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in of_tasks]
    return cells


def interval(entry: dict[str, Any], place: int | None = None) -> str:
    value, low, high = (entry[end] if place is None else entry[end][place] for end in ("value", "low", "high"))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
