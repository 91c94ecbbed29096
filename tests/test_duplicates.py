"""Designs that a trial has evaluated before: refused by the legal mask, where one asks for that."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlnas.adaptation import Adaptation
from rlnas.agents.rl2 import RL2
from rlnas.envs.design import DesignEnv
from rlnas.envs.vector import DesignVectorEnv
from rlnas.episode import DesignEpisode
from rlnas.errors import IllegalChoiceError
from rlnas.evaluator import Status
from rlnas.replay import recompute
from rlnas.search_space import ChainSpace, SearchSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.store import EpisodeStore
from rlnas.table import TableSpace

from .fake_evaluator import FakeEvaluator
from .test_vector_env import assert_same

TINY = ChainSpace(max_layers=2, input_size=1, widths=(2,), dense_widths=(4,))
CONV3, CONV5, MAX_POOL, AVG_POOL, DENSE, IDENTITY = range(6)
ROWS = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 0], [1, 2, 1], [1, 2, 2], [2, 0, 1], [2, 1, 1]])


@pytest.fixture(params=["chain", "table"])
def space(request: pytest.FixtureRequest, tmp_path: Path) -> SearchSpace:
    """A space so small that a trial can exhaust it; of a table's designs many are missing."""
    if request.param == "chain":
        return TINY
    np.savez(tmp_path / "few.npz", ops=ROWS, tasks=np.array(["only"]), score=np.arange(8.0)[:, None])
    return TableSpace(tmp_path / "few.npz")


def make_env(space: SearchSpace = TINY, **options: Any) -> DesignEnv:
    return DesignEnv(space=space, **{"evaluator": FakeEvaluator(), "duplicates": "refuse", **options})


def play_at_random(env: DesignEnv, seed: int) -> list[tuple[int, ...]]:
    """The designs of a trial of legal actions."""
    rng = np.random.default_rng(seed)
    records: list[DesignEpisode] = []
    env.trials.recorder = records.extend
    env.reset(seed=seed)
    over = False
    while not over:
        over = env.step(rng.choice(np.flatnonzero(env.action_masks())))[2]
    assert all(record.evaluation.status is Status.OK for record in records)
    return [record.actions for record in records]


@cache
def all_designs(space: SearchSpace) -> frozenset[tuple[int, ...]]:
    return frozenset(architecture.choices for architecture in space.enumerate())


def brute_force(space: SearchSpace, prefix: tuple[int, ...], evaluated: set[tuple[int, ...]]) -> list[bool]:
    every = all_designs(space)
    wanted = (every - evaluated) or every
    going_on = {design[len(prefix)] for design in wanted if design[: len(prefix)] == prefix}
    return [choice in going_on for choice in range(space.num_choices)]


def test_masks_leave_every_choice_that_leads_to_a_new_design_and_no_other(space: SearchSpace) -> None:
    count, designs = 4, space.size + 3
    env = DesignVectorEnv(count, space=space, evaluator=FakeEvaluator(), designs_per_trial=designs, duplicates="refuse")
    observation, info = env.reset(seed=0)
    rng = np.random.default_rng(0)
    prefixes: list[tuple[int, ...]] = [()] * count
    evaluated: list[set[tuple[int, ...]]] = [set() for _ in range(count)]
    refused = trials = 0
    while trials < 2 * count:
        masks = [brute_force(space, prefixes[row], evaluated[row]) for row in range(count)]
        for row in range(count):
            assert space.legal_choices(prefixes[row], evaluated[row]).tolist() == masks[row]
            refused += int((space.legal_choices(prefixes[row]) != masks[row]).sum())
        for told in (info["action_mask"], env.action_masks(), observation[:, env.layout["legal"]]):
            assert told.astype(bool).tolist() == masks
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        actions[rng.random(count) < 0.05] = rng.integers(space.num_choices)  # now and then an illegal one
        observation, _, over, _, info = env.step(actions)
        for row in range(count):
            prefixes[row] += (int(actions[row]),)
            if not masks[row][actions[row]]:
                prefixes[row] = ()
            elif len(prefixes[row]) == len(space.decisions):
                evaluated[row].add(prefixes[row])
                prefixes[row] = ()
            if over[row]:
                prefixes[row], evaluated[row] = (), set()
                trials += 1
    assert refused > 100


def test_a_random_agent_designs_everything_once_before_it_repeats_anything(space: SearchSpace) -> None:
    for seed in range(5):
        designs = play_at_random(make_env(space, designs_per_trial=space.size + 2), seed)
        assert len(set(designs[: space.size])) == space.size
        assert len(designs) == space.size + 2
    assert len(set(play_at_random(make_env(space, designs_per_trial=space.size, duplicates="count"), 0))) < space.size


def test_where_the_space_is_large_nothing_is_repeated_either() -> None:
    space = ChainSpace(max_layers=5, widths=(2,), dense_widths=(4,))
    designs = play_at_random(make_env(space, designs_per_trial=300), 0)
    assert len(set(designs)) == 300


def test_the_same_network_designed_otherwise_is_no_duplicate() -> None:
    env = make_env(designs_per_trial=2)
    env.reset(seed=0)
    for action in (CONV3, IDENTITY, IDENTITY, CONV3):
        *_, info = env.step(action)
    assert (info["status"], info["architecture"]) == ("ok", "conv3x3-2")


