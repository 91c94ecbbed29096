"""Whole runs that share evaluations: what was evaluated before is not again, and nothing else is different."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from rlnas.agents.benchmark import Benchmark
from rlnas.agents.rl2_config import RL2Config
from rlnas.agents.training import TrainSettings, begin_run, train
from rlnas.batched_evaluator import BatchedEvaluator
from rlnas.cli import main
from rlnas.digits import DigitsSource
from rlnas.episode import DesignEpisode
from rlnas.evaluation_cache import EvaluationCache
from rlnas.evaluator import Evaluation, Proposal
from rlnas.search_space import CellSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.specs import evaluator_from_spec
from rlnas.store import EpisodeStore

TRAIN = (
    *("train", "--steps", 150, "--trials", 2, "--reward", "accuracy", "--device", "cpu"),
    *("--adaptation-option", "steps=1", "--set", "minibatches=2", "--set", "hidden_size=8"),
)
"""A run of a few updates on rlnas/DigitsTrial-v0; one trial has 10 designs."""


def call(*words: object) -> tuple[str, str]:
    """What a command that succeeds prints on standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["rlnas", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code, err.getvalue()
    return out.getvalue(), err.getvalue()


def episodes_of(run: Path) -> list[DesignEpisode]:
    with EpisodeStore(run / "episodes.sqlite", mode="r") as store:
        return list(store.episodes())


def weights(run: Path) -> str:
    manifest = json.loads((run / "agent" / "manifest.json").read_text())
    return str(manifest["tensors.safetensors"]["sha256"])


def cache_file() -> Path:
    return Path(os.environ["RLNAS_CACHE"])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Proposal]:
    """Every proposal that is trained, as it comes."""

    def watch(kind: type[SequentialEvaluator]) -> None:
        original = kind._train_all

        def train_all(self: Any, proposals: Sequence[Proposal]) -> list[Evaluation]:
            found.extend(proposals)
            return original(self, proposals)

        monkeypatch.setattr(kind, "_train_all", train_all)

    found: list[Proposal] = []
    watch(SequentialEvaluator)
    watch(BatchedEvaluator)
    return found


def test_an_equal_run_evaluates_nothing_anew(tmp_path: Path, trained: list[Proposal]) -> None:
    first, second, alone = (tmp_path / name for name in ("first", "second", "alone"))
    call(*TRAIN, "--out", first)
    assert trained
    trained.clear()
    call(*TRAIN, "--out", second)
    assert not trained
    call(*TRAIN, "--no-cache", "--out", alone)
    assert trained
    mine, its, separate = map(episodes_of, (first, second, alone))
    assert len(mine) >= 40
    assert all(e.evaluation.cached for e in its)
    assert not any(e.evaluation.cached for e in mine[:5])
    assert [e.evaluation.cached for e in mine] == [e.evaluation.cached for e in separate]
    for others in (its, separate):
        assert all(a.same_record(b) for a, b in zip(mine, others, strict=True))
    assert weights(first) == weights(second) == weights(alone)


def test_without_a_cache_none_is_made(tmp_path: Path) -> None:
    call(*TRAIN, "--no-cache", "--out", tmp_path / "run")
    assert not cache_file().exists()


def test_a_table_has_no_use_for_one(tmp_path: Path) -> None:
    call("train", "--env", "rlnas/DigitsTableTrial-v0", *TRAIN[1:9], *TRAIN[11:], "--out", tmp_path / "run")
    assert not cache_file().exists()


SETTINGS = TrainSettings(
    env="rlnas/DigitsTrial-v0",
    steps=130,
    trials=2,
    reward="accuracy",
    learner=RL2Config(hidden_size=8, minibatches=2),
    env_options={"evaluator": {"kind": "batched", "adaptation": {"steps": 1}}},
)


def test_a_run_that_was_killed_evaluates_again_nothing_of_what_it_had(tmp_path: Path, trained: list[Proposal]) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    spec = SETTINGS.env_options["evaluator"]
    begin_run(whole, SETTINGS)
    train(whole, evaluator_from_spec(spec))
    total, steps = len(trained), 0
    trained.clear()

    def die() -> bool:
        nonlocal steps
        steps += 1
        if steps == 45:
            raise KeyError("killed")
        return False

    cache = EvaluationCache(cache_file())
    begin_run(killed, SETTINGS)
    with pytest.raises(KeyError):
        train(killed, evaluator_from_spec(spec, cache=cache), stop=die)
    before = len(trained)
    assert 0 < before < total
    assert len(cache) == before
    result = train(killed, evaluator_from_spec(spec, cache=cache))
    assert (result["finished"], result["resumed_at_update"], len(trained)) == (True, 0, total)
    assert weights(killed) == weights(whole)
    mine, its = map(episodes_of, (whole, killed))
    assert all(a.same_record(b) for a, b in zip(mine, its, strict=True))


def test_an_equal_comparison_evaluates_nothing_anew(tmp_path: Path) -> None:
    bench = ("bench", "--agents", "evolution", "--trials", 2, "--designs", 3, "--seeds", 1, "--device", "cpu")
    few = ("--adaptation-option", "steps=1")
    call(*bench, *few, "--out", tmp_path / "first")
    call(*bench, *few, "--out", tmp_path / "second")
    mine, its = (episodes_of(tmp_path / name) for name in ("first", "second"))
    assert len(its) == 12
    assert all(e.evaluation.cached for e in its)
    assert all(a.same_record(b) for a, b in zip(mine, its, strict=True))


def test_the_worker_processes_of_a_comparison_share(trained: list[Proposal]) -> None:
    source, spec = DigitsSource(), {"kind": "batched", "adaptation": {"steps": 1}}
    with EvaluationCache(cache_file()) as cache:
        benchmark = Benchmark("rlnas/DigitsTrial-v0", (source, "test"), {}, [0], 1, spec, cache=cache)
        sent = pickle.loads(pickle.dumps(benchmark))  # as a worker process gets it
        proposal = Proposal(CellSpace().decode([1] * 6), source.task("test", 0))
        assert [each.evaluator_here().evaluate([proposal])[0].cached for each in (benchmark, sent)] == [False, True]
        sent.cache.close()
    assert trained == [proposal]


def test_recomputing_asks_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[Proposal]) -> None:
    run = tmp_path / "run"
    call(*TRAIN, "--out", run)

    def lie(self: EvaluationCache, proposals: Sequence[Proposal], version: object) -> list[Evaluation]:
        return [Evaluation(0.123, cached=True) for _ in proposals]

    monkeypatch.setattr(EvaluationCache, "find", lie)
    trained.clear()
    call("replay", run, 0, "--recompute")  # succeeds only where nothing differs
    assert trained


@pytest.mark.parametrize("place", ["damaged", "damaged/inside"])
def test_a_cache_that_cannot_be_opened_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / "damaged").write_bytes(b"no database " * 500)
    monkeypatch.setenv("RLNAS_CACHE", str(tmp_path / place))
    _, err = call(*TRAIN, "--out", tmp_path / "run")
    warning, *rest = err.splitlines()
    assert warning.startswith(f"rlnas: going on without sharing evaluations: evaluation cache {tmp_path / place}: ")
    assert [line.partition(":")[0] for line in rest] == ["train"]


@pytest.mark.parametrize("command", ["train", "bench", "search"])
def test_help_says_where_it_is(command: str) -> None:
    out, _ = call(command, "--help")
    assert "--no-cache" in out
    assert "$RLNAS_CACHE" in out
