"""The design environment: its rules, what it records, and what it may be given."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from rlnas.adaptation import Adaptation
from rlnas.digits import DigitsSource
from rlnas.envs.design import DesignEnv
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, IllegalChoiceError, UnknownNameError
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.registration import PRESETS, PROBLEMS
from rlnas.replay import recompute
from rlnas.reward import COMPARING, REWARDS
from rlnas.search_space import CellSpace, ChainSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.store import EpisodeStore
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator

from .fake_evaluator import FakeEvaluator, fake_accuracy
from .tables import ENV_IDS

SPACE = ChainSpace(max_layers=2, widths=(4,), dense_widths=(8,))
CONV3, CONV5, MAX_POOL, AVG_POOL, DENSE, IDENTITY = range(6)
QUICK = {"kind": "sequential", "adaptation": {"steps": 1}}
INFO = {
    "action_mask": np.ndarray,
    "design_ended": bool,
    "accuracy": float,
    "best_accuracy": float,
    "design": int,
    "task": str,
    "architecture": str,
    "status": str,
}


def make_env(evaluator: Evaluator | None = None, **options: Any) -> DesignEnv:
    return DesignEnv(space=SPACE, evaluator=evaluator or FakeEvaluator(), **options)


def play(env: gym.Env[Any, Any], actions: Sequence[int], **reset: Any) -> list[tuple[Any, ...]]:
    """What reset and each step returned."""
    return [env.reset(**reset), *(env.step(action) for action in actions)]


def play_at_random(env: gym.Env[Any, Any], seed: int) -> list[tuple[Any, ...]]:
    """A whole trial of legal actions."""
    env.action_space.seed(seed)
    told: list[tuple[Any, ...]] = [env.reset(seed=seed)]
    while len(told) == 1 or not told[-1][2]:
        told.append(env.step(env.action_space.sample(told[-1][-1]["action_mask"])))
    return told


def assert_same(one: Any, other: Any) -> None:
    """Equal in every value and type, however deep."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, its in zip(one, other, strict=True):
            assert_same(mine, its)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


