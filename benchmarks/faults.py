"""What faults cost a parallel evaluator: workers killed at random, and candidates that diverge, hang or are too large.

Run as ``python benchmarks/faults.py``; the last line of ``--json`` is one JSON object. Exit status 1 if a result is
missing, given twice, or differs by a bit from that of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rlnas.digits import DigitsSource
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.graph import Add, Classifier, Graph, Node
from rlnas.parallel_evaluator import ParallelEvaluator
from rlnas.search_space import ChainSpace

SPACE = ChainSpace(max_layers=4)
OVERSIZED = 2**44
DOUBLINGS = 40


@dataclass(frozen=True)
class HangingSpace(ChainSpace):
    """Its networks are never finished, but in the process that made the space."""

    spared: int = field(default_factory=os.getpid)

    @property
    def name(self) -> str:
        return f"hanging {super().name}"

    def graph(self, choices: tuple[int, ...], ways: int) -> Graph:
        while os.getpid() != self.spared:
            signal.pause()
        return super().graph(choices, ways)


@dataclass(frozen=True)
class ExplodingSpace(ChainSpace):
    """Before the classifier its networks double their signal many times; SGD leaves the finite numbers at once."""

    @property
    def name(self) -> str:
        return f"exploding {super().name}"

    def graph(self, choices: tuple[int, ...], ways: int) -> Graph:
        body = list(super().graph(choices, ways)[:-1])
        body += [Node(Add(), (last, last)) for last in range(len(body) - 1, len(body) - 1 + DOUBLINGS)]
        return (*body, Node(Classifier(ways), (len(body) - 1,)))


def make_proposals(count: int) -> list[Proposal]:
    """Random designs on the digit tasks, all different."""
    rng, source = np.random.default_rng(0), DigitsSource()
    tasks = [source.task("train", index) for index in range(16)]
    return [Proposal(SPACE.sample(rng), tasks[index % len(tasks)], seed=index) for index in range(count)]


def bad_proposals(task: Any) -> dict[Status, Proposal]:
    """One candidate for each way to fail, by the status it must be given."""
    exploding = ExplodingSpace(max_layers=1).parse("dense-32")
    hanging = HangingSpace(max_layers=1).parse("dense-32")
    oversized = ChainSpace(max_layers=1, dense_widths=(OVERSIZED,)).parse(f"dense-{OVERSIZED}")
    designs = {Status.DIVERGED: exploding, Status.TIMEOUT: hanging, Status.OUT_OF_MEMORY: oversized}
    return {status: Proposal(design, task) for status, design in designs.items()}


class Killer:
    """Within its ``with`` block, kills a random worker process every ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.kills = 0
        self._rng = random.Random(0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._kill)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _kill(self) -> None:
        while not self._done.wait(self.seconds):
            victims = [process.pid for process in multiprocessing.active_children() if process.pid is not None]
            if victims:
                os.kill(self._rng.choice(victims), signal.SIGKILL)
                self.kills += 1


def timed(evaluator: ParallelEvaluator, proposals: Sequence[Proposal], batch: int) -> tuple[list[Evaluation], float]:
    """The evaluations, asked for ``batch`` at a time, and the seconds they took."""
    started = time.perf_counter()
    found: list[Evaluation] = []
    for first in range(0, len(proposals), batch):
        found += evaluator.evaluate(proposals[first : first + batch])
    return found, time.perf_counter() - started


def differing(found: Sequence[Evaluation], expected: Sequence[Evaluation]) -> int:
    return sum(not mine.same_result(its) for mine, its in zip(found, expected, strict=True))


