"""Our controller as an agent of comparisons: RL², and the controls that show what its memory and its training do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from stable_baselines3.common.logger import KVWriter, Logger

from rlnas.architecture import Architecture
from rlnas.canonical import canonical_json
from rlnas.errors import CheckpointError, ConfigurationError
from rlnas.evaluator import Evaluation, Evaluator, Proposal
from rlnas.synthetic_tasks import SPLIT, synthesise
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TableTask, TabularEvaluator

from .agent import Agent, Likeliest
from .cloning import clone
from .controller import Controller
from .problem import MakeAgent, SearchProblem
from .rl2 import RL2
from .searcher_agent import MemoryWiped, refuses_duplicates
from .transfer import transfer_gp

ROLLOUT_STEPS = 2_400
"""About how many steps an update learns from; long trials are played fewer at a time, 8 at least and 64 at most."""

SETTINGS: dict[str, Any] = {"design_discount": 0.0, "entropy": 0.04}
"""How RL² learns to search. Each design is credited with its own reward only: see docs/results/reward-forms.md."""

SYNTHETIC_TASKS, SYNTHETIC_VALUES = 2_000, 4_000_000
"""Synthetic tasks, and values of their designs, at most."""

CLONED_TRIALS, AT_A_TIME = 1_920, 64
"""Trials in which a controller is taught, and how many at a time."""

_trained: dict[str, Controller] = {}
"""What was trained in this process, by everything that decides the outcome: ``rl2-wiped`` is ``rl2`` of its seed."""


def rl2(problem: SearchProblem, seed: int) -> Agent:
    """RL²: a controller trained by PPO, on a table with synthetic tasks.

    The tasks are drawn from what the training tasks teach (:mod:`rlnas.synthetic_tasks`). Where networks are trained
    there are none, and this is :func:`rl2_real`.
    """
    if _table(problem) is None:
        return rl2_real(problem, seed)
    return _by_ppo("rl2", problem, seed, lambda trials: _synthetic_env(problem, seed, trials))


def rl2_real(problem: SearchProblem, seed: int) -> Agent:
    """RL² trained on the problem's training tasks themselves."""
    return _by_ppo("real", problem, seed, problem.training_env)


def rl2_cloned(problem: SearchProblem, seed: int) -> Agent:
    """RL²'s controller, taught to search synthetic tasks as ``transfer-gp`` does.

    PPO plays no part in it.

    Raises:
        ConfigurationError: if the problem's evaluator is no table, or networks are edited.
    """
    if _table(problem) is None or not problem.layout.ACTIONS_ARE_CHOICES:
        raise ConfigurationError("rl2-cloned learns from a table's columns where each action is a choice of the design")

    def train() -> Controller:
        env = _synthetic_env(problem, seed, AT_A_TIME)
        learner = RL2(env, seed=seed, device=problem.device)
        teacher = transfer_gp(problem, seed)
        clone(learner.controller, env, teacher, CLONED_TRIALS, seed, on_round=learner.controller.log.append)
        env.close()
        return learner.controller

    return _acting(_once("cloned", problem, seed, train), problem, seed)


def _by_ppo(what: str, problem: SearchProblem, seed: int, make_env: Callable[[int], VectorEnv]) -> Agent:
    """A controller trained by PPO in an environment that is made for a number of trials."""

    def train() -> Controller:
        env = make_env(trials_at_a_time(problem))
        return _learn(RL2(env, seed=seed, device=problem.device, **SETTINGS), problem.training_steps)

    return _acting(_once(what, problem, seed, train), problem, seed)


def _acting(controller: Controller, problem: SearchProblem, seed: int) -> Agent:
    """Takes its likeliest actions where nothing is evaluated twice; elsewhere it would repeat itself, and samples."""
    if refuses_duplicates(problem):
        return Likeliest(controller)
    controller.seed(seed)
    return controller


def trials_at_a_time(problem: SearchProblem) -> int:
    """Trials in a rollout of about :data:`ROLLOUT_STEPS`."""
    return min(64, max(8, round(ROLLOUT_STEPS / (problem.designs * len(problem.space.decisions)))))


def _table(problem: SearchProblem) -> Table | None:
    """The table that the problem's evaluator reads, if it does."""
    evaluator = problem.evaluator
    if isinstance(evaluator, ShuffledEvaluator):
        evaluator = evaluator.evaluator
    return evaluator.table if isinstance(evaluator, TabularEvaluator) else None


def _synthetic_env(problem: SearchProblem, seed: int, trials: int) -> VectorEnv:
    """Trials on tasks that might have been the problem's."""
    table = _table(problem)
    assert table is not None
    columns = [task.column for task in problem.training_tasks() if isinstance(task, TableTask)]
    count = min(SYNTHETIC_TASKS, max(1, SYNTHETIC_VALUES // problem.space.size))
    made = synthesise(table, columns, count, seed)
    evaluator: Evaluator = TabularEvaluator(made)
    if isinstance(problem.evaluator, ShuffledEvaluator):
        evaluator = ShuffledEvaluator(evaluator)
    return problem.training_env(trials, tasks=(TableSource(made), SPLIT), evaluator=evaluator)


def _learn(learner: RL2, steps: int) -> Controller:
    """Train, with what is logged kept."""
    kept = _Kept()
    learner.set_logger(Logger(None, [kept]))
    learner.learn(steps)
    if learner.env is not None:
        learner.env.close()
    learner.controller.log = kept.rows
    return learner.controller


def _once(what: str, problem: SearchProblem, seed: int, train: Callable[[], Controller]) -> Controller:
    """A copy of what ``train`` returns, which is asked once in a process for each problem and seed."""
    env = problem.training_env(1)
    setting = env.settings.spec()  # type: ignore[attr-defined]
    env.close()
    key = canonical_json([what, setting, problem.training_steps, problem.device, seed])
    if key not in _trained:
        _trained[key] = train()
    return deepcopy(_trained[key])


class _Kept(KVWriter):
    """Keeps what a learner logs after each update."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        numbers = {name: float(value) for name, value in key_values.items() if not name.startswith("time/")}
        self.rows.append({"timesteps": float(step), **numbers})


def rl2_shuffled(problem: SearchProblem, seed: int) -> Agent:
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
        self.evaluator = evaluator

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        """See :meth:`rlnas.evaluator.Evaluator.evaluate`."""
        return self.evaluator.evaluate([replace(p, architecture=_other(p)) for p in proposals])

    def spec(self) -> dict[str, Any]:
        return {"kind": "shuffled", "evaluator": self.evaluator.spec()}


def _other(proposal: Proposal) -> Architecture:
    said = canonical_json([proposal.architecture.key, proposal.task.digest])
    seed = int.from_bytes(hashlib.sha256(said.encode()).digest()[:16], "little")
    return proposal.architecture.space.sample(np.random.default_rng(seed))


LEARNED_AGENTS: dict[str, MakeAgent] = {
    "rl2": rl2,
    "rl2-real": rl2_real,
    "rl2-cloned": rl2_cloned,
    "rl2-wiped": wiped(rl2),
    "rl2-shuffled": rl2_shuffled,
}
"""Our controller, and the same without synthetic tasks, taught instead, without memory, and with nothing to learn."""
