"""Does a network's accuracy after a few steps say what it is worth after many?

Some architectures of a space are trained fully from scratch on digit tasks that no meta-training has seen, which gives
the ranking that a search is after. Then each is adapted as an evaluator would: from scratch with few steps, and from
starts that were meta-learned for the whole space. For each way the rank correlation (Spearman's) with the full training
is taken on every task and averaged over the tasks, with a 95% bootstrap interval over them; and the regret: how much
accuracy after full training is lost by choosing the architecture that this way likes best.

    python benchmarks/rank_correlation.py --out runs/ranks --json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from rlnas.adaptation import Adaptation
from rlnas.digits import DigitsSource
from rlnas.evaluator import Evaluator, Proposal
from rlnas.initialisation import Initialisation
from rlnas.meta_command import META_ADAPTATION
from rlnas.meta_training import MetaTraining, meta_train
from rlnas.parallel_evaluator import evaluator_in_processes
from rlnas.registration import PRESETS
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.specs import space_from_spec

Accuracies = NDArray[np.float64]
"""Of shape (tasks, architectures)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/ranks"), help="folder of starts and results")
    parser.add_argument("--env", default="rlnas/Digits-v0", choices=sorted(PRESETS), help="whose search space")
    parser.add_argument("--architectures", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=10, help="half from known families, half from unseen ones")
    parser.add_argument("--full-steps", type=int, default=200)
    parser.add_argument("--full-seeds", type=int, default=2, help="replicates of the full training, averaged")
    parser.add_argument(
        "--steps", type=int, default=META_ADAPTATION["steps"], help="of adaptation from meta-learned starts"
    )
    parser.add_argument("--methods", default="fomaml,reptile,anil,meta-sgd,prototype,relation")
    parser.add_argument("--minutes", type=float, default=2.5, help="of meta-training for each method")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    space = space_from_spec(PRESETS[options.env]["space"])
    rng = np.random.default_rng(0)
    architectures = {a.key: a for a in (space.sample(rng) for _ in range(50 * options.architectures))}
    chosen = list(architectures.values())[: options.architectures]
    source = DigitsSource()
    half = options.tasks // 2
    tasks = [source.task("test", i) for i in range(options.tasks - half)]
    tasks += [source.task("unseen-families", i) for i in range(half)]

    def ask(evaluator: Evaluator, seed: int = 0) -> Accuracies:
        found = evaluator.evaluate([Proposal(a, task, seed) for task in tasks for a in chosen])
        return np.array([e.accuracy for e in found]).reshape(len(tasks), len(chosen))

    def scratch(steps: int, seed: int = 0) -> Accuracies:
        spec = SequentialEvaluator(Adaptation(steps)).spec()
        return ask(evaluator_in_processes(spec, workers=options.workers), seed)

    started = time.perf_counter()
    full = np.mean([scratch(options.full_steps, seed) for seed in range(options.full_seeds)], axis=0)
    print(f"{len(chosen)} architectures, {len(tasks)} tasks, full training: {time.perf_counter() - started:.0f} s")
    print(f"{'way':34}{'Spearman (95%)':>26}{'regret':>9}{'accuracy':>10}{'seconds':>9}", flush=True)
    results = {}
    # Of a different seed than the full training's, whose first steps these would be otherwise.
    ways: list[tuple[str, partial[Accuracies]]] = [
        (f"scratch, {steps} steps", partial(scratch, steps, options.full_seeds))
        for steps in sorted({options.steps, 15, options.full_steps})
    ]
    ways += [(name, partial(ask, evaluator)) for name, evaluator in starts(options, source)]
    for name, run in ways:
        began = time.perf_counter()
        accuracies = run()
        results[name] = {**compare(accuracies, full), "seconds": round(time.perf_counter() - began, 1)}
        r = results[name]
        interval = f"{r['spearman']:.3f} ({r['low']:.3f} to {r['high']:.3f})"
        print(f"{name:34}{interval:>26}{r['regret']:9.3f}{r['accuracy']:10.3f}{r['seconds']:9.1f}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    if options.json:
        print(json.dumps(results))


def starts(options: argparse.Namespace, source: DigitsSource) -> Iterator[tuple[str, Evaluator]]:
    """An evaluator from each meta-learned start; one that lies in the folder already is not learned again."""
    space = space_from_spec(PRESETS[options.env]["space"])
    for method in filter(None, options.methods.split(",")):
        folder = options.out / method
        if (folder / "manifest.json").exists():
            start = Initialisation.load(folder)
        else:
            adaptation = Adaptation(**{**META_ADAPTATION, "steps": options.steps, "method": method})
            settings = MetaTraining(iterations=10**6, episodes=8, minutes=options.minutes)
            start = meta_train(space, partial(source.sample, "train"), adaptation, settings)
            start.save(folder)
        done = start.about["meta_training"]["iterations_done"]
        yield f"{method}, {options.steps} steps ({done} it.)", SequentialEvaluator(init=folder)


def compare(accuracies: Accuracies, full: Accuracies) -> dict[str, float]:
    """Rank correlation with the full training, regret of the choice, and mean accuracy."""
    each = np.array([spearmanr(a, f).statistic for a, f in zip(accuracies, full, strict=True)])
    rng = np.random.default_rng(0)
    resampled = each[rng.integers(len(each), size=(10_000, len(each)))].mean(1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    # Of several equally liked architectures one is taken at random: the mean of what they are worth.
    liked = rankdata(-accuracies, method="min", axis=1) == 1
    regret = full.max(1) - np.array([f[best].mean() for f, best in zip(full, liked, strict=True)])
    return {
        "spearman": float(each.mean()),
        "low": float(low),
        "high": float(high),
        "regret": float(regret.mean()),
        "accuracy": float(accuracies.mean()),
    }


if __name__ == "__main__":
    main()