def test_vector_environments_equal_single_ones(space: SearchSpace) -> None:
    count, options = 3, {"designs_per_trial": space.size + 1, "duplicates": "refuse", "space": space}
    singles = SyncVectorEnv(
        [lambda: DesignEnv(**options, evaluator=FakeEvaluator())] * count, autoreset_mode=AutoresetMode.SAME_STEP
    )
    vector = DesignVectorEnv(count, **options, evaluator=FakeEvaluator())
    rng = np.random.default_rng(1)
    assert_same(vector.reset(seed=4), singles.reset(seed=4))
    trials = 0
    while trials < 2 * count:
        noise = rng.random((count, space.num_choices))
        actions = np.where(rng.random(count) < 0.1, noise.argmax(1), (noise * vector.action_masks()).argmax(1))
        result = vector.step(actions)
        assert_same(result, singles.step(actions))
        trials += int(result[2].sum())


def test_a_repetition_is_an_illegal_action() -> None:
    env = make_env(designs_per_trial=3)
    env.reset(seed=0)
    for action in (CONV3, CONV3, CONV3, CONV3):
        _, reward, _, _, info = env.step(action)
    assert (reward, info["status"], info["architecture"]) == (0.0, "invalid", "")
    env = make_env(designs_per_trial=2, invalid_action="raise")
    env.reset(seed=0)
    for action in (CONV3, CONV3, CONV3):
        env.step(action)
    with pytest.raises(IllegalChoiceError, match=r"layer 2: action 0 is illegal here \(legal: conv5x5-2, dense"):
        env.step(CONV3)
    assert env.step(CONV5)[-1]["status"] == "ok"


def test_what_one_trial_has_evaluated_another_may() -> None:
    env = make_env(designs_per_trial=1)
    for _ in range(2):
        env.reset(seed=0)
        env.step(CONV3)
        assert env.step(CONV3)[-1]["status"] == "ok"


def test_a_copy_made_in_the_middle_of_a_trial_refuses_the_same() -> None:
    env = make_env(designs_per_trial=3)
    env.reset(seed=0)
    for action in (CONV3, CONV3, CONV3):
        env.step(action)
    again = copy.deepcopy(env)
    for one in (env, again):
        assert one.action_masks().tolist() == brute_force(TINY, (CONV3,), {(CONV3, CONV3)})
    assert_same(again.step(CONV5), env.step(CONV5))


def test_a_learner_trains_where_duplicates_are_refused() -> None:
    records: list[DesignEpisode] = []
    env = gym.make_vec(
        "rlnas/Trial-v0",
        num_envs=4,
        space=TINY,
        evaluator=FakeEvaluator(),
        designs_per_trial=8,
        duplicates="refuse",
        recorder=records.extend,
    )
    learner = RL2(env, hidden_size=8, epochs=2, minibatches=2, learning_rate=1e-2)
    before = learner.controller.policy.weight.clone()
    learner.learn(3 * 4 * 8 * 2)
    assert not torch.equal(before, learner.controller.policy.weight)
    assert all(record.evaluation.status is Status.OK for record in records)
    assert len(records) == len({(record.trial, record.actions) for record in records}) == 3 * 4 * 8


# ---- records


def record_trial(duplicates: str) -> list[DesignEpisode]:
    """A trial that begins the third design as it may not begin where duplicates are refused."""
    env = make_env(designs_per_trial=4, duplicates=duplicates, evaluator=SequentialEvaluator(Adaptation(steps=1)))
    records: list[DesignEpisode] = []
    env.trials.recorder = records.extend
    env.reset(seed=0)
    for action in (DENSE, DENSE, DENSE, IDENTITY, DENSE, CONV3, CONV3):
        env.step(action)
    return records


def test_records_say_what_was_refused_and_can_be_recomputed(tmp_path: Path) -> None:
    records = record_trial("refuse")
    assert [record.masks for record in records] == [
        ("110011", "000011"),
        ("110011", "000001"),
        ("110001",),  # an illegal action: with a fully connected layer first, nothing is left
        ("110001", "110011"),
    ]
    with EpisodeStore(tmp_path / "run.db") as store:
        store.append(records)
        assert list(recompute(store.episodes())) == [None] * 4
    altered = replace(records[1], masks=("110011", "000011"))
    differences = list(recompute([records[0], altered, *records[2:]]))
    assert [difference is None for difference in differences] == [True, False, True, True]
    assert str(differences[1]).endswith("step 1: masks was recorded as '000011', recomputed as '000001'")


def test_what_was_refused_is_believed_where_earlier_designs_were_not_recorded() -> None:
    records = record_trial("refuse")
    assert list(recompute(records[1:])) == [None] * 3
    assert list(recompute([records[0], records[3]])) == [None] * 2
    for masks in (("110001", "111011"), ("010001", "110011"), ("110001", "11001")):  # never legal; taken; too short
        (difference,) = recompute([replace(records[3], masks=masks)])
        assert difference is not None


def test_records_of_environments_that_count_duplicates_are_recomputed_as_ever() -> None:
    records = record_trial("count")
    assert [record.actions for record in records] == [(DENSE, DENSE), (DENSE, IDENTITY), (DENSE, CONV3)]
    assert list(recompute(records)) == [None] * 3
    refusing = [replace(record, env={**record.env, "duplicates": "refuse"}) for record in records]
    assert [difference is None for difference in recompute(refusing)] == [True, False, False]


@pytest.mark.parametrize(
    ("option", "usual", "other"),
    [("duplicates", "count", "refuse"), ("descriptor", True, False)],
)
def test_environments_are_described_as_ever_unless_told_otherwise(option: str, usual: Any, other: Any) -> None:
    options = {"duplicates": "count"}
    assert option not in make_env(**{**options, option: usual}).settings.spec()
    assert make_env(**{**options, option: other}).settings.spec()[option] == other
