"""The tables of docs/results/fit.md, from folders of runs."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel

from rlnas.graph import count_flops, count_parameters
from rlnas.leaderboard import Entry, Leaderboard

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "fit_results.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="fit_results")


def make_run(run: Any, accuracy: float, first: list[float]) -> Any:
    run.folder.mkdir(parents=True)
    scores = {"accuracy": accuracy, "interval": [accuracy, 1], "balanced_accuracy": accuracy, "calibration_error": 0.0}
    parts = {"train": 60, "validation": 20, "test": 20}
    result = {"architecture": "dense-16", "parameters": 1, "flops": 1, "test": scores, "data": parts}
    (run.folder / "result.json").write_text(json.dumps(result))
    entries = [Entry(n + 1, str(n), (n,), 0, 9, 9, value, None, "ok", 1.0, 1, 1) for n, value in enumerate(first)]
    (run.folder / "leaderboard.json").write_text(json.dumps(Leaderboard(entries, 60.0).to_json()))
    return run


def test_pairs_are_compared_and_runs_without_a_partner_are_not(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    tests = rng.random((2, 3))
    runs = [
        make_run(script["Run"]("signs", agent, seed, tmp_path), tests[number, seed], [0.1, 0.2 + 0.1 * number, 0.3])
        for number, agent in enumerate(script["AGENTS"])
        for seed in range(3)
    ]
    alone = make_run(script["Run"]("signs", "pretrained", 3, tmp_path), 1.0, [1.0, 1.0, 1.0])
    found = script["differences"]([*runs, alone], ["signs"], lambda run: [100 * run.test])
    np.testing.assert_allclose(found[:, 0, 0], 100 * (tests[0] - tests[1]))
    interval = ttest_rel(100 * tests[0], 100 * tests[1]).confidence_interval()
    (shown,) = script["spread"](found)
    assert shown == f"{found.mean():+.2f} ({interval.low:+.2f} to {interval.high:+.2f})"
    assert script["spread"](found[:1]) == [f"{found[0, 0, 0]:+.2f}"]
    assert script["differences"](runs, ["signs", "mnist"], lambda run: [run.test]).shape == (0, 2, 0)
    assert script["best_so_far"](runs[3]) == pytest.approx([10, 30, 30, 30, 30])
    script["compare"](runs, ["signs"])
    assert "over 3 pairs" in capsys.readouterr().out


def test_the_reference_network_is_the_known_one(script: dict[str, Any]) -> None:
    """With 64 channels at first it has 6.57 million parameters and 379 million multiply-accumulates."""
    graph = script["ResNet9"](64).parse("resnet9").graph(10)
    assert count_parameters(graph, (3, 32, 32)) == 6_573_130
    assert count_flops(graph, (3, 32, 32)) == 379_261_952
    costs = [count_flops(script["ResNet9"](width).parse("").graph(10), (3, 32, 32)) for width in (9, 10)]
    assert costs[0] <= 8_000_000 < costs[1]
