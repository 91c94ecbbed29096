"""The comparison with RecurrentPPO: that both sides learn from the same with the same, and what its ratios are."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(name="trainer")
def _trainer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("trainer")


@pytest.fixture(name="everyone")
def _everyone(trainer: Any, tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = trainer.contestants(trainer.synthetic_table(tmp_path / "table.npz"), quick=True)
    return found


def memories(network: nn.Module) -> list[nn.LSTM]:
    return [module for module in network.modules() if isinstance(module, nn.LSTM)]


def test_equal_networks_have_the_same_two_memories(trainer: Any, everyone: dict[str, Any]) -> None:
    theirs = [it.learner.policy for name, it in everyone.items() if name.startswith("RecurrentPPO")]
    equal, ours = (everyone[name].learner.controller for name in (trainer.EQUAL, trainer.OURS))
    assert len(theirs) == 2
    for network in (*theirs, equal):
        assert [(lstm.input_size, lstm.hidden_size) for lstm in memories(network)] == [(64, 128)] * 2
    assert [lstm.hidden_size for lstm in memories(ours)] == [128]


def test_everyone_plays_whole_trials_of_the_same_environment_and_goes_over_them_as_often(
    trainer: Any, everyone: dict[str, Any]
) -> None:
    for name, it in everyone.items():
        env = it.learner.get_env().env
        assert env.spec.id == "rlnas/Trial-v0"
        assert (len(env.search_space.decisions), env.single_action_space.n) == (6, 5)
        epochs = it.learner.n_epochs if name.startswith("RecurrentPPO") else it.learner.config.epochs
        assert epochs == trainer.EPOCHS
        if name != trainer.DEFAULT:
            assert it.steps == env.num_envs * trainer.TRIAL


def test_a_ratio_is_the_median_over_rounds_without_the_first(trainer: Any) -> None:
    mine = trainer.Contestant(None, 1000, own=[90.0, 1.0, 2.0, 4.0])
    its = trainer.Contestant(None, 500, own=[1.0, 1.0, 5.0, 4.0])
    assert mine.rate(mine.own) == 500
    assert mine.times(its) == 2  # of 2, 5 and 2
    assert its.times(mine) == 0.5


@pytest.mark.slow
def test_the_quick_comparison_ends_with_its_ratios() -> None:
    command = [sys.executable, str(BENCHMARKS / "trainer.py"), "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    said = json.loads(done.stdout.splitlines()[-1])
    assert {"ratio_equal_net_tuned", "ratio_equal_net_default", "ratio_ours", "rollout_steps_per_second"} <= set(said)
    assert said["ratio_equal_net_default"] > said["ratio_equal_net_tuned"] > 1
    assert said["ratio_ours"] > said["ratio_equal_net_tuned"]
