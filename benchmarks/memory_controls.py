"""Whether an agent gets better within a trial, and whether its controls do, from the folders that `rlnas bench` wrote.

    python benchmarks/memory_controls.py runs/memory-refuse runs/memory-count

For each comparison: the accuracy of single designs of a trial, not of the best so far; what the last gains on the first
and the last five on the first five; and how much more of the latter one agent (--agent) gains than every other. 95 %
intervals resample runs and tasks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from rlnas import statistics
from rlnas.comparison import read_comparison
from rlnas.errors import ConfigurationError, RlnasError, one_of
from rlnas.results import Floats

SHOWN = (1, 3, 5, 10, 20)
FEW = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--agent", default="rl2", help="whose gain is compared with every other's")
    options = parser.parse_args()
    try:
        for folder in options.folders:
            report(folder, options.agent)
    except RlnasError as error:
        parser.exit(2, f"{error}\n")


def report(folder: Path, agent: str) -> None:
    """Print the table of one comparison."""
    comparison = read_comparison(folder)
    results, summary = comparison.results, comparison.summary
    runs, tasks, designs = results.shape
    if designs < 2 * FEW:
        raise ConfigurationError(f"{folder}: designs must be at least {2 * FEW}, got {designs}")
    mine = gain(results.design_accuracy(one_of("agent", agent, results.agents)))
    duplicates = comparison.settings["env_options"].get("duplicates", "count")
    shown = [n for n in SHOWN if n <= designs]
    print(f"## {summary['env']}, {summary['searched']}, duplicates: {duplicates}; {tasks} tasks, {runs} runs\n")
    columns = [*(f"design {n}" for n in shown), "last - first", f"last {FEW} - first {FEW}", f"{agent} gains more by"]
    print(f"| agent | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in results.agents:
        accuracy = results.design_accuracy(name)
        cells = [f"{accuracy[:, :, n - 1].mean():.3f}" for n in shown]
        cells += [difference(accuracy[:, :, -1] - accuracy[:, :, 0]), difference(gain(accuracy))]
        cells += [difference(mine - gain(accuracy)) if name != agent else ""]
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def gain(accuracy: Floats) -> Floats:
    """The mean accuracy of the last designs minus that of the first, (R, T, D) to (R, T)."""
    return np.asarray(accuracy[:, :, -FEW:].mean(2) - accuracy[:, :, :FEW].mean(2))


def difference(values: Floats) -> str:
    low, high = statistics.crossed_interval(values)
    return f"{values.mean():+.3f} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    main()
