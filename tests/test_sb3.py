"""Stable-baselines3 in vector environments: equal to its own DummyVecEnv step by step, and its algorithms as agents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from sb3_contrib import QRDQN, MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

from rlnas.agents.agent import Agent
from rlnas.agents.legal import LegalAgent
from rlnas.agents.problem import SearchProblem
from rlnas.agents.sb3 import SB3_AGENTS, as_vec_env
from rlnas.agents.search_run import run_search
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError
from rlnas.evaluator import Status
from rlnas.search_space import ChainSpace

from .examples.own_algorithm import small_ppo
from .hidden import HIT, MISS, SPACE, HiddenEvaluator, HiddenSource, hidden_env

COUNT = 5


def design_envs(**options: Any) -> tuple[VectorEnv, list[Callable[[], gym.Env[Any, Any]]]]:
    arguments: dict[str, Any] = {"space": SPACE, "tasks": (HiddenSource(), "train"), "designs_per_trial": 3, **options}
    arguments["evaluator"] = HiddenEvaluator()
    single = lambda: Monitor(gym.make("rlnas/Trial-v0", disable_env_checker=True, **arguments))  # noqa: E731
    return gym.make_vec("rlnas/Trial-v0", num_envs=COUNT, **arguments), [single] * COUNT


def cart_poles(mode: AutoresetMode) -> tuple[VectorEnv, list[Callable[[], gym.Env[Any, Any]]]]:
    options: dict[str, Any] = {"max_episode_steps": 12}  # some fall before, the others run out of time
    vector = gym.make_vec(
        "CartPole-v1", COUNT, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **options
    )
    return vector, [lambda: Monitor(gym.make("CartPole-v1", **options))] * COUNT


def assert_same(mine: Any, its: Any) -> None:
    """Equal values of equal types; Monitor's clock aside."""
    assert type(mine) is type(its), (mine, its)
    if isinstance(mine, dict):
        assert mine.keys() == its.keys()
        for name in mine.keys() - {"t"}:
            assert_same(mine[name], its[name])
    elif isinstance(mine, list):
        assert len(mine) == len(its)
        for one, other in zip(mine, its, strict=True):
            assert_same(one, other)
    elif isinstance(mine, np.ndarray):
        assert mine.dtype == its.dtype
        np.testing.assert_array_equal(mine, its)
    else:
        assert mine == its


