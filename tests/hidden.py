"""Tasks whose best first choice can only be found by trying: nothing that an agent is told gives it away."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

import rlnas  # noqa: F401 - registers the environments
from rlnas.architecture import Architecture
from rlnas.evaluator import Evaluation, Proposal
from rlnas.search_space import ChainSpace
from rlnas.task import Task, TaskSource

SPACE = ChainSpace(max_layers=2, input_size=4, widths=(4,), dense_widths=(8,))
KINDS = 3
HIT, MISS = 0.9, 0.2


@dataclass(frozen=True, eq=False)
class HiddenTask(Task):
    """Args: see :class:`rlnas.task.Task`; the descriptor is all zeros."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()


class HiddenSource(TaskSource):
    """As many tasks as asked for, in the splits ``train`` and ``test``."""

    def __init__(self, train: int = 48, test: int = 48) -> None:
        self.counts = {"train": train, "test": test}

    @property
    def name(self) -> str:
        return "hidden"

    @property
    def splits(self) -> dict[str, int]:
        return dict(self.counts)

    def spec(self) -> dict[str, Any]:
        return {"kind": "hidden", **self.counts}

    def _build(self, split: str, index: int) -> HiddenTask:
        return HiddenTask(f"hidden:{split}/{index}", "hidden")


class HiddenEvaluator:
    """A hit if the first choice is the one that the task's digest asks for; later choices matter little."""

    def __init__(self) -> None:
        self.asked: list[Proposal] = []

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        self.asked += proposals
        return [Evaluation(accuracy_of(p.architecture, p.task)) for p in proposals]

    def spec(self) -> dict[str, Any]:
        return {"kind": "hidden"}


def accuracy_of(architecture: Architecture, task: Task) -> float:
    first, *others = architecture.choices
    return (HIT if first == int(task.digest, 16) % KINDS else MISS) + 0.005 * sum(others)


def hidden_env(num_envs: int = 8, designs: int = 3, split: str = "train", **options: Any) -> VectorEnv:
    """A vector environment of trials on hidden tasks, rewarded with the accuracy."""
    defaults: dict[str, Any] = {"space": SPACE, "tasks": (HiddenSource(), split), "evaluator": HiddenEvaluator()}
    arguments = {**defaults, "designs_per_trial": designs, **options}
    return gym.make_vec("rlnas/Trial-v0", num_envs=num_envs, **arguments)
