"""The published problems: their rules, their vector environments, and what is known to do well at them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from rlnas.agents.agent import Agent
from rlnas.agents.bandits import UCB1, BanditAgent, GittinsIndex, GreedyArms, RandomArms, ThompsonSampling
from rlnas.agents.cloning import Adviser
from rlnas.agents.psrl import BeliefPlanner, PosteriorSampling
from rlnas.envs.bandit import BanditEnv, BanditVectorEnv
from rlnas.envs.problem import uniforms
from rlnas.envs.tabular_mdp import TabularMDPEnv, TabularMDPVectorEnv
from rlnas.errors import ConfigurationError, IllegalChoiceError
from rlnas.registration import PROBLEMS

from .test_vector_env import arrays_in, assert_same

IDS = list(PROBLEMS)


def returns(env: Any, agent: Agent | None, seed: int = 0) -> NDArray[np.float64]:
    """The return of a trial of each environment; of random actions without an agent."""
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    total, over, state = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.bool_), None
    start = ~over
    while not over.any():
        if agent is None:
            actions = rng.integers(env.single_action_space.n, size=env.num_envs)
        else:
            actions, state = agent.predict(observation, state, start)
        observation, reward, over, _, info = env.step(actions)
        start = over
        total += reward
    assert "final_info" in info
    return total


# ---- environments


@pytest.mark.parametrize("env_id", IDS)
def test_every_problem_passes_both_checks(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    check_env(env, skip_render_check=True)
    check_env_for_sb3(env)


@pytest.mark.parametrize(
    ("single", "native", "options"),
    [
        (BanditEnv, BanditVectorEnv, {"arms": 3, "pulls": 4}),
        (TabularMDPEnv, TabularMDPVectorEnv, {"states": 4, "actions": 3, "episodes": 2, "horizon": 3}),
    ],
)
def test_the_vector_environment_equals_single_ones_bit_for_bit(
    single: Any, native: Any, options: dict[str, int]
) -> None:
    singles = SyncVectorEnv([lambda: single(**options)] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    vector: Any = native(3, **options)
    assert vector.observation_space == singles.observation_space
    assert vector.action_space == singles.action_space
    told = vector.reset(seed=21)
    assert_same(told, singles.reset(seed=21))
    arrays = arrays_in(told)
    rng = np.random.default_rng(0)
    for step in range(30):
        if step == 10:  # without a seed, every stream goes on
            assert_same(vector.reset(), singles.reset())
        if step == 20:
            seeds = [7, None, 2**70]
            assert_same(vector.reset(seed=seeds), singles.reset(seed=seeds))
        actions = rng.integers(3, size=3)
        result = vector.step(actions)
        assert_same(result, singles.step(actions))
        arrays += arrays_in(result)
    assert not any(np.shares_memory(one, other) for i, one in enumerate(arrays) for other in arrays[i + 1 :])


@pytest.mark.parametrize("env_id", IDS)
def test_seeds_decide_and_nothing_else_does(env_id: str) -> None:
    env = gym.make_vec(env_id, num_envs=3)
    first = returns(env, None, seed=4)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert (returns(env, None, seed=4) == first).all()
    assert (returns(env, None, seed=5) != first).any()
    others = (gym.make_vec(env_id, num_envs=1) for _ in range(2))
    told = [env.step(np.zeros(1, dtype=int))[-1] for env in others if env.reset()]
    assert told[0]["expected_reward"] != told[1]["expected_reward"]  # without a seed, no two are alike


def test_uniform_numbers_are_uniform_and_a_row_depends_on_its_own_key_and_number_alone() -> None:
    keys, numbers = np.arange(400, dtype=np.uint64), np.zeros(400, dtype=np.uint64)
    drawn = uniforms(keys, numbers, 500)
    assert ((drawn > 0) & (drawn < 1)).all()
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 45  # chi-squared with 19 degrees of freedom: P < .001
    assert abs(np.corrcoef(drawn) - np.eye(400)).max() < 0.25  # of 500 numbers each, keys apart by one
    assert (uniforms(keys[7:8], numbers[:1], 20) == drawn[7:8, :20]).all()
    assert not np.isin(uniforms(keys, numbers + np.uint64(1), 500), drawn).any()


def test_a_bandit_pays_with_the_probability_that_its_arm_has() -> None:
    vector = BanditVectorEnv(4_000, pulls=3)
    observation, info = vector.reset(seed=0)
    assert not observation[:, :-1].any()
    best = info["best_mean"]
    for left in (2 / 3, 1 / 3):
        actions = np.arange(4_000) % 5
        observation, reward, _, _, info = vector.step(actions)
        parts = vector.layout.split(observation)
        assert (parts["action"].argmax(1) == actions).all()
        assert (parts["reward"][:, 0] == reward).all()
        assert parts["design_ended"].all()
        np.testing.assert_allclose(parts["designs_left"], left, rtol=1e-6)
        assert info["design_ended"].all()
        assert set(np.unique(reward)) == {0, 1}
        assert (info["expected_reward"] <= best).all()
        for low in (0.0, 0.2, 0.4, 0.6, 0.8):
            near = (info["expected_reward"] >= low) & (info["expected_reward"] < low + 0.2)
            assert reward[near].mean() == pytest.approx(low + 0.1, abs=0.06)
    _, _, over, _, info = vector.step(actions)
    assert over.all()
    assert (info["best_mean"] != best).all()  # that of the next trial


def test_a_process_has_the_rewards_and_transitions_of_the_paper() -> None:
    vector = TabularMDPVectorEnv(3_000, episodes=2, horizon=4)
    observation, info = vector.reset(seed=0)
    expected, noise, states = [], [], []
    for step in range(7):
        parts = vector.layout.split(observation)
        assert (parts["state"].argmax(1) == info["state"]).all()
        assert (parts["state"].sum(1) == 1).all()
        assert parts["steps_left"][0] == 1 - step % 4 / 4
        assert parts["designs_left"][0] == 1 - step // 4 / 2
        assert parts["design_ended"].all() == info["design_ended"].all() == (step == 4)
        if step % 4 == 0:
            assert not info["state"].any()
        observation, reward, _, _, info = vector.step(np.full(3_000, step % 5))
        expected.append(info["expected_reward"])
        noise.append(reward - info["expected_reward"])
        states.append(info["state"])
    assert np.mean(expected[0]) == pytest.approx(1, abs=0.06)
    assert np.std(expected[0]) == pytest.approx(1, abs=0.05)
    assert np.mean(noise) == pytest.approx(0, abs=0.03)
    assert np.std(noise) == pytest.approx(1, abs=0.03)
    assert np.bincount(states[0], minlength=10) / 3_000 == pytest.approx(np.full(10, 0.1), abs=0.03)
    vector.reset(options={"new_task": False})
    first = vector.step(np.zeros(3_000, dtype=int))[-1]["state"]
    # The same action in the same state twice: of a flat Dirichlet distribution of 10, equal with probability 2 / 11.
    assert np.mean(first == states[0]) == pytest.approx(2 / 11, abs=0.03)


@pytest.mark.parametrize(("env_id", "entry"), [(IDS[0], "best_mean"), (IDS[1], "expected_reward")])
def test_a_task_can_be_kept(env_id: str, entry: str) -> None:
    env = gym.make(env_id).unwrapped

    def seen(**options: Any) -> tuple[float, list[float]]:
        env.reset(options=options)
        info = env.step(0)[-1]
        return info[entry], [float(env.step(0)[1]) for _ in range(9)]

    env.reset(seed=3)
    task, rewards = seen(new_task=False)
    kept, others = seen(new_task=False, trial=3)
    assert kept == task
    assert others != rewards
    assert seen(new_task=True)[0] != task
    with pytest.raises(ConfigurationError, match=r"'new_task' and 'trial'.*nwe"):
        env.reset(options={"nwe": 1})


@pytest.mark.parametrize("env_id", IDS)
def test_misuse_is_refused(env_id: str) -> None:
    vector: Any = gym.make_vec(env_id, num_envs=2)
    with pytest.raises(ResetNeeded):
        vector.step(np.array([0, 0]))
    vector.reset(seed=0)
    for wrong in ([0], [0, 5], [-1, 0], [0.0, 1.0], [[0, 0]]):
        with pytest.raises(IllegalChoiceError, match=r"2 action\(s\) in 0 \.\. 4"):
            vector.step(np.array(wrong))
    with pytest.raises(ConfigurationError, match=r"seed.*2.*got 3"):
        vector.reset(seed=[1, 2, 3])
    with pytest.raises(ConfigurationError, match="num_envs"):
        gym.make_vec(env_id, num_envs=0)
    with pytest.raises(ConfigurationError, match="pulls"):
        BanditEnv(pulls=0)
    with pytest.raises(ConfigurationError, match="horizon"):
        TabularMDPEnv(horizon=0)


# ---- what is known to do well, with the mean returns that Duan et al. 2016 give (tables 1 and 2)


@pytest.mark.parametrize(
    ("make", "short", "long"),
    [
        (RandomArms, 5.0, 49.9),
        (ThompsonSampling, 5.7, 74.7),
        (UCB1, 5.7, 66),  # as its authors have it; the paper's form of it reaches 6.7 and 78.0
        (GreedyArms, 6.6, 74.8),
    ],
)
def test_reference_agents_reach_the_published_returns(make: type[BanditAgent], short: float, long: float) -> None:
    for pulls, expected in ((10, short), (100, long)):
        env: Any = gym.make_vec("rlnas/Bandit-v0", num_envs=4_000, pulls=pulls)
        assert returns(env, make(env.layout)).mean() == pytest.approx(expected, abs=0.02 * pulls)


def test_the_gittins_index_does_best() -> None:
    for pulls, expected in ((10, 6.6), (100, 78.3)):
        env: Any = gym.make_vec("rlnas/Bandit-v0", num_envs=4_000, pulls=pulls)
        mine = returns(env, GittinsIndex(env.layout, pulls))
        assert mine.mean() == pytest.approx(expected, abs=0.01 * pulls)
        assert (mine - returns(env, GreedyArms(env.layout))).mean() > 0


def test_posterior_sampling_learns_a_process() -> None:
    env: Any = gym.make_vec("rlnas/TabularMDP-v0", num_envs=500)
    assert returns(env, None).mean() == pytest.approx(100.1, abs=6)
    assert returns(env, PosteriorSampling(env.layout)).mean() == pytest.approx(138.1, abs=8)


@pytest.mark.parametrize("make", [GreedyArms, PosteriorSampling])
def test_reference_agents_forget_where_a_trial_begins(make: Any) -> None:
    env: Any = gym.make_vec("rlnas/Bandit-v0" if make is GreedyArms else "rlnas/TabularMDP-v0", num_envs=3)
    states = []
    for used in (False, True):
        agent = make(env.layout)
        observation, _ = env.reset(seed=0)
        state = None
        for _ in range(4 * used):
            action, state = agent.predict(observation, state)
            observation, *_ = env.step(action)
        observation, _ = env.reset(seed=0)
        _, state = agent.predict(observation, state, np.ones(3, dtype=np.bool_))
        states.append(state[:2])
    assert_same(*states)


def test_the_state_before_is_shown_where_it_is_asked_for() -> None:
    env = TabularMDPVectorEnv(5, episodes=2, horizon=3, previous_state=True)
    plain = TabularMDPVectorEnv(5, episodes=2, horizon=3)
    state, before = env.layout["state"], env.layout["previous_state"]
    observation, _ = env.reset(seed=3)
    same, _ = plain.reset(seed=3)
    assert not observation[:, before].any()
    rng = np.random.default_rng(0)
    for _ in range(5):
        actions = rng.integers(5, size=5)
        following = env.step(actions)[0]
        np.testing.assert_array_equal(following[:, before], observation[:, state])
        observation, same = following, plain.step(actions)[0]
        np.testing.assert_array_equal(np.delete(observation, np.r_[before], axis=1), same)
    with pytest.raises(ConfigurationError, match="previous_state"):
        gym.make("rlnas/TabularMDP-v0", previous_state=1)


def test_planning_by_belief_is_the_best_that_is_known_and_advises_what_it_does() -> None:
    env = gym.make_vec("rlnas/TabularMDP-v0", num_envs=400)
    planner = BeliefPlanner(env.layout)  # type: ignore[attr-defined]
    assert isinstance(planner, Adviser)
    assert returns(env, planner).mean() > 155
    observation, _ = env.reset(seed=0)
    start, state = np.ones(400, dtype=np.bool_), None
    for _ in range(25):
        advice = planner.advise(observation, start)
        actions, state = planner.predict(observation, state, start)
        np.testing.assert_allclose(advice.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(advice[np.arange(400), actions], advice.max(1), atol=1e-6)
        observation, _, start, _, _ = env.step(actions)
