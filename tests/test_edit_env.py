"""The edit environments: their rules, their vector form, what they record, and who learns in them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from rlnas.agents.rl2 import RL2
from rlnas.agents.rollout import collect
from rlnas.edits import WAIT, ChainEdits
from rlnas.envs.edit import EditEnv, EditVectorEnv
from rlnas.envs.observation import EditLayout, ObservationLayout
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, IllegalChoiceError, UnknownNameError
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.replay import recompute
from rlnas.replay_terminal import compare_recomputed, list_trials, step_through, trial_of
from rlnas.search_space import CellSpace, ChainSpace
from rlnas.store import EpisodeStore

from .fake_evaluator import FakeEvaluator, fake_accuracy
from .test_vector_env import arrays_in, assert_same

SPACE = ChainSpace(max_layers=3, input_size=4, widths=(4, 8), dense_widths=(16,))
NAMES = ChainEdits(SPACE, 6).names
SUBMIT = len(NAMES) - 1
TINY: dict[str, Any] = {
    "space": {"kind": "chain", "max_layers": 2, "input_size": 2, "widths": [2], "dense_widths": [4]},
    "evaluator": {"kind": "sequential", "adaptation": {"steps": 1}},
}


def make_env(accuracies: Sequence[float] | None = None, **options: Any) -> EditEnv:
    return EditEnv(space=SPACE, evaluator=FakeEvaluator(accuracies), **options)


def make_vec(count: int, **options: Any) -> EditVectorEnv:
    return EditVectorEnv(count, space=SPACE, **{"evaluator": FakeEvaluator(), **options})


def actions_named(*names: str) -> list[int]:
    return [NAMES.index(name) for name in names]


def play(env: EditEnv, *names: str) -> list[tuple[Any, ...]]:
    """What each step returned."""
    return [env.step(action) for action in actions_named(*names)]


def play_at_random(env: gym.vector.VectorEnv[Any, Any, Any], steps: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    _, info = env.reset(seed=seed)
    for _ in range(steps):
        noise = rng.random(info["action_mask"].shape)
        info = env.step((noise * info["action_mask"]).argmax(1))[-1]


# ---- how a design is made


def test_a_network_is_edited_until_it_is_submitted() -> None:
    env = make_env()
    _, info = env.reset(seed=0, options={"task": 5})
    first = play(env, "add dense-16", "add conv3x3-4", "change filter of layer 1", "widen layer 1", "add max-pool")
    assert [step[1:4] for step in first] == [(0.0, False, False)] * 5
    assert [step[4]["architecture"] for step in first] == [""] * 5
    ((_, reward, terminated, truncated, info),) = play(env, "submit")
    ((proposal,),) = env.settings.evaluator.calls  # type: ignore[attr-defined]
    assert info["architecture"] == proposal.architecture.text == "conv5x5-8 > max-pool > dense-16"
    assert proposal.task.name == info["task"] == "digits:train/5"
    assert (reward, info["accuracy"], info["best_accuracy"]) == (fake_accuracy(proposal),) * 3
    assert (terminated, truncated, info["status"], info["design_ended"]) == (True, False, "ok", True)


def test_the_last_edit_that_is_allowed_completes_the_design() -> None:
    env = make_env(max_edits=2)
    env.reset(seed=0)
    told = play(env, "add dense-16", "add conv3x3-4")
    assert [step[2] for step in told] == [False, True]
    assert told[-1][-1]["architecture"] == "conv3x3-4 > dense-16"
    assert make_env().settings.edits.max_edits == 2 * SPACE.max_layers  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("start", "texts"),
    [
        ("empty", ["dense-16", "max-pool", "identity", "dense-16"]),
        ("incumbent", ["dense-16", "max-pool > dense-16", "max-pool > dense-16", "max-pool > dense-16 > dense-16"]),
    ],
)
def test_a_design_starts_empty_or_from_the_best_one_of_the_trial(start: str, texts: list[str]) -> None:
    env = make_env([0.25, 0.75, 0.5, 1.0], start=start, designs_per_trial=4)
    env.reset(seed=0)
    told = play(env, "add dense-16", "submit", "add max-pool", "submit", "submit", "add dense-16", "submit")
    assert [step[-1]["architecture"] for step in told if step[-1]["design_ended"]] == texts


def test_a_trial_never_starts_from_another_trials_best() -> None:
    env = make_env(start="incumbent")
    for _ in range(2):
        env.reset(seed=0)
        assert play(env, "add dense-16", "submit")[-1][-1]["architecture"] == "dense-16"


def test_worthless_designs_are_no_incumbents() -> None:
    env = make_env([0.0, 0.5], start="incumbent", designs_per_trial=3)
    env.reset(seed=0)
    told = play(env, "add dense-16", "submit", "submit")
    assert told[-1][-1]["architecture"] == "identity"


def test_an_illegal_edit_ends_the_design_or_raises() -> None:
    env = make_env(designs_per_trial=2)
    env.reset(seed=0)
    ((_, reward, over, _, info),) = play(env, "widen layer 1")
    assert (reward, over, info["status"], info["architecture"]) == (0.0, False, "invalid", "")
    assert env.settings.evaluator.calls == [[]]  # type: ignore[attr-defined]

    strict = make_env(invalid_action="raise")
    strict.reset(seed=0)
    play(strict, "add dense-16")
    with pytest.raises(IllegalChoiceError, match=r"^edit 2: 'delete layer 2' is illegal here \(legal: add conv3x3-4, "):
        play(strict, "delete layer 2")
    assert play(strict, "submit")[-1][-1]["architecture"] == "dense-16"


def test_the_mask_is_what_the_edits_allow() -> None:
    env = make_env(designs_per_trial=50)
    rng = np.random.default_rng(0)
    _, info = env.reset(seed=0)
    network = env.settings.edits.empty  # type: ignore[attr-defined]
    for _ in range(100):
        _, legal = env.settings.edits.outcomes(np.array([network]))  # type: ignore[attr-defined]
        np.testing.assert_array_equal(info["action_mask"], legal[0].astype(np.int8))
        np.testing.assert_array_equal(env.action_masks(), legal[0])
        action = int(rng.choice(np.flatnonzero(legal[0])))
        network = env.settings.edits.follow(network, [action])[-1]  # type: ignore[attr-defined]
        *_, over, _, info = env.step(action)
        if info["design_ended"]:
            network = env.settings.edits.empty  # type: ignore[attr-defined]
        if over:
            break


def test_designs_that_the_trial_has_evaluated_are_refused_if_asked_to() -> None:
    env = make_env(duplicates="refuse", designs_per_trial=40)
    rng = np.random.default_rng(1)
    _, info = env.reset(seed=0)
    over, texts = False, []
    while not over:
        action = int(rng.choice(np.flatnonzero(info["action_mask"])))
        *_, over, _, info = env.step(action)
        texts += [info["architecture"]] * info["design_ended"]
    assert len(texts) == len(set(texts)) == 40
    assert "" not in texts
    env.reset(seed=0)
    assert env.action_masks()[SUBMIT]  # the next trial has evaluated nothing


def test_what_cannot_but_be_repeated_is_not_refused() -> None:
    space = ChainSpace(max_layers=1, input_size=1, widths=(4,), dense_widths=(8,))
    env = EditEnv(space=space, evaluator=FakeEvaluator(), duplicates="refuse", designs_per_trial=9, max_edits=1)
    _, info = env.reset(seed=0)
    texts = []
    for _ in range(9):
        *_, info = env.step(int(info["action_mask"].argmax()))
        texts.append(info["architecture"])
    assert set(texts[:4]) == set(texts) == {"conv3x3-4", "conv5x5-4", "dense-8", "identity"}


# ---- what is seen


def test_the_documented_slices_fill_the_vector_in_order() -> None:
    edits = ChainEdits(SPACE, 5)
    layout = EditLayout(edits)
    sizes = {"layers*choices": 3 * SPACE.num_choices, "max_edits": 5, "actions": len(NAMES)}
    rows = re.findall(r"^    (\w+) +(\S+)  +\S", str(EditLayout.__doc__), re.MULTILINE)
    documented = {name: sizes.get(length) or int(length) for name, length in rows if name != "slice"}
    assert list(layout) == list(documented)
    assert [layout[name].stop - layout[name].start for name in layout] == list(documented.values())
    assert layout.size == sum(documented.values())
    assert set(layout.MEMORY) < set(layout)


def test_every_slice_of_a_trial() -> None:
    env = make_env([0.5, 0.25], designs_per_trial=2)
    empty = [SPACE.num_choices - 1] * 3

    def seen(observation: NDArray[np.float32]) -> dict[str, Any]:
        parts = env.layout.split(observation)
        grids = {name: parts[name].reshape(3, -1) for name in ("network", "incumbent")}
        told = {name: grid.argmax(1).tolist() if grid.any() else None for name, grid in grids.items()}
        told |= {name: parts[name].argmax() if parts[name].any() else None for name in ("position", "action")}
        for name in ("reward", "design_ended", "designs_left", "best"):
            told[name] = float(parts[name][0])
        np.testing.assert_array_equal(parts["legal"], env.action_masks())
        assert all(grid.sum() in (0, 3) for grid in grids.values())
        return told

    observation, _ = env.reset(seed=0)
    first = {"network": empty, "incumbent": None, "position": 0, "action": None, "reward": 0.0, "design_ended": 0.0}
    assert seen(observation) == {**first, "designs_left": 1.0, "best": 0.0}
    add, submit = actions_named("add conv3x3-8", "submit")
    conv = [1, *empty[1:]]
    edited = {**first, "network": conv, "position": 1, "action": add, "designs_left": 1.0, "best": 0.0}
    assert seen(env.step(add)[0]) == edited
    between = {**first, "incumbent": conv, "action": submit, "reward": 0.5, "design_ended": 1.0}
    assert seen(env.step(submit)[0]) == {**between, "designs_left": 0.5, "best": 0.5}
    assert seen(env.step(submit)[0]) == {**between, "reward": 0.25, "designs_left": 0.0, "best": 0.5}


@pytest.mark.parametrize("start", ["empty", "incumbent"])
def test_whoever_plans_designs_builds_them_in_both_kinds_of_environment(start: str) -> None:
    rng = np.random.default_rng(0)
    targets = [SPACE.sample(rng) for _ in range(30)]
    for env_id, options in (("rlnas/Edit-v0", {"start": start}), ("rlnas/Design-v0", {})):
        env = gym.make(env_id, space=SPACE, evaluator=FakeEvaluator(), designs_per_trial=30, **options)
        layout: ObservationLayout = env.unwrapped.layout  # type: ignore[attr-defined]
        observation, info = env.reset(seed=0)
        built: list[str] = []
        while len(built) < len(targets):
            observation, *_, info = env.step(layout.action_towards(observation, targets[len(built)]))
            built += [info["architecture"]] * info["design_ended"]
        assert built == [target.text for target in targets]


def test_pictures_show_the_network_as_it_is() -> None:
    env = make_env(render_mode="ansi", max_edits=4)
    env.reset(seed=0)
    play(env, "add dense-16", "add avg-pool")
    assert env.render().splitlines()[-1] == "now     avg-pool > dense-16 (2 of at most 4 edits)"


# ---- many at once


@pytest.mark.parametrize("start", ["empty", "incumbent"])
@pytest.mark.parametrize(("reward", "duplicates"), [("improvement", "refuse"), ("normalised", "count")])
@pytest.mark.parametrize(("designs", "evaluation_seed"), [(1, 0), (3, None)])
def test_the_vector_environment_equals_single_ones_bit_for_bit(
    start: str, reward: str, duplicates: str, designs: int, evaluation_seed: int | None
) -> None:
    count, steps = 3, 60
    options: dict[str, Any] = {
        "start": start,
        "reward": reward,
        "duplicates": duplicates,
        "designs_per_trial": designs,
        "evaluation_seed": evaluation_seed,
        "reference_designs": 3,
        "max_edits": 5,
    }
    records: list[list[DesignEpisode]] = [[] for _ in range(count)]
    makers = [lambda own=own: make_env(**options, recorder=own.extend) for own in records]  # type: ignore[misc]
    singles = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    vector_records: list[DesignEpisode] = []
    vector = make_vec(count, **options, recorder=vector_records.extend)
    assert vector.observation_space == singles.observation_space
    assert vector.action_space == singles.action_space
    rng = np.random.default_rng(1)
    told = vector.reset(seed=21)
    assert_same(told, singles.reset(seed=21))
    for _ in range(steps):
        noise = rng.random((count, len(NAMES)))
        info = told[-1]
        actions = np.where(rng.random(count) < 0.9, (noise * info["action_mask"]).argmax(1), noise.argmax(1))
        told = vector.step(actions)
        assert_same(told, singles.step(actions))
    for row, own in enumerate(records):
        mine = [record for record in vector_records if record.trial % count == row]
        assert len(mine) == len(own) > 3
        assert any(record.evaluation.status is Status.INVALID for record in vector_records)
        numbers = list(dict.fromkeys(record.trial for record in mine))
        for one, other in zip(mine, own, strict=True):
            assert {**one.to_json(), "trial": 0} == {**other.to_json(), "trial": 0}
        assert numbers == sorted(numbers)


def test_a_trial_that_waits_stays_as_it_is() -> None:
    vector = make_vec(2, designs_per_trial=2)
    add, submit = actions_named("add dense-16", "submit")
    vector.reset(seed=0)
    vector.step(np.array([add, add]))
    before, *_ = vector.step(np.array([add, submit]))
    for _ in range(20):  # far more than a design may have edits
        after, rewards, over, _, info = vector.step(np.array([WAIT, WAIT]))
        assert rewards.tolist() == [0, 0]
        assert not over.any()
        assert not info["design_ended"].any()
    parts, earlier = vector.layout.split(after), vector.layout.split(before)
    for name in ("network", "position", "best", "incumbent", "designs_left", "descriptor", "legal"):
        np.testing.assert_array_equal(parts[name], earlier[name])
    assert not parts["action"].any()
    *_, info = vector.step(np.array([submit, WAIT]))
    assert info["architecture"].tolist() == ["dense-16 > dense-16", ""]
    single = make_env()
    single.reset(seed=0)
    with pytest.raises(IllegalChoiceError, match=rf"in 0 \.\. {SUBMIT} are needed"):
        single.step(WAIT)


def test_nothing_returned_is_shared() -> None:
    vector = make_vec(2, designs_per_trial=2)
    told = [*arrays_in(vector.reset(seed=0))]
    for action in (0, SUBMIT, 1, SUBMIT):
        told += arrays_in(vector.step(np.array([action, action])))
    told.append(vector.action_masks())
    assert not any(np.shares_memory(one, other) for i, one in enumerate(told) for other in told[i + 1 :])


# ---- arguments


def test_a_spec_says_how_designs_are_edited_and_makes_the_same_environment() -> None:
    env = make_env(max_edits=5, start="incumbent")
    assert env.settings.spec()["edits"] == {"max_edits": 5, "start": "incumbent"}
    spec = gym.make("rlnas/EditTrial-v0", start="incumbent", max_edits=3, **TINY).spec
    assert spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(spec.to_json())).unwrapped
    for other in (again, copy.deepcopy(again)):
        assert isinstance(other, EditEnv)
        said = other.settings.spec()
        assert (said["edits"], said["id"]) == ({"max_edits": 3, "start": "incumbent"}, "rlnas/EditTrial-v0")
        assert said["designs_per_trial"] == 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"space": CellSpace()}, "space must be a chain"),
        ({"max_edits": 0}, "max_edits must be an integer >= 1, got 0"),
        ({"max_edits": 2.5}, "max_edits must be an integer"),
        ({"start": "empt"}, "did you mean 'empty'"),
        ({"max_edit": 3}, "did you mean 'max_edits'"),
        ({"rewards": "accuracy"}, "did you mean 'reward'"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        EditEnv(**{"space": SPACE, "evaluator": FakeEvaluator(), **wrong})
    with pytest.raises(ConfigurationError, match=message):
        EditVectorEnv(2, **{"space": SPACE, "evaluator": FakeEvaluator(), **wrong})


def test_the_other_environment_knows_no_edits() -> None:
    with pytest.raises(UnknownNameError, match="max_edits"):
        gym.make("rlnas/Design-v0", max_edits=3)


# ---- records


@pytest.fixture(params=["empty", "incumbent"])
def recorded(request: pytest.FixtureRequest) -> list[DesignEpisode]:
    """Whole trials of legal edits, in order, in which nothing is evaluated twice."""
    records: list[DesignEpisode] = []
    env = EditVectorEnv(
        2, **TINY, recorder=records.extend, start=request.param, designs_per_trial=4, duplicates="refuse"
    )
    play_at_random(env, 40)
    records.sort(key=lambda record: (record.trial, record.design))
    assert len(records) > 12
    return records


def test_a_record_replays_exactly(recorded: list[DesignEpisode]) -> None:
    assert set(recompute(recorded)) == {None}
    assert {len(record.actions) for record in recorded} > {1, 2}
    starts = {record.start for record in recorded}
    assert (starts == {"identity"}) == (recorded[0].env["edits"]["start"] == "empty")
    assert DesignEpisode.from_json(json.loads(json.dumps(recorded[-1].to_json()))) == recorded[-1]
    assert set(recompute(recorded[1:])) == {None}  # what is not known of earlier designs is believed


def test_an_illegal_edit_replays_too() -> None:
    records: list[DesignEpisode] = []
    env = gym.make("rlnas/EditTrial-v0", **TINY, recorder=records.extend)
    env.reset(seed=0)
    names = env.unwrapped.settings.edits.names  # type: ignore[attr-defined]
    for name in ("delete layer 1", "add dense-4", "delete layer 2", "add max-pool", "submit"):
        env.step(names.index(name))
    assert [record.evaluation.status.value for record in records] == ["invalid", "invalid", "ok"]
    assert set(recompute(records)) == {None}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start", "dense-4 > dense-4"),
        ("start", "nonsense"),
        ("start", ""),
        ("architecture", "conv5x5-2 > conv5x5-2"),
        ("actions", lambda record: (99, *record.actions[1:])),
        ("actions", lambda record: (*record.actions, record.actions[-1])),
        ("masks", lambda record: ("1" * len(record.masks[0]), *record.masks[1:])),
        ("best", 0.999),
    ],
)
def test_an_altered_record_is_named(recorded: list[DesignEpisode], field: str, value: Any) -> None:
    changed = replace(recorded[1], **{field: value(recorded[1]) if callable(value) else value})
    assert getattr(changed, field) != getattr(recorded[1], field)
    found = list(recompute([recorded[0], changed, *recorded[2:4]]))
    assert found[0] is None
    assert found[1] is not None
    if field in ("masks", "best"):
        assert found[1].field == field


def test_a_store_lists_steps_through_and_recomputes_edits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EpisodeStore(tmp_path / "episodes.sqlite") as store:
        env = EditEnv(**TINY, recorder=store.append, start="incumbent", designs_per_trial=2, agent="me")
        env.reset(seed=0, options={"task": 3})
        names = env.settings.edits.names  # type: ignore[attr-defined]
        for name in ("add dense-4", "add conv3x3-2", "submit", "change filter of layer 1", "submit"):
            env.step(names.index(name))
        list_trials(store, None, 20, as_json=False)
        assert re.search(r"me: 1 trials, 2 designs.*\n +trial +0 +digits:train/3 ", capsys.readouterr().out)
        step_through(trial_of(store, 0, None), 0)
        told = capsys.readouterr().out
        assert re.findall(r"^  start +(.*)", told, re.MULTILINE) == ["identity", "conv3x3-2 > dense-4"]
        assert re.findall(r"^step (.*)", told, re.MULTILINE)[:2] == ["1 of at most 4: edit", "2 of at most 4: edit"]
        assert re.findall(r"^  choice +(.*),", told, re.MULTILINE) == [
            "add dense-4",
            "add conv3x3-2",
            "submit",
            "change filter of layer 1",
            "submit",
        ]
        assert re.findall(r"^  design +(.*)", told, re.MULTILINE) == [
            "dense-4",
            "conv3x3-2 > dense-4",
            "conv3x3-2 > dense-4",
            "conv5x5-2 > dense-4",
            "conv5x5-2 > dense-4",
        ]
        assert compare_recomputed(store, None, None, as_json=False)


# ---- who learns


class Deeper:
    """Worth more the more convolutions a network has, on every task."""

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        return [Evaluation(0.1 + 0.3 * proposal.architecture.text.count("conv")) for proposal in proposals]

    def spec(self) -> dict[str, Any]:
        return {"kind": "deeper"}


def make_learner(count: int = 8, **options: Any) -> RL2:
    env = make_vec(count, evaluator=Deeper(), designs_per_trial=3, **options)
    return RL2(env, seed=0, hidden_size=16, minibatches=2, entropy=0.01)


def test_a_rollout_is_one_trial_each_and_then_waits() -> None:
    records: list[DesignEpisode] = []
    learner = make_learner(recorder=records.extend)
    rollout = collect(learner.controller, learner.env, 3, 10)
    steps = rollout.playing.sum(0)
    assert len(set(steps.tolist())) > 1
    assert steps.max() == len(rollout.action)
    assert (rollout.playing[1:] <= rollout.playing[:-1]).all()
    for part in (rollout.value, rollout.reward, rollout.accuracy, rollout.design_ended):
        assert not part[~rollout.playing].any()
    assert rollout.design_ended.sum(0).tolist() == [3] * 8
    assert sorted((r.trial, r.design) for r in records) == [(t, d) for t in range(10, 18) for d in range(3)]
    records.sort(key=lambda record: record.design)
    for row, column in enumerate(rollout.action.T):
        taken = [action for record in records if record.trial == 10 + row for action in record.actions]
        assert column[: int(steps[row])].tolist() == taken


def test_what_comes_after_a_trial_changes_no_update() -> None:
    weights = []
    for noise in (0.0, 5.0):
        learner = make_learner()
        rollout = collect(learner.controller, learner.env, 3, 0)
        after = ~rollout.playing
        assert after.any()
        observation = rollout.observation + noise * after[..., None]
        statistics = learner._update(replace(rollout, observation=observation), 0.0)
        assert statistics["first_ratio_deviation"] < 1e-5
        weights.append(torch.cat([parameter.detach().flatten() for parameter in learner.controller.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_rl2_learns_to_edit() -> None:
    learner = make_learner(16)
    told = [learner.learn(1).statistics for _ in range(25)]
    assert max(statistics["first_ratio_deviation"] for statistics in told) < 1e-4
    assert 0 < learner.num_timesteps < 16 * 3 * 6  # steps of waiting are not counted
    assert told[0]["accuracy"] < 0.6
    assert told[-1]["accuracy"] > 0.8


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO])
def test_learners_of_other_libraries_train(algorithm: Any) -> None:
    records: list[DesignEpisode] = []
    env = gym.make("rlnas/EditTrial-v0", **TINY, recorder=records.extend)
    options = {"policy_kwargs": {"net_arch": [16]}, "n_steps": 100, "batch_size": 50, "n_epochs": 2, "device": "cpu"}
    model = algorithm("MlpPolicy", env, seed=0, **options)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(400)
    assert any((new != old).any() for new, old in zip(model.policy.parameters(), before, strict=True))
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    assert sum(len(record.actions) for record in records) > 380
    assert any(record.evaluation.status is Status.INVALID for record in records) == (algorithm is PPO)