MAKERS = {
    "designs": design_envs,
    "same step": lambda: cart_poles(AutoresetMode.SAME_STEP),
    "disabled": lambda: cart_poles(AutoresetMode.DISABLED),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_it_is_what_dummy_vec_env_makes_of_single_environments(
    make: Callable[[], tuple[VectorEnv, list[Callable[[], gym.Env[Any, Any]]]]],
) -> None:
    vector, singles = make()
    mine, its = as_vec_env(vector), DummyVecEnv(singles)
    assert (mine.observation_space, mine.action_space) == (its.observation_space, its.action_space)
    rng = np.random.default_rng(0)
    ends = timeouts = 0
    for seed in (3, None):  # the second reset goes on with the generators of the first
        if seed is not None:
            assert mine.seed(seed) == its.seed(seed)
        assert_same(mine.reset(), its.reset())
        assert_same(mine.reset_infos, its.reset_infos)
        for _ in range(40):
            actions = rng.integers(int(mine.action_space.n), size=COUNT)  # type: ignore[attr-defined]
            observation, reward, done, infos = mine.step(actions)
            its_observation, its_reward, its_done, its_infos = its.step(actions)
            assert_same([observation, reward, done], [its_observation, its_reward, its_done])
            assert_same(infos, its_infos)
            assert_same(mine.reset_infos, its.reset_infos)
            if make is design_envs:
                np.testing.assert_array_equal(get_action_masks(mine), get_action_masks(its))
            ends += sum("terminal_observation" in info for info in infos)
            timeouts += sum(info["TimeLimit.truncated"] for info in infos)
    assert ends > 2 * COUNT
    assert (timeouts > 0) == (make is not design_envs)
    mine.close()
    its.close()


def test_infos_are_new_at_every_step() -> None:
    env = as_vec_env(design_envs()[0])
    env.reset()
    kept = [env.step(np.zeros(COUNT, dtype=np.int64)) for _ in range(6)]
    assert [info[3][0]["design"] for info in kept] == [0, 1, 1, 2, 2, 3]
    assert len({id(info) for _, _, _, infos in kept for info in infos}) == 6 * COUNT
    terminal = kept[5][3][0]["terminal_observation"].copy()
    env.step(np.ones(COUNT, dtype=np.int64))
    np.testing.assert_array_equal(kept[5][3][0]["terminal_observation"], terminal)


def test_dict_observations_and_nested_infos() -> None:
    class Counter(gym.Env[dict[str, NDArray[np.float32]], np.int64]):
        observation_space = gym.spaces.Dict({"count": gym.spaces.Box(0, 9, (1,), np.float32)})
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            super().reset(seed=seed)
            self.count = 0
            return self._see(), {}

        def step(self, action: Any) -> Any:
            self.count += int(action)
            info = {"deep": {"count": self.count}} if action else {}
            return self._see(), 0.0, self.count == 2, False, info

        def _see(self) -> dict[str, NDArray[np.float32]]:
            return {"count": np.array([self.count], dtype=np.float32)}

    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        mine = as_vec_env(SyncVectorEnv([Counter] * 2, autoreset_mode=mode))
        its = DummyVecEnv([lambda: Monitor(Counter())] * 2)
        assert_same(dict(mine.reset()), dict(its.reset()))
        for actions in ([1, 0], [1, 0], [0, 1], [1, 1]):
            observation, *rest = mine.step(np.array(actions))
            its_observation, *its_rest = its.step(np.array(actions))
            assert_same(dict(observation), dict(its_observation))
            assert_same(rest, its_rest)


def test_vector_environments_that_reset_in_the_next_step_are_refused() -> None:
    for env in (gym.make_vec("CartPole-v1", 2), gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")):
        with pytest.raises(ConfigurationError, match=r"SAME_STEP or DISABLED, got AutoresetMode\.NEXT_STEP"):
            as_vec_env(env)


def test_options_reach_the_next_reset_alone() -> None:
    env = as_vec_env(design_envs()[0])
    tasks = [f"hidden:train/{i}" for i in (4, 1, 4, 0, 2)]
    env.set_options({"task": [4, 1, 4, 0, 2]})
    env.seed(0)
    env.reset()
    assert [info["task"] for info in env.reset_infos] == tasks
    env.reset()
    assert [info["task"] for info in env.reset_infos] != tasks
    with pytest.raises(ConfigurationError, match="one dict"):
        env.set_options([{"task": 4}] * COUNT)


@pytest.mark.parametrize("make", [lambda: design_envs()[0], lambda: cart_poles(AutoresetMode.SAME_STEP)[0]])
def test_attributes_and_methods_are_those_of_every_environment(make: Callable[[], VectorEnv]) -> None:
    vector = make()
    env = as_vec_env(vector)
    assert env.get_attr("render_mode") == [None] * COUNT
    assert env.get_attr("metadata", indices=[1, 2]) == env.get_attr("metadata")[1:3]
    assert not env.has_attr("no_such_thing")
    env.set_attr("mark", 7)
    assert env.get_attr("mark", indices=0) == [7]
    with pytest.raises(ConfigurationError, match="mark"):
        env.set_attr("mark", 8, indices=0)
    assert env.env_is_wrapped(Monitor) == [True] * COUNT
    assert env.env_is_wrapped(gym.wrappers.TimeLimit, indices=[0]) == [False]
    assert is_masking_supported(env) == hasattr(vector, "action_masks")


def test_pictures_are_tiled() -> None:
    vector = gym.make_vec("rlnas/Trial-v0", 4, render_mode="rgb_array", space=SPACE, evaluator=HiddenEvaluator())
    env = as_vec_env(vector)
    env.seed(0)
    env.reset()
    pictures = vector.render()
    assert pictures is not None
    height, width, _ = pictures[0].shape
    tiled = env.render()
    assert tiled is not None
    assert tiled.shape == (2 * height, 2 * width, 3)
    np.testing.assert_array_equal(tiled[:height, width:], pictures[1])


@pytest.mark.parametrize(
    ("algorithm", "policy", "options"),
    [
        (PPO, "MlpPolicy", {"n_steps": 32, "batch_size": 40, "n_epochs": 2}),
        (A2C, "MlpPolicy", {}),
        (DQN, "MlpPolicy", {"learning_starts": 50, "batch_size": 16}),
        (RecurrentPPO, "MlpLstmPolicy", {"n_steps": 32, "n_epochs": 2, "policy_kwargs": {"lstm_hidden_size": 8}}),
        (MaskablePPO, "MlpPolicy", {"n_steps": 32, "batch_size": 40, "n_epochs": 2}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_algorithms_learn_the_same_on_it_as_on_dummy_vec_env(
    algorithm: Any, policy: str, options: dict[str, Any]
) -> None:
    learned = []
    for index in (0, 1):
        envs = design_envs()[index]
        env: VecEnv = as_vec_env(envs) if isinstance(envs, VectorEnv) else DummyVecEnv(envs)
        model = algorithm(policy, env, seed=1, device="cpu", **options).learn(3 * COUNT * 32)
        assert len(model.ep_info_buffer) > 10
        learned.append(([episode["r"] for episode in model.ep_info_buffer], list(model.policy.parameters())))
    assert learned[0][0] == learned[1][0]
    assert all((mine == its).all() for mine, its in zip(learned[0][1], learned[1][1], strict=True))


def test_it_is_monitored_for_evaluation_and_may_be_monitored_again(tmp_path: Path) -> None:
    env = as_vec_env(design_envs(invalid_action="penalise")[0])
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=40, seed=0, device="cpu")
    returns, lengths = evaluate_policy(model, env, 10, return_episode_rewards=True, warn=True)
    assert len(returns) == len(lengths) == 10  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="already wrapped"):
        monitored = VecMonitor(env, str(tmp_path / "log"))
    PPO("MlpPolicy", monitored, n_steps=16, batch_size=40, seed=0, device="cpu").learn(200)
    monitored.close()
    assert len((tmp_path / "log.monitor.csv").read_text().splitlines()) > 20


# ---- agents


def problem(steps: int, **options: Any) -> SearchProblem:
    layout = hidden_env().layout  # type: ignore[attr-defined]
    tasks = (HiddenSource(), "train")
    return SearchProblem(
        "rlnas/Trial-v0", {"space": SPACE, **options}, SPACE, layout, 3, HiddenEvaluator(), tasks, steps
    )


def search(agent: Agent, split: str = "test") -> NDArray[np.float64]:
    """Accuracies (48, 3); an illegal action would raise."""
    env = hidden_env(num_envs=48, designs=3, split=split, invalid_action="raise")
    return run_search(agent, env, range(48), seed=0).accuracy


@pytest.mark.parametrize("name", SB3_AGENTS)
def test_agents_act_legally_and_one_seed_makes_one_agent(name: str) -> None:
    found = [search(SB3_AGENTS[name](problem(600), seed)) for seed in (0, 0, 1)]
    assert found[0].shape == (48, 3)
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_agents_learn_from_the_training_tasks_of_their_problem_for_as_many_steps_as_it_grants() -> None:
    episodes: list[DesignEpisode] = []
    SB3_AGENTS["a2c"](problem(1_000, recorder=episodes.extend, invalid_action="raise"), 0)
    steps = sum(len(episode.actions) for episode in episodes)
    assert 1_000 - 16 <= steps < 1_000 + 16 * 4
    assert {episode.task.split("/")[0] for episode in episodes} == {"hidden:train"}
    assert any(episode.evaluation.status is Status.INVALID for episode in episodes)  # whatever the options say


def test_a_trained_agent_finds_more_than_an_untrained_one() -> None:
    untrained, trained = (search(SB3_AGENTS["maskable-ppo"](problem(steps), 0)).mean() for steps in (1, 12_000))
    assert trained > untrained + 0.15 * (HIT - MISS)


def test_a_recurrent_agent_remembers_until_the_episode_starts() -> None:
    agent = SB3_AGENTS["recurrent-ppo"](problem(600), 0)
    env = hidden_env(num_envs=2)
    first, _ = env.reset(seed=0)
    _, state = agent.predict(first, None, np.ones(2, dtype=np.bool_), deterministic=True)
    _, later = agent.predict(first, state, np.array([True, False]), deterministic=True)
    assert state is not None
    assert later is not None
    np.testing.assert_allclose(later[0][:, 0], state[0][:, 0], atol=1e-6)
    assert np.abs(later[0][:, 1] - state[0][:, 1]).max() > 1e-3
    assert later[0].shape == (1, 2, 128)


@pytest.mark.parametrize("algorithm", [PPO, DQN, MaskablePPO])
def test_legal_actions_are_drawn_as_the_model_draws_them(algorithm: Any) -> None:
    vector = hidden_env(num_envs=4000)
    model = algorithm("MlpPolicy", as_vec_env(hidden_env(num_envs=2)), seed=0, device="cpu")
    agent = LegalAgent(model, vector.layout, seed=0)  # type: ignore[attr-defined]
    observation = np.tile(vector.reset(seed=0)[0][:1], (4000, 1))
    legal = vector.action_masks()[0]  # type: ignore[attr-defined]
    if algorithm is DQN:
        model.exploration_rate = 0.3
    drawn = np.bincount(agent.predict(observation)[0], minlength=len(legal)) / 4000
    if algorithm is DQN:
        values = model.q_net(model.policy.obs_to_tensor(observation[:1])[0]).detach().numpy()[0]
        expected = 0.3 * legal / legal.sum()
        expected[np.where(legal, values, -np.inf).argmax()] += 0.7
    else:
        distribution = model.policy.get_distribution(model.policy.obs_to_tensor(observation[:1])[0]).distribution
        chances = distribution.probs.detach().numpy()[0] * legal
        expected = chances / chances.sum()
    np.testing.assert_allclose(drawn, expected, atol=0.03)
    likeliest, state = agent.predict(observation[0], deterministic=True)
    assert (likeliest, state) == (expected.argmax(), None)


def test_a_model_that_says_no_distribution_over_actions_is_refused() -> None:
    vector = hidden_env(num_envs=2)
    model = QRDQN("MlpPolicy", as_vec_env(vector), device="cpu", buffer_size=10)
    with pytest.raises(ConfigurationError, match="DQN or an actor-critic, got QRDQN"):
        LegalAgent(model, vector.layout)  # type: ignore[attr-defined]


def test_when_every_action_is_legal_no_action_is_barred() -> None:
    space = ChainSpace(max_layers=1, input_size=4, widths=(4,), dense_widths=(8,))
    env = hidden_env(num_envs=500, designs=1, space=space)
    model = PPO("MlpPolicy", as_vec_env(hidden_env(num_envs=2, space=space)), seed=0, device="cpu")
    actions, _ = LegalAgent(model, env.layout).predict(env.reset(seed=0)[0])  # type: ignore[attr-defined]
    assert set(actions.tolist()) == set(range(space.num_choices))


def test_the_example_of_a_users_own_algorithm_takes_part() -> None:
    agent = small_ppo(problem(3_000), seed=0)
    assert search(agent).shape == (48, 3)
    lines = (Path(__file__).parent / "examples" / "own_algorithm.py").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("def "))
    assert len(lines) - start <= 5
