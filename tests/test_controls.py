"""The controller that is never told what its designs are worth: what it sees, learns from and does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rlnas.agents import learned
from rlnas.agents.controls import FEEDBACK, FeedbackHidden, FeedbackHiddenEnv, rl2_hidden
from rlnas.agents.problem import SearchProblem
from rlnas.agents.rl2 import RL2
from rlnas.agents.search_run import run_search
from rlnas.evaluator import Evaluation, Proposal

from .hidden import SPACE, HiddenEvaluator, HiddenSource, hidden_env

DESIGNS = 3


@pytest.fixture(autouse=True)
def _nothing_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "_trained", {})


def problem() -> SearchProblem:
    layout, tasks = hidden_env().layout, (HiddenSource(), "train")  # type: ignore[attr-defined]
    return SearchProblem("rlnas/Trial-v0", {"space": SPACE}, SPACE, layout, DESIGNS, HiddenEvaluator(), tasks, 300)


class Contrary(HiddenEvaluator):
    """Says the contrary."""

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        return [Evaluation(1.0 - e.accuracy) for e in super().evaluate(proposals)]


class Noting:
    """Takes the first legal action and notes what it was shown."""

    def __init__(self, legal: slice) -> None:
        self.legal = legal
        self.shown: list[NDArray[np.float32]] = []

    def predict(self, observation: NDArray[np.float32], state: Any, start: Any, deterministic: bool) -> Any:
        self.shown.append(observation.copy())
        return observation[..., self.legal].argmax(-1), state


def test_it_earns_the_same_and_is_shown_the_same_but_for_the_feedback() -> None:
    plain, hidden = hidden_env(), FeedbackHiddenEnv(hidden_env())
    layout = plain.layout  # type: ignore[attr-defined]
    agent = Noting(layout["legal"])
    control = FeedbackHidden(agent, layout)
    seen, concealed = plain.reset(seed=4, options={"trial": 0}), hidden.reset(seed=4, options={"trial": 0})
    told = {name: 0.0 for name in FEEDBACK}
    rng = np.random.default_rng(0)
    for _ in range(4 * DESIGNS):
        parts, concealed_parts = layout.split(seen[0]), layout.split(concealed[0])
        for name, part in concealed_parts.items():
            np.testing.assert_array_equal(part, 0.0 if name in FEEDBACK else parts[name])
        for name in FEEDBACK:
            told[name] += parts[name].sum()
        control.predict(seen[0], None, None, False)
        np.testing.assert_array_equal(agent.shown[-1], concealed[0])  # trained and tested on one thing
        actions = np.array([rng.choice(np.flatnonzero(row)) for row in parts["legal"]])
        seen_step, concealed_step = plain.step(actions), hidden.step(actions)
        for mine, its in zip(seen_step[1:4], concealed_step[1:4], strict=True):
            np.testing.assert_array_equal(mine, its)
        np.testing.assert_array_equal(seen_step[4]["accuracy"], concealed_step[4]["accuracy"])
        seen, concealed = (seen_step[0], {}), (concealed_step[0], {})
    assert min(told.values()) > 0  # so that there was something to hide


def test_what_it_does_does_not_depend_on_what_its_designs_are_worth() -> None:
    def designs(make: Any, evaluator: HiddenEvaluator) -> NDArray[np.str_]:
        env = hidden_env(num_envs=24, designs=DESIGNS, split="test", evaluator=evaluator)
        return run_search(make(problem(), 0), env, range(24), seed=0).architectures

    np.testing.assert_array_equal(designs(rl2_hidden, HiddenEvaluator()), designs(rl2_hidden, Contrary()))
    assert (designs(learned.rl2, HiddenEvaluator()) != designs(learned.rl2, Contrary())).any()


def test_it_is_rl2_trained_without_feedback_and_no_other_training_is_taken_for_it() -> None:
    layout = problem().layout
    env = hidden_env(num_envs=24, designs=DESIGNS, split="test")
    trained_with = learned.rl2(problem(), 0)
    mine = run_search(rl2_hidden(problem(), 0), env, range(24), seed=0).architectures
    training = FeedbackHiddenEnv(problem().training_env(learned.trials_at_a_time(problem())))
    by_hand = RL2(training, seed=0, **learned.SETTINGS).learn(300).controller
    by_hand.seed(0)
    expected = run_search(FeedbackHidden(by_hand, layout), env, range(24), seed=0).architectures
    np.testing.assert_array_equal(mine, expected)
    pairs = zip(trained_with.parameters(), by_hand.parameters(), strict=True)
    assert any(not mine.equal(its) for mine, its in pairs)
