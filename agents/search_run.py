"""One agent searching: what it is asked to do, and what it found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rlnas.architecture import Architecture

from .agent import Agent, State

OnStep: TypeAlias = Callable[[int, float], None]
"""Is told how many designs a step completed and the mean best accuracy of the trials so far."""


@dataclass(frozen=True)
class SearchRun:
    """What one agent found, one trial on each task.

    Args:
        tasks: names, of length ``trials``.
        accuracy: of each design, (trials, designs).
        architectures: the designs, one list for each trial.
    """

    tasks: list[str]
    accuracy: NDArray[np.float64]
    architectures: list[list[Architecture]]

    @property
    def best_so_far(self) -> NDArray[np.float64]:
        """Best accuracy after each design, (trials, designs)."""
        return np.maximum.accumulate(self.accuracy, axis=1)

    @property
    def chosen(self) -> list[Architecture]:
        """Each trial's best design, the earliest where several are equal."""
        return [designs[i] for designs, i in zip(self.architectures, self.accuracy.argmax(1).tolist(), strict=True)]

    @classmethod
    def concatenate(cls, runs: Sequence[SearchRun]) -> SearchRun:
        """All trials of several runs as one."""
        return cls(
            [name for run in runs for name in run.tasks],
            np.concatenate([run.accuracy for run in runs]),
            [designs for run in runs for designs in run.architectures],
        )


def run_search(
    agent: Agent, env: VectorEnv, tasks: Sequence[int], seed: int, first_trial: int = 0, on_step: OnStep | None = None
) -> SearchRun:
    """Let an agent, which no longer learns, search each task once.

    Args:
        agent: takes legal actions.
        env: native vector environment with one trial for each task.
        tasks: task numbers, of length ``env.num_envs``.
        seed: of the reset.
        first_trial: number of the first task's trial.
        on_step: is told of progress.
    """
    observation, info = env.reset(seed=seed, options={"task": list(tasks), "trial": first_trial})
    names = [str(name) for name in info["task"]]
    start, over = np.ones(env.num_envs, dtype=np.bool_), np.zeros(env.num_envs, dtype=np.bool_)
    state: State = None
    accuracy: list[NDArray[np.float64]] = []
    designs: list[NDArray[np.int64]] = []
    actions: list[NDArray[np.int64]] = []
    while not over.any():
        action, state = agent.predict(observation, state, start)
        actions.append(action)
        observation, _, terminated, truncated, info = env.step(action)
        start = over = terminated | truncated
        last = info["final_info"] if over.any() else info
        if last["design_ended"].all():
            accuracy.append(last["accuracy"])
            designs.append(np.stack(actions, axis=1))
            actions = []
            if on_step is not None:
                on_step(env.num_envs, float(last["best_accuracy"].mean()))
    space = env.search_space  # type: ignore[attr-defined]
    architectures = [[space.decode(c.tolist()) for c in trial] for trial in np.stack(designs, axis=1)]
    return SearchRun(names, np.stack(accuracy, axis=1), architectures)