def killed_workers(evaluator: ParallelEvaluator, count: int, batch: int, every: float, repeats: int) -> dict[str, Any]:
    """``count`` evaluations with and without a random worker killed every so many seconds."""
    proposals = make_proposals(count)
    expected, _ = timed(evaluator, proposals, batch)
    calm, disturbed, kills, results, wrong, statuses = [], [], 0, 0, 0, Counter[str]()
    for _ in range(repeats):
        found, seconds = timed(evaluator, proposals, batch)
        calm.append(count / seconds)
        wrong += differing(found, expected)
        with Killer(every) as killer:
            found, seconds = timed(evaluator, proposals, batch)
        disturbed.append(count / seconds)
        kills += killer.kills
        results += len(found)
        wrong += differing(found, expected)
        statuses.update(e.status.value for e in found)
        evaluator.evaluate(proposals[:batch])  # lets a worker that is being replaced get ready
    return {
        "evaluations": count,
        "repeats": repeats,
        "kills": kills,
        "results": results,
        "results_that_differ": wrong,
        "statuses": dict(statuses),
        "per_second": statistics.median(calm),
        "per_second_with_kills": statistics.median(disturbed),
        "throughput_kept": statistics.median(disturbed) / statistics.median(calm),
    }


def bad_candidates(evaluator: ParallelEvaluator, count: int, repeats: int) -> dict[str, Any]:
    """``count`` candidates, three of which fail in three ways, and the others without those three."""
    good = make_proposals(count - 3)
    bad = bad_proposals(good[0].task)
    places = dict(zip((count // 5, count // 2, count - 2), bad.items(), strict=True))
    mixed = list(good)
    for place, (_, proposal) in sorted(places.items()):
        mixed.insert(place, proposal)
    expected, _ = timed(evaluator, good, count)
    calm, disturbed, wrong, wrong_statuses = [], [], 0, 0
    for _ in range(repeats):
        found, seconds = timed(evaluator, good, count)
        calm.append(seconds)
        wrong += differing(found, expected)
        found, seconds = timed(evaluator, mixed, count)
        disturbed.append(seconds)
        wrong += differing([e for index, e in enumerate(found) if index not in places], expected)
        wrong_statuses += sum(found[place].status is not status for place, (status, _) in places.items())
        evaluator.evaluate(good)  # lets a worker that is being replaced get ready
    return {
        "candidates": count,
        "repeats": repeats,
        "neighbours_that_differ": wrong,
        "wrong_statuses": wrong_statuses,
        "messages": {found[place].status.value: found[place].message for place in places},
        "timeout": evaluator.timeout,
        "seconds_without": statistics.median(calm),
        "seconds_with": statistics.median(disturbed),
        "throughput_kept": statistics.median(calm) / statistics.median(disturbed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--evaluator", default="sequential", help="kind of evaluator that the workers make")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--share", type=int, default=32, help="most proposals that a worker is given at once")
    parser.add_argument("--batch", type=int, default=64, help="proposals in a call of evaluate")
    parser.add_argument("--evaluations", type=int, default=500, help="evaluations under the killer")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between kills")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds that a share may take")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions; medians are shown")
    parser.add_argument("--quick", action="store_true", help="a small run that only shows that it works")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.evaluations, arguments.repeats = 100, 1
    spec = {"kind": arguments.evaluator}
    with ParallelEvaluator(
        arguments.workers, spec, timeout=arguments.timeout, share=arguments.share, cache_size=0
    ) as evaluator:
        bad = bad_candidates(evaluator, 64, arguments.repeats)
        killed = killed_workers(evaluator, arguments.evaluations, arguments.batch, arguments.every, arguments.repeats)
        result = {"spec": evaluator.spec(), "workers": arguments.workers, "share": arguments.share}
    result |= {"torch": torch.__version__, "cpus": os.cpu_count(), "killed_workers": killed, "bad_candidates": bad}
    complete = killed["results"] == arguments.evaluations * arguments.repeats
    equal = killed["results_that_differ"] == bad["neighbours_that_differ"] == bad["wrong_statuses"] == 0
    if arguments.json:
        print(json.dumps(result))
    else:
        for name in ("killed_workers", "bad_candidates"):
            print(name.replace("_", " "))
            for figure, value in result[name].items():
                shown = f"{value:.3g}" if isinstance(value, float) else value
                print(f"  {figure.replace('_', ' ')}: {shown}")
    sys.exit(0 if complete and equal else 1)


if __name__ == "__main__":
    main()
