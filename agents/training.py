"""A training run in a folder of its own: settings, checkpoints, logs, and every episode."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, make_output_format

from rlnas.checkpoint import MANIFEST, settings_of_run, write_durably
from rlnas.errors import CheckpointError, ConfigurationError, UnknownNameError, at_least, one_of
from rlnas.evaluator import Evaluator
from rlnas.reward import REWARDS
from rlnas.store_writer import StoreWriter

from .rl2 import RL2
from .rl2_config import RL2Config

SETTINGS, CHECKPOINT, AGENT, EPISODES, LOGS = "config.json", "checkpoint", "agent", "episodes.sqlite", "logs"
CHECKPOINT_SECONDS = 30.0

OnUpdate: TypeAlias = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class TrainSettings:
    """What a training run is; kept as ``config.json`` in its folder.

    Args:
        env: id of a trial environment.
        steps: environment steps in all.
        seed: of everything random.
        trials: trials played at a time.
        reward: reward form that is learned from.
        learner: how RL² learns.
        env_options: further arguments of the environment, as JSON.

    Raises:
        ConfigurationError: if a value is not allowed.
    """

    env: str
    steps: int
    seed: int = 0
    trials: int = 32
    reward: str = "normalised"
    learner: RL2Config = field(default_factory=RL2Config)
    env_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("seed", self.seed, 0)
        at_least("trials", self.trials, 1)
        one_of("reward", self.reward, REWARDS)
        if self.env not in gym.registry:
            raise UnknownNameError(
                "environment", self.env, [name for name in gym.registry if name.startswith("rlnas/")]
            )
        if not isinstance(self.env_options, dict):
            raise ConfigurationError(
                f"env_options must be named arguments of the environment, got {self.env_options!r}"
            )

    def make_env(self, **connections: Any) -> VectorEnv:
        """The environment to train in, with an evaluator and a recorder connected to it."""
        options = {**self.env_options, "reward": self.reward, "agent": "rl2", **connections}
        return gym.make_vec(self.env, num_envs=self.trials, **options)

    def make_learner(self, env: VectorEnv, device: str = "cpu") -> RL2:
        """The learner as it begins."""
        return RL2(env, seed=self.seed, device=device, **asdict(self.learner))


def begin_run(folder: Path, settings: TrainSettings) -> None:
    """Make a run's folder.

    Raises:
        ConfigurationError: if a run is already there or the settings contradict each other; nothing is written then.
    """
    if (folder / SETTINGS).exists():
        raise ConfigurationError(f"{folder} already holds a run; continue it with --resume or choose another --out")
    settings.make_learner(settings.make_env())  # refuses settings that no run could be made with
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / SETTINGS, json.dumps(asdict(settings), indent=1).encode() + b"\n")


def read_run(folder: Path) -> TrainSettings:
    """The settings of a run.

    Raises:
        ConfigurationError: if the folder holds none, or they are damaged.
    """
    with settings_of_run(folder / SETTINGS) as data:
        return TrainSettings(**{**data, "learner": RL2Config(**data["learner"])})


def train(
    folder: Path,
    evaluator: Evaluator,
    device: str = "cpu",
    on_update: OnUpdate = lambda statistics: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train, or go on training, the run of a folder until its steps are done or ``stop`` says so.

    Every design episode is soon in ``episodes.sqlite``, and before a checkpoint is that knows of it. An interrupted
    run goes on from its last checkpoint; the episodes it plays again are the ones already recorded.

    Args:
        folder: made by :func:`begin_run`.
        evaluator: of the designs.
        device: of the controller.
        on_update: is given the statistics of every update.
        stop: asked before every environment step.

    Returns:
        What the run came to, as JSON.

    Raises:
        ConfigurationError: as :func:`read_run`.
        CheckpointError: if the checkpoint is damaged or of other settings.
        StoreError: if another process trains this run, or episodes cannot be written.
    """
    settings = read_run(folder)
    started = time.monotonic()
    with StoreWriter(folder / EPISODES) as store:
        env = settings.make_env(evaluator=evaluator, recorder=store.append)
        if (folder / CHECKPOINT / MANIFEST).exists():  # the folder alone: the first save was cut short
            learner = RL2.load(folder / CHECKPOINT, env, device)
            for name, ours, its in (
                ("seed", settings.seed, learner.seed),
                ("learner", settings.learner, learner.config),
            ):
                if ours != its:
                    raise CheckpointError(f"{folder / CHECKPOINT}: was trained with {name} = {its}, not {ours}")
        else:
            learner = settings.make_learner(env, device)
        resumed_at = learner.updates

        def save() -> None:
            store.flush()
            learner.save(folder / CHECKPOINT)

        run = _Run(save, on_update, stop)
        logger = _logger(folder / LOGS, resumed_at)
        learner.set_logger(logger)
        try:
            if learner.num_timesteps < settings.steps:
                learner.learn(settings.steps - learner.num_timesteps, run, reset_num_timesteps=False)
        finally:
            logger.close()
        # Not after an error, which may have come in the middle of an update: the last checkpoint is whole.
        save()
        learner.controller.save(folder / AGENT)
        return {
            "run": str(folder),
            "env": settings.env,
            "finished": learner.num_timesteps >= settings.steps,
            "timesteps": learner.num_timesteps,
            "updates": learner.updates,
            "resumed_at_update": resumed_at,
            "episodes": len(store),
            "seconds": time.monotonic() - started,
            **{k: v for k, v in learner.statistics.items() if k in ("accuracy", "first_accuracy", "last_accuracy")},
        }


class _Run(BaseCallback):
    """Tells of every update, keeps checkpoints, and stops when it is told to."""

    def __init__(self, save: Callable[[], None], on_update: OnUpdate, stop: Callable[[], bool]) -> None:
        super().__init__()
        self._save, self._on_update, self._stop = save, on_update, stop
        self._told = -1
        self._saved = time.monotonic()

    def _on_rollout_start(self) -> None:
        self._after_update()

    def _on_step(self) -> bool:
        return not self._stop()

    def _on_training_end(self) -> None:
        self._after_update()

    def _after_update(self) -> None:
        learner: Any = self.model
        if self._told < 0:
            self._told = learner.updates
        if learner.updates > self._told:
            self._told = learner.updates
            self._on_update({"timesteps": learner.num_timesteps, "updates": learner.updates, **learner.statistics})
            if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
                self._save()
                self._saved = time.monotonic()


def _logger(folder: Path, update: int) -> Logger:
    """CSV and TensorBoard, by stable-baselines3; a resumed run writes beside the logs that are there."""
    folder.mkdir(exist_ok=True)
    suffix = f"-from-update-{update}" if update else ""
    return Logger(str(folder), [make_output_format(kind, str(folder), suffix) for kind in ("csv", "tensorboard")])
