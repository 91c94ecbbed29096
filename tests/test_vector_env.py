"""The native vector environment: what single ones do, bit for bit, with one evaluator call a step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlnas.cell import OPERATIONS
from rlnas.digits import DigitsSource
from rlnas.envs.design import DesignEnv
from rlnas.envs.vector import DesignVectorEnv
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, IllegalChoiceError, UnknownNameError
from rlnas.evaluator import Evaluation, Proposal
from rlnas.registration import PRESETS
from rlnas.replay import recompute
from rlnas.reward import REWARDS
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator

from .fake_evaluator import FakeEvaluator, fake_accuracy
from .tables import ENV_IDS

SPACE = ChainSpace(max_layers=2, widths=(4,), dense_widths=(8,))
CONV3, CONV5, MAX_POOL, AVG_POOL, DENSE, IDENTITY = range(6)


def make_vec(count: int, evaluator: FakeEvaluator | None = None, **options: Any) -> DesignVectorEnv:
    return DesignVectorEnv(count, space=SPACE, evaluator=evaluator or FakeEvaluator(), **options)


def assert_same(one: Any, other: Any) -> None:
    """Equal in every value and type, however deep."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for mine, its in zip(one, other, strict=True):
            assert_same(mine, its)
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if one.dtype == object:
            assert_same(tuple(one), tuple(other))
        else:
            np.testing.assert_array_equal(one, other)
    else:
        assert one == other


