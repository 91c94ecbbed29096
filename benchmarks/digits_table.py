"""What is in a table of digit tasks: how far tasks disagree, what one network for all loses, how much is noise.

    python benchmarks/digits_table.py

Prints the figures of docs/results/digits-table.md. Any table of ``rlnas tabulate`` will do that has a split ``train``
and two evaluation seeds on some of its rows.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import rankdata

Floats = NDArray[np.float64]
DESIGNS = (1, 5, 10, 20, 50)
SHIPPED = Path(__file__).parent.parent / "rlnas" / "tables" / "digits.npz"


@dataclass(frozen=True)
class Recorded:
    """A table of R networks on K tasks.

    Args:
        names: of the networks.
        families: of the tasks.
        splits: of the tasks.
        accuracy: with seed 0, (R, K).
        twice: the rows that have a second seed.
        again: with seed 1, (len(twice), K).
        about: what the table says of itself.
    """

    names: list[str]
    families: NDArray[np.str_]
    splits: NDArray[np.str_]
    accuracy: Floats
    twice: NDArray[np.int64]
    again: Floats
    about: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Recorded:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        first, second = (arrays["accuracy"][..., seed].astype(np.float64) for seed in (0, 1))
        twice = np.flatnonzero(~np.isnan(second).any(1))
        layers = [[str(arrays["op_names"][code]) for code in codes] for codes in arrays["ops"]]
        names = [" > ".join(n for n in row if n != "identity") or "identity" for row in layers]
        about = json.loads(str(arrays["about"]))
        return cls(names, arrays["families"], arrays["splits"], first, twice, second[twice], about)

    @cached_property
    def normalised(self) -> Floats:
        """1 is the best network of a task, 0 the mean of all."""
        mean = self.accuracy.mean(0)
        return np.asarray((self.accuracy - mean) / (self.accuracy.max(0) - mean))

    def of(self, split: str) -> NDArray[np.int64]:
        """The columns of a split."""
        return np.flatnonzero(self.splits == split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", type=Path, default=SHIPPED, help="by default the one that is shipped")
    table = Recorded.load(parser.parse_args().table)
    show_contents(table)
    show_noise(table)
    show_disagreement(table)
    show_one_for_all(table)
    show_budgets(table)
    show_families(table)


def show_contents(table: Recorded) -> None:
    rows, columns = table.accuracy.shape
    print(
        f"- {rows} networks, {columns} tasks of {len(set(table.families))} families, {len(table.twice)} networks twice"
    )
    counts = [f"{split} {(table.splits == split).sum()}" for split in dict.fromkeys(table.splits)]
    print(f"- tasks of each split: {', '.join(counts)}")
    print(f"- made with {', '.join(f'{field} {table.about[field]}' for field in ('rlnas', 'torch', 'date'))}\n")


def show_noise(table: Recorded) -> None:
    """One evaluation's noise against the spread between networks."""
    first, second = table.accuracy[table.twice], table.again
    noise = np.sqrt(((first - second) ** 2).mean(0) / 2)
    middle = (first + second) / 2
    best = middle >= np.quantile(middle, 0.9, axis=0)
    top_noise = np.sqrt(np.where(best, (first - second) ** 2, 0).sum(0) / best.sum(0) / 2)
    columns = np.arange(first.shape[1])
    winners = [(a[a.argmax(0), columns] - b[a.argmax(0), columns]) for a, b in ((first, second), (second, first))]
    print("## Noise against spread (means over tasks)\n")
    print(f"- standard deviation between networks: {table.accuracy.std(0).mean():.3f}")
    print(f"- best minus mean: {(table.accuracy.max(0) - table.accuracy.mean(0)).mean():.3f}")
    print(f"- standard deviation of one evaluation: {noise.mean():.3f}, among the best tenth {top_noise.mean():.3f}")
    print(f"- what the winner's accuracy overstates: {np.mean(winners):.3f}")
    print(f"- rank correlation of two seeds on one task: {np.diag(spearman(first, second)).mean():.2f}")
    same = np.mean(first.argmax(0) == second.argmax(0))
    print(f"- tasks on which both seeds have the same best: {same:.0%}\n")


def show_disagreement(table: Recorded) -> None:
    """How far the tasks rank networks alike."""
    correlations = spearman(table.accuracy, table.accuracy)
    pairs = np.triu(np.ones_like(correlations, dtype=bool), 1)
    kin = table.families[:, None] == table.families
    winners = table.accuracy.argmax(0)
    counts = np.bincount(winners, minlength=len(table.accuracy))
    print("## How much the best differs between tasks\n")
    for which, chosen in (("of one family", pairs & kin), ("of two families", pairs & ~kin)):
        print(f"- rank correlation of two tasks {which}: {correlations[chosen].mean():.2f}")
    alone = (counts == 1).sum()
    print(f"- different best networks: {(counts > 0).sum()} of {len(winners)}, best of one task only: {alone}")
    ranks = rankdata(-table.accuracy, axis=0)
    rank = np.median([np.median(np.delete(ranks[w], k)) for k, w in enumerate(winners)])
    print(f"- median rank of one task's best on the others: {rank:.0f} of {len(table.accuracy)}\n")


