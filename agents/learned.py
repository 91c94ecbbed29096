"""Our controller as an agent of comparisons: RL², and the controls that show what its memory and its training do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlnas.architecture import Architecture
from rlnas.episode import canonical_json
from rlnas.errors import CheckpointError
from rlnas.evaluator import Evaluation, Evaluator, Proposal

from .controller import Controller
from .problem import MakeAgent, SearchProblem
from .rl2 import RL2
from .searcher_agent import MemoryWiped

ROLLOUT_STEPS = 2_400
"""About how many steps an update learns from; long trials are played fewer at a time, 8 at least and 64 at most."""

_trained: dict[str, Controller] = {}
"""What was trained in this process, by everything that decides the outcome: ``rl2-wiped`` is ``rl2`` of its seed."""


def rl2(problem: SearchProblem, seed: int) -> Controller:
    """RL² with its default settings, trained on the problem's training tasks."""
    env = problem.training_env(trials_at_a_time(problem))
    learner = RL2(env, seed=seed, device=problem.device)
    settings = env.settings.spec()  # type: ignore[attr-defined]
    key = canonical_json([settings, problem.training_steps, problem.device, seed])
    if key in _trained:
        learner.controller.load_state_dict(_trained[key].state_dict())
    else:
        _trained[key] = learner.learn(problem.training_steps).controller
    env.close()
    learner.controller.seed(seed)
    return learner.controller


def trials_at_a_time(problem: SearchProblem) -> int:
    """Trials in a rollout of about :data:`ROLLOUT_STEPS`."""
    return min(64, max(8, round(ROLLOUT_STEPS / (problem.designs * len(problem.space.decisions)))))


def rl2_shuffled(problem: SearchProblem, seed: int) -> Controller:
    """RL² trained where rewards say nothing about designs (:class:`ShuffledEvaluator`).

    It can learn that trying again what was good is good, but nothing of the space or of the tasks.
    """
    return rl2(replace(problem, evaluator=ShuffledEvaluator(problem.evaluator)), seed)


def wiped(make: MakeAgent) -> MakeAgent:
    """The same agent, its memory wiped after every design of a search (:class:`~.searcher_agent.MemoryWiped`)."""

    def make_wiped(problem: SearchProblem, seed: int) -> MemoryWiped:
        return MemoryWiped(make(problem, seed), problem.layout)

    return make_wiped


def controller_agent(folder: str | Path) -> MakeAgent:
    """A controller that was trained before, as :meth:`~.controller.Controller.save` wrote it.

    Making the agent raises :class:`~rlnas.errors.CheckpointError` if it is damaged or was trained for another space.
    """

    def make(problem: SearchProblem, seed: int) -> Controller:
        controller = Controller.load(folder, problem.device)
        theirs, ours = (canonical_json(space) for space in (controller.about.get("space"), problem.space.spec()))
        if theirs != ours:
            raise CheckpointError(f"{folder}: was trained for the space {theirs}, not for {ours}")
        controller.seed(seed)
        return controller

    return make


class ShuffledEvaluator:
    """Gives each design what another one is worth: which one is drawn at random, once for each design and task.

    Accuracies are thus those of random designs on the task, equal designs have equal ones, and that is all there is to
    learn. Meant for training alone: :data:`rlnas.specs.EVALUATORS` does not know it.

    Args:
        evaluator: of the designs drawn.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        """See :meth:`rlnas.evaluator.Evaluator.evaluate`."""
        return self._evaluator.evaluate([replace(p, architecture=_other(p)) for p in proposals])

    def spec(self) -> dict[str, Any]:
        return {"kind": "shuffled", "evaluator": self._evaluator.spec()}


def _other(proposal: Proposal) -> Architecture:
    said = canonical_json([proposal.architecture.key, proposal.task.digest])
    seed = int.from_bytes(hashlib.sha256(said.encode()).digest()[:16], "little")
    return proposal.architecture.space.sample(np.random.default_rng(seed))


LEARNED_AGENTS: dict[str, MakeAgent] = {"rl2": rl2, "rl2-wiped": wiped(rl2), "rl2-shuffled": rl2_shuffled}
"""Our controller, and the same without memory and without anything to learn from."""
