"""How agents do on design tasks that none of them has seen, from the folders that `rlnas bench` wrote.

    python benchmarks/unseen_tasks.py runs/unseen-test runs/unseen-families --fresh --pictures docs/results

For each comparison and each number of designs: normalised regret, and how surely one agent (--agent) is ahead of every
other; with --fresh, what the chosen networks are worth trained again from other random starts, which needs a table that
`rlnas tabulate` made (FOLDER/fresh.json keeps it, so that none is trained twice); with --pictures, regret against
designs as FOLDER.svg, and the agent's training as FOLDER-training.svg.

Intervals are 95 %. Those of means and of P(better on a task) resample runs within tasks, as in `rlnas bench`; those of
differences resample runs and tasks, so that they say how far other tasks of the kind would move them too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rlnas import plots, statistics
from rlnas.agents.benchmark import FRESH_SEEDS
from rlnas.comparison import Comparison, read_comparison
from rlnas.errors import RlnasError, one_of
from rlnas.results import Floats
from rlnas.retraining import Retraining
from rlnas.table import Table

BUDGETS = (3, 5, 10, 20)
FEW = 3
"""So many tasks are named."""
FRESH = "fresh.json"
LUCKIEST = "the table's best"
"""The design without regret: what it is worth on fresh seeds shows how much of that was luck."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--at", type=int, nargs="+", default=list(BUDGETS), help="numbers of designs")
    parser.add_argument("--agent", default="rl2", help="that is compared with every other")
    parser.add_argument("--fresh", action="store_true", help="train the chosen networks again")
    parser.add_argument("--top", type=int, default=1, help="with --fresh, train so many of the table's best too")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
    try:
        for folder in options.folders:
            report(folder, options.agent, options.at, max(1, options.top) if options.fresh else 0, options.pictures)
    except RlnasError as error:
        parser.exit(2, f"{error}\n")


def report(folder: Path, agent: str, at: Sequence[int], top: int, pictures: Path | None) -> None:
    """Print the tables of one comparison, and draw it; networks are trained again if ``top`` is not 0."""
    comparison = read_comparison(folder)
    results, summary = comparison.results, comparison.summary
    one_of("agent", agent, results.agents)
    runs, tasks, designs = results.shape
    shown = [n for n in at if 1 <= n <= designs]
    named = ", ".join(results.tasks) if tasks <= FEW else f"{tasks} tasks"
    print(f"## {summary['env']}, {summary['searched']}: {named}; {runs} runs of {designs} designs\n")
    regret = {name: results.normalised_regret(name)[:, :, [n - 1 for n in shown]] for name in results.agents}
    show_means("Normalised regret", regret, shown)
    show_improvement(agent, regret, shown)
    others_minus_mine = {name: array - regret[agent] for name, array in regret.items() if name != agent}
    show_differences(f"Regret of another minus that of {agent}", agent, others_minus_mine, shown)
    if top:
        accuracy = fresh_accuracies(folder, comparison, shown, top)
        show_means("Accuracy of the chosen networks on fresh seeds", accuracy, shown)
        mine_minus_others = {name: accuracy[agent] - array for name, array in accuracy.items() if name != agent}
        show_differences(f"Accuracy on fresh seeds of {agent} minus that of another", agent, mine_minus_others, shown)
    if pictures is not None:
        picture = plots.against_evaluations(summary, "normalised_regret", "normalised regret")
        (pictures / f"{folder.name}.svg").write_text(f"{picture}\n")
        draw_training(folder, agent, pictures)


def show_means(title: str, values: Mapping[str, Floats], budgets: Sequence[int]) -> None:
    """Means over runs and tasks of (R, T, budgets)."""
    heading(title, "agent", budgets)
    for name, array in values.items():
        cells = []
        for mean, low, high in zip(array.mean((0, 1)), *statistics.mean_interval(array), strict=True):
            cells.append(f"{mean:.3f}" + (f" ({low:.3f} to {high:.3f})" if low < high else ""))
        row(name, cells)
    print()


def show_improvement(agent: str, regret: Mapping[str, Floats], budgets: Sequence[int]) -> None:
    """Probability that a run of the agent has less regret on a task than one of another; a tie is half."""
    heading(f"P({agent} better on a task), and what it would be without any regret", "than", budgets)
    for name, array in regret.items():
        if name == agent:
            continue
        cells = []
        for place in range(len(budgets)):
            mine, theirs = -regret[agent][:, :, place], -array[:, :, place]
            chance = statistics.probability_of_improvement(mine, theirs)
            low, high = statistics.probability_of_improvement_interval(mine, theirs)
            most = statistics.probability_of_improvement(np.zeros_like(theirs), theirs)
            cells.append(f"{chance:.2f} ({low:.2f} to {high:.2f}) of {most:.2f}")
        row(name, cells)
    print()


