"""RL²: its first ratios, its determinism, its checkpoints, and that it learns to search."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from rlnas.agents import rl2
from rlnas.agents.controller import Controller
from rlnas.agents.ppo import generalised_advantage
from rlnas.agents.rl2 import RL2
from rlnas.agents.rl2_config import RL2Config
from rlnas.agents.rollout import Rollout, collect, how_it_went
from rlnas.agents.search_run import run_search
from rlnas.agents.searcher_agent import MemoryWiped
from rlnas.checkpoint import load_checkpoint, save_checkpoint
from rlnas.episode import DesignEpisode
from rlnas.errors import CheckpointError, ConfigurationError, UnknownNameError
from rlnas.search_space import ChainSpace

from .hidden import HIT, MISS, hidden_env

SMALL: dict[str, Any] = {
    "hidden_size": 8,
    "epochs": 2,
    "minibatches": 2,
    "learning_rate": 1e-2,
    "final_learning_rate": 1e-3,
}
STEPS_PER_UPDATE = 4 * 3 * 2  # trials, designs, decisions


def make_learner(seed: int = 0, env_options: dict[str, Any] | None = None, **settings: Any) -> RL2:
    return RL2(hidden_env(num_envs=4, **(env_options or {})), seed=seed, **{**SMALL, **settings})


class EachUpdate(BaseCallback):
    """Keeps the statistics of every update; stops after so many updates, or so many steps."""

    def __init__(self, updates: float = math.inf, steps: float = math.inf) -> None:
        super().__init__()
        self.told: list[dict[str, float]] = []
        self.updates, self.steps = updates, steps

    def _on_rollout_start(self) -> None:
        self._note()

    def _on_step(self) -> bool:
        return self.n_calls < self.steps and self.model.updates < self.updates

    def _on_training_end(self) -> None:
        self._note()

    def _note(self) -> None:
        if self.model.statistics and self.model.statistics not in self.told:
            self.told.append(self.model.statistics)


def weights(learner: RL2) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.controller.state_dict().items()}


def assert_equal(mine: dict[str, Tensor], its: dict[str, Tensor]) -> None:
    for name, tensor in mine.items():
        assert torch.equal(tensor, its[name]), name


def differ(mine: dict[str, Tensor], its: dict[str, Tensor]) -> bool:
    return any(not torch.equal(tensor, its[name]) for name, tensor in mine.items())


@pytest.mark.parametrize("settings", [{}, {"cell": "gru"}, {"separate_value": True}], ids=str)
@pytest.mark.parametrize("reward", ["accuracy", "improvement", "normalised"])
def test_on_the_first_minibatch_of_an_update_every_ratio_is_1(reward: str, settings: dict[str, Any]) -> None:
    updates = EachUpdate()
    make_learner(env_options={"reward": reward}, **settings).learn(5 * STEPS_PER_UPDATE, updates)
    assert len(updates.told) == 5
    assert max(statistics["first_ratio_deviation"] for statistics in updates.told) < 1e-5


def test_the_first_ratios_would_tell_if_the_policy_judged_were_another() -> None:
    learner = make_learner()
    rollout = collect(learner.controller, learner.env, 0, 0)
    with torch.no_grad():
        learner.controller.policy.weight *= 50
    statistics = learner._update(rollout, 0.0)
    assert statistics["first_ratio_deviation"] > 0.01


@pytest.mark.parametrize("fewest", [1, 3])
def test_a_minibatch_divided_into_parts_has_the_gradients_of_the_mean_of_all_its_steps(
    fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl2, "AT_ONCE", 1)
    monkeypatch.setattr(rl2, "FEWEST", fewest)
    learner = make_learner(value=0.5, clip=0.1)
    rollout = collect(learner.controller, learner.env, 0, 0)
    rollout.playing[4:, 0] = False  # so that parts hold different numbers of steps
    rollout.log_prob.add_(torch.randn(rollout.log_prob.shape, generator=torch.Generator().manual_seed(0)))
    advantage, target = rollout.reward - rollout.reward.mean(), rollout.reward
    terms = learner._backward(rollout, advantage, target, torch.arange(4), 0.1)
    gradients = [parameter.grad.clone() for parameter in learner.controller.parameters() if parameter.grad is not None]
    learner.optimizer.zero_grad()
    judged = learner.controller.judge(rollout.observation, rollout.action)
    playing = rollout.playing
    ratio = (judged.log_prob - rollout.log_prob).exp()[playing]
    gain = advantage[playing]
    policy = -torch.minimum(ratio * gain, ratio.clamp(0.9, 1.1) * gain).mean()
    value = (judged.value - target)[playing].square().mean()
    entropy = judged.entropy[playing].mean()
    (policy + 0.5 * value - 0.1 * entropy).backward()
    torch.testing.assert_close(torch.stack(terms), torch.stack([policy, value, entropy, (ratio - 1).abs().max()]))
    for parameter, gradient in zip(learner.controller.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(gradient, parameter.grad)


def test_rewards_of_later_designs_count_for_earlier_ones_at_the_design_discount(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def noted(value: Tensor, reward: Tensor, discount: Tensor, lam: float) -> tuple[Tensor, Tensor]:
        advantage, target = generalised_advantage(value, reward, discount, lam)
        given.append((value, reward, discount, target))
        return advantage, target

    monkeypatch.setattr(rl2, "generalised_advantage", noted)
    make_learner(gae_lambda=1.0, design_discount=0.7).learn(STEPS_PER_UPDATE)
    ((_, reward, discount, target),) = given
    assert discount[:, 0].tolist() == pytest.approx([1, 0.7, 1, 0.7, 1, 0.7])
    first, second, third = reward[1::2]
    torch.testing.assert_close(target[0], first + 0.7 * second + 0.7**2 * third)
    torch.testing.assert_close(target[2], second + 0.7 * third)


def test_trained_twice_with_one_seed_weights_and_episodes_are_equal() -> None:
    runs = []
    for seed in (1, 1, 2):
        episodes: list[DesignEpisode] = []
        learner = make_learner(seed, {"recorder": episodes.extend}).learn(6 * STEPS_PER_UPDATE)
        runs.append((weights(learner), episodes))
    assert_equal(runs[0][0], runs[1][0])
    assert len(runs[0][1]) == 6 * 4 * 3
    assert all(a.same_record(b) for a, b in zip(runs[0][1], runs[1][1], strict=True))
    assert differ(runs[0][0], runs[2][0])
    assert [e.actions for e in runs[0][1]] != [e.actions for e in runs[2][1]]


def test_the_numbers_of_recorded_trials_go_on_from_update_to_update() -> None:
    episodes: list[DesignEpisode] = []
    make_learner(env_options={"recorder": episodes.extend}).learn(3 * STEPS_PER_UPDATE)
    assert sorted({e.trial for e in episodes}) == list(range(12))
    assert len({(e.trial, e.design) for e in episodes}) == len(episodes) == 36


def test_updates_see_different_tasks_and_actions() -> None:
    episodes: list[DesignEpisode] = []
    make_learner(env_options={"recorder": episodes.extend}).learn(2 * STEPS_PER_UPDATE)
    first, second = ([(e.task, e.actions) for e in episodes if e.trial // 4 == update] for update in (0, 1))
    assert first != second


@pytest.mark.parametrize("suffix", ["", ".zip"], ids=["folder", "zip"])
@pytest.mark.parametrize("update", [0, 1, 3, 5])
def test_saved_and_loaded_it_goes_on_as_if_never_interrupted(tmp_path: Path, update: int, suffix: str) -> None:
    total, path = 6 * STEPS_PER_UPDATE, tmp_path / f"learner{suffix}"
    whole = make_learner().learn(total)
    first = make_learner().learn(total, EachUpdate(updates=update))
    assert first.updates == update
    first.save(path)
    second = RL2.load(path, hidden_env(num_envs=4))
    assert (second.updates, second.num_timesteps) == (update, update * STEPS_PER_UPDATE)
    second.learn(total - second.num_timesteps, reset_num_timesteps=False)
    assert second.num_timesteps == total
    assert_equal(weights(second), weights(whole))


def test_stopped_in_the_middle_of_a_rollout_it_is_as_after_its_last_update(tmp_path: Path) -> None:
    total = 4 * STEPS_PER_UPDATE
    whole = make_learner().learn(total)
    stopped = make_learner().learn(total, EachUpdate(steps=2 * 6 + 3))  # 6 steps make a rollout
    assert (stopped.updates, stopped.num_timesteps) == (2, 2 * STEPS_PER_UPDATE)
    reference = make_learner().learn(total, EachUpdate(updates=2))
    assert_equal(weights(stopped), weights(reference))
    stopped.save(tmp_path)
    loaded = RL2.load(tmp_path, hidden_env(num_envs=4))
    for learner in (loaded, stopped):  # it can itself go on, too
        assert_equal(weights(learner.learn(total // 2, reset_num_timesteps=False)), weights(whole))


def test_interrupted_at_20_random_steps_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    total = 12 * STEPS_PER_UPDATE
    whole = make_learner().learn(total)
    learner = make_learner()
    rng = np.random.default_rng(0)
    for _ in range(20):
        left = total - learner.num_timesteps
        if left:
            learner.learn(left, EachUpdate(steps=int(rng.integers(1, 10))), reset_num_timesteps=False)
        learner.save(tmp_path)
        learner = RL2.load(tmp_path, hidden_env(num_envs=4))
    if learner.num_timesteps < total:
        learner.learn(total - learner.num_timesteps, reset_num_timesteps=False)
    assert_equal(weights(learner), weights(whole))


def test_timesteps_are_rounded_up_to_whole_rollouts() -> None:
    learner = make_learner().learn(STEPS_PER_UPDATE + 1)
    assert (learner.updates, learner.num_timesteps) == (2, 2 * STEPS_PER_UPDATE)


def test_learning_again_counts_anew_unless_told_otherwise() -> None:
    learner = make_learner().learn(STEPS_PER_UPDATE)
    learner.learn(2 * STEPS_PER_UPDATE, reset_num_timesteps=False)
    assert (learner.updates, learner.num_timesteps) == (3, 3 * STEPS_PER_UPDATE)
    learner.learn(STEPS_PER_UPDATE)
    assert (learner.updates, learner.num_timesteps) == (4, STEPS_PER_UPDATE)


def test_loaded_without_an_environment_it_acts_but_does_not_learn(tmp_path: Path) -> None:
    learner = make_learner().learn(STEPS_PER_UPDATE)
    learner.save(tmp_path)
    loaded = RL2.load(tmp_path)
    seen = np.zeros((3, learner.controller.config.observation_size), dtype=np.float32)
    for name in ("deterministic", "sampled"):
        learner.controller.seed(1)
        loaded.controller.seed(1)
        mine, its = (agent.predict(seen, deterministic=name == "deterministic")[0] for agent in (learner, loaded))
        np.testing.assert_array_equal(mine, its)
    with pytest.raises(ConfigurationError, match="set_env"):
        loaded.learn(1)


def test_an_environment_with_other_observations_is_refused(tmp_path: Path) -> None:
    learner = make_learner()
    learner.save(tmp_path)
    other = hidden_env(space=ChainSpace(max_layers=3, input_size=4, widths=(4,)))
    with pytest.raises(ConfigurationError, match="suit"):
        learner.set_env(other)
    with pytest.raises(ConfigurationError, match="suit"):
        RL2.load(tmp_path, other)


def test_a_controllers_checkpoint_is_no_learner(tmp_path: Path) -> None:
    make_learner().controller.save(tmp_path)
    with pytest.raises(CheckpointError, match="no learner"):
        RL2.load(tmp_path)


def test_a_learners_checkpoint_holds_its_controller(tmp_path: Path) -> None:
    learner = make_learner().learn(STEPS_PER_UPDATE)
    learner.save(tmp_path)
    loaded = Controller.load(tmp_path)
    assert_equal(dict(loaded.state_dict()), weights(learner))
    assert loaded.about["env"] == learner.controller.about["env"] == "rlnas/Trial-v0"


@pytest.mark.parametrize(
    "change",
    [
        {"updates": None},
        {"updates": "3"},
        {"updates": -1},
        {"num_timesteps": 1.5},
        {"num_timesteps": math.inf},
        {"return_variance": "much"},
        {"return_variance": math.nan},
        {"return_variance": -1.0},
        {"trials": -1},
        {"settings": {"clip": 0}},
        {"settings": {"unknown": 1}},
        {"settings": None},
    ],
    ids=str,
)
def test_a_state_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    make_learner().learn(STEPS_PER_UPDATE).save(tmp_path)
    data, tensors = load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, {**data, "learner": {**data["learner"], **change}}, tensors)
    with pytest.raises(CheckpointError, match="no learner of this version") as caught:
        RL2.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["optimizer.", "optimizer.0.exp_avg", "optimizer.3.step", "controller.policy"])
def test_a_state_that_lacks_tensors_is_refused(tmp_path: Path, prefix: str) -> None:
    make_learner().learn(STEPS_PER_UPDATE).save(tmp_path)
    data, tensors = load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, data, {name: t for name, t in tensors.items() if not name.startswith(prefix)})
    with pytest.raises(CheckpointError, match="of this version"):
        RL2.load(tmp_path)


@pytest.mark.parametrize("name", ["optimizer.0.exp_avg", "optimizer.0.step", "controller.policy.bias"])
def test_a_state_with_a_tensor_of_another_shape_is_refused(tmp_path: Path, name: str) -> None:
    make_learner().learn(STEPS_PER_UPDATE).save(tmp_path)
    data, tensors = load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, data, {**tensors, name: torch.zeros(2, 2)})
    with pytest.raises(CheckpointError, match="of this version"):
        RL2.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", 0),
        ("epochs", 1.5),
        ("minibatches", True),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("clip", -0.1),
        ("max_grad_norm", math.inf),
        ("gae_lambda", 1.01),
        ("design_discount", math.nan),
        ("entropy", -0.1),
        ("entropy", math.nan),
        ("value", math.inf),
        ("discount", 2.0),
        ("final_entropy", -1.0),
        ("autocast", 1),
    ],
)
def test_a_setting_that_is_not_allowed_is_named(field: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} must be .* got"):
        RL2Config(**{field: value})


def test_an_unknown_setting_is_named_with_the_nearest_known() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'epochs'"):
        make_learner(epoch=3)


def test_a_rollout_of_few_trials_is_divided_into_no_more_minibatches_than_trials() -> None:
    few, many = (make_learner(minibatches=m) for m in (4, 5))
    for learner in (few, many):
        learner.learn(1)
    for name, tensor in few.controller.state_dict().items():
        assert torch.equal(tensor, many.controller.state_dict()[name])


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (gym.make("FrozenLake-v1"), "flat Box"),
        (gym.make("Pendulum-v1"), "Discrete or MultiDiscrete"),
        ("CartPole", "unknown environment"),
        (5, "id or an environment"),
    ],
)
def test_an_environment_of_another_kind_is_refused_in_one_line(env: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        RL2(env)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("env", ["CartPole-v1", gym.make("CartPole-v1"), gym.make_vec("CartPole-v1", num_envs=3)])
def test_it_learns_in_environments_of_gymnasium(env: Any) -> None:
    """Trials differ in length there; vector environments of both ways to reset are taken."""
    learner = RL2(env, num_envs=3, **SMALL).learn(100)
    assert learner.num_timesteps >= 100
    assert learner.statistics["ep_rew_mean"] == learner.statistics["ep_len_mean"] > 5
    assert learner.statistics["first_ratio_deviation"] < 1e-5


class Levers(gym.Env[Any, Any]):
    """Two levers at a time, of three and of two; the last of each pays."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.MultiDiscrete([3, 2])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 4
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.zeros(1, np.float32), float((action == [2, 1]).mean()), self.left == 0, False, {}


