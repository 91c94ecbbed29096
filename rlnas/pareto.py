"""Accuracy against cost: which designs no other design beats in both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlnas.architecture import Architecture
from rlnas.device import one_thread
from rlnas.graph import Shape
from rlnas.leaderboard import Entry, Leaderboard
from rlnas.network import Network
from rlnas.wide_network import Limits, widened

OBJECTIVES = {
    "params": "parameters",
    "flops": "multiply-accumulates of one example",
    "latency": "milliseconds for one example, on one thread of this CPU",
}
"""What designs can be compared by beside accuracy, and what the plot calls it."""

REPEATS, WARMUP = 30, 5
"""Forward passes that a latency is the median of, and those before them that do not count."""


@dataclass(frozen=True)
class Point:
    """A design and its cost.

    Args:
        architecture: its text.
        accuracy: on the validation part.
        cost: by the objective, of the network at full width.
    """

    architecture: str
    accuracy: float
    cost: float


def points(
    leaderboard: Leaderboard, objective: str, space: Any, limits: Limits, ways: int, shape: Shape
) -> list[Point]:
    """Every network of the first rung, where all were compared at equal cost.

    Args:
        leaderboard: of the search.
        objective: one of :data:`OBJECTIVES`.
        space: that was searched.
        limits: that say how wide a winner is trained.
        ways: number of classes.
        shape: of an example as networks see it, (C, H, W).
    """

    def cost(entry: Entry) -> float:
        if objective == "latency":
            found = space.decode(entry.choices)
            return latency(widened(found, limits.width_of(found, ways, shape)), ways, shape)
        return float(entry.parameters if objective == "params" else entry.flops)

    return [Point(entry.architecture, entry.accuracy, cost(entry)) for entry in leaderboard.on_rung(0)]


def front(designs: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in accuracy without costing more, or in cost without being less accurate.

    >>> [p.architecture for p in front([Point("a", 0.9, 10), Point("b", 0.8, 5), Point("c", 0.7, 7)])]
    ['b', 'a']
    """
    found: list[Point] = []
    for point in sorted(designs, key=lambda p: (p.cost, -p.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


def latency(architecture: Architecture, ways: int, shape: Shape) -> float:
    """Milliseconds that a network takes for one example, on one thread of the CPU: the median of many."""
    import torch

    network = Network(architecture.graph(ways), shape).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    example, taken = torch.ones(1, *shape), []
    with torch.inference_mode(), one_thread():
        for _ in range(WARMUP + REPEATS):
            began = time.perf_counter()
            network(example)
            taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken[WARMUP:])


def plot(designs: Sequence[Point], objective: str, winner: str) -> str:
    """The designs and their front as SVG text.

    Args:
        designs: all of them.
        objective: one of :data:`OBJECTIVES`.
        winner: the architecture that was trained fully.
    """
    from rlnas.plots import accuracy_against_cost

    best = [(point.cost, point.accuracy) for point in front(designs)]
    chosen = next(((point.cost, point.accuracy) for point in designs if point.architecture == winner), None)
    cloud = [(point.cost, point.accuracy) for point in designs]
    return accuracy_against_cost(cloud, best, chosen, OBJECTIVES[objective])
