"""Meta-learned starts on Omniglot, 5 ways, 1 shot, official split, with the literature's standard network.

Run as ``python benchmarks/omniglot.py --data omniglot28.npz --out runs/omniglot``; without ``--data`` it looks for
``omniglot/omniglot28.npz`` in the folder that RLNAS_DATA names. The file has ``images``, of shape (classes, 20, 28,
28), and ``split``, of shape (classes,): 0 for the background characters, to train on, 1 for the evaluation ones.

Every method trains the same network (four times 3 x 3 convolution to 64 channels, batch norm, ReLU and 2 x 2 maximum
pooling) for a stated number of episodes, on one core, and is then judged on the same tasks as a random start with the
same inner steps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlnas.adaptation import METHODS, Adaptation, score_logits, standardise
from rlnas.architecture import Architecture
from rlnas.initialisation import Initialisation, start
from rlnas.meta_learning import Episode, adapted_logits
from rlnas.meta_training import MetaTraining, meta_train
from rlnas.search_space import ChainSpace
from rlnas.task import FewShotTask

WAYS, TEST_QUERIES = 5, 15
SPACE = ChainSpace(max_layers=8, input_size=28, widths=(64,), dense_widths=(64,))
NETWORK: Architecture = SPACE.parse(" > ".join(["conv3x3-64", "max-pool"] * 4))
TEST_STREAM = 2


@dataclass(frozen=True)
class Schedule:
    """How a method is trained.

    Args:
        adaptation: its inner loop.
        training: how long and how fast.
        queries: query images of each class in training.
    """

    adaptation: Adaptation
    training: MetaTraining
    queries: int = 5


def _schedule(adaptation: Adaptation, iterations: int, queries: int = 5, learn_classifier: bool = False) -> Schedule:
    training = MetaTraining(iterations, 4, 0.003, transductive=True, learn_classifier=learn_classifier)
    return Schedule(adaptation, training, queries)


def _inner(method: str, steps: int, learning_rate: float) -> Adaptation:
    """More and smaller steps than the one of Finn et al. 2017: a short training gets further with them."""
    return Adaptation(steps, learning_rate, 0.5, method)


SCHEDULES: dict[str, Schedule] = {
    "fomaml": _schedule(_inner("fomaml", 10, 0.05), 800),
    "reptile": _schedule(_inner("reptile", 10, 0.05), 750, 10),
    "prototype": _schedule(Adaptation(method="prototype"), 2400),
    "anil": _schedule(_inner("anil", 10, 0.1), 1600),
    "maml": _schedule(_inner("maml", 5, 0.1), 600),
    "meta-sgd": _schedule(_inner("meta-sgd", 5, 0.1), 500),
    "relation": _schedule(Adaptation(method="relation"), 1600),
    "maml-learned-classifier": _schedule(_inner("maml", 5, 0.1), 600, learn_classifier=True),
}


@dataclass(frozen=True)
class Characters:
    """Images by class, of shape (classes, 20, 28, 28), ink 255."""

    train: NDArray[np.uint8]
    test: NDArray[np.uint8]

    @classmethod
    def read(cls, path: Path) -> Characters:
        """The official split; characters turned by 90, 180 and 270 degrees are further classes to train on."""
        with np.load(path) as file:
            images, split = file["images"], file["split"]
        background = images[split == 0]
        turned = [np.rot90(background, quarter, (2, 3)) for quarter in range(4)]
        return cls(np.concatenate(turned), images[split == 1])


def sampler(images: NDArray[np.uint8], queries: int) -> Callable[[np.random.Generator], FewShotTask]:
    """Draws tasks of 5 classes with one support image each."""

    def sample(rng: np.random.Generator) -> FewShotTask:
        classes = rng.choice(len(images), WAYS, replace=False)
        chosen = np.stack([rng.permutation(images.shape[1])[: 1 + queries] for _ in classes])
        drawn = images[classes[:, None], chosen].astype(np.float32)[:, :, None] / np.float32(255)
        labels = np.arange(WAYS)
        support, query = drawn[:, 0], drawn[:, 1:].reshape(-1, *drawn.shape[2:])
        return FewShotTask("omniglot", "omniglot", support, labels, query, np.repeat(labels, queries))

    return sample


def accuracies(
    tasks: Sequence[FewShotTask],
    adaptation: Adaptation,
    init: Initialisation | None,
    transductive: bool,
    scratch: dict[Any, NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Accuracy on the query set of each task, of shape (tasks,); that of random starts is kept in ``scratch``."""
    key = adaptation, transductive, len(tasks)
    if init is None and key in scratch:
        return scratch[key]
    found = []
    for number, task in enumerate(tasks):
        weights, rates = start(NETWORK, task, number, init)
        head = () if init is None else init.head
        tensors = standardise(task, torch.device("cpu"))
        episode = Episode(NETWORK.graph(WAYS), weights, *tensors, rates, head, transductive)
        found.append(score_logits(adapted_logits(episode, adaptation), episode.query_y).accuracy)
    result = np.array(found)
    if init is None:
        scratch[key] = result
    return result