def show_differences(title: str, agent: str, differences: Mapping[str, Floats], budgets: Sequence[int]) -> None:
    """Mean differences, (R, T, budgets), where more is better, and two answers to how surely the agent is ahead.

    The first is the share of runs that are ahead on average over these tasks, the second that of resamples of runs and
    tasks that are.
    """
    heading(f"{title}; P({agent} better on average) with other seeds, and on other tasks too", "another", budgets)
    for name, array in differences.items():
        resampled = statistics.crossed_means(array)
        low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
        entries = zip(array.mean((0, 1)), low, high, ahead(array.mean(1)), ahead(resampled), strict=True)
        row(name, [f"{mean:+.3f} ({a:+.3f} to {b:+.3f}); {p:.2f}, {q:.2f}" for mean, a, b, p, q in entries])
    print()


def ahead(differences: Floats) -> Floats:
    """The share of rows in which each difference is positive; none at all is half."""
    return np.asarray((differences > 0).mean(0) + 0.5 * (differences == 0).mean(0))


def fresh_accuracies(folder: Path, comparison: Comparison, budgets: Sequence[int], top: int = 1) -> dict[str, Floats]:
    """What each agent's chosen designs are worth on fresh seeds, (runs, tasks, budgets); 0 where all were illegal.

    Prints, too, what there is to be found among them and the ``top`` designs of the table.
    """
    results = comparison.results
    chosen = {name: np.stack([comparison.chosen(name, n) for n in budgets], axis=2) for name in results.agents}
    table = Table.from_spec(comparison.settings["evaluator"]["table"])
    columns = [table.column(task) for task in results.tasks]
    best = table.main.accuracy[:, columns, 0].argsort(0)[::-1][:top]
    best_texts = np.array([[table.space.text(tuple(table.space.codes[i].tolist())) for i in row] for row in best])
    chosen[LUCKIEST] = np.tile(best_texts[0][None, :, None], (results.rounds, 1, len(budgets)))
    texts_of = {
        task: sorted({str(t) for texts in (*chosen.values(), best_texts[..., None]) for t in texts[:, place].flat if t})
        for place, task in enumerate(results.tasks)
    }
    designs = [(task, text) for task, texts in texts_of.items() for text in texts]
    worth = Retraining(table, FRESH_SEEDS).accuracies(designs, folder / FRESH, progress)
    found = {}
    for name, texts in chosen.items():
        values = np.zeros(texts.shape)
        for place in np.ndindex(texts.shape):
            values[place] = np.mean(worth.get((results.tasks[place[1]], str(texts[place])), 0.0))
        found[name] = values.reshape(-1, results.rounds, *values.shape[1:]).mean(1)
    lucky = found.pop(LUCKIEST).mean()
    print(f"The table's best networks: {results.best.mean():.3f} in the table, {lucky:.3f} on fresh seeds.")
    found_best = np.mean([best_of([worth[task, text] for text in texts]) for task, texts in texts_of.items()])
    candidates = "all that were chosen" + (f" and the table's {top} best" if top > 1 else "")
    print(f"The best of {candidates}, two fresh seeds choosing and the third scoring: {found_best:.3f}.\n")
    return found


def best_of(accuracies: Sequence[Sequence[float]]) -> float:
    """What the best of several designs is worth on a seed that did not choose it: each seed scores once, (N, seeds)."""
    values = np.array(accuracies)
    scores = []
    for seed in range(values.shape[1]):
        choosing = np.delete(values, seed, axis=1).mean(1)
        scores.append(values[choosing.argmax(), seed])
    return float(np.mean(scores))


def draw_training(folder: Path, agent: str, pictures: Path) -> None:
    """Draw what the agent's training brought, means over its runs, if they kept it (``runs/AGENT/SEED.csv``)."""
    logs = [
        np.genfromtxt(file, delimiter=",", names=True, deletechars="", ndmin=1)
        for file in sorted((folder / "runs" / agent).glob("*.csv"))
    ]
    if not logs:
        return
    updates = min(map(len, logs))
    curves = {}
    for name in ("first", "last", "best"):
        values = np.array([log[f"train/{name}_accuracy"][:updates] for log in logs])
        low, high = statistics.mean_interval(values[:, None])
        curves[f"{name} design"] = {"value": values.mean(0), "low": low, "high": high}
    picture = plots.training(logs[0]["timesteps"][:updates].tolist(), curves, "accuracy on training tasks")
    (pictures / f"{folder.name}-training.svg").write_text(f"{picture}\n")


def progress(done: int, of: int) -> None:
    print(f"trained again: {done} of {of} networks", file=sys.stderr)


def heading(title: str, first: str, budgets: Sequence[int]) -> None:
    print(f"### {title}\n\n| {first} | {' | '.join(f'{n} designs' for n in budgets)} |\n|---|{'---|' * len(budgets)}")


def row(name: str, cells: Sequence[str]) -> None:
    print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