def arrays_in(value: Any) -> list[np.ndarray[Any, Any]]:
    """Every array in nested dictionaries and tuples."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [value]
    return [a for part in value for a in arrays_in(part)] if isinstance(value, tuple | np.ndarray) else []


# ---- the same as single environments


@pytest.mark.parametrize("space", [ChainSpace(max_layers=3, input_size=2, widths=(4, 8)), CellSpace()], ids=str)
@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize(("designs", "evaluation_seed"), [(1, 0), (3, None)])
def test_it_equals_single_environments_bit_for_bit(
    space: SearchSpace, reward: str, designs: int, evaluation_seed: int | None
) -> None:
    count, steps = 3, 40
    options: dict[str, Any] = {
        "space": space,
        "reward": reward,
        "designs_per_trial": designs,
        "evaluation_seed": evaluation_seed,
        "reference_designs": 3,
    }
    records: list[list[DesignEpisode]] = [[] for _ in range(count)]
    makers = [
        lambda own=own: DesignEnv(**options, evaluator=FakeEvaluator(), recorder=own.extend)  # type: ignore[misc]
        for own in records
    ]
    singles = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    vector_records: list[DesignEpisode] = []
    vector = DesignVectorEnv(count, **options, evaluator=FakeEvaluator(), recorder=vector_records.extend)
    assert vector.observation_space == singles.observation_space
    assert vector.action_space == singles.action_space

    rng = np.random.default_rng(1)
    trials = np.zeros(count, dtype=np.int64)
    ends_apart = False
    told = vector.reset(seed=21)
    assert_same(told, singles.reset(seed=21))
    for step in range(steps):
        if step == steps // 2:  # without a seed, every stream goes on
            assert_same(vector.reset(), singles.reset())
        actions = rng.integers(space.num_choices, size=count)  # in a chain some are illegal and trials fall out of step
        result = vector.step(actions)
        assert_same(result, singles.step(actions))
        trials += result[2]
        ends_apart |= bool(0 < result[2].sum() < count)
    assert (trials >= 2).all()
    assert ends_apart == isinstance(space, ChainSpace)
    for row, own in enumerate(records):
        mine = [record for record in vector_records if record.trial % count == row]
        assert len(mine) == len(own) > 0
        renumbered = {number: i for i, number in enumerate(dict.fromkeys(record.trial for record in mine))}
        singly = {number: i for i, number in enumerate(dict.fromkeys(record.trial for record in own))}
        for one, other in zip(mine, own, strict=True):
            changed = {"trial": renumbered[one.trial]}, {"trial": singly[other.trial]}
            assert {**one.to_json(), **changed[0]} == {**other.to_json(), **changed[1]}


def test_a_trials_last_observation_and_info_are_kept_beside_the_next_ones_first() -> None:
    vector = make_vec(2, FakeEvaluator([0.5, 0.25, 0.75]))
    vector.reset(seed=0)
    vector.step(np.array([DENSE, CONV3]))
    *_, over, _, info = vector.step(np.array([CONV3, DENSE]))  # illegal in the first
    assert over.tolist() == [True, True]
    vector.step(np.array([DENSE, DENSE]))
    vector.reset(seed=0, options={"task": [3, 4]})
    vector.step(np.array([CONV3, DENSE]))
    observation, reward, over, _, info = vector.step(np.array([CONV3, IDENTITY]))
    final = info["final_info"]
    assert info["_final_obs"].tolist() == info["_final_info"].tolist() == over.tolist() == [True, True]
    assert final["accuracy"].tolist() == reward.tolist() == [0.25, 0.75]
    assert final["task"].tolist() == ["digits:train/3", "digits:train/4"]
    assert info["accuracy"].tolist() == [0, 0]
    last = np.stack(info["final_obs"].tolist())
    assert last[:, vector.layout["design_ended"]].tolist() == [[1], [1]]
    assert last[:, vector.layout["reward"]].tolist() == [[0.25], [0.75]]
    assert observation[:, vector.layout["design_ended"]].tolist() == [[0], [0]]
    assert observation[:, vector.layout["reward"]].tolist() == [[0], [0]]


def test_nothing_returned_is_shared() -> None:
    vector = make_vec(3)
    told = [*arrays_in(vector.reset(seed=0))]
    for actions in ([CONV3, DENSE, DENSE], [CONV3, IDENTITY, CONV3], [CONV3] * 3):
        told += arrays_in(vector.step(np.array(actions)))
    told.append(vector.action_masks())
    assert len(told) > 60
    for i, one in enumerate(told):
        assert not any(np.shares_memory(one, other) for other in told[i + 1 :])


# ---- made by Gymnasium


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_make_vec_gives_the_native_environment(env_id: str) -> None:
    vector = gym.make_vec(env_id, num_envs=3)
    assert isinstance(vector, DesignVectorEnv)
    assert vector.num_envs == 3
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert vector.settings.env_id == env_id
    assert vector.settings.designs_per_trial == PRESETS[env_id]["designs_per_trial"]
    observation, info = vector.reset(seed=0)
    assert observation in vector.observation_space
    assert info["action_mask"].shape == (3, vector.single_action_space.n)


def test_gymnasiums_own_vectorisation_works_too() -> None:
    own = gym.make_vec("rlnas/Digits-v0", num_envs=2, vectorization_mode="sync")
    assert_same(own.reset(seed=0), gym.make_vec("rlnas/Digits-v0", num_envs=2).reset(seed=0))


# ---- one evaluator call a step


def test_all_designs_that_a_step_completes_are_evaluated_in_one_call() -> None:
    evaluator = FakeEvaluator()
    vector = make_vec(5, evaluator, designs_per_trial=2)
    _, info = vector.reset(seed=0)
    tasks = info["task"]
    vector.step(np.array([CONV3, DENSE, CONV3, DENSE, CONV5]))
    assert evaluator.calls == []
    _, rewards, _, _, info = vector.step(np.array([CONV3, CONV3, DENSE, IDENTITY, CONV5]))  # the second is illegal
    (proposals,) = evaluator.calls
    assert [p.task.name for p in proposals] == [tasks[row] for row in (0, 2, 3, 4)]
    assert [p.architecture.text for p in proposals] == [info["architecture"][row] for row in (0, 2, 3, 4)]
    assert rewards.tolist() == [fake_accuracy(p) for p in proposals[:1]] + [0.0] + [
        fake_accuracy(p) for p in proposals[1:]
    ]
    assert info["status"].tolist() == ["ok", "invalid", "ok", "ok", "ok"]


def test_a_step_is_recorded_in_one_call_with_every_design_that_ended() -> None:
    calls: list[list[DesignEpisode]] = []
    vector = make_vec(3, recorder=lambda episodes: calls.append(list(episodes)), agent="me")
    vector.reset(seed=9)
    for actions in ([CONV3, DENSE, CONV3], [CONV3, CONV3, DENSE], [CONV5] * 3, [CONV5] * 3):
        vector.step(np.array(actions))
    assert [[(e.agent, e.trial, e.design, e.seed) for e in call] for call in calls] == [
        [("me", 0, 0, 9), ("me", 1, 0, 10), ("me", 2, 0, 11)],
        [("me", 3, 0, None), ("me", 4, 0, None), ("me", 5, 0, None)],
    ]


# ---- reset


def test_row_i_is_seeded_with_the_seed_plus_i() -> None:
    tasks = make_vec(3).reset(seed=5)[1]["task"].tolist()
    assert tasks == [DesignEnv(space=SPACE).reset(seed=seed)[1]["task"] for seed in (5, 6, 7)]
    vector = make_vec(3)
    assert vector.reset(seed=[7, None, 5])[1]["task"][[2, 0]].tolist() == [tasks[0], tasks[2]]
    for seed in (np.int64(5), np.arange(5, 8)):
        assert make_vec(3).reset(seed=seed)[1]["task"].tolist() == tasks  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"seed.*3.*got 2"):
        vector.reset(seed=[1, 2])


def test_tasks_may_be_fixed_for_each_trial() -> None:
    vector = make_vec(3)
    for tasks in ([3, 3, 9], (3, 3, 9), np.array([3, 3, 9])):
        assert vector.reset(options={"task": tasks})[1]["task"].tolist() == [f"digits:train/{n}" for n in (3, 3, 9)]
    for wrong in (3, [3], [1, 2, 3, 4], [1, 2, "x"], [1, 2, -1]):
        with pytest.raises(ConfigurationError, match="task"):
            vector.reset(options={"task": wrong})


def test_no_two_trials_are_recorded_under_one_number() -> None:
    records: list[DesignEpisode] = []
    vector = make_vec(3, recorder=records.extend)
    rng = np.random.default_rng(0)
    for seed in (0, None, 0):
        vector.reset(seed=seed)
        for _ in range(9):
            vector.step(rng.integers(6, size=3))
    numbers = [record.trial for record in records]
    assert len(set(numbers)) == len(numbers) > 20
    vector.reset(options={"trial": 1000})
    vector.step(np.full(3, CONV3))
    vector.step(np.full(3, CONV3))
    assert [record.trial for record in records[-3:]] == [1000, 1001, 1002]


# ---- misuse


@pytest.mark.parametrize(
    "actions", [CONV3, [CONV3], [CONV3, CONV3], [0, 0, 6], [0, -1, 0], [0.5, 0.5, 0.5], [[0, 0, 0]]]
)
def test_anything_but_one_action_for_each_trial_is_refused(actions: Any) -> None:
    vector, patient = make_vec(3), make_vec(3)
    vector.reset(seed=0)
    patient.reset(seed=0)
    with pytest.raises(IllegalChoiceError, match=r"3 action\(s\) in 0 \.\. 5"):
        vector.step(np.array(actions))
    assert_same(vector.step(np.array([0, 1, 2])), patient.step(np.array([0, 1, 2])))


def test_an_illegal_action_raises_if_asked_to_and_no_trial_goes_on() -> None:
    vector, patient = (make_vec(3, invalid_action="raise") for _ in range(2))
    vector.reset(seed=0)
    patient.reset(seed=0)
    vector.step(np.array([CONV3, DENSE, CONV5]))
    patient.step(np.array([CONV3, DENSE, CONV5]))
    with pytest.raises(IllegalChoiceError, match="layer 2: action 1 is illegal here"):
        vector.step(np.array([CONV3, CONV5, CONV3]))
    assert_same(vector.step(np.array([CONV3, DENSE, CONV3])), patient.step(np.array([CONV3, DENSE, CONV3])))


def test_a_step_before_reset_is_refused() -> None:
    with pytest.raises(ResetNeeded):
        make_vec(2).step(np.array([0, 0]))


@pytest.mark.parametrize("count", [0, -1, 2.0, True])
def test_there_must_be_a_whole_number_of_trials(count: Any) -> None:
    with pytest.raises(ConfigurationError, match="num_envs"):
        make_vec(count)


# ---- pictures, tables


def test_there_is_a_picture_of_each_trial() -> None:
    vector = make_vec(2, render_mode="ansi")
    assert vector.render() == ("no trial yet: call reset()",) * 2
    vector.reset(seed=0, options={"task": [1, 2]})
    vector.step(np.array([CONV3, DENSE]))
    families = [DigitsSource().task("train", index).family for index in (1, 2)]
    texts = vector.render()
    assert texts is not None
    assert [text.splitlines()[0] for text in texts] == [
        f"task    digits:train/{index} ({family})" for index, family in zip((1, 2), families, strict=True)
    ]
    assert [text.splitlines()[-1].split()[1] for text in texts] == ["conv3x3-4", "dense-8"]

    vector = make_vec(2, render_mode="rgb_array")
    vector.reset(seed=0)
    pictures = vector.render()
    assert pictures is not None
    assert [(picture.dtype, picture.ndim) for picture in pictures] == [(np.uint8, 3)] * 2
    vector = make_vec(2)
    vector.reset(seed=0)
    assert vector.render() is None
    with pytest.raises(UnknownNameError, match="did you mean 'ansi'"):
        make_vec(2, render_mode="anssi")


class Unhurried:
    """A table's evaluator that takes nothing but proposals."""

    def __init__(self, table: Table) -> None:
        self._evaluator = TabularEvaluator(table)

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        return self._evaluator.evaluate(proposals)

    def spec(self) -> dict[str, Any]:
        return self._evaluator.spec()


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize(
    ("evaluation_seed", "duplicates", "space"),
    [(0, "count", None), (None, "count", None), (7, "refuse", None), (0, "count", CellSpace())],
    ids=str,
)
def test_designs_looked_up_by_their_choices_alone_come_out_as_proposals_do(
    reward: str, evaluation_seed: int | None, duplicates: str, space: SearchSpace | None, tmp_path: Path
) -> None:
    names = [*"abc"] if space is None else list(OPERATIONS)
    ops = np.array(list(product(range(len(names)), repeat=3 if space is None else 6)))[::2]
    score = np.random.default_rng(0).uniform(size=(len(ops), 2))
    score[3, 1] = np.nan
    tasks = np.array(["digits", "letters"])
    np.savez(tmp_path / "small.npz", ops=ops, op_names=np.array(names), tasks=tasks, score=score)
    table = Table.load(tmp_path / "small.npz")
    records: list[list[DesignEpisode]] = [[], []]
    options: dict[str, Any] = {
        "space": space or table.space,
        "tasks": (TableSource(table), "all"),
        "designs_per_trial": 4,
        "reward": reward,
        "reference_designs": 3,
        "evaluation_seed": evaluation_seed,
        "duplicates": duplicates,
    }
    fast = DesignVectorEnv(16, evaluator=TabularEvaluator(table), **options)
    others = [
        DesignVectorEnv(16, evaluator=evaluator, recorder=own.extend, **options)
        for evaluator, own in zip((TabularEvaluator(table), Unhurried(table)), records, strict=True)
    ]
    for other in others:
        assert_same(other.reset(seed=3), fast.reset(seed=3))
    rng = np.random.default_rng(0)
    for _ in range(60):
        noise = rng.random((16, len(names)))
        actions = np.where(rng.random(16) < 0.05, noise.argmax(1), (noise * fast.action_masks()).argmax(1))
        result = fast.step(actions)
        for other in others:
            assert_same(other.step(actions), result)
    assert all(one.same_record(other) for one, other in zip(*records, strict=True))
    assert len(records[0]) > 100


def test_a_table_serves_many_trials_at_once(tmp_path: Path) -> None:
    ops = np.array(list(product(range(3), repeat=3)))[::2]
    score = np.random.default_rng(0).uniform(size=(len(ops), 2))
    np.savez(tmp_path / "small.npz", ops=ops, tasks=np.array(["digits", "letters"]), score=score)
    table = Table.load(tmp_path / "small.npz")
    records: list[DesignEpisode] = []
    vector = DesignVectorEnv(
        64,
        space=table.space,
        tasks=(TableSource(table), "all"),
        evaluator=TabularEvaluator(table),
        designs_per_trial=4,
        recorder=records.extend,
    )
    _, info = vector.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(3 * 4):
        noise = rng.random(info["action_mask"].shape)
        info = vector.step((noise * info["action_mask"]).argmax(1))[-1]
    assert len(records) == 64 * 4
    column = {f"{TableSource(table).name}:all/{i}": i for i in range(2)}
    for record in records:
        assert (
            record.evaluation.accuracy
            == table.accuracy[table.space.rank(np.array([record.actions]))[0], column[record.task]]
        )
    assert set(recompute(sorted(records, key=lambda e: (e.trial, e.design)))) == {None}
