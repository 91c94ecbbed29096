"""The native vector environment: many trials in one process, and one evaluator call for all designs of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlnas.errors import at_least, one_of

from .design import DesignEnv, known_arguments, make_settings
from .render import RENDER_MODES, render_ansi, render_rgb
from .same_step import final_entries, row_seeds, with_masks
from .trial import Recorder, Trials, TrialSettings, reset_options


class DesignVectorEnv(VectorEnv[NDArray[np.float32], NDArray[np.int64], NDArray[Any]]):
    """``num_envs`` trials of :class:`~rlnas.envs.design.DesignEnv`, bit for bit what that many single ones do.

    A trial that ends is followed by the next in the same step (``AutoresetMode.SAME_STEP``): its last observation and
    info are in ``info["final_obs"]`` and ``info["final_info"]``, and no action is ever wasted.

    Args:
        num_envs: number of trials.
        recorder: called with the design episodes that ended in a step.
        agent: who is recorded to have designed.
        render_mode: ``"ansi"`` or ``"rgb_array"``.
        settings: the arguments of :class:`~rlnas.envs.design.DesignEnv`.

    Reset options: ``task``, an index for each trial, ``trial``, the number of the first, and ``new_task``.
    """

    metadata = {**DesignEnv.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        *,
        recorder: Recorder | None = None,
        agent: str = "agent",
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        self.num_envs = at_least("num_envs", num_envs, 1)
        self.render_mode = None if render_mode is None else one_of("render_mode", render_mode, RENDER_MODES)
        self.settings = self._make_settings(settings)
        self._trials = Trials(self.settings, num_envs, recorder, agent)
        self.layout = self._trials.layout
        self.search_space = self.settings.space
        self.single_observation_space = self.layout.box()
        self.single_action_space = spaces.Discrete(self.settings.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs: list[np.random.Generator] = []

    def _make_settings(self, arguments: dict[str, Any]) -> TrialSettings:
        return make_settings(**known_arguments(arguments))

    @property
    def trials(self) -> Trials:
        """The trials in progress, one row each."""
        return self._trials

    def action_masks(self) -> NDArray[np.bool_]:
        """The legal actions now, of shape (num_envs, actions)."""
        return self._trials.legal().copy()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        seeds = row_seeds(seed, self.num_envs)
        tasks, trial = reset_options(options, self._trials)
        old = self._rngs or [gym.utils.seeding.np_random()[0] for _ in seeds]
        self._rngs = [
            kept if s is None else gym.utils.seeding.np_random(s)[0] for s, kept in zip(seeds, old, strict=True)
        ]
        first = int(self._trials.trial.max()) + 1 if trial is None else trial
        rows = range(self.num_envs)
        self._trials.begin(rows, self._rngs, [first + row for row in rows], seeds, tasks)
        return self._trials.observe(), self._info()

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        rewards, over = self._trials.step(np.asarray(actions), self._rngs)
        final: dict[str, Any] = {}
        if over.any():
            final = final_entries(self._trials.observe(), self._trials.info(), over)
            self._begin_next(np.flatnonzero(over).tolist())
        return self._trials.observe(), rewards, over, np.zeros_like(over), {**self._info(), **final}

    def render(self) -> tuple[Any, ...] | None:
        """One picture of each trial; see :meth:`DesignEnv.render`."""
        if self.render_mode is None:
            return None
        texts = [render_ansi(self._trials, row) for row in range(self.num_envs)]
        return tuple(texts if self.render_mode == "ansi" else map(render_rgb, texts))

    def _begin_next(self, rows: list[int]) -> None:
        numbers = (self._trials.trial[rows] + self.num_envs).tolist()
        unset = [None] * len(rows)
        self._trials.begin(rows, [self._rngs[row] for row in rows], numbers, unset, unset)

    def _info(self) -> dict[str, Any]:
        return with_masks(self._trials.info(), np.ones(self.num_envs, dtype=np.bool_))