def interval(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean and half the width of its 95% interval, in percent."""
    return {"mean": 100 * values.mean(), "half_width": 196 * values.std(ddof=1) / np.sqrt(len(values))}


def judge(
    tasks: Sequence[FewShotTask],
    adaptation: Adaptation,
    init: Initialisation,
    scratch: dict[Any, NDArray[np.float64]],
) -> dict[str, Any]:
    """What a start is worth, and what a random one is with the same inner steps, on the same tasks."""
    # Nearest class means need no start that was learned; a random relation head would know nothing.
    metric = adaptation.adapts == "none"
    random_start = Adaptation(method="prototype") if metric else replace(adaptation, method="sgd")
    learned = accuracies(tasks, adaptation, init, False, scratch)
    unlearned = accuracies(tasks, random_start, None, False, scratch)
    return {
        "transductive": interval(accuracies(tasks, adaptation, init, True, scratch)),
        "alone": interval(learned),
        "scratch": interval(unlearned),
        "gain": interval(learned - unlearned),
    }


def run(
    name: str,
    characters: Characters,
    tasks: Sequence[FewShotTask],
    scratch: dict[Any, NDArray[np.float64]],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Train one method and judge it."""
    schedule = SCHEDULES[name]
    training = replace(schedule.training, seed=args.seed, minutes=args.minutes)
    if args.iterations is not None:
        training = replace(training, iterations=args.iterations)
    recent: list[tuple[float, float]] = []

    def on_iteration(done: int, loss: float, accuracy: float) -> None:
        recent.append((loss, accuracy))
        if done % 100 == 0:
            means = np.mean(recent[-100:], axis=0)
            seconds = time.process_time() - started
            print(f"{name} {done}: loss {means[0]:.4f}, accuracy {means[1]:.4f}, {seconds:.0f} s", file=sys.stderr)

    started = time.process_time()
    init = meta_train(
        NETWORK, sampler(characters.train, schedule.queries), schedule.adaptation, training, on_iteration=on_iteration
    )
    minutes = (time.process_time() - started) / 60
    init.save(args.out / name)
    result = judge(tasks, schedule.adaptation, init, scratch)
    return {"method": name, **asdict(schedule), "iterations_done": len(recent), "train_minutes": minutes, **result}


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| method | inner steps × rate | episodes | minutes | transductive | query images alone | "
        "random start, alone | gain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results:
        adaptation = row["adaptation"]
        episodes = row["iterations_done"] * row["training"]["episodes"]
        none = METHODS[adaptation["method"]].adapts == "none"
        steps = "none" if none else f"{adaptation['steps']} × {adaptation['learning_rate']}"
        parts = [row[key] for key in ("transductive", "alone", "scratch", "gain")]
        shown = [f"{part['mean']:.2f} ± {part['half_width']:.2f}" for part in parts]
        cells = [row["method"], steps, str(episodes), f"{row['train_minutes']:.1f}", *shown]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(os.environ.get("RLNAS_DATA", ".")) / "omniglot" / "omniglot28.npz"
    parser.add_argument("--data", type=Path, default=data, help="npz file with `images` and `split`")
    parser.add_argument("--out", type=Path, default=Path("runs/omniglot"), help="folder of the starts and results")
    parser.add_argument("--methods", default=",".join(SCHEDULES), help="comma-separated")
    parser.add_argument("--minutes", type=float, help="limit of each training (then results depend on the machine)")
    parser.add_argument("--iterations", type=int, help="of each training, in place of the schedule's")
    parser.add_argument("--tests", type=int, default=600, help="test tasks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one line of JSON in place of the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    characters = Characters.read(args.data)
    draw = sampler(characters.test, TEST_QUERIES)
    tasks = [draw(np.random.default_rng([args.seed, TEST_STREAM, i])) for i in range(args.tests)]
    results, scratch = [], dict[Any, NDArray[np.float64]]()
    for name in args.methods.split(","):
        results.append(run(name, characters, tasks, scratch, args))
        (args.out / "results.json").write_text(json.dumps(results, indent=1))
        print(table(results[-1:]).splitlines()[-1], file=sys.stderr)
    print(json.dumps(results) if args.json else table(results))


if __name__ == "__main__":
    main()
