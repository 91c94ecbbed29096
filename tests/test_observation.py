"""What an agent sees, slice by slice and step by step."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.digits import DigitsSource
from rlnas.envs.design import DesignEnv
from rlnas.envs.observation import ObservationLayout
from rlnas.reward import REWARDS
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace

from .fake_evaluator import FakeEvaluator

SPACE = ChainSpace(max_layers=2, widths=(4,), dense_widths=(8,))
CONV3, CONV5, MAX_POOL, AVG_POOL, DENSE, IDENTITY = range(6)
CHOICES = 6


def make_env(space: SearchSpace = SPACE, accuracies: list[float] | None = None, **options: Any) -> DesignEnv:
    return DesignEnv(space=space, evaluator=FakeEvaluator(accuracies), **options)


def one_hot(length: int, *places: int) -> list[float]:
    return [float(i in places) for i in range(length)]


def seen(env: DesignEnv, observation: np.ndarray[Any, Any]) -> dict[str, list[float]]:
    return {name: part.tolist() for name, part in env.layout.split(observation).items() if name != "descriptor"}


@pytest.mark.parametrize("space", [SPACE, CellSpace()], ids=str)
def test_the_documented_slices_fill_the_vector_in_order(space: SearchSpace) -> None:
    sizes = {"decisions*choices": len(space.decisions) * space.num_choices}
    sizes |= {"decisions": len(space.decisions), "choices": space.num_choices}
    rows = re.findall(r"^    (\w+) +(\S+)  +\S", str(ObservationLayout.__doc__), re.MULTILINE)
    documented = {name: sizes.get(length) or int(length) for name, length in rows if name != "slice"}
    layout = ObservationLayout(space)
    assert list(layout) == list(documented)
    end = 0
    for name, length in documented.items():
        assert layout[name] == slice(end, end + length), name
        end += length
    assert layout.size == end
    assert layout.box().shape == (end,)
    assert layout.box().dtype == np.float32


def test_every_slice_of_a_trial_step_by_step() -> None:
    env = make_env(accuracies=[0.5, 0.25, 0.75], designs_per_trial=3)
    observation, _ = env.reset(seed=0)
    first, second, third = ([DENSE, IDENTITY], [CONV3, AVG_POOL], [CONV5, CONV5])
    told = [seen(env, observation)]
    told += [seen(env, env.step(action)[0]) for action in first + second + third]

    nothing, anything = one_hot(CHOICES), [1.0] * CHOICES
    #  design so far, decision, action, reward, ended, left, best, incumbent's choice, legal
    expected: list[tuple[list[int], int, int | None, float, int, float, float, int | None, list[float]]] = [
        ([], 0, None, 0.0, 0, 1, 0.0, None, anything),
        ([DENSE], 1, DENSE, 0.0, 0, 1, 0.0, None, one_hot(CHOICES, DENSE, IDENTITY)),
        ([], 0, IDENTITY, 0.5, 1, 2 / 3, 0.5, DENSE, anything),
        ([CONV3], 1, CONV3, 0.0, 0, 2 / 3, 0.5, IDENTITY, anything),
        ([], 0, AVG_POOL, 0.25, 1, 1 / 3, 0.5, DENSE, anything),
        ([CONV5], 1, CONV5, 0.0, 0, 1 / 3, 0.5, IDENTITY, anything),
        ([], 0, CONV5, 0.75, 1, 0, 0.75, CONV5, anything),
    ]
    for step, (taken, decision, action, reward, ended, left, best, incumbent, legal) in enumerate(expected):
        assert told[step] == {
            "design": one_hot(2 * CHOICES, *(CHOICES * i + choice for i, choice in enumerate(taken))),
            "position": one_hot(2, decision),
            "action": nothing if action is None else one_hot(CHOICES, action),
            "reward": [reward],
            "design_ended": [ended],
            "designs_left": [np.float32(left)],
            "best": [best],
            "incumbent": nothing if incumbent is None else one_hot(CHOICES, incumbent),
            "legal": legal,
        }, f"step {step}"


def test_an_illegal_action_is_seen_as_a_design_that_ended_worthless() -> None:
    env = make_env(accuracies=[0.5], designs_per_trial=3)
    env.reset(seed=0)
    for action in (CONV3, CONV3, DENSE):
        env.step(action)
    told = seen(env, env.step(MAX_POOL)[0])
    assert told["design"] == one_hot(2 * CHOICES)
    assert told["position"] == one_hot(2, 0)
    assert told["action"] == one_hot(CHOICES, MAX_POOL)
    assert (told["reward"], told["design_ended"], told["best"]) == ([0.0], [1.0], [0.5])
    assert told["incumbent"] == one_hot(CHOICES, CONV3)


def test_of_equally_good_designs_the_first_stays_the_incumbent() -> None:
    env = make_env(accuracies=[0.5, 0.5, 0.5], designs_per_trial=3)
    env.reset(seed=0)
    for action in (DENSE, IDENTITY, CONV3):
        env.step(action)
    assert seen(env, env.step(CONV5)[0])["incumbent"] == one_hot(CHOICES, DENSE)


@pytest.mark.parametrize("index", [0, 7, 40])
def test_the_descriptor_is_the_tasks_own_throughout(index: int) -> None:
    env = make_env(tasks="digits:train", designs_per_trial=2)
    descriptor = DigitsSource().task("train", index).descriptor
    observation, _ = env.reset(seed=0, options={"task": index})
    for action in (CONV3, DENSE, DENSE, IDENTITY):
        np.testing.assert_array_equal(observation[env.layout["descriptor"]], descriptor)
        observation = env.step(action)[0]


def test_the_descriptor_is_left_out_where_one_asks_for_that() -> None:
    env = make_env(designs_per_trial=2, descriptor=False)
    observation, _ = env.reset(seed=0, options={"task": 7})
    for action in (CONV3, DENSE, DENSE, IDENTITY):
        assert not observation[env.layout["descriptor"]].any()
        observation = env.step(action)[0]


@pytest.mark.parametrize("reward", REWARDS)
def test_the_next_design_begins_with_the_last_ones_accuracy_whatever_the_reward_form(reward: str) -> None:
    env = make_env(reward=reward, designs_per_trial=4)
    env.reset(seed=3)
    for _ in range(4):
        env.step(CONV3)
        observation, _, _, _, info = env.step(CONV5)
        parts = env.layout.split(observation)
        assert parts["design_ended"] == 1
        assert parts["reward"] == np.float32(info["accuracy"]) > 0
        assert np.flatnonzero(parts["action"]).tolist() == [CONV5]


def test_only_the_memory_slices_carry_something_from_design_to_design() -> None:
    env = make_env(designs_per_trial=2)
    before, _ = env.reset(seed=0)
    env.step(CONV3)
    after = env.step(DENSE)[0]
    changed = {name for name in env.layout if (before[env.layout[name]] != after[env.layout[name]]).any()}
    assert changed == set(ObservationLayout.MEMORY)


def test_nothing_is_carried_from_trial_to_trial() -> None:
    env = make_env(designs_per_trial=2)
    fresh, _ = env.reset(seed=0, options={"task": 5})
    for action in (CONV3, DENSE, DENSE, IDENTITY):
        env.step(action)
    again, _ = env.reset(options={"task": 5})
    np.testing.assert_array_equal(again, fresh)


def test_split_gives_views_of_any_batch() -> None:
    layout = ObservationLayout(SPACE)
    batch = np.zeros((5, 3, layout.size), dtype=np.float32)
    parts = layout.split(batch)
    assert parts["design"].shape == (5, 3, 2 * CHOICES)
    parts["best"][...] = 1
    assert batch.sum() == 15


@settings(deadline=None, max_examples=60)
@given(
    space=st.sampled_from([SPACE, ChainSpace(max_layers=4, input_size=2), CellSpace()]),
    reward=st.sampled_from(REWARDS),
    designs=st.integers(1, 3),
    data=st.data(),
)
def test_observations_and_masks_are_right_after_any_actions(
    space: SearchSpace, reward: str, designs: int, data: st.DataObject
) -> None:
    env = make_env(space, reward=reward, designs_per_trial=designs, reference_designs=2)
    observation, info = env.reset(seed=data.draw(st.integers(0, 5)))
    prefix: list[int] = []
    over = False
    while not over:
        legal = space.legal_choices(prefix)
        assert observation in env.observation_space
        assert info["action_mask"].dtype == np.int8
        assert env.action_masks().dtype == np.bool_
        assert env.action_masks().tolist() == legal.tolist()
        assert info["action_mask"].tolist() == legal.tolist()
        assert observation[env.layout["legal"]].tolist() == legal.tolist()
        action = data.draw(st.integers(0, space.num_choices - 1))
        observation, _, over, _, info = env.step(action)
        prefix.append(action)
        assert info["design_ended"] == (not legal[action] or len(prefix) == len(space.decisions))
        if info["design_ended"]:
            assert info["status"] == ("ok" if legal[action] else "invalid")
            prefix = []
    assert observation in env.observation_space
