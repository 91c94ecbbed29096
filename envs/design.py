"""The design environment: a Gymnasium episode is a trial of one or more designs on one task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlnas.datasets import parse_tasks, source_from_spec
from rlnas.errors import one_of
from rlnas.evaluator import Evaluator
from rlnas.search_space import SearchSpace
from rlnas.specs import evaluator_from_spec, make_space, space_from_spec
from rlnas.table_presets import with_data
from rlnas.tabular_evaluator import TabularEvaluator
from rlnas.task import TaskSource

from .render import RENDER_MODES, render_ansi, render_rgb
from .trial import Recorder, Trials, TrialSettings, reset_options

REFERENCE_DESIGNS = 8
"""How many random designs rewards are compared with where networks are trained, unless told otherwise."""


def make_settings(
    *,
    env_id: str = "rlnas/Design-v0",
    space: SearchSpace | str | Mapping[str, Any] = "chain",
    tasks: str | tuple[TaskSource | Mapping[str, Any], str] = "digits:train",
    evaluator: Evaluator | Mapping[str, Any] | str | None = None,
    designs_per_trial: int = 1,
    reward: str = "accuracy",
    reference_designs: int | None = None,
    invalid_action: str = "penalise",
    evaluation_seed: int | None = 0,
    duplicates: str = "count",
    descriptor: bool = True,
    data: str | None = None,
) -> TrialSettings:
    """Settings from what a user may write for :class:`DesignEnv`'s arguments.

    Raises:
        ConfigurationError: if an argument has a value that is not allowed.
    """
    if isinstance(space, str):
        space = make_space(space)
    elif isinstance(space, Mapping):
        space = space_from_spec(with_data(space, data))
    source, split = parse_tasks(tasks, data=data) if isinstance(tasks, str) else tasks
    if isinstance(source, Mapping):
        source = source_from_spec(with_data(source, data))
    if evaluator is None or isinstance(evaluator, str):
        evaluator = {"kind": evaluator or "sequential"}
    if isinstance(evaluator, Mapping):
        evaluator = evaluator_from_spec(with_data(evaluator, data))
    if reference_designs is None and not isinstance(evaluator, TabularEvaluator):
        reference_designs = REFERENCE_DESIGNS
    return TrialSettings(
        env_id=env_id,
        space=space,
        source=source,
        split=split,
        evaluator=evaluator,
        designs_per_trial=designs_per_trial,
        reward=reward,
        reference_designs=reference_designs,
        invalid_action=invalid_action,
        evaluation_seed=evaluation_seed,
        duplicates=duplicates,
        descriptor=descriptor,
    )


def known_arguments(arguments: dict[str, Any], more: Iterable[str] = ()) -> dict[str, Any]:
    """The arguments themselves.

    Raises:
        UnknownNameError: if one of them is neither known to :func:`make_settings` nor one of ``more``.
    """
    for name in arguments:
        one_of("argument of the environment", name, [*signature(make_settings).parameters, *more])
    return arguments


class DesignEnv(gym.Env[NDArray[Any], np.int64]):
    """Design networks, decision by decision, for a task that is drawn at each reset.

    ## Observations
    A float32 vector whose named slices :class:`~rlnas.envs.observation.ObservationLayout` documents
    (``env.unwrapped.layout``).

    ## Actions
    ``Discrete``: the choice for the decision at hand. ``info["action_mask"]`` (int8) and :meth:`action_masks` (bool)
    say which are legal.

    ## Rewards
    0 until a design is complete, then its reward by the ``reward`` form: see :mod:`rlnas.reward`.

    ## Episode end
    Terminates after ``designs_per_trial`` designs. Inner designs end without ending the episode: the next observation
    starts an empty design, with the reward in its ``reward`` slice and ``design_ended`` set.

    ## Info
    At every step: ``action_mask``, ``design_ended``, ``accuracy`` (of the design just ended, else 0),
    ``best_accuracy``, ``design`` (designs ended so far), ``task``, ``architecture`` and ``status`` (empty unless a
    design just ended). The trial's number is not there: equal seeds give equal episodes, whenever they are played.

    ## Reset options
    ``{"task": index}`` fixes the task; ``{"new_task": False}`` keeps the one there is, as
    :class:`~rlnas.envs.wrappers.TrialEnv` asks for between the episodes of its trials; ``{"trial": number}`` sets the
    number under which the trial is recorded.

    ## Arguments
    Args:
        space: a :class:`~rlnas.search_space.SearchSpace`, its name, or its spec.
        tasks: ``"source:split"`` (see :func:`rlnas.datasets.parse_tasks`) or ``(source, split)``, where the source is a
            :class:`~rlnas.task.TaskSource` or its spec.
        evaluator: an :class:`~rlnas.evaluator.Evaluator`, its kind or its spec; by default a sequential one on the CPU.
        designs_per_trial: designs in one episode.
        reward: ``"accuracy"``, ``"improvement"``, ``"normalised"`` or ``"log-percentile"``.
        reference_designs: how many random designs the latter two compare with, for each task; by default all designs of
            a table, and 8 where networks are trained.
        invalid_action: ``"penalise"`` ends the design with status ``invalid`` and accuracy 0; ``"raise"`` raises
            :class:`~rlnas.errors.IllegalChoiceError`.
        evaluation_seed: which replicate of the random weights every evaluation uses, so that a design repeated on a
            task has the same accuracy; None draws a new one for each design.
        duplicates: what of a design that the trial has evaluated before: ``"count"`` it like any other, or
            ``"refuse"`` it: no choice is legal that only such designs go on with. Designs are compared by their
            choices, so the same network designed otherwise is evaluated again, and so is everything once a trial has
            evaluated its whole space.
        descriptor: whether observations hold the task's descriptor; zeros are in its place otherwise.
        data: the folder of known tables, see :mod:`rlnas.table_presets`, and of torchvision's sets; by default that of
            the environment variable ``RLNAS_DATA`` for the former.
        recorder: called with the design episodes that ended in a step (:meth:`rlnas.store.EpisodeStore.append`, say).
        agent: who is recorded to have designed.
        render_mode: ``"ansi"`` or ``"rgb_array"``.

    Raises:
        ConfigurationError: if an argument has a value that is not allowed.

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        *,
        recorder: Recorder | None = None,
        agent: str = "agent",
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        self.render_mode = None if render_mode is None else one_of("render_mode", render_mode, RENDER_MODES)
        self.settings = self._make_settings(settings)
        self._trials = Trials(self.settings, 1, recorder, agent)
        self.layout = self._trials.layout
        self.search_space = self.settings.space
        self.observation_space = self.layout.box()
        self.action_space = spaces.Discrete(self.settings.num_actions)

    def _make_settings(self, arguments: dict[str, Any]) -> TrialSettings:
        return make_settings(**known_arguments(arguments))

    @property
    def trials(self) -> Trials:
        """The trial in progress, with one row."""
        return self._trials

    def action_masks(self) -> NDArray[np.bool_]:
        """The legal actions now, of shape (actions,): sb3-contrib's form."""
        return np.array(self._trials.legal()[0])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        (task,), trial = reset_options(options, self._trials)
        number = int(self._trials.trial[0]) + 1 if trial is None else trial
        self._trials.begin([0], [self.np_random], [number], [seed], [task])
        return self._trials.observe()[0], self._info()

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        rewards, over = self._trials.step(np.array([action]), [self.np_random])
        return self._trials.observe()[0], float(rewards[0]), bool(over[0]), False, self._info()

    def render(self) -> Any:
        """The state as text (``ansi``) or image (``rgb_array``, uint8 of shape (H, W, 3)); None without a mode."""
        if self.render_mode is None:
            return None
        text = render_ansi(self._trials, 0)
        return text if self.render_mode == "ansi" else render_rgb(text)

    def _info(self) -> dict[str, Any]:
        return {
            name: column[0] if isinstance(column[0], str | np.ndarray) else column[0].item()
            for name, column in self._trials.info().items()
        }
