"""How fast networks are evaluated: one at a time as they are written down, one at a time done well, and in lock-step.

Every candidate is another cell of NAS-Bench-201's space with a 5-way task of its own; an evaluation is 15 gradient
steps on the support set and the scoring of 75 query images. On a CPU one thread works and its own time is counted, so
that other programs disturb little; the ways are measured in turn within one run. Read the ratios.

    python benchmarks/evaluator.py            # a table, some 10 minutes on a CPU
    python benchmarks/evaluator.py --quick --json
    python benchmarks/evaluator.py --device cuda --processes 16
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from rlnas.adaptation import Adaptation, adapt, score, standardise
from rlnas.architecture import Architecture
from rlnas.batched_evaluator import BatchedEvaluator
from rlnas.device import choose_device
from rlnas.digits import DigitsSource
from rlnas.evaluator import Evaluator, Proposal
from rlnas.graph import Constant, count_flops
from rlnas.network import build_network
from rlnas.parallel_evaluator import ParallelEvaluator
from rlnas.search_space import CellSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.task import FewShotTask

WAYS, QUERIES = 5, 15
POOL = 1024
ADAPTATION = Adaptation()


@dataclass(frozen=True)
class Shape:
    """The tasks of one measurement: images of ``side`` x ``side`` pixels, ``shots`` of each class to adapt on."""

    side: int
    shots: int

    @property
    def name(self) -> str:
        return f"{self.side}x{self.side}, {WAYS * self.shots} images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="fewer shapes and candidates: under a minute on a CPU")
    parser.add_argument("--repeats", type=int, help="of every measurement; the fastest counts")
    parser.add_argument("--processes", type=int, default=0, help="also measure so many naive processes side by side")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    device = choose_device(options.device)
    torch.set_num_threads(1)
    quick, cuda = options.quick, device.type == "cuda"
    repeats = options.repeats or (2 if quick else 3)
    host_bound, large = (Shape(8, 1), Shape(8, 5)), Shape(28, 5)
    shapes = (*host_bound, large) if quick else (*host_bound, Shape(28, 1), large)
    populations = (64,) if quick else (1, 16, 64, 256, 1024)
    peak = matrix_peak(device)
    print(f"torch {torch.__version__}, {device_name(device)}, fp32 matrix product {peak / 1e9:.0f} GFLOP/s")
    print(f"{'tasks':18}{'way':26}{'evaluations/s':>14}{'times naive':>13}{'GFLOP/s':>10}{'of peak':>9}")
    ratios: dict[str, float] = {}
    shares: list[float] = []
    for shape in shapes:
        few = 8 if shape is large else 24
        sizes = tuple(min(n, 16) for n in populations) if quick and shape is large and not cuda else populations
        sample = make_proposals(shape, few)
        ways: dict[str, Callable[[], int]] = {
            "naive": lambda sample=sample: run_all(SequentialEvaluator(ADAPTATION, device.type, 0), sample, 1),
            "channels-last loop": lambda sample=sample: run_channels_last(sample, device),
            "batched, one at a time": lambda sample=sample: run_all(make_batched(device), sample, 1),
        }
        for size in sizes:
            some = make_proposals(shape, max(size, few))
            ways[f"batched, {size}"] = lambda some=some, size=size: run_all(make_batched(device), some, size)
        if cuda or not quick:
            some = make_proposals(shape, min(max(sizes), 256))
            ways[f"batched, {len(some)}, bfloat16"] = lambda some=some: run_all(
                make_batched(device, "bfloat16"), some, len(some)
            )
        rates = measure(ways, repeats, device)
        work = np.mean([flops(p) for p in sample])
        for way, rate in rates.items():
            shares.append(rate * work / peak)
            times = rate / rates["naive"]
            print(
                f"{shape.name:18}{way:26}{rate:14.1f}{times:13.2f}{rate * work / 1e9:10.1f}{shares[-1]:9.1%}",
                flush=True,
            )
            ratios[f"{shape.name}: {way}"] = round(times, 3)
    if options.processes:
        proposals = make_proposals(host_bound[0], 16 * options.processes)
        spec = {**SequentialEvaluator(ADAPTATION, device.type).spec()}
        with ParallelEvaluator(options.processes, spec, share=1, cache_size=0) as evaluator:
            evaluator.evaluate(proposals[: 2 * options.processes])
            started = time.perf_counter()
            evaluator.evaluate(proposals)
            rate = len(proposals) / (time.perf_counter() - started)
        print(f"{options.processes} naive processes, {host_bound[0].name}: {rate:.1f} evaluations/s by the clock")
    accuracy = {} if quick else effect_of_precision(device)
    if options.json:
        in_batches = 256 if cuda and not quick else 64
        best_large = max(
            r for name, r in ratios.items() if name.startswith(f"{large.name}: batched") and "bf" not in name
        )
        loops = [ratios[f"{large.name}: {way}"] for way in ("channels-last loop", "batched, one at a time")]
        result = {
            "ratio_host_bound": ratios[f"{host_bound[0].name}: batched, {in_batches}"],
            "ratio_host_bound_25_images": ratios[f"{host_bound[1].name}: batched, {in_batches}"],
            "ratio_28x28": best_large,
            "ratio_28x28_best_loop": max(loops),
            "gemm_share": round(max(shares), 3),
            "gemm_gflops": round(peak / 1e9, 1),
            "device": device_name(device),
            "torch": torch.__version__,
            **accuracy,
            "ratios": ratios,
        }
        print(json.dumps(result))


def make_proposals(shape: Shape, count: int) -> list[Proposal]:
    """Different cells, none without a path, each with a task of its own: evenly from the cheapest to the dearest.

    Sets of any size are thus equally hard on average.
    """
    space, rng = CellSpace(), np.random.default_rng(0)
    cells: dict[str, Architecture] = {}
    while len(cells) < POOL:
        architecture = space.sample(rng)
        if not isinstance(architecture.graph(WAYS)[0].operation, Constant):
            cells[architecture.key] = architecture
    image = 1, shape.side, shape.side
    ordered = sorted(cells.values(), key=lambda cell: (count_flops(cell.graph(WAYS), image), cell.key))
    places = (np.arange(count) + 0.5) * POOL / count
    support, query = np.arange(WAYS).repeat(shape.shots), np.arange(WAYS).repeat(QUERIES)
    chosen = []
    for number, cell in enumerate(ordered[int(place)] for place in places):
        images = rng.random((len(support) + len(query), *image), dtype=np.float32)
        parts = images[: len(support)], support, images[len(support) :], query
        task = FewShotTask(f"noise:train/{number}", "noise", *parts)
        assert task.digest  # computed once, before anything is timed
        chosen.append(Proposal(cell, task))
    return [chosen[i] for i in rng.permutation(count)]


def make_batched(device: torch.device, precision: str = "float32") -> Evaluator:
    return BatchedEvaluator(ADAPTATION, device.type, cache_size=0, precision=precision)


def run_all(evaluator: Evaluator, proposals: list[Proposal], size: int) -> int:
    """Evaluate in calls of ``size`` proposals; how many there were."""
    for start in range(0, len(proposals), size):
        evaluator.evaluate(proposals[start : start + size])
    return len(proposals)


def run_channels_last(proposals: list[Proposal], device: torch.device) -> int:
    """The plain network and loop, with weights and images in channels-last order."""
    for proposal in proposals:
        task = proposal.task
        assert isinstance(task, FewShotTask)
        network = build_network(proposal.architecture, task, proposal.seed).to(
            device, memory_format=torch.channels_last
        )
        support_x, support_y, query_x, query_y = standardise(task, device)
        adapt(network, support_x.contiguous(memory_format=torch.channels_last), support_y, ADAPTATION)
        score(network, query_x.contiguous(memory_format=torch.channels_last), query_y)
    return len(proposals)


def measure(ways: dict[str, Callable[[], int]], repeats: int, device: torch.device) -> dict[str, float]:
    """Evaluations a second of each way, the best of some repeats that take turns; what takes long is not repeated."""
    best = dict.fromkeys(ways, 0.0)
    long = set[str]()
    for _ in range(repeats):
        for name in [name for name in ways if name not in long]:
            started = time.perf_counter()
            best[name] = max(best[name], timed(ways[name], device))
            if time.perf_counter() - started > 20:
                long.add(name)
    return best


def timed(run: Callable[[], int], device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if device.type == "cuda":
        run()
        torch.cuda.synchronize()
    started = clock()
    count = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count / (clock() - started)


def flops(proposal: Proposal) -> int:
    """Floating-point operations of an evaluation: two a multiply-accumulate; a backward pass costs two forward."""
    task = proposal.task
    assert isinstance(task, FewShotTask)
    images = len(task.support_x) * (3 * ADAPTATION.steps + 1) + len(task.query_x)
    return 2 * images * count_flops(proposal.architecture.graph(task.ways), task.image_shape)


def matrix_peak(device: torch.device) -> float:
    """Floating-point operations a second of a large matrix product in float32."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, size, size, device=device)

    def product() -> int:
        for _ in range(10):
            a @ b
        return 10

    return max(timed(product, device) for _ in range(5)) * 2 * size**3


def effect_of_precision(device: torch.device) -> dict[str, float]:
    """How far bfloat16 moves accuracies of digit tasks, beside how far another seed does (root mean squares)."""
    source, space, rng = DigitsSource(), CellSpace(), np.random.default_rng(1)
    proposals = [Proposal(space.sample(rng), source.task("test", i)) for i in range(128)]

    def accuracies(precision: str, seed: int) -> np.ndarray:
        asked = [replace(p, seed=seed) for p in proposals]
        return np.array([e.accuracy for e in make_batched(device, precision).evaluate(asked)])

    exact, rounded, other = accuracies("float32", 0), accuracies("bfloat16", 0), accuracies("float32", 1)
    found = {
        "bfloat16_mean_difference": float((rounded - exact).mean()),
        "bfloat16_rms": float(np.sqrt(((rounded - exact) ** 2).mean())),
        "seed_rms": float(np.sqrt(((other - exact) ** 2).mean())),
    }
    print("accuracy of 128 cells on digit tasks: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
    return {name: round(value, 5) for name, value in found.items()}


def device_name(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU ({torch.backends.cpu.get_cpu_capability()})"
    )


if __name__ == "__main__":
    main()
