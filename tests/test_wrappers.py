"""Trials of any environment, and observations with what RL² feeds back."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from rlnas.envs.wrappers import RL2Observation, TrialEnv
from rlnas.errors import ConfigurationError

TINY = {"kind": "chain", "max_layers": 2, "input_size": 2, "widths": [2], "dense_widths": [4]}


def design_env() -> gym.Env[Any, Any]:
    return gym.make("rlnas/Design-v0", space=TINY, evaluator={"kind": "sequential", "adaptation": {"steps": 1}})


ENVS: dict[str, Callable[[], gym.Env[Any, Any]]] = {
    "CartPole": lambda: gym.make("CartPole-v1"),
    "FrozenLake": lambda: gym.make("FrozenLake-v1"),
    "Pendulum": lambda: gym.make("Pendulum-v1", max_episode_steps=5),
    "Bandit": lambda: gym.make("rlnas/Bandit-v0"),
    "Design": design_env,
}


class Counting(gym.Env[int, Any]):
    """Episodes of two steps, whose rewards count up; what it is reset with is kept."""

    observation_space: Any = spaces.Discrete(3)
    action_space = spaces.MultiDiscrete([2, 3])

    def __init__(self, masked: bool = False) -> None:
        self.masked = masked
        self.resets: list[tuple[int | None, dict[str, Any] | None]] = []
        self.steps = 0

    def _info(self) -> dict[str, Any]:
        masks = (np.array([1, 0], np.int8), np.array([self.steps % 2, 1, 1], np.int8))
        return {"step": self.steps, **({"action_mask": masks} if self.masked else {})}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.resets.append((seed, options))
        self.steps = 0
        return 0, self._info()

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.steps, float(len(self.resets) * self.steps), False, self.steps == 2, self._info()


# ---- trials


def test_a_trial_is_one_episode_of_several() -> None:
    inner = Counting(masked=True)
    env = TrialEnv(inner, 3)
    observation, info = env.reset(seed=5, options={"mine": 1})
    assert (observation, info["design_ended"], info["design"]) == (0, False, 0)
    told = [env.step(np.array([0, 0])) for _ in range(6)]
    assert [t[0] for t in told] == [1, 0, 1, 0, 1, 2]  # an inner end shows the next one's beginning
    assert [t[1] for t in told] == [1, 2, 2, 4, 3, 6]
    assert [t[2] for t in told] == [False] * 5 + [True]
    assert not any(t[3] for t in told)
    infos = [t[4] for t in told]
    assert [i["design_ended"] for i in infos] == [False, True] * 3
    assert [i["design"] for i in infos] == [0, 1, 1, 2, 2, 3]
    assert [i["step"] for i in infos] == [1, 2] * 3
    assert [i["action_mask"][1][0] for i in infos] == [1, 0, 1, 0, 1, 0]
    assert {frozenset(i) for i in [info, *infos]} == {frozenset(info)}
    assert inner.resets == [(5, {"mine": 1, "new_task": True})] + 2 * [(None, {"new_task": False})]
    with pytest.raises(ResetNeeded):
        env.step(np.array([0, 0]))
    assert env.reset()[1]["design"] == 0
    with pytest.raises(ConfigurationError, match=r"designs_per_trial.*0"):
        TrialEnv(inner, 0)


def test_a_trial_keeps_the_task_of_environments_that_have_one() -> None:
    env = TrialEnv(gym.make("rlnas/Bandit-v0", pulls=2), 50)
    means: list[float] = []
    for _ in range(2):
        _, info = env.reset(seed=0 if not means else None)
        rewards = []
        for step in range(100):
            _, reward, over, _, info = env.step(0)
            rewards.append(reward)
            means.append(info["best_mean"])
            assert over == (step == 99)
        assert np.mean(rewards) == pytest.approx(info["expected_reward"], abs=0.2)
    assert len(set(means[:100])) == len(set(means[100:])) == 1
    assert means[0] != means[100]

    designs = TrialEnv(design_env(), 4)
    tasks = []
    for seed in (0, 1):
        _, info = designs.reset(seed=seed)
        over = False
        while not over:
            tasks.append(info["task"])
            _, reward, over, _, info = designs.step(int(np.flatnonzero(info["action_mask"])[-1]))
            assert reward == info["accuracy"]
            assert (info["status"] == "ok") == info["design_ended"] == (info["architecture"] != "")
    assert len(set(tasks)) == 2


# ---- observations


def test_what_was_done_is_fed_back() -> None:
    env = RL2Observation(TrialEnv(Counting(masked=True), 2))
    assert [(name, env.layout[name].start, env.layout[name].stop) for name in env.layout] == [
        ("observation", 0, 3),
        ("action", 3, 8),
        ("reward", 8, 9),
        ("design_ended", 9, 10),
        ("legal", 10, 15),
    ]
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == [1, 0, 0, *[0] * 5, 0, 0, 1, 0, 0, 1, 1]
    observation, reward, *_ = env.step(np.array([1, 2]))
    assert observation.tolist() == [0, 1, 0, 0, 1, 0, 0, 1, reward, 0, 1, 0, 1, 1, 1]
    observation, reward, *_ = env.step(np.array([0, 1]))
    assert observation.tolist() == [1, 0, 0, 1, 0, 0, 1, 0, reward, 1, 1, 0, 0, 1, 1]
    env.step(np.array([0, 1]))
    observation, *_ = env.reset()
    assert not observation[3:10].any()
    assert "legal" not in RL2Observation(Counting()).layout


def test_rewards_can_be_fed_back_as_deviations_from_what_the_trial_gave() -> None:
    env = RL2Observation(TrialEnv(Counting(), 3), normalise_reward=True)
    for _ in range(2):
        env.reset()
        rewards = []
        for _ in range(6):
            observation, reward, *_ = env.step(np.array([0, 0]))
            rewards.append(reward)
            expected = 0 if len(rewards) == 1 else (reward - np.mean(rewards)) / np.std(rewards)
            assert observation[env.layout["reward"]] == pytest.approx(expected, rel=1e-6)
    assert rewards[-1] > 6  # what is learned from is as it was


def test_continuous_actions_are_fed_back_as_they_are() -> None:
    env = RL2Observation(ENVS["Pendulum"]())
    env.reset(seed=0)
    observation, *_ = env.step(np.array([0.5], np.float32))
    assert observation[env.layout["action"]].tolist() == [0.5]


def test_what_makes_no_vector_is_refused() -> None:
    env = Counting()
    env.observation_space = spaces.Sequence(spaces.Discrete(2))
    with pytest.raises(ConfigurationError, match=r"observations that make a vector, got Sequence"):
        RL2Observation(env)


# ---- with other libraries


@pytest.mark.parametrize("name", ENVS)
def test_wrapped_environments_pass_both_checks(name: str) -> None:
    with warnings.catch_warnings():
        # That the environment is wrapped; and unbounded rewards make unbounded observations.
        warnings.filterwarnings("ignore", message=".*(different from the unwrapped|infinity|symmetric)", append=False)
        for env in (TrialEnv(ENVS[name](), 3), RL2Observation(TrialEnv(ENVS[name](), 3), normalise_reward=True)):
            check_env(env, skip_render_check=True)
            check_env_for_sb3(env)
            assert env.spec is not None
            again = gym.make(env.spec)
            assert str(again.observation_space) == str(env.observation_space)


def test_recurrent_ppo_trains_in_trials_of_cart_pole() -> None:
    env = RL2Observation(TrialEnv(gym.make("CartPole-v1"), 3))
    model = RecurrentPPO("MlpLstmPolicy", env, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(128)
    lengths = [episode["l"] for episode in model.ep_info_buffer or ()]
    assert lengths
    assert min(lengths) >= 3 * 8  # no pole falls sooner
    action, state = model.predict(env.reset(seed=0)[0])
    assert action in env.action_space
    assert state is not None
