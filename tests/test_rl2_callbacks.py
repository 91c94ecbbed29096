"""RL² in stable-baselines3's hands: its evaluation, callbacks and loggers, as they are."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlnas.agents.rl2 import RL2
from rlnas.agents.sb3 import as_vec_env
from rlnas.errors import ConfigurationError

from .hidden import SPACE, HiddenEvaluator, HiddenSource, hidden_env

SMALL: dict[str, Any] = {"hidden_size": 8, "epochs": 2, "minibatches": 2}
ROLLOUT = 4 * 3 * 2  # trials, designs, decisions


def make_learner(**options: Any) -> RL2:
    return RL2(hidden_env(num_envs=4), **SMALL, **options)


def single_env() -> gym.Env[Any, Any]:
    arguments = {"space": SPACE, "tasks": (HiddenSource(), "test"), "evaluator": HiddenEvaluator()}
    return Monitor(gym.make("rlnas/Trial-v0", designs_per_trial=3, **arguments))


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluate_policy_takes_it_as_a_model(deterministic: bool) -> None:
    learner = make_learner()
    for env in (single_env(), as_vec_env(hidden_env(num_envs=2, split="test"))):
        returns, lengths = evaluate_policy(
            learner, env, n_eval_episodes=4, deterministic=deterministic, return_episode_rewards=True
        )
        assert lengths == [6] * 4
        assert all(0.6 <= r <= 3 for r in returns)


def test_eval_and_checkpoint_callbacks_write_what_load_reads(tmp_path: Path) -> None:
    evaluation = EvalCallback(
        as_vec_env(hidden_env(num_envs=2, split="test")),
        n_eval_episodes=4,
        eval_freq=6,
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path / "log"),
        verbose=0,
    )
    checkpoints = CheckpointCallback(save_freq=6, save_path=str(tmp_path / "checkpoints"))
    learner = make_learner().learn(3 * ROLLOUT, [evaluation, checkpoints])
    assert learner.num_timesteps == 3 * ROLLOUT
    with np.load(tmp_path / "log" / "evaluations.npz") as evaluations:
        assert evaluations["timesteps"].tolist() == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT]
        assert evaluations["results"].shape == (3, 4)
    saved = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [f"rl_model_{k * ROLLOUT}_steps.zip" for k in (1, 2, 3)]
    for path in (*(tmp_path / "checkpoints").iterdir(), tmp_path / "best" / "best_model"):
        assert RL2.load(path).controller.config == learner.controller.config
    last = RL2.load(tmp_path / "checkpoints" / saved[-1])
    assert last.num_timesteps == 2 * ROLLOUT  # in the middle of a rollout it is as after the last update


@pytest.mark.filterwarnings("ignore::tqdm.std.TqdmExperimentalWarning")
def test_callbacks_work_where_environments_reset_in_the_next_step() -> None:
    learner = RL2(gym.make_vec("CartPole-v1", num_envs=2), **SMALL)
    learner.learn(60, StopTrainingOnMaxEpisodes(max_episodes=100, verbose=0), progress_bar=True)
    assert learner.get_env() is learner.get_env()
    assert learner.num_timesteps >= 60


def test_no_log_is_written_if_none_is_asked_for(tmp_path: Path) -> None:
    learner = make_learner()
    learner.set_logger(configure(str(tmp_path), ["csv"]))
    learner.learn(2 * ROLLOUT, log_interval=None)
    assert (tmp_path / "progress.csv").read_text() == ""
    with pytest.raises(ConfigurationError, match="log_interval"):
        learner.learn(ROLLOUT, log_interval=0)
    learner.logger.close()


def test_every_learning_has_a_tensorboard_run_of_its_own(tmp_path: Path) -> None:
    learner = make_learner(tensorboard_log=tmp_path)
    assert learner.logger is not None
    learner.learn(ROLLOUT, tb_log_name="first").learn(ROLLOUT, tb_log_name="second")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first_1", "second_1"]


def test_what_a_callback_evaluates_does_not_change_what_is_learned() -> None:
    evaluation = EvalCallback(as_vec_env(hidden_env(num_envs=2)), eval_freq=2, deterministic=False, verbose=0)
    watched, alone = make_learner().learn(3 * ROLLOUT, evaluation), make_learner().learn(3 * ROLLOUT)
    for mine, its in zip(watched.controller.parameters(), alone.controller.parameters(), strict=True):
        assert mine.equal(its)


def test_callbacks_that_stop_training_stop_it() -> None:
    env = as_vec_env(hidden_env(num_envs=2, split="test"))
    learner = make_learner().learn(50 * ROLLOUT, StopTrainingOnMaxEpisodes(max_episodes=3, verbose=0))
    assert learner.updates == 2  # the third rollout, which brings the twelfth trial, is given up
    threshold = StopTrainingOnRewardThreshold(reward_threshold=0.1)
    learner = make_learner().learn(
        50 * ROLLOUT, EvalCallback(env, eval_freq=6, callback_on_new_best=threshold, verbose=0)
    )
    assert learner.updates == 0
    patience = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, min_evals=1)
    learner = make_learner(learning_rate=1e-9, final_learning_rate=1e-9).learn(
        50 * ROLLOUT, EvalCallback(env, eval_freq=6, callback_after_eval=patience, verbose=0)
    )
    assert learner.updates < 20


def test_a_function_is_a_callback_too() -> None:
    seen: list[int] = []

    def callback(its: dict[str, Any], _: dict[str, Any]) -> bool:
        seen.append(its["self"].num_timesteps)
        return len(seen) < 9

    learner = make_learner().learn(10 * ROLLOUT, callback)
    assert seen == [4 * k for k in range(1, 10)]
    assert learner.num_timesteps == ROLLOUT


def test_every_n_timesteps_counts_the_steps_of_all_environments(tmp_path: Path) -> None:
    inner = CheckpointCallback(save_freq=1, save_path=str(tmp_path))
    called: list[int] = []
    inner._on_step = lambda: called.append(inner.num_timesteps) is None  # type: ignore[method-assign]
    make_learner().learn(2 * ROLLOUT, EveryNTimesteps(n_steps=16, callback=inner))
    assert called == [16, 32, 48]


@pytest.mark.filterwarnings("ignore::tqdm.std.TqdmExperimentalWarning")
def test_progress_bar_and_verbosity_print(capsys: pytest.CaptureFixture[str]) -> None:
    make_learner(verbose=1).learn(2 * ROLLOUT, progress_bar=True)
    printed = capsys.readouterr()
    assert "last_accuracy" in printed.out
    assert f"{2 * ROLLOUT}" in printed.out + printed.err


def test_tensorboard_holds_the_learning_curve(tmp_path: Path) -> None:
    make_learner(tensorboard_log=tmp_path).learn(3 * ROLLOUT, tb_log_name="mine")
    events = EventAccumulator(str(tmp_path / "mine_1")).Reload()
    for name in ("rollout/ep_rew_mean", "train/last_accuracy", "train/entropy", "time/fps"):
        assert [event.step for event in events.Scalars(name)] == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT]


def test_any_logger_of_stable_baselines3_can_be_set(tmp_path: Path) -> None:
    learner = make_learner()
    learner.set_logger(configure(str(tmp_path), ["csv", "json"]))
    learner.learn(4 * ROLLOUT, log_interval=2)
    learner.logger.close()
    with (tmp_path / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["time/total_timesteps"]) for row in rows] == [2 * ROLLOUT, 4 * ROLLOUT]
    assert len((tmp_path / "progress.json").read_text().splitlines()) == 2