@pytest.mark.parametrize("settings", [{}, {"cell": "gru", "separate_value": True, "autocast": True}], ids=str)
def test_it_learns_to_take_several_actions_in_a_step(settings: dict[str, Any]) -> None:
    env = gym.vector.SyncVectorEnv([Levers] * 16)
    learner = RL2(env, **{**SMALL, "entropy": 0.0, **settings}).learn(16 * 4 * 40)
    actions, _ = learner.predict(np.zeros((5, 1), np.float32), deterministic=True)
    assert actions.tolist() == [[2, 1]] * 5
    assert learner.statistics["ep_rew_mean"] > 3.5


def test_the_reward_of_each_inner_episode_is_told_where_there_is_no_accuracy() -> None:
    ended = torch.tensor([[0, 1], [1, 0], [0, 1], [1, 0], [0, 0]], dtype=torch.bool)
    playing = torch.ones(5, 2, dtype=torch.bool)
    reward = torch.tensor([[1.0, 3], [2, 1], [0, 1], [5, 9], [7, 9]])
    nothing = torch.zeros(5, 2)
    rollout = Rollout(nothing[..., None], nothing, nothing, nothing, reward, ended, nothing * math.nan, playing)
    told = how_it_went(rollout)
    assert told["designs"] == 4
    assert (told["first_reward"], told["last_reward"]) == ((3 + 3) / 2, (5 + 2) / 2)
    assert (told["reward"], told["best_reward"]) == ((3 + 3 + 5 + 2) / 4, (5 + 3) / 2)


