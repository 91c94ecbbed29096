"""A controller learns to act as a teacher does."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

import rlnas  # noqa: F401 - registers the environments
from rlnas.agents.agent import State
from rlnas.agents.cloning import CloningConfig, clone
from rlnas.agents.controller import Controller
from rlnas.agents.rl2 import RL2
from rlnas.errors import ConfigurationError

ENVS = 16


def make_env() -> VectorEnv:
    return gym.make_vec("rlnas/Bandit-v0", num_envs=ENVS, pulls=8)


class StayWithWhatPaid:
    """Pulls the arm again that has just paid, else the next one: needs no more than the observation."""

    def __init__(self, env: VectorEnv) -> None:
        self._layout = env.layout  # type: ignore[attr-defined]

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        parts = self._layout.split(observation)
        previous, paid = parts["action"].argmax(1), parts["reward"][:, 0] > 0
        begun = parts["action"].any(1)
        arms = parts["action"].shape[1]
        return np.where(begun, np.where(paid, previous, (previous + 1) % arms), 0), state


class Advising(StayWithWhatPaid):
    def advise(
        self, observation: NDArray[np.float32], episode_start: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        actions = self._layout["action"]
        chosen, _ = self.predict(observation)
        return np.eye(actions.stop - actions.start, dtype=np.float32)[chosen]


def taught(teacher: type[StayWithWhatPaid], seed: int = 0) -> tuple[Controller, list[dict[str, float]]]:
    env, told = make_env(), []
    controller = RL2(env, seed=seed, hidden_size=32).controller
    settings = CloningConfig(passes=8, learning_rate=1e-2)
    clone(controller, env, teacher(env), 20 * ENVS - 3, seed, settings, told.append)
    return controller, told


@pytest.mark.parametrize("teacher", [StayWithWhatPaid, Advising])
def test_it_comes_to_act_as_its_teacher(teacher: type[StayWithWhatPaid]) -> None:
    _, told = taught(teacher)
    assert told[0]["agreement"] < 0.7
    assert told[-1]["agreement"] > 0.8
    assert told[-1]["loss"] < 0.5 * told[0]["loss"]
    assert [round_["trials"] for round_ in told] == [ENVS * (n + 1) for n in range(20)]


def test_one_seed_makes_one_clone() -> None:
    weights = [torch.cat([p.flatten() for p in taught(Advising, seed)[0].parameters()]) for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="passes must be"):
        CloningConfig(passes=0)
    with pytest.raises(ConfigurationError, match="learning_rate must be a positive number"):
        CloningConfig(learning_rate=0.0)
    env = make_env()
    with pytest.raises(ConfigurationError, match="trials must be"):
        clone(RL2(env).controller, env, Advising(env), 0)
