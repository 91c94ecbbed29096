"""Replay: an honest record comes out the same, an altered one is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlnas.adaptation import Adaptation
from rlnas.canonical import canonical_json
from rlnas.digits import DigitsSource
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError
from rlnas.evaluator import (
    Evaluation,
    Evaluator,
    Proposal,
    Status,
)
from rlnas.registration import PRESETS
from rlnas.replay import BATCH, Difference, recompute
from rlnas.replay_text import changes_between, render_steps
from rlnas.reward import COMPARING, REWARDS, find_reference, reward_of
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.specs import evaluator_from_spec
from rlnas.store import EpisodeStore
from rlnas.task import Task
from rlnas.thought import Thought

from .tables import ENV_IDS

SPACE = ChainSpace(max_layers=2, widths=(4,), dense_widths=(8,))
EVALUATOR = SequentialEvaluator(Adaptation(steps=2))
TASK = DigitsSource().task("test", 17)
DESIGNS = ("conv3x3-4 > max-pool", "dense-8", "conv3x3-4 > dense-8")


def make_env(reward: str, space: SearchSpace = SPACE, evaluator: Evaluator = EVALUATOR) -> dict[str, Any]:
    env = {
        "id": "rlnas/Trial-v0",
        "space": space.spec(),
        "tasks": DigitsSource().spec(),
        "split": "test",
        "evaluator": evaluator.spec(),
        "designs_per_trial": len(DESIGNS),
        "reward": reward,
        "reference_designs": 3,
    }
    return json.loads(canonical_json(env))  # type: ignore[no-any-return]


def make_masks(space: SearchSpace, actions: Sequence[int]) -> tuple[str, ...]:
    return tuple("".join("01"[int(m)] for m in space.legal_choices(actions[:k])) for k in range(len(actions)))


def make_trial(reward: str = "accuracy", trial: int = 0, task: Task = TASK, agent: str = "ppo") -> list[DesignEpisode]:
    """An honest record of a trial, written as an environment would."""
    episodes, best = [], 0.0
    for design, text in enumerate(DESIGNS):
        architecture = SPACE.parse(text)
        evaluation = EVALUATOR.evaluate([Proposal(architecture, task, design)])[0]
        reference = find_reference(SPACE, task, EVALUATOR, 3) if reward in COMPARING else None
        final = reward_of(reward, evaluation.accuracy, best, reference)
        best = max(best, evaluation.accuracy)
        episodes.append(
            DesignEpisode(
                agent=agent,
                trial=trial,
                design=design,
                seed=0,
                env=make_env(reward),
                task=task.name,
                task_digest=task.digest,
                evaluation_seed=design,
                actions=architecture.choices,
                masks=make_masks(SPACE, architecture.choices),
                rewards=(0.0, final),
                architecture=architecture.text,
                evaluation=evaluation,
                best=best,
            )
        )
    return episodes


def make_illegal(reward: str = "accuracy") -> DesignEpisode:
    """A design that an illegal second action ended: a convolution after a fully connected layer."""
    dense, convolution = SPACE.parse("dense-8").choices[0], SPACE.parse("conv3x3-4").choices[0]
    actions = (dense, convolution)
    return replace(
        make_trial(reward)[0],
        actions=actions,
        masks=make_masks(SPACE, actions),
        rewards=(0.0, 0.0),
        architecture="",
        evaluation=Evaluation(0.0, status=Status.INVALID, message="illegal action"),
        best=0.0,
    )


@pytest.fixture(scope="module")
def trial() -> list[DesignEpisode]:
    return make_trial()


@pytest.mark.parametrize("reward", REWARDS)
def test_an_honest_record_comes_out_the_same(reward: str, tmp_path: Path) -> None:
    episodes = [*make_trial(reward), *make_trial(reward, trial=1, task=DigitsSource().task("test", 3))]
    with EpisodeStore(tmp_path / "run.db") as store:
        store.append(episodes)
        assert list(recompute(store.episodes())) == [None] * 6


def test_environments_may_alternate_and_batches_may_fill() -> None:
    trials = [make_trial(reward, trial=n) for n in range(BATCH // 6 + 1) for reward in ("accuracy", "improvement")]
    episodes = [episode for trial in trials for episode in trial]
    assert len(episodes) > BATCH
    assert list(recompute(episodes)) == [None] * len(episodes)
    same_env = [episode for episode in episodes if episode.env["reward"] == "accuracy"] * 3
    assert len(same_env) > BATCH
    assert list(recompute(same_env)) == [None] * len(same_env)


@pytest.mark.parametrize(
    ("changes", "field", "step"),
    [
        ({"rewards": (0.0, 0.987)}, "rewards", 1),
        ({"rewards": (0.1, None)}, "rewards", 0),
        ({"accuracy": 0.987}, "evaluation.accuracy", None),
        ({"loss": 0.1}, "evaluation.loss", None),
        ({"parameters": 1}, "evaluation.parameters", None),
        ({"status": Status.TIMEOUT}, "evaluation.status", None),
        ({"masks": ("1111111", "1" * 7)}, "masks", None),
        ({"masks": ("101111", None)}, "masks", 0),
        ({"masks": (None, "011111")}, "masks", 1),
        ({"architecture": "dense-8"}, "architecture", None),
        ({"architecture": ""}, "architecture", None),
        ({"actions": (0, 0)}, "architecture", None),
        ({"actions": (0, 99)}, "actions", 1),
        ({"actions": (-1, 0)}, "actions", 0),
        ({"actions": (0,)}, "number of actions", None),
        ({"task_digest": "ab" * 32}, "task_digest", None),
        ({"task": "digits:test/16"}, "task_digest", None),
        ({"task": "digits:test/9999"}, "task", None),
        ({"evaluation_seed": 77}, "evaluation.loss", None),
        ({"best": 0.987}, "best", None),
    ],
    ids=str,
)
def test_an_altered_record_is_named(
    trial: list[DesignEpisode], changes: dict[str, Any], field: str, step: int | None
) -> None:
    episode = trial[0]
    altered = {name: value for name, value in changes.items() if hasattr(episode, name)}
    for name, value in altered.items():
        if isinstance(value, tuple) and None in value:
            altered[name] = tuple(old if v is None else v for v, old in zip(value, getattr(episode, name), strict=True))
    result = {name: value for name, value in changes.items() if name not in altered}
    forged = replace(episode, **altered, evaluation=replace(episode.evaluation, **result))
    first, *others = recompute([forged, *trial[1:]])
    assert first is not None
    if field == "evaluation.loss" and "evaluation_seed" in changes:
        assert first.field in ("evaluation.accuracy", "evaluation.loss")
        return
    assert (first.agent, first.trial, first.design, first.field) == ("ppo", 0, 0, field)
    if step is not None:
        assert first.step == step
    assert first.recorded != first.recomputed
    assert others == [None, None]


def test_a_difference_reads_as_one_line() -> None:
    difference = Difference("ppo", 1, 2, "rewards", 0.5, 0.25, step=3)
    assert str(difference) == (
        "agent 'ppo', trial 1, design 2, step 3: rewards was recorded as 0.5, recomputed as 0.25"
    )


def test_a_design_ended_by_an_illegal_action_comes_out_the_same() -> None:
    assert list(recompute([make_illegal("accuracy"), make_illegal("improvement")])) == [None, None]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"actions": (0, 0), "masks": ("1" * 6, "1" * 6)}, "actions"),
        ({"rewards": (0.0, 0.5)}, "rewards"),
        ({"actions": (), "masks": (), "rewards": ()}, "number of actions"),
        ({"evaluation": Evaluation(0.5, status=Status.INVALID)}, "evaluation.accuracy"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_design_said_to_be_illegal_must_be(changes: dict[str, Any], field: str) -> None:
    difference = next(recompute([replace(make_illegal(), **changes)]))
    assert difference is not None
    assert difference.field == field


def test_best_and_improvement_are_believed_where_earlier_designs_are_missing() -> None:
    episodes = make_trial("improvement")
    assert list(recompute(episodes[1:])) == [None, None]
    assert list(recompute([episodes[0], episodes[2]])) == [None, None]
    forged = replace(episodes[2], rewards=(0.0, 0.987))
    assert list(recompute([*episodes[:2], forged]))[2] is not None


def test_another_evaluator_may_answer(trial: list[DesignEpisode]) -> None:
    class Constant:
        def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
            return [Evaluation(0.125) for _ in proposals]

        def spec(self) -> dict[str, Any]:
            return {"kind": "constant"}

    differences = list(recompute(trial, Constant()))
    assert [d.recomputed for d in differences if d is not None] == [0.125] * 3


def test_nothing_is_recomputed_before_it_is_asked_for(trial: list[DesignEpisode]) -> None:
    def endless() -> Iterator[DesignEpisode]:
        while True:
            yield from trial

    assert next(recompute(endless())) is None


def test_evaluators_are_rebuilt_from_their_descriptions() -> None:
    again = evaluator_from_spec(json.loads(json.dumps(EVALUATOR.spec())))
    assert again.spec() == EVALUATOR.spec()
    proposal = Proposal(SPACE.sample(np.random.default_rng(0)), TASK)
    assert again.evaluate([proposal])[0].same_result(EVALUATOR.evaluate([proposal])[0])
    assert evaluator_from_spec({"kind": "sequential"}).spec() == SequentialEvaluator().spec()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "unknown evaluator 'None'"),
        ({"kind": "sequentail"}, "did you mean 'sequential'"),
        ({"kind": "sequential", "speed": 3}, "speed"),
        ({"kind": "sequential", "adaptation": {"step": 3}}, "step"),
        ({"kind": "sequential", "device": "abacus"}, "abacus"),
    ],
)
def test_unknown_evaluators_and_options_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        evaluator_from_spec(spec)


def test_steps_are_told_one_by_one(trial: list[DesignEpisode]) -> None:
    head, first, second, result = render_steps(trial[1], best_before=0.25)
    assert head.splitlines() == ["ppo: trial 0, design 1", "  task         digits:test/17"]
    assert first.splitlines() == [
        "step 1 of 2: layer 1",
        "  choice       dense-8, of 6 legal",
        "  design       dense-8, ?",
        "  reward       0.0000",
        "  best so far  0.2500",
    ]
    assert "  choice       identity, of 2 legal\n  design       dense-8, identity\n" in second
    assert f"  best so far  {trial[1].best:.4f}" in second
    assert "  architecture dense-8\n" in result
    assert f"  accuracy     {trial[1].evaluation.accuracy:.4f}\n" in result


def test_cells_and_illegal_actions_are_told_too() -> None:
    space = CellSpace(width=4, cells=1)
    actions = (3, 1, 0, 0, 0, 3)
    cell = replace(
        make_illegal(),
        env=make_env("accuracy", space),
        actions=actions,
        masks=make_masks(space, actions),
        rewards=(0.0,) * 6,
    )
    assert "step 2 of 6: edge 0->2\n  choice       skip_connect, of 5 legal" in list(render_steps(cell))[2]
    *_, last, result = render_steps(replace(make_illegal(), actions=(4, 42)))
    assert "  choice       choice 42, of 2 legal" in last
    assert "none: an illegal choice ended the design" in result
    assert "  message      illegal action" in result


def test_what_was_thought_stands_beside_the_choice(trial: list[DesignEpisode]) -> None:
    unlikely = (0.02, 0.4, 0.03, 0.05, 0.3, 0.2)  # dense-8, the choice taken, is the fifth
    thoughts = [Thought(unlikely, value=0.125, choice=1), Thought((0.0, 0.0, 0.0, 0.0, 0.25, 0.75), choice=4)]
    _, first, second, _ = render_steps(trial[1], None, [thoughts[0], replace(thoughts[1], choice=None)])
    names = SPACE.decisions[0].choices
    assert first.splitlines()[3:] == [
        f"  policy       {names[1]:9} 0.400 ############",
        f"               {names[4]:9} 0.300 ######### <- taken",
        f"               {names[5]:9} 0.200 ######",
        f"               {names[3]:9} 0.050 ##",
        f"               {names[2]:9} 0.030 #",
        f"               {'1 more':9} 0.020",
        "  value        0.1250",
        f"  would take   {names[1]}",
        "  reward       0.0000",
        "  best so far  unknown",
    ]
    assert "would take" not in second
    assert "value" not in second


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ("dense-8", "dense-8", []),
        ("identity", "conv3x3-4", ["layer 1 added: conv3x3-4"]),
        ("conv3x3-4 > dense-8", "conv3x3-4", ["layer 2 removed: dense-8"]),
        ("conv3x3-4 > dense-8", "max-pool > dense-8", ["layer 1: conv3x3-4 -> max-pool"]),
        ("dense-8", "conv3x3-4 > dense-8", ["layer 1 added: conv3x3-4"]),
        ("conv3x3-4 > max-pool", "dense-8", ["layer 1: conv3x3-4 -> dense-8", "layer 2 removed: max-pool"]),
    ],
)
def test_what_is_new_in_a_chain_is_said_layer_by_layer(
    trial: list[DesignEpisode], before: str, after: str, changes: list[str]
) -> None:
    first, second = (replace(trial[0], architecture=text) for text in (before, after))
    assert changes_between(first, second, SPACE) == changes


def test_what_is_new_in_a_cell_is_said_edge_by_edge(trial: list[DesignEpisode]) -> None:
    space = CellSpace(width=4, cells=1)
    cells = [space.decode(choices) for choices in ((3, 1, 0, 0, 0, 3), (3, 1, 0, 0, 2, 3))]
    before, after = (
        replace(trial[0], env=make_env("accuracy", space), architecture=cell.text, actions=cell.choices)
        for cell in cells
    )
    assert changes_between(before, after, space) == ["edge 1->3: none -> nor_conv_1x1"]


def test_a_result_says_what_is_new_in_it(trial: list[DesignEpisode]) -> None:
    *_, result = render_steps(trial[1], previous=trial[0])
    assert "  changed      layer 1: conv3x3-4 -> dense-8\n               layer 2 removed: max-pool\n" in result
    *_, result = render_steps(trial[1], previous=trial[1])
    assert "  changed      nothing\n" in result
    assert "changed" not in list(render_steps(trial[1], previous=make_illegal()))[-1]
    assert "changed" not in list(render_steps(make_illegal(), previous=trial[1]))[-1]


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_exact_replay_holds_for_every_preset_environment(env_id: str) -> None:
    evaluator, options = PRESETS[env_id]["evaluator"], {}
    if evaluator["kind"] != "table":
        options["evaluator"] = {**evaluator, "adaptation": {**evaluator.get("adaptation", {}), "steps": 1}}
    records: list[DesignEpisode] = []
    designs = min(4, PRESETS[env_id]["designs_per_trial"])
    env = gym.make(env_id, recorder=records.extend, designs_per_trial=designs, **options)
    rng = np.random.default_rng(0)
    for seed in range(2):
        _, info = env.reset(seed=seed)
        over = False
        while not over:
            legal = info["action_mask"] if rng.random() < 0.95 else np.ones_like(info["action_mask"])
            _, _, over, _, info = env.step(rng.choice(np.flatnonzero(legal)))
    assert len(records) == 2 * designs
    assert set(recompute(records)) == {None}


def test_replay_needs_no_environment_and_no_agent() -> None:
    code = "import sys, rlnas.replay; print([m for m in sys.modules if m.startswith(('rlnas.envs', 'rlnas.agents'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