def show_one_for_all(table: Recorded) -> None:
    """What the network that is best on average over the training tasks loses on each split."""
    chosen = int(table.normalised[:, table.of("train")].mean(1).argmax())
    print(f"## Best on average over the training tasks: {table.names[chosen]}\n")
    print("| split | regret | normalised regret | rank (median) | tasks on which it is in the best tenth |")
    print("|---|---|---|---|---|")
    ranks = rankdata(-table.accuracy, axis=0)[chosen]
    for split in dict.fromkeys(table.splits):
        columns = table.of(split)
        regret = (table.accuracy.max(0) - table.accuracy[chosen])[columns].mean()
        share = np.mean(ranks[columns] <= len(table.accuracy) / 10)
        normalised = 1 - table.normalised[chosen, columns].mean()
        print(f"| {split} | {regret:.3f} | {normalised:.2f} | {np.median(ranks[columns]):.0f} | {share:.0%} |")
    print("\nAmong the networks with two seeds, chosen with one and scored with the other, both ways (accuracy):\n")
    print("| split | best on average | each task's best | difference (95% interval) |")
    print("|---|---|---|---|")
    first, second = table.accuracy[table.twice], table.again
    for split in dict.fromkeys(table.splits):
        columns = table.of(split)
        own, shared = np.zeros(len(columns)), np.zeros(len(columns))
        for a, b in ((first, second), (second, first)):
            normalised = (a - a.mean(0)) / (a.max(0) - a.mean(0))
            average = int(normalised[:, table.of("train")].mean(1).argmax())
            own += b[a[:, columns].argmax(0), columns] / 2
            shared += b[average, columns] / 2
        low, high = interval(own - shared)
        mean = (own - shared).mean()
        print(f"| {split} | {shared.mean():.3f} | {own.mean():.3f} | {mean:+.3f} ({low:+.3f} to {high:+.3f}) |")
    print()


def show_budgets(table: Recorded) -> None:
    """Normalised regret of random search and of a fixed list of networks, at several numbers of designs."""
    print("## Normalised regret after 1, 5, 10, 20 and 50 designs\n")
    print(f"| split | way |{'|'.join(f' {n} ' for n in DESIGNS)}|")
    print(f"|---|---|{'---|' * len(DESIGNS)}")
    portfolio = greedy_portfolio(table.normalised[:, table.of("train")], max(DESIGNS))
    for split in dict.fromkeys(table.splits):
        values = table.normalised[:, table.of(split)]
        fixed = 1 - np.maximum.accumulate(values[portfolio]).mean(1)
        ways = {
            "random search": [1 - expected_best(values, n).mean() for n in DESIGNS],
            "portfolio of the training tasks": [fixed[n - 1] for n in DESIGNS],
        }
        for way, regrets in ways.items():
            print(f"| {split} | {way} |{'|'.join(f' {regret:.2f} ' for regret in regrets)}|")
    print("\nThe portfolio begins with:", "; ".join(table.names[row] for row in portfolio[:5]), "\n")


def show_families(table: Recorded) -> None:
    print("## By family\n")
    print(
        "| family | tasks | mean accuracy | best | deviation between networks | of one evaluation | kin correlation |"
    )
    print("|---|---|---|---|---|---|---|")
    correlations = spearman(table.accuracy, table.accuracy)
    for family in dict.fromkeys(table.families):
        columns = np.flatnonzero(table.families == family)
        own = table.accuracy[:, columns]
        noise = np.sqrt(((own[table.twice] - table.again[:, columns]) ** 2).mean(0) / 2).mean()
        pairs = correlations[np.ix_(columns, columns)][np.triu_indices(len(columns), 1)]
        kin = f"{pairs.mean():.2f}" if len(pairs) else "-"
        figures = f"{own.mean():.2f} | {own.max(0).mean():.2f} | {own.std(0).mean():.3f} | {noise:.3f} | {kin}"
        print(f"| {family} | {len(columns)} | {figures} |")


def spearman(first: Floats, second: Floats) -> Floats:
    """Rank correlations of the columns of (R, K) and of (R, L), of shape (K, L)."""

    def standard(values: Floats) -> Floats:
        ranks = rankdata(values, axis=0)
        ranks = ranks - ranks.mean(0)
        return np.asarray(ranks / np.sqrt((ranks**2).sum(0)))

    return np.asarray(standard(first).T @ standard(second))


def expected_best(values: Floats, designs: int) -> Floats:
    """Mean of the best of that many different rows drawn at random, exactly, for each column of (R, K)."""
    rows = len(values)
    place = np.arange(designs, rows + 1)  # the best of the draw is the place-th smallest of all

    def log_choose(n: NDArray[np.int64], k: int) -> Floats:
        return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    chance = np.exp(log_choose(place - 1, designs - 1) - log_choose(np.array([rows]), designs))
    return np.asarray(chance @ np.sort(values, axis=0)[designs - 1 :])


def greedy_portfolio(values: Floats, size: int) -> list[int]:
    """Rows of (R, K), each the one that most improves the mean over columns of the best so far.

    Among those that improve it equally, and be it not at all, the one of the best mean.
    """
    chosen: list[int] = []
    best = np.full(values.shape[1], -np.inf)
    for _ in range(size):
        gains = np.maximum(values, best).mean(1)
        gains[chosen] = -np.inf
        chosen.append(int(np.lexsort((values.mean(1), gains))[-1]))
        best = np.maximum(best, values[chosen[-1]])
    return chosen


def interval(values: Floats) -> tuple[float, float]:
    """95% bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    low, high = np.quantile(values[rng.integers(len(values), size=(10_000, len(values)))].mean(1), [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
