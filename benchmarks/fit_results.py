"""What `rlnas fit` comes to on real image sets: the controller beside random search, and a fixed ResNet-9.

    python benchmarks/fit_results.py --out runs/fit-results --data DATA --workers 2
    python benchmarks/fit_results.py --out runs/fit-results --sets mnist --seeds 1

DATA is the folder that RLNAS_DATA names by default. Every run is one `rlnas fit` command with one torch thread, printed
as it starts; runs that are in --out already are not made again, interrupted ones go on. Prints the tables of
docs/results/fit.md in the end.

Intervals are 95 %: those of one network's accuracy are Wilson's; those of mean differences Student's, of the seeds'
deviation within sets. Other sets could differ by more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeAlias

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.data_division import divide
from rlnas.final_training import FinalTraining, train_fully
from rlnas.graph import INPUT, Classifier, Conv, Graph, MaxPool, Node, count_flops, count_parameters
from rlnas.leaderboard import Leaderboard
from rlnas.model import load_model
from rlnas.search_space import Decision, SearchSpace
from rlnas.user_data import read_data

AGENTS = ("pretrained", "random")
DESIGNS = (1, 3, 5, 10, 20)
RESNET, RESNET_SET = "resnet9", "cifar10"
RESNET_WIDTH = 9
"""The widest of at most 8 million multiply-accumulates."""
FINISHED = "result.json"


@dataclass(frozen=True)
class Data:
    """A set of images.

    Args:
        title: for people.
        file: under DATA.
        options: of the command.
    """

    title: str
    file: str
    options: tuple[str, ...] = ()


SETS = {
    "mnist": Data(
        "MNIST",
        "mnist/mnist.npz",
        (
            *("--validation", "0.05", "--finalists", "3", "--max-flops", "16000000"),
            *("--epochs", "10", "--set", "refit=false"),
        ),
    ),
    "cifar10": Data("CIFAR-10, 5,000", "cifar10/cifar10_6k.npz", ("--set", "augmentation=natural")),
    "signs": Data("sign digits", "sign_digits/sign_digits32.npz"),
    "spoken": Data("spoken digits", "spoken_digits/fsdd_logmel32.npz"),
    "fashion": Data("Fashion-MNIST, 4,442", "fashion_mnist/fashion_t10k_first.npz"),
}


class ResNet9(SearchSpace):
    """One network: the small residual network that won DAWNBench's CIFAR-10 entries, of any width.

    Eight 3x3 convolutions, two of its three stages with a residual pair, and a linear layer; its first convolution has
    ``width`` channels (64 there), the last eight times as many. Its residual sum is not followed by anything.
    """

    kind: ClassVar[str] = RESNET
    decisions = (Decision("network", (RESNET,)),)
    transitions = np.zeros((1, 1), dtype=np.int32)

    def __init__(self, width: int) -> None:
        self.width = width

    @property
    def name(self) -> str:
        return f"{RESNET}-{self.width}"

    def text(self, choices: tuple[int, ...]) -> str:
        return self.name

    def graph(self, choices: tuple[int, ...], ways: int) -> Graph:
        narrow, *wide = (Conv(3, self.width * factor) for factor in (1, 2, 4, 8))
        nodes = [Node(narrow, (INPUT,))]

        def follow(*operations: Conv | MaxPool | Classifier, residual: int | None = None) -> int:
            for operation in operations:
                last = len(nodes) - 1
                nodes.append(Node(operation, (last,) if residual is None else (residual, last)))
                residual = None
            return len(nodes) - 1

        first = follow(wide[0], MaxPool())
        follow(wide[0], wide[0])
        follow(wide[1], residual=first)
        last = follow(MaxPool(), wide[2], MaxPool())
        follow(wide[2], wide[2])
        follow(MaxPool(), residual=last)
        follow(MaxPool(), Classifier(ways))
        return tuple(nodes)

    def parse(self, text: str) -> Architecture:
        return self.decode([0])

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "width": self.width}

    def widened(self, factor: int) -> ResNet9:
        return ResNet9(self.width * factor)


Measure: TypeAlias = Callable[["Run"], Sequence[float]]


@dataclass(frozen=True)
class Run:
    """One training of one set with one seed, in a folder of its own."""

    data: str
    agent: str
    seed: int
    out: Path
    finalists: int | None = None

    @property
    def folder(self) -> Path:
        return self.out / f"{self.data}-{self.agent}-{self.seed}"

    def command(self, data: Path) -> list[str]:
        """What makes it or goes on with it."""
        source = SETS[self.data]
        if self.agent == RESNET:
            script = [sys.executable, __file__, "--resnet", str(self.folder), "--data", str(data)]
            return [*script, "--seed", str(self.seed)]
        if (self.folder / "config.json").exists():
            return ["rlnas", "fit", "--resume", "--out", str(self.folder)]
        where = ["--agent", self.agent, "--seed", str(self.seed), "--out", str(self.folder)]
        if self.finalists is not None:
            where = ["--finalists", str(self.finalists), *where]
        return ["rlnas", "fit", str(data / source.file), *source.options, *where]

    def make(self, data: Path) -> None:
        """Make it, or go on with it; whether that succeeded, :attr:`made` says."""
        if not self.made:
            command = self.command(data)
            print(" ".join(command), file=sys.stderr, flush=True)
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=environment)

    @property
    def made(self) -> bool:
        return (self.folder / FINISHED).exists()

    @property
    def result(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / FINISHED).read_text()))

    @property
    def leaderboard(self) -> Leaderboard:
        return Leaderboard.from_json(json.loads((self.folder / "leaderboard.json").read_text()))

    @property
    def test(self) -> float:
        return float(self.result["test"]["accuracy"])

    @property
    def minutes(self) -> float:
        """Of search and training."""
        return float(self.result["search_seconds"] + load_model(self.folder / "model").facts["seconds"]) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument("--data", type=Path, default=os.environ.get("RLNAS_DATA"), help="folder of image sets")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="runs at once")
    parser.add_argument("--finalists", type=int, help="of `rlnas fit`, in place of what a set has")
    parser.add_argument("--tables", action="store_true", help="of what there is; run nothing")
    parser.add_argument("--resnet", type=Path, metavar="FOLDER", help=f"train a {RESNET} alone, into this folder")
    parser.add_argument("--seed", type=int, default=0, help="of that")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data is missing, or RLNAS_DATA")
    if options.resnet is not None:
        return train_resnet(options.resnet, options.data, options.seed)
    if options.out is None:
        parser.error("--out is missing")
    runs = [
        Run(data, agent, seed, options.out, options.finalists)
        for seed in range(options.seeds)
        for data in options.sets
        for agent in (*AGENTS, *((RESNET,) if data == RESNET_SET else ()))
    ]
    if not options.tables:
        options.out.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(options.workers) as pool:
            list(pool.map(lambda run: run.make(options.data), runs))
    tell([run for run in runs if run.made])
    if not options.tables and not all(run.made for run in runs):
        sys.exit(1)


def train_resnet(folder: Path, data: Path, seed: int) -> None:
    """The fixed network, about as costly as what `rlnas fit` finds, trained by the same recipe on the same division."""
    source = SETS[RESNET_SET]
    read = read_data(data / source.file)
    assert source.options == ("--set", "augmentation=natural")
    recipe = FinalTraining(width=1, augmentation="natural", seed=seed, threads=1)
    found = ResNet9(RESNET_WIDTH).parse(RESNET)
    with TemporaryDirectory() as temporary:
        model = train_fully(found, read, divide(read, seed=seed), recipe, temporary)
    assert model is not None
    assert model.test is not None
    graph, shape = model.architecture.graph(read.ways), read.input_shape
    result = {
        "architecture": model.architecture.text,
        "parameters": count_parameters(graph, shape),
        "flops": count_flops(graph, shape),
        "test": model.test.to_json(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FINISHED).write_text(json.dumps(result))


def tell(runs: Sequence[Run]) -> None:
    """Print the tables."""
    sets = list(dict.fromkeys(run.data for run in runs))
    print_table(
        ("set", "train, validation, test", *(f"{agent}, test %" for agent in AGENTS), "difference", "minutes, longest"),
        [summary(data, [run for run in runs if run.data == data]) for data in sets],
    )
    compare(runs, sets)
    print_table(
        ("set", "agent", "seed", "network", "parameters", "MACs, million", "test %", "balanced %", "calibration error"),
        [details(run) for run in sorted(runs, key=lambda run: (sets.index(run.data), run.agent, run.seed))],
    )


def summary(data: str, runs: Sequence[Run]) -> list[str]:
    parts = runs[0].result.get("data") or {}
    row = [SETS[data].title, ", ".join(f"{parts[part]:,}" for part in ("train", "validation", "test") if part in parts)]
    for agent in AGENTS:
        found = [100 * run.test for run in runs if run.agent == agent]
        row.append(f"{np.mean(found):.2f} ({', '.join(f'{value:.2f}' for value in found)})" if found else "")
    pairs = differences(runs, [data], lambda run: [100 * run.test])
    row.append(spread(pairs)[0] if pairs.size else "")
    return [*row, f"{max(run.minutes for run in runs if run.agent in AGENTS):.1f}"]


def compare(runs: Sequence[Run], sets: Sequence[str]) -> None:
    """All sets together: the trained networks, and the best of the first rung after so many designs."""
    pairs = differences(runs, sets, lambda run: [100 * run.test])
    if pairs.size:
        print(f"{' - '.join(AGENTS)}, test, points: {spread(pairs)[0]} over {pairs.size} pairs\n")
        first = differences(runs, sets, best_so_far)
        rows = [["all", *spread(first)], *([SETS[name].title, *spread(first[:, [n]])] for n, name in enumerate(sets))]
        print_table(("first rung, difference of the best after", *map(str, DESIGNS)), rows)
    fixed = [run for run in runs if run.agent == RESNET]
    for run in fixed[:1]:
        tests = [100 * each.test for each in fixed]
        cost = f"{run.result['parameters']:,} parameters, {run.result['flops'] / 1e6:.1f} million MACs"
        shown = ", ".join(f"{value:.2f}" for value in tests)
        print(f"{run.result['architecture']} ({cost}): {np.mean(tests):.2f} ({shown})\n")


def differences(runs: Sequence[Run], sets: Sequence[str], measure: Measure) -> NDArray[np.float64]:
    """The first agent's less the other's on the same division, of shape (seeds, sets, measures).

    Only of seeds with which both have searched all sets.
    """
    found = {(run.data, run.agent, run.seed): run for run in runs}
    rows = []
    for seed in sorted({run.seed for run in runs}):
        wanted = [[found.get((data, agent, seed)) for agent in AGENTS] for data in sets]
        pairs = [[measure(run) for run in pair if run is not None] for pair in wanted]
        if all(len(pair) == len(AGENTS) for pair in pairs):
            rows.append(np.array([[ours, theirs] for ours, theirs in pairs]))
    if not rows:
        return np.empty((0, len(sets), 0))
    values = np.array(rows)
    return np.asarray(values[:, :, 0] - values[:, :, 1])


def best_so_far(run: Run) -> list[float]:
    """The best accuracy on the first rung, in %, after each number of :data:`DESIGNS`."""
    entries = [entry for entry in run.leaderboard.entries if entry.rung == 0]
    return [100 * max(entry.accuracy for entry in entries if entry.design <= count) for count in DESIGNS]


def spread(values: NDArray[np.float64]) -> list[str]:
    """Means over seeds and sets, with intervals where there are several seeds, of shape (seeds, sets, measures)."""
    seeds, sets, _ = values.shape
    means = values.mean((0, 1))
    if seeds < 2:
        return [f"{mean:+.2f}" for mean in means]
    error = np.sqrt(values.var(0, ddof=1).mean(0) / (seeds * sets))
    width = scipy.stats.t.ppf(0.975, (seeds - 1) * sets) * error
    return [f"{mean:+.2f} ({mean - w:+.2f} to {mean + w:+.2f})" for mean, w in zip(means, width, strict=True)]


def details(run: Run) -> list[str]:
    result = run.result
    test = result["test"]
    low, high = test["interval"]
    accuracy = f"{100 * test['accuracy']:.2f} ({100 * low:.2f} to {100 * high:.2f})"
    scores = [accuracy, f"{100 * test['balanced_accuracy']:.2f}", f"{test['calibration_error']:.3f}"]
    cost = [f"{result['parameters']:,}", f"{result['flops'] / 1e6:.1f}"]
    return [SETS[run.data].title, run.agent, str(run.seed), result["architecture"], *cost, *scores]


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print()


if __name__ == "__main__":
    main()