def test_a_single_decision_in_a_single_trial_leaves_the_weights_finite() -> None:
    space = ChainSpace(max_layers=1, input_size=4, widths=(4,), dense_widths=(8,))
    learner = RL2(hidden_env(num_envs=1, designs=1, space=space), **{**SMALL, "minibatches": 1})
    learner.learn(3)
    assert all(torch.isfinite(tensor).all() for tensor in weights(learner).values())


def test_statistics_tell_how_the_trials_went() -> None:
    episodes: list[DesignEpisode] = []
    updates = EachUpdate()
    make_learner(env_options={"recorder": episodes.extend}).learn(2 * STEPS_PER_UPDATE, updates)
    assert len(updates.told) == 2
    for update, statistics in enumerate(updates.told):
        mine = [e for e in episodes if e.trial // 4 == update]
        table = np.array(
            [[e.evaluation.accuracy for e in mine if e.trial == t] for t in sorted({e.trial for e in mine})]
        )
        assert statistics["designs"] == table.size == 12
        assert statistics["accuracy"] == pytest.approx(table.mean())
        assert statistics["first_accuracy"] == pytest.approx(table[:, 0].mean())
        assert statistics["last_accuracy"] == pytest.approx(table[:, -1].mean())
        assert statistics["best_accuracy"] == pytest.approx(table.max(1).mean())
        assert statistics["ep_rew_mean"] == pytest.approx(table.sum(1).mean())
        assert all(math.isfinite(value) for value in statistics.values())


def test_what_changes_over_the_training_does_so_linearly() -> None:
    updates = EachUpdate()
    make_learner().learn(10 * STEPS_PER_UPDATE, updates)
    rates = [statistics["learning_rate"] for statistics in updates.told]
    np.testing.assert_allclose(rates, [1e-2 * (1 - 0.9 * k / 10) for k in range(10)])


def test_it_learns_to_search_and_its_memory_is_what_does_it() -> None:
    """The best first choice differs from task to task and no descriptor tells it: only trying and remembering helps."""
    designs, tasks = 4, 48
    env = hidden_env(num_envs=32, designs=designs)
    learner = RL2(env, hidden_size=32, learning_rate=5e-3, epochs=4, minibatches=2)
    learner.learn(250 * 32 * designs * 2)
    gains, last = {}, {}
    env = hidden_env(num_envs=tasks, designs=designs, split="test")
    agents = {"rl2": learner, "wiped": MemoryWiped(learner, env.layout)}
    for name, agent in agents.items():
        learner.controller.seed(0)
        runs = [run_search(agent, env, range(tasks), seed).accuracy for seed in (0, 1)]
        accuracy = np.concatenate(runs)
        gains[name] = accuracy[:, -1].mean() - accuracy[:, 0].mean()
        last[name] = accuracy[:, -1].mean()
    assert gains["rl2"] > 0.5 * (HIT - MISS)
    assert last["rl2"] > 0.85 * HIT
    assert abs(gains["wiped"]) < 0.25 * (HIT - MISS)
    assert last["rl2"] - last["wiped"] > 0.4 * (HIT - MISS)


class Masked(gym.Env[Any, Any]):
    """One of three actions is legal and pays 1; which one changes, and observations are the mask."""

    observation_space = gym.spaces.Box(0, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(3)
    layout = {"legal": slice(0, 3)}  # noqa: RUF012

    def __init__(self) -> None:
        self.layout = dict(self.layout)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._mask(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        paid = float(action == self.legal)
        self.steps += 1
        return self._mask(), paid, self.steps == 5, False, {}

    def _mask(self) -> Any:
        self.legal = int(self.np_random.integers(3))
        return np.eye(3, dtype=np.float32)[self.legal]


def masked_envs() -> dict[str, gym.vector.VectorEnv]:
    makers = [Masked] * 3
    return {
        "sync": gym.vector.SyncVectorEnv(makers),
        "shared-buffer": gym.vector.SyncVectorEnv(makers, copy=False),
        "wrapped": gym.wrappers.vector.RecordEpisodeStatistics(gym.vector.SyncVectorEnv(makers)),
        "async": gym.vector.AsyncVectorEnv(makers),
    }


@pytest.mark.parametrize("name", ["sync", "shared-buffer", "wrapped", "async"])
def test_masks_are_found_and_kept_to_whatever_holds_the_environments(name: str) -> None:
    env = masked_envs()[name]
    learner = RL2(env, **SMALL).learn(15)
    assert learner.controller.config.legal == (0, 3)
    assert learner.statistics["ep_rew_mean"] == 5
    assert learner.statistics["first_ratio_deviation"] < 1e-5
    env.close()


def test_a_mask_in_observations_that_a_wrapper_changed_is_refused() -> None:
    env = gym.wrappers.vector.NormalizeObservation(gym.vector.SyncVectorEnv([Masked] * 2))
    with pytest.raises(ConfigurationError, match="a wrapper has changed"):
        RL2(env)


def test_trials_are_numbered_on_in_an_environment_with_another_number(tmp_path: Path) -> None:
    episodes: list[DesignEpisode] = []
    make_learner(env_options={"recorder": episodes.extend}).learn(2 * STEPS_PER_UPDATE).save(tmp_path)
    RL2.load(tmp_path, hidden_env(num_envs=2, recorder=episodes.extend)).learn(1)
    assert sorted({episode.trial for episode in episodes}) == list(range(2 * 4 + 2))


def test_an_id_is_made_as_often_as_before(tmp_path: Path) -> None:
    RL2("CartPole-v1", num_envs=3, **SMALL).save(tmp_path)
    assert RL2.load(tmp_path, "CartPole-v1").n_envs == 3