# ---- Gymnasium's and stable-baselines3's own checks


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_every_id_passes_gymnasiums_check(env_id: str) -> None:
    check_env(gym.make(env_id, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_every_id_passes_stable_baselines3s_check(env_id: str) -> None:
    check_env_for_sb3(gym.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", [i for i, arguments in PRESETS.items() if arguments["space"]["kind"] != "table"])
def test_every_ids_spec_survives_json_pickle_and_copying(env_id: str) -> None:
    spec = gym.make(env_id, space={"kind": "chain", "widths": [4]}, evaluator=QUICK).spec
    assert spec is not None
    copies = [EnvSpec.from_json(spec.to_json()), pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec)]
    told = play(gym.make(spec), [0, 3, 1, 1, 2, 3], seed=4)
    for again in copies:
        assert_same(play(gym.make(again), [0, 3, 1, 1, 2, 3], seed=4), told)


def test_ids_are_registered_once_and_say_their_own_name() -> None:
    assert {env_id for env_id in gym.registry if env_id.startswith("rlnas/")} == {*PRESETS, *PROBLEMS}
    records: list[DesignEpisode] = []
    env = gym.make("rlnas/Digits-v0", evaluator=QUICK, recorder=records.extend)
    play_at_random(env, 0)
    assert records[0].env["id"] == "rlnas/Digits-v0"


# ---- a trial is one episode


def test_a_trial_is_one_episode_of_several_designs() -> None:
    env = make_env(FakeEvaluator([0.5, 0.25, 0.75]), designs_per_trial=3)
    told = play(env, [DENSE, IDENTITY, CONV3, CONV3, CONV5, CONV5], seed=0)[1:]
    assert [reward for _, reward, *_ in told] == [0, 0.5, 0, 0.25, 0, 0.75]
    assert [over for _, _, over, *_ in told] == [False] * 5 + [True]
    assert not any(truncated for *_, truncated, _ in told)
    infos = [info for *_, info in told]
    assert [info["design"] for info in infos] == [0, 1, 1, 2, 2, 3]
    assert [info["design_ended"] for info in infos] == [False, True] * 3
    assert [info["best_accuracy"] for info in infos] == [0, 0.5, 0.5, 0.5, 0.5, 0.75]
    assert [info["accuracy"] for info in infos] == [0, 0.5, 0, 0.25, 0, 0.75]
    assert [info["architecture"] for info in infos[1::2]] == [
        "dense-8",
        "conv3x3-4 > conv3x3-4",
        "conv5x5-4 > conv5x5-4",
    ]
    assert len({info["task"] for info in infos}) == 1


def test_info_has_one_schema_at_every_step() -> None:
    env = make_env(designs_per_trial=2)
    told = play(env, [CONV3, CONV3, DENSE, CONV3], seed=0)  # the last is illegal
    for *_, info in told:
        assert {name: type(value) for name, value in info.items()} == INFO
        assert info["action_mask"].dtype == np.int8
        assert info["action_mask"].shape == (SPACE.num_choices,)
    assert all(
        type(reward) is float and type(over) is bool and over_time is False
        for _, reward, over, over_time, _ in told[1:]
    )


@pytest.mark.parametrize("finished", [False, True])
def test_a_step_needs_a_trial_in_progress(finished: bool) -> None:
    records: list[DesignEpisode] = []
    env = make_env(recorder=records.extend)
    if finished:
        play(env, [CONV3, CONV3], seed=0)
    with pytest.raises(ResetNeeded):
        env.step(CONV3)
    assert len(records) == finished


# ---- actions


def test_an_illegal_action_ends_the_design_and_not_the_trial() -> None:
    evaluator = FakeEvaluator()
    env = make_env(evaluator, designs_per_trial=2)
    told = play(env, [DENSE, CONV3, CONV3, CONV3], seed=0)
    _, reward, over, _, info = told[2]
    assert (reward, over) == (0.0, False)
    assert (info["status"], info["accuracy"], info["architecture"], info["design"]) == ("invalid", 0.0, "", 1)
    assert sum(map(len, evaluator.calls)) == 1
    _, reward, over, _, info = told[4]
    assert over
    assert info["status"] == "ok"
    assert reward == info["accuracy"] > 0


def test_an_illegal_action_raises_if_asked_to_and_changes_nothing() -> None:
    env, patient = (make_env(invalid_action="raise") for _ in range(2))
    play(env, [DENSE], seed=0)
    with pytest.raises(IllegalChoiceError, match=r"layer 2: action 0 is illegal here \(legal: dense-8, identity\)"):
        env.step(CONV3)
    play(patient, [DENSE], seed=0)
    assert_same(env.step(DENSE), patient.step(DENSE))


@pytest.mark.parametrize("action", [-1, 6, 1.5, "0", [0, 1]])
@pytest.mark.parametrize("invalid_action", ["penalise", "raise"])
def test_what_is_no_action_at_all_is_refused(invalid_action: str, action: Any) -> None:
    env = make_env(invalid_action=invalid_action)
    env.reset(seed=0)
    with pytest.raises(IllegalChoiceError, match=r"in 0 \.\. 5"):
        env.step(action)


@pytest.mark.parametrize("action", [np.int64(3), np.int32(3), np.array(3), np.uint8(3)])
def test_actions_may_be_any_integers(action: Any) -> None:
    env, plain = make_env(), make_env()
    env.reset(seed=0)
    plain.reset(seed=0)
    assert_same(env.step(action), plain.step(3))


# ---- rewards


def rewards_of_designs(told: Sequence[tuple[Any, ...]]) -> list[float]:
    return [reward for _, reward, _, _, info in told[1:] if info["design_ended"]]


def test_improvements_sum_to_the_trials_best_accuracy() -> None:
    env = make_env(FakeEvaluator([0.5, 0.25, 0.75, 0.75]), designs_per_trial=4, reward="improvement")
    told = play(env, [CONV3] * 8, seed=0)
    assert rewards_of_designs(told) == [0.5, 0, 0.25, 0]
    for seed in range(5):
        told = play_at_random(make_env(designs_per_trial=6, reward="improvement"), seed)
        assert sum(rewards_of_designs(told)) == pytest.approx(told[-1][-1]["best_accuracy"])


def test_normalised_rewards_are_measured_against_random_designs_on_the_task() -> None:
    evaluator = FakeEvaluator()
    env = make_env(evaluator, designs_per_trial=3, reward="normalised", reference_designs=9)
    told = play(env, [CONV3, CONV3, CONV5, DENSE, DENSE, CONV3], seed=0)
    reference = next(call for call in evaluator.calls if len(call) == 9)
    assert {p.task.name for p in reference} == {told[0][1]["task"]}
    mean, deviation = (f([fake_accuracy(p) for p in reference]) for f in (np.mean, np.std))
    accuracies = [info["accuracy"] for *_, info in told[1:] if info["design_ended"]]
    assert deviation > 0.02
    assert accuracies[-1] == 0  # illegal: as much below the mean as a design can be
    assert rewards_of_designs(told) == pytest.approx([(a - mean) / deviation for a in accuracies])
    assert len(evaluator.calls) == 1 + 2 + 1  # the reference is found once, and nothing legal was in the last design


def test_normalised_rewards_take_no_deviation_smaller_than_a_fiftieth() -> None:
    env = make_env(FakeEvaluator([0.6, *[0.5] * 4]), reward="normalised", reference_designs=4)
    assert rewards_of_designs(play(env, [CONV3, CONV3], seed=0)) == pytest.approx([0.1 / 0.02])


# ---- seeds and options


@pytest.mark.parametrize("evaluation_seed", [None, 3])
def test_equal_seeds_give_equal_episodes(evaluation_seed: int | None) -> None:
    env = make_env(designs_per_trial=3, evaluation_seed=evaluation_seed)
    told = play_at_random(env, 11)
    assert_same(play_at_random(env, 11), told)
    assert_same(play_at_random(make_env(designs_per_trial=3, evaluation_seed=evaluation_seed), 11), told)
    assert play_at_random(env, 12)[0][1]["task"] != told[0][1]["task"]


def test_trials_after_a_seeded_one_follow_from_its_seed() -> None:
    names = [[env.reset(seed=s)[1]["task"] for s in (5, None, None)] for env in (make_env(), make_env())]
    assert names[0] == names[1]
    assert len(set(names[0])) == 3


def test_a_repeated_design_has_the_same_accuracy_unless_evaluation_seeds_are_drawn() -> None:
    fixed, drawn = FakeEvaluator(), FakeEvaluator()
    told = play(make_env(fixed, designs_per_trial=3, evaluation_seed=7), [CONV3] * 6, seed=0)
    assert len(set(rewards_of_designs(told))) == 1
    assert [p.seed for call in fixed.calls for p in call] == [7, 7, 7]
    told = play(make_env(drawn, designs_per_trial=3, evaluation_seed=None), [CONV3] * 6, seed=0)
    assert len({p.seed for call in drawn.calls for p in call}) == 3
    assert len(set(rewards_of_designs(told))) > 1


def test_options_fix_the_task_and_the_trials_number() -> None:
    records: list[DesignEpisode] = []
    env = make_env(recorder=records.extend)
    for options in (None, {"task": 17, "trial": 30}, {"task": np.int64(3)}, {}):
        info = play(env, [CONV3, CONV3], options=options)[0][1]
        if options and "task" in options:
            assert info["task"] == f"digits:train/{options['task']}"
    assert [record.trial for record in records] == [0, 30, 31, 32]
    assert [record.task for record in records[1:3]] == ["digits:train/17", "digits:train/3"]


def test_the_task_can_be_kept() -> None:
    env = make_env()
    first = env.reset(seed=1, options={"new_task": False})[1]["task"]  # there is none yet
    kept = [env.reset(options={"new_task": False})[1]["task"] for _ in range(5)]
    assert kept == [first] * 5
    assert len({env.reset(options={"new_task": True})[1]["task"] for _ in range(5)}) > 1
    assert env.reset(options={"new_task": False, "task": 3})[1]["task"] == "digits:train/3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tsak": 1}, "'task', 'new_task' and 'trial'.*tsak"),
        ({"task": -1}, "task.*>= 0.*-1"),
        ({"task": 10**6}, r"digits:train has tasks 0 \.\. \d+, got 1000000"),
        ({"task": "first"}, "'first'"),
        ({"task": 1.5}, "1.5"),
        ({"task": [1, 2]}, "task.*1 number.*2"),
        ({"trial": -1}, "trial.*-1"),
        ({"trial": "x"}, "'x'"),
        ({"trial": [1, 2]}, "trial.*1 number.*2"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_env().reset(options=options)


# ---- arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"reward": "acuracy"}, UnknownNameError, "did you mean 'accuracy'"),
        ({"invalid_action": "penalize"}, UnknownNameError, "did you mean 'penalise'"),
        ({"duplicates": "refused"}, UnknownNameError, "did you mean 'refuse'"),
        ({"render_mode": "rgb_aray"}, UnknownNameError, "did you mean 'rgb_array'"),
        ({"space": "chian"}, UnknownNameError, "did you mean 'chain'"),
        ({"space": {"kind": "cell", "widht": 3}}, ConfigurationError, "widht"),
        ({"space": 5}, ConfigurationError, "space must be.*5"),
        ({"tasks": "digit:train"}, UnknownNameError, "did you mean 'digits'"),
        ({"tasks": "digits:trian"}, UnknownNameError, "did you mean 'train'"),
        ({"tasks": (DigitsSource(), "tset")}, UnknownNameError, "did you mean 'test'"),
        ({"tasks": ({"kind": "digts"}, "test")}, UnknownNameError, "did you mean 'digits'"),
        ({"tasks": (None, "test")}, ConfigurationError, "tasks must be.*None"),
        ({"evaluator": "sequental"}, UnknownNameError, "did you mean 'sequential'"),
        ({"evaluator": {}}, UnknownNameError, "None"),
        ({"evaluator": 3}, ConfigurationError, "evaluator must be.*3"),
        ({"designs_per_trial": 0}, ConfigurationError, "designs_per_trial.*>= 1.*0"),
        ({"designs_per_trial": 2.0}, ConfigurationError, "designs_per_trial.*2.0"),
        ({"reference_designs": 1}, ConfigurationError, "reference_designs.*>= 2"),
        ({"descriptor": "no"}, ConfigurationError, "descriptor must be true or false, got 'no'"),
        ({"evaluation_seed": -1}, ConfigurationError, "evaluation_seed.*>= 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DesignEnv(**arguments)


def test_arguments_may_be_objects_names_or_descriptions() -> None:
    actions = [0, 3, 1, 1, 2, 3]
    told = [
        play(DesignEnv(space=space, tasks=tasks, evaluator=evaluator), actions, seed=1)
        for space, tasks, evaluator in (
            (CellSpace(), (DigitsSource(), "val"), SequentialEvaluator()),
            ("cell", "digits:val", None),
            ("cell", "digits:val", "sequential"),
            ({"kind": "cell"}, ({"kind": "digits"}, "val"), {"kind": "sequential"}),
            (json.loads(json.dumps(CellSpace().spec())), [DigitsSource().spec(), "val"], SequentialEvaluator().spec()),
        )
    ]
    assert told[0][0][1]["task"].startswith("digits:val/")
    assert told[0][-1][2]
    for other in told[1:]:
        assert_same(other, told[0])


def write_table(folder: Path) -> Path:
    """Most of the designs of three decisions with three choices, scored on two tasks."""
    ops = np.array(list(product(range(3), repeat=3)))[::2]
    score = np.random.default_rng(0).uniform(size=(len(ops), 2))
    np.savez(folder / "small.npz", ops=ops, tasks=np.array(["digits", "letters"]), score=score)
    return folder / "small.npz"


@pytest.mark.parametrize("reward", COMPARING)
def test_a_table_is_designed_in_like_any_space(reward: str, tmp_path: Path) -> None:
    table = Table.load(write_table(tmp_path))
    records: list[DesignEpisode] = []
    env = DesignEnv(
        space=table.space,
        tasks=(TableSource(table), "all"),
        evaluator=TabularEvaluator(table),
        designs_per_trial=50,
        reward=reward,
        recorder=records.extend,
    )
    check_env(env, skip_render_check=True)
    records.clear()
    told = play_at_random(env, 0)
    assert len(records) == 50
    column = table.tasks.index(TableSource(table).task("all", int(records[0].task[-1])).family)
    for record in records:
        row = table.space.rank(np.array([record.actions]))[0]
        assert record.evaluation.accuracy == table.accuracy[row, column]
    assert told[-1][-1]["best_accuracy"] == max(
        table.accuracy[table.space.rank(np.array([r.actions]))[0], column] for r in records
    )
    path = str(tmp_path / "small.npz")
    named = DesignEnv(
        space={"kind": "table", "path": path},
        tasks=f"table:{path}:all",
        evaluator={"kind": "table", "table": {"path": path}},
        designs_per_trial=50,
        reward=reward,
    )
    assert_same(play_at_random(named, 0), told)
    assert list(recompute(records)) == [None] * 50


def test_rewards_compare_with_a_whole_table_or_with_so_many_of_its_designs_as_asked(tmp_path: Path) -> None:
    table = Table.load(write_table(tmp_path))
    records: list[DesignEpisode] = []
    for designs in (None, 8):
        env = DesignEnv(
            space=table.space,
            tasks=(TableSource(table), "all"),
            evaluator=TabularEvaluator(table),
            designs_per_trial=30,
            reward="normalised",
            reference_designs=designs,
            recorder=records.extend,
        )
        play_at_random(env, 0)
    assert [record.env["reference_designs"] for record in records] == [None] * 30 + [8] * 30
    assert list(recompute(records)) == [None] * 60
    column = table.accuracy[:, table.tasks.index(TableSource(table).named(records[0].task).family)]
    for record in records[:30]:
        assert record.rewards[-1] == pytest.approx((record.evaluation.accuracy - column.mean()) / column.std())
    assert records[0].rewards != records[30].rewards
    with pytest.raises(ConfigurationError, match="reference_designs must be a number unless the evaluator is a table"):
        replace(make_env().settings, reference_designs=None)


def test_a_table_is_not_asked_for_designs_of_another_space(tmp_path: Path) -> None:
    table = Table.load(write_table(tmp_path))
    with pytest.raises(ConfigurationError, match=r"small\.npz does not hold the designs of chain"):
        DesignEnv(space=SPACE, tasks=(TableSource(table), "all"), evaluator=TabularEvaluator(table))


# ---- records


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("evaluation_seed", [None, 3])
def test_records_are_the_designs_that_ended_and_can_be_recomputed(
    reward: str, evaluation_seed: int | None, tmp_path: Path
) -> None:
    evaluator = SequentialEvaluator(Adaptation(steps=1))
    env = make_env(
        evaluator, designs_per_trial=3, reward=reward, evaluation_seed=evaluation_seed, reference_designs=3, agent="me"
    )
    records: list[DesignEpisode] = []
    env.trials.recorder = records.extend
    designs = [(DENSE, IDENTITY), (DENSE, CONV3), (CONV3, MAX_POOL)]  # the second ends in an illegal action
    for trial, seed in enumerate([6, None]):
        told = play(env, [action for design in designs for action in design], seed=seed)
        task = DigitsSource().named(told[0][1]["task"])
        best = 0.0
        for number, design in enumerate(designs):
            record = records[3 * trial + number]
            info = told[2 * number + 2][-1]
            best = max(best, info["accuracy"])
            assert (record.agent, record.trial, record.design, record.seed) == ("me", trial, number, seed)
            assert (record.task, record.task_digest) == (task.name, task.digest)
            assert record.actions == design
            assert record.masks == ("111111", "000011" if design[0] == DENSE else "111111")
            assert record.rewards == (0.0, told[2 * number + 2][1])
            assert record.architecture == info["architecture"]
            assert record.evaluation.accuracy == info["accuracy"]
            assert record.evaluation.status == info["status"]
            assert record.best == info["best_accuracy"] == best
            assert record.env["reward"] == reward
    assert len(records) == 6
    assert [r.evaluation.status is Status.INVALID for r in records] == [False, True, False] * 2
    with EpisodeStore(tmp_path / "run.db") as store:
        store.append(records)
        assert list(recompute(store.episodes())) == [None] * 6


def test_nothing_is_recorded_of_a_design_that_was_not_finished() -> None:
    records: list[DesignEpisode] = []
    env = make_env(designs_per_trial=2, recorder=records.extend)
    play(env, [CONV3, CONV3, CONV3], seed=0)
    env.reset()
    assert len(records) == 1


@pytest.mark.parametrize("status", [Status.DIVERGED, Status.OUT_OF_MEMORY, Status.CRASHED])
def test_a_failed_evaluation_is_told_and_recorded_and_the_trial_goes_on(status: Status) -> None:
    class Failing(FakeEvaluator):
        def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
            return [Evaluation(0.0, status=status, message="why") for _ in proposals]

    records: list[DesignEpisode] = []
    env = make_env(Failing(), designs_per_trial=2, recorder=records.extend)
    *_, (_, reward, over, _, info) = play(env, [CONV3, DENSE], seed=0)
    assert (reward, over, info["status"], info["architecture"]) == (0.0, False, str(status), "conv3x3-4 > dense-8")
    assert (records[0].evaluation.status, records[0].evaluation.message) == (status, "why")


# ---- pictures and copies


def test_ansi_says_what_was_designed() -> None:
    env = make_env(FakeEvaluator([0.5, 0.25]), designs_per_trial=2, render_mode="ansi")
    assert "reset()" in env.render()
    play(env, [], seed=0, options={"task": 4})
    family = DigitsSource().task("train", 4).family
    assert env.render().splitlines() == [
        f"task    digits:train/4 ({family})",
        "design  0 of 2 done",
        "best    0.000",
        "last    -",
        "now     - (0 of 2 decisions)",
    ]
    env.step(DENSE)
    assert env.render().splitlines()[-1] == "now     dense-8 (1 of 2 decisions)"
    env.step(IDENTITY)
    assert env.render().splitlines()[1:] == [
        "design  1 of 2 done",
        "best    0.500",
        "last    dense-8  accuracy 0.500  ok",
        "now     - (0 of 2 decisions)",
    ]


def test_rgb_array_is_a_picture_that_changes_with_the_design() -> None:
    env = make_env(render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.step(CONV3)
    after = env.render()
    assert before.dtype == np.uint8
    assert before.ndim == 3
    assert before.shape == after.shape == (*before.shape[:2], 3)
    assert (before != after).any()


def test_without_a_render_mode_there_is_no_picture() -> None:
    env = make_env()
    env.reset(seed=0)
    assert env.render() is None


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"]
)
def test_a_copy_made_in_the_middle_of_a_trial_goes_on_alike(duplicate: Callable[[DesignEnv], DesignEnv]) -> None:
    env = make_env(designs_per_trial=2, evaluation_seed=None)
    play(env, [CONV3, CONV3, CONV3], seed=0)
    again = duplicate(env)
    assert_same(again.step(DENSE), env.step(DENSE))
    assert_same(again.reset(), env.reset())


def test_an_unknown_argument_is_named_with_its_nearest_neighbour() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'designs_per_trial'"):
        gym.make("rlnas/Trial-v0", design_per_trial=3)


def test_numpys_integers_are_integers() -> None:
    env = gym.make("rlnas/Trial-v0", designs_per_trial=np.int64(3))
    assert env.unwrapped.settings.designs_per_trial == 3
