"""One run: an agent that searches every task once, and what it found."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rlnas.checkpoint import write_durably
from rlnas.edits import WAIT
from rlnas.errors import DataError

from .agent import Agent

OnStep: TypeAlias = Callable[[int, float], None]
"""Is told how many designs a step completed and the mean best accuracy of the trials so far."""

_ARRAYS = ("tasks", "accuracy", "seconds", "architectures")


@dataclass(frozen=True, eq=False)
class SearchRun:
    """What one agent found in one trial on each task.

    Args:
        tasks: names, of shape (trials,).
        accuracy: of each design, (trials, designs).
        seconds: from the start of the trial to the end of each design: its evaluations' and the agent's own.
        architectures: canonical texts of the designs, (trials, designs); empty where an illegal action ended one.
        measures: what each trial's chosen design is worth in the end, by the measure's name, (trials,).
    """

    tasks: NDArray[np.str_]
    accuracy: NDArray[np.float64]
    seconds: NDArray[np.float64]
    architectures: NDArray[np.str_]
    measures: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def best_so_far(self) -> NDArray[np.float64]:
        """Best accuracy after each design, (trials, designs)."""
        return np.maximum.accumulate(self.accuracy, axis=1)

    @property
    def chosen(self) -> NDArray[np.str_]:
        """Each trial's best design, the earliest where several are equal, (trials,)."""
        return np.asarray(np.take_along_axis(self.architectures, self.accuracy.argmax(1)[:, None], 1)[:, 0])

    def save(self, path: Path) -> None:
        """Write the run to one ``.npz`` file, which is there whole or not at all."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {f"measure {name}": values for name, values in self.measures.items()}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content.getvalue())

    @classmethod
    def load(cls, path: Path, trials: int, designs: int) -> SearchRun:
        """The run that :meth:`save` wrote.

        Raises:
            DataError: if the file is damaged, or holds no such number of trials and designs.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            measures = {n.removeprefix("measure "): a for n, a in arrays.items() if n.startswith("measure ")}
            run = cls(**{name: arrays[name] for name in _ARRAYS}, measures=measures)
            shapes = [run.tasks.shape, run.accuracy.shape, run.seconds.shape, run.architectures.shape]
            if shapes != [(trials,), *[(trials, designs)] * 3] or any(m.shape != (trials,) for m in measures.values()):
                raise ValueError(f"arrays of shapes {shapes}")
            return run
        except Exception as error:  # whatever a damaged archive makes of its reader
            reason = " ".join(str(error).split())
            raise DataError(f"{path} is no run of a comparison ({reason}); delete it to have it done again") from None


def run_search(
    agent: Agent, env: VectorEnv, tasks: Sequence[int], seed: int, first_trial: int = 0, on_step: OnStep | None = None
) -> SearchRun:
    """Let an agent, which no longer learns, search each task once.

    Where designs are made by edits, a trial that is over waits for the others. In other environments trials end
    together unless an agent acts illegally; what one that is over does then is of no account.

    Args:
        agent: chooses actions.
        env: native vector environment with one trial for each task.
        tasks: task numbers, of length ``env.num_envs``.
        seed: of the reset.
        first_trial: number of the first task's trial in the record.
        on_step: is told of progress.
    """
    observation, info = env.reset(seed=seed, options={"task": list(tasks), "trial": first_trial})
    trials, designs = env.num_envs, env.settings.designs_per_trial  # type: ignore[attr-defined]
    by_edits = not env.layout.ACTIONS_ARE_CHOICES  # type: ignore[attr-defined]
    names = np.array([str(name) for name in info["task"]])
    accuracy, seconds = np.zeros((trials, designs)), np.zeros((trials, designs))
    architectures = np.full((trials, designs), "", dtype=object)
    done = np.zeros(trials, dtype=np.int64)
    spent = np.zeros(trials)
    start, state = np.ones(trials, dtype=np.bool_), None
    while (done < designs).any():
        began = time.perf_counter()
        action, state = agent.predict(observation, state, start)
        spent += (time.perf_counter() - began) / trials
        if by_edits:
            action = np.where(done < designs, action, WAIT)
        observation, _, terminated, truncated, info = env.step(action)
        start = terminated | truncated
        last = info["final_info"] if start.any() else info
        ended = np.where(start, last["design_ended"], info["design_ended"]).astype(np.bool_) & (done < designs)
        rows = np.flatnonzero(ended)
        if not len(rows):
            continue
        spent[rows] += env.trials.seconds[rows]  # type: ignore[attr-defined]
        for row in rows.tolist():
            source = last if start[row] else info
            accuracy[row, done[row]] = source["accuracy"][row]
            architectures[row, done[row]] = source["architecture"][row]
        seconds[rows, done[rows]] = spent[rows]
        done[rows] += 1
        if on_step is not None:
            on_step(len(rows), float(accuracy.max(1).mean()))
    return SearchRun(names, accuracy, seconds, architectures.astype(np.str_))
