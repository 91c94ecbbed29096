"""The controller: what it remembers, what it may choose, and that acting and judging agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare
from torch import Tensor

from rlnas.agents.agent import Agent
from rlnas.agents.controller import Controller, ControllerConfig
from rlnas.agents.rollout import Rollout, collect
from rlnas.checkpoint import save_checkpoint
from rlnas.errors import CheckpointError, ConfigurationError

from .hidden import hidden_env

CONFIG = ControllerConfig(observation_size=10, actions=(4,), legal=(6, 10), hidden_size=8)


def opinionated(config: ControllerConfig = CONFIG, seed: int = 0) -> Controller:
    """A controller far from uniform, as a trained one is."""
    controller = Controller(config, seed)
    with torch.no_grad():
        controller.policy.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(seed))
        controller.policy.bias.normal_(0, 1, generator=torch.Generator().manual_seed(seed + 1))
    return controller


def observations(count: int, legal: tuple[int, ...] = (1, 1, 1, 1), seed: int = 0) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(count, 10)).astype(np.float32)
    drawn[:, 6:] = legal
    return drawn


def play(designs: int = 3, seed: int = 5) -> tuple[Controller, Rollout]:
    env = hidden_env(num_envs=6, designs=designs)
    slices = env.layout["legal"]
    shape = ControllerConfig(env.layout.size, (int(env.single_action_space.n),), (slices.start, slices.stop), 16)
    controller = opinionated(shape)
    return controller, collect(controller, env, seed, 0)


def test_is_an_agent() -> None:
    assert isinstance(Controller(CONFIG), Agent)


@pytest.mark.parametrize("separate_value", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_every_kind_of_memory_acts_step_by_step_as_it_judges_at_once(cell: str, separate_value: bool) -> None:
    config = replace(CONFIG, actions=(3, 1), legal=None, cell=cell, separate_value=separate_value)
    controller, generator = opinionated(config), torch.Generator().manual_seed(1)
    seen = torch.as_tensor(observations(5 * 6).reshape(5, 6, 10))
    memory, columns = controller.blank(6), []
    with torch.no_grad():
        for observation in seen:
            action, logits, value, memory = controller.act(observation, memory, generator)
            columns.append((action, logits, value))
        action, logits, value = (torch.stack(column) for column in zip(*columns, strict=True))
        judged = controller.judge(seen, action)
    assert action.shape == (5, 6, 2)
    log_prob = logits[..., :3].log_softmax(-1).gather(-1, action[..., :1]).squeeze(-1)  # the other has one choice
    torch.testing.assert_close(judged.log_prob, log_prob)
    torch.testing.assert_close(judged.value, value)
    assert log_prob.unique().numel() > 10


def test_several_actions_in_a_step_are_masked_and_judged_each_by_itself() -> None:
    config = replace(CONFIG, actions=(2, 2))
    controller = opinionated(config)
    seen = observations(300, (1, 0, 1, 1))
    actions, state = controller.predict(seen)
    assert actions.shape == (300, 2)
    assert set(actions[:, 0].tolist()) == {0}
    assert set(actions[:, 1].tolist()) == {0, 1}
    alone, _ = controller.predict(seen[0], None if state is None else tuple(part[:, :1] for part in state))
    assert alone.shape == (2,)
    with torch.no_grad():
        logits, _, _ = controller(torch.as_tensor(seen)[None], controller.blank(300))
        judged = controller.judge(torch.as_tensor(seen)[None], torch.as_tensor(actions)[None])
    second = logits[0, :, 2:].log_softmax(-1)
    torch.testing.assert_close(judged.log_prob[0], second.gather(-1, torch.as_tensor(actions[:, 1:])).squeeze(-1))
    torch.testing.assert_close(judged.entropy[0], -(second.exp() * second).sum(-1))


def test_masks_given_to_predict_come_on_top_of_those_observed() -> None:
    controller, seen = opinionated(), observations(400, (1, 1, 0, 1))
    masks = np.tile(np.array([True, False, True, True]), (400, 1))
    assert set(controller.predict(seen, action_masks=masks)[0].tolist()) == {0, 3}
    assert controller.predict(seen[0], action_masks=masks[0])[0] in (0, 3)


@pytest.mark.parametrize("rows", [None, 3])
def test_a_session_remembers_and_forgets_for_its_user(rows: int | None) -> None:
    controller = opinionated()
    seen = observations(9).reshape(3, 3, 10)
    if rows is None:
        seen = seen[:, 0]
    controller.seed(2)
    state, expected = None, []
    for step, start in zip((0, 1, 2, 0, 1), (1, 0, 0, 1, 0), strict=True):
        action, state = controller.predict(seen[step], state, np.full(rows or 1, bool(start)))
        expected.append(action)
    controller.seed(2)
    session = controller.session()
    found = [session.act(seen[step]) for step in (0, 1, 2)]
    session.reset()
    found += [session.act(seen[0], np.zeros(rows or 1, dtype=np.bool_)), session.act(seen[1])]
    np.testing.assert_array_equal(found, expected)


def test_acting_step_by_step_equals_judging_the_whole_trial_at_once() -> None:
    controller, rollout = play()
    judged = controller.judge(rollout.observation, rollout.action)
    torch.testing.assert_close(judged.log_prob, rollout.log_prob)
    torch.testing.assert_close(judged.value, rollout.value)
    assert rollout.log_prob.min() < -0.5  # the policy has opinions, so agreeing is not trivial


def test_what_was_seen_in_earlier_designs_is_remembered_in_later_ones() -> None:
    controller, rollout = play()
    end = int(rollout.design_ended[:, 0].nonzero()[0])
    assert end + 1 < len(rollout.action)
    forgetful = controller.judge(rollout.observation[end + 1 :], rollout.action[end + 1 :])
    assert (forgetful.value - rollout.value[end + 1 :]).abs().max() > 1e-3


def test_predict_carries_its_state_through_inner_designs_and_starts_anew_with_a_trial() -> None:
    env = hidden_env(num_envs=3, designs=2)
    slices = env.layout["legal"]
    shape = ControllerConfig(env.layout.size, (int(env.single_action_space.n),), (slices.start, slices.stop), 16)
    controller = opinionated(shape)
    observation, _ = env.reset(seed=0)
    start, state, seen = np.ones(3, dtype=np.bool_), None, []
    for step in range(8):  # two trials of two designs of two decisions
        seen.append(observation)
        action, state = controller.predict(observation, state, start)
        observation, _, over, _, _ = env.step(action)
        start = over
        first = 4 * (step // 4)
        stack = torch.as_tensor(np.stack(seen[first:]))
        with torch.no_grad():
            _, _, expected = controller(stack, controller.blank(3))
        assert state is not None
        for mine, its in zip(state, expected, strict=True):
            np.testing.assert_allclose(mine, its.numpy(), rtol=1e-5, atol=1e-6)


def test_episode_start_wipes_only_the_rows_that_start() -> None:
    controller, seen = opinionated(), observations(2)
    _, state = controller.predict(seen, None, np.array([True, True]))
    _, fresh = controller.predict(seen, None)
    _, kept = controller.predict(seen, state)
    _, mixed = controller.predict(seen, state, np.array([True, False]))
    assert fresh is not None
    assert kept is not None
    assert mixed is not None
    np.testing.assert_array_equal(mixed[0][0, 0], fresh[0][0, 0])
    np.testing.assert_array_equal(mixed[0][0, 1], kept[0][0, 1])
    assert not np.array_equal(fresh[0][0, 1], kept[0][0, 1])


@pytest.mark.parametrize("deterministic", [False, True])
def test_predict_answers_a_batch_and_a_single_observation(deterministic: bool) -> None:
    controller = opinionated()
    actions, state = controller.predict(observations(5), deterministic=deterministic)
    assert actions.shape == (5,)
    assert actions.dtype == np.int64
    assert state is not None
    assert [part.shape for part in state] == [(1, 5, 8), (1, 5, 8)]
    single, state = controller.predict(observations(1)[0], deterministic=deterministic)
    assert single.shape == ()
    assert state is not None
    assert state[0].shape == (1, 1, 8)
    again, _ = controller.predict(observations(1)[0], state, np.array([True]), deterministic)
    assert again.shape == ()


def test_a_batch_is_answered_as_its_members_are_alone() -> None:
    controller, seen = opinionated(), observations(6)
    together, states = controller.predict(seen, deterministic=True)
    assert states is not None
    for row in range(6):
        action, state = controller.predict(seen[row], deterministic=True)
        assert state is not None
        assert action == together[row]
        np.testing.assert_allclose(state[0][0, 0], states[0][0, row], atol=1e-6)


def test_deterministic_takes_the_likeliest_legal_action() -> None:
    controller, seen = opinionated(), observations(50, (1, 0, 1, 1))
    with torch.no_grad():
        logits, _, _ = controller(torch.as_tensor(seen)[None], controller.blank(50))
    actions, _ = controller.predict(seen, deterministic=True)
    np.testing.assert_array_equal(actions, logits[0].argmax(-1).numpy())
    assert 1 not in actions


def test_equal_seeds_sample_equal_actions() -> None:
    controller, seen = opinionated(), observations(200)
    drawn = []
    for seed in (3, 3, 4):
        controller.seed(seed)
        drawn.append(controller.predict(seen)[0])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_sampling_leaves_torchs_own_generator_alone() -> None:
    before = torch.get_rng_state()
    Controller(CONFIG, seed=3).predict(observations(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_sampling_frequencies_match_the_softmax_over_legal_actions() -> None:
    controller, rows = opinionated(seed=2), 20_000
    seen = np.repeat(observations(1, (1, 1, 0, 1)), rows, axis=0)
    with torch.no_grad():
        logits, _, _ = controller(torch.as_tensor(seen[:1])[None], controller.blank(1))
    expected = logits[0, 0].softmax(-1).numpy().astype(np.float64) * rows
    controller.seed(0)
    found = np.bincount(controller.predict(seen)[0], minlength=4)
    assert found[2] == 0 == expected[2]
    legal = [0, 1, 3]
    assert expected[legal].min() > 20
    assert chisquare(found[legal], expected[legal] * found.sum() / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("choice", range(4))
def test_the_only_legal_action_is_always_taken(choice: int) -> None:
    controller = opinionated()
    with torch.no_grad():
        controller.policy.bias[choice] = -1e4  # however little the policy likes it
    legal = tuple(int(i == choice) for i in range(4))
    assert set(controller.predict(observations(500, legal))[0].tolist()) == {choice}


def test_illegal_actions_have_no_probability_and_no_gradient() -> None:
    controller = opinionated()
    seen = torch.as_tensor(observations(12, (1, 0, 1, 0)).reshape(4, 3, 10))
    judged = controller.judge(seen, torch.zeros(4, 3, dtype=torch.int64))
    (judged.log_prob.sum() + judged.entropy.sum() + judged.value.sum()).backward()
    gradients = {name: p.grad for name, p in controller.named_parameters()}
    assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    bias = gradients["policy.bias"]
    assert bias is not None
    assert bias[[1, 3]].tolist() == [0, 0]
    assert bias[[0, 2]].abs().min() > 0
    assert (judged.entropy >= 0).all()
    assert (judged.entropy <= np.log(2) + 1e-6).all()


def test_where_one_action_is_legal_it_is_certain_and_teaches_the_policy_nothing() -> None:
    controller = opinionated()
    seen = torch.as_tensor(observations(3, (0, 0, 1, 0)).reshape(1, 3, 10))
    judged = controller.judge(seen, torch.full((1, 3), 2))
    assert judged.log_prob.tolist() == [[0, 0, 0]]
    assert judged.entropy.abs().max() == 0
    (judged.log_prob.sum() + judged.entropy.sum()).backward()
    assert controller.policy.weight.grad is not None
    assert controller.policy.weight.grad.abs().max() == 0


def test_the_first_policy_is_nearly_uniform() -> None:
    controller = Controller(CONFIG, seed=1)
    judged = controller.judge(torch.as_tensor(observations(20))[None], torch.zeros(1, 20, dtype=torch.int64))
    torch.testing.assert_close(judged.log_prob.exp(), torch.full((1, 20), 0.25), atol=0.02, rtol=0)


def test_saved_and_loaded_it_is_the_same_controller(tmp_path: Path) -> None:
    controller, seen = opinionated(), observations(100)
    controller.about = {"env": "rlnas/Trial-v0", "note": [1, None]}
    controller.save(str(tmp_path / "agent"))
    loaded = Controller.load(str(tmp_path / "agent"))
    assert loaded.config == controller.config
    assert loaded.about == {"env": "rlnas/Trial-v0", "note": [1, None]}
    for name, tensor in controller.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    for agent in (controller, loaded):
        agent.seed(9)
    np.testing.assert_array_equal(controller.predict(seen)[0], loaded.predict(seen)[0])


GOOD = {"observation_size": 10, "actions": [4], "legal": [6, 10], "hidden_size": 8}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"controller": GOOD},
        {"controller": None, "about": {}},
        {"controller": [], "about": {}},
        {"controller": GOOD, "about": 5},
        {"controller": {**GOOD, "hidden_size": 16}, "about": {}},
        {"controller": {**GOOD, "hidden_size": "8"}, "about": {}},
        {"controller": {**GOOD, "hidden_size": 2**80}, "about": {}},
        {"controller": {**GOOD, "hidden_size": -8}, "about": {}},
        {"controller": {**GOOD, "legal": "ab"}, "about": {}},
        {"controller": {**GOOD, "legal": [6]}, "about": {}},
        {"controller": {**GOOD, "legal": [6, 9]}, "about": {}},
        {"controller": {**GOOD, "legal": [7, 11]}, "about": {}},
        {"controller": {**GOOD, "actions": [5], "legal": None}, "about": {}},
        {"controller": {**GOOD, "actions": 4}, "about": {}},
        {"controller": {**GOOD, "cell": "rnn"}, "about": {}},
        {"controller": {**GOOD, "separate_value": 1}, "about": {}},
        {"controller": {**GOOD, "new_option": 1}, "about": {}},
    ],
)
def test_a_checkpoint_that_is_no_controller_is_refused_in_one_line(tmp_path: Path, data: dict[str, object]) -> None:
    save_checkpoint(tmp_path, data, Controller(CONFIG).tensors())
    with pytest.raises(CheckpointError) as caught:
        Controller.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_checkpoint_with_other_tensors_is_refused_naming_one(tmp_path: Path, change: str) -> None:
    tensors: dict[str, Tensor] = dict(Controller(CONFIG).tensors())
    named = "controller.policy.bias" if change != "extra" else "controller.surplus"
    if change == "missing":
        del tensors[named]
    else:
        tensors[named] = torch.zeros(5)
    save_checkpoint(tmp_path, {"controller": GOOD, "about": {}}, tensors)
    with pytest.raises(CheckpointError, match=named.removeprefix("controller.")) as caught:
        Controller.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [100_000, 2**31, 10**30])
def test_a_checkpoint_that_claims_more_than_it_holds_takes_no_memory_for_it(tmp_path: Path, size: int) -> None:
    save_checkpoint(tmp_path, {"controller": {**GOOD, "hidden_size": size}, "about": {}}, Controller(CONFIG).tensors())
    with pytest.raises(CheckpointError, match="not a controller of this version"):
        Controller.load(tmp_path)


def test_a_mask_that_does_not_lie_in_the_observation_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="legal must span 4 of 10 entries, got 6 to 11"):
        ControllerConfig(10, (4,), (6, 11))
