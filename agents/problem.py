"""What an agent may know before it searches, and how agents are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium.vector import VectorEnv

from rlnas.errors import ConfigurationError
from rlnas.evaluator import Evaluator
from rlnas.search_space import SearchSpace
from rlnas.task import Task, TaskSource

from .agent import Agent


@dataclass(frozen=True)
class SearchProblem:
    """A search space, a budget, and the tasks on which an agent may prepare itself before it searches others.

    Args:
        env: id of the trial environment.
        env_options: further arguments of the environment, such as ``space`` and ``duplicates``; not ``tasks``.
        space: what is searched.
        layout: of the environment's observations.
        designs: evaluations that a search may spend on a task.
        evaluator: of designs on the training tasks.
        training: source and split of the tasks to prepare on; None if there are none.
        training_steps: environment steps that an agent may learn for.
        device: of networks that learn, ``"cpu"`` or ``"cuda"``.
    """

    env: str
    env_options: dict[str, Any]
    space: SearchSpace
    layout: Any
    designs: int
    evaluator: Evaluator
    training: tuple[TaskSource, str] | None
    training_steps: int
    device: str = "cpu"

    def training_tasks(self) -> list[Task]:
        """Every task to prepare on.

        Raises:
            ConfigurationError: if there are none.
        """
        source, split = self.training_source()
        return [source.task(split, index) for index in range(source.splits[split])]

    def training_env(self, num_envs: int, **options: Any) -> VectorEnv:
        """The vector environment in which to learn: ``num_envs`` trials on training tasks.

        Rewards are normalised for each task unless ``env_options`` or ``options`` say otherwise.
        """
        arguments = {
            "reward": "normalised",
            **self.env_options,
            "tasks": self.training_source(),
            "evaluator": self.evaluator,
            "designs_per_trial": self.designs,
            **options,
        }
        return gym.make_vec(self.env, num_envs=num_envs, **arguments)

    def training_source(self) -> tuple[TaskSource, str]:
        """Source and split of the tasks to prepare on.

        Raises:
            ConfigurationError: if there are none.
        """
        if self.training is None:
            raise ConfigurationError("an agent needs tasks to prepare itself on: name them with --training-tasks")
        return self.training


MakeAgent: TypeAlias = Callable[[SearchProblem, int], Agent]
"""Makes an agent for a problem and a seed. Whatever it has to learn, it learns then; afterwards it is frozen."""
