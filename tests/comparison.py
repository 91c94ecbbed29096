"""Results of comparisons that never took place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlnas.results import Results


def make_results(
    agents: Sequence[str] = ("random", "rl2", "evolution"),
    runs: int = 3,
    tasks: int = 4,
    designs: int = 6,
    timed: bool = True,
) -> Results:
    """Agents of which each later one is a little better, on tasks that differ in difficulty."""
    rng = np.random.default_rng(0)
    level = rng.uniform(0.3, 0.7, (tasks, 1))
    accuracy = {
        agent: np.clip(level + 0.1 * rng.standard_normal((runs, tasks, designs)) + 0.05 * skill, 0.0, 1.0)
        for skill, agent in enumerate(agents)
    }
    seconds = {agent: rng.uniform(0.1, 2.0, (runs, tasks, designs)).cumsum(2) * timed for agent in agents}
    return Results(
        tasks=tuple(f"task {t}" for t in range(tasks)),
        accuracy=accuracy,
        seconds=seconds,
        best=np.max([array.max((0, 2)) for array in accuracy.values()], axis=0),
        mean=accuracy[agents[0]].mean((0, 2)),
        best_is_known=False,
        chosen={agent: {"test accuracy": array[:, :, -1] / 2} for agent, array in accuracy.items()},
        about={
            "command": "rlnas bench --agents random,rl2",
            "versions": {"rlnas": "0.1.0"},
            "seeds": [0, 1, 2, 3],
            "splits": ["a", "b"],
        },
    )
