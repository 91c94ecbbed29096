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
from stable_baselines3.common.logger import Logger, make_output_format

from rlnas.checkpoint import MANIFEST, one_line, write_durably
from rlnas.errors import ConfigurationError, RlnasError, UnknownNameError, at_least, one_of
from rlnas.evaluator import Evaluator
from rlnas.reward import REWARDS
from rlnas.store import EpisodeStore

from .rl2 import RL2, RL2Config

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


def begin_run(folder: Path, settings: TrainSettings) -> None:
    """Make a run's folder.

    Raises:
        ConfigurationError: if a run is already there or the settings contradict each other; nothing is written then.
    """
    if (folder / SETTINGS).exists():
        raise ConfigurationError(f"{folder} already holds a run; continue it with --resume or choose another --out")
    RL2(settings.make_env(), settings.learner, settings.seed)  # refuses settings that no run could be made with
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / SETTINGS, json.dumps(asdict(settings), indent=1).encode() + b"\n")


def read_run(folder: Path) -> TrainSettings:
    """The settings of a run.

    Raises:
        ConfigurationError: if the folder holds none, or they are damaged.
    """
    try:
        data = json.loads((folder / SETTINGS).read_text())
        return TrainSettings(**{**data, "learner": RL2Config(**data["learner"])})
    except FileNotFoundError:
        raise ConfigurationError(f"{folder} holds no run (there is no {SETTINGS})") from None
    except RlnasError as error:
        raise ConfigurationError(f"{folder / SETTINGS}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"{folder / SETTINGS} is damaged: {one_line(error)}") from None


def train(
    folder: Path,
    evaluator: Evaluator,
    device: str = "cpu",
    on_update: OnUpdate = lambda statistics: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train, or go on training, the run of a folder until its steps are done or ``stop`` says so.

    Every design episode is in ``episodes.sqlite`` before the learner sees its reward. An interrupted run goes on from
    its last checkpoint; the episodes it plays again are the ones already recorded.

    Args:
        folder: made by :func:`begin_run`.
        evaluator: of the designs.
        device: of the controller.
        on_update: is given the statistics of every update.
        stop: asked before every environment step.

    Returns:
        What the run came to, as JSON.
    """
    settings = read_run(folder)
    started = time.monotonic()
    with EpisodeStore(folder / EPISODES) as store:
        env = settings.make_env(evaluator=evaluator, recorder=store.append)
        learner = RL2(env, settings.learner, settings.seed, device)
        if (folder / CHECKPOINT / MANIFEST).exists():  # the folder alone: the first save was cut short
            learner.restore(folder / CHECKPOINT)
        resumed_at = learner.updates
        logger = _logger(folder / LOGS, resumed_at)
        saved = time.monotonic()
        last: dict[str, float] = {}

        def after_update(learner: RL2, statistics: dict[str, float]) -> None:
            nonlocal saved, last
            last = statistics
            for name, value in statistics.items():
                logger.record(f"train/{name}", value)
            logger.dump(learner.timesteps)
            on_update(statistics)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                learner.save(folder / CHECKPOINT)
                saved = time.monotonic()

        try:
            learner.learn(settings.steps, after_update, stop)
        finally:
            logger.close()
        # Not after an error, which may have come in the middle of an update: the last checkpoint is whole.
        learner.save(folder / CHECKPOINT)
        learner.controller.save(folder / AGENT)
        return {
            "run": str(folder),
            "env": settings.env,
            "finished": learner.timesteps >= settings.steps,
            "timesteps": learner.timesteps,
            "updates": learner.updates,
            "resumed_at_update": resumed_at,
            "episodes": len(store),
            "seconds": time.monotonic() - started,
            **{name: last[name] for name in ("accuracy", "first_accuracy", "last_accuracy") if name in last},
        }


def _logger(folder: Path, update: int) -> Logger:
    """CSV and TensorBoard, by stable-baselines3; a resumed run writes beside the logs that are there."""
    folder.mkdir(exist_ok=True)
    suffix = f"-from-update-{update}" if update else ""
    return Logger(str(folder), [make_output_format(kind, str(folder), suffix) for kind in ("csv", "tensorboard")])
