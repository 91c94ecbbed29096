"""RL²: a recurrent policy meta-trained by PPO over whole trials, so that searching is what its memory does.

Duan et al. 2016 (https://arxiv.org/abs/1611.02779), Wang et al. 2016 (https://arxiv.org/abs/1611.05763).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback, ProgressBarCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from rlnas.checkpoint import load_checkpoint, one_line, save_checkpoint
from rlnas.device import choose_device
from rlnas.errors import CheckpointError, ConfigurationError, at_least

from .agent import Session, State, Thinking
from .controller import Controller
from .environments import as_vector_env, controller_config
from .ppo import clipped_surrogate, discounted_sum, explained_variance, generalised_advantage
from .rl2_config import RL2Config, config_of
from .rollout import Interrupted, Rollout, collect, how_it_went
from .sb3 import VectorEnvAdapter

DEFAULT_ENVS = 64
AT_ONCE, FEWEST = 2**19, 16
"""Steps times units of memory, but no fewer trials, whose gradients a CPU computes at a time."""
KEPT = 31 * 2**20
"""Bytes. C's allocator on Linux goes on to keep twice as much as the largest block that was freed, of up to 32 MiB."""


class RL2:
    """Trains a :class:`~rlnas.agents.controller.Controller`, in stable-baselines3's manner; is an agent itself.

    An update learns from one whole trial (a Gymnasium episode) of every environment, so that many environments at a
    time are what it needs; a trial is never cut. Everything random in update ``u`` follows from ``seed`` and ``u``:
    a saved learner goes on as if it had never stopped.

    Args:
        env: a vector environment that resets an ended environment in the same step, a single one, or an id of either.
            Its observations are flat boxes, its actions ``Discrete`` or ``MultiDiscrete``. Where it has a ``layout``
            with a slice ``"legal"``, that part of observations is the action mask. ``info["design_ended"]``, if there
            is one, says that an inner episode of a trial ended.
        seed: of weights, tasks, actions and minibatches.
        device: of the controller, ``"auto"``, ``"cpu"`` or ``"cuda"``.
        num_envs: how many environments to make of an id.
        env_options: arguments of the environments that are made of an id.
        tensorboard_log: folder for TensorBoard.
        verbose: 1 prints statistics.
        settings: fields of :class:`~rlnas.agents.rl2_config.RL2Config`.

    Raises:
        ConfigurationError: if the environment or a setting is not of this kind.
    """

    def __init__(
        self,
        env: str | gym.Env[Any, Any] | VectorEnv,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        num_envs: int = DEFAULT_ENVS,
        env_options: Mapping[str, Any] | None = None,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        **settings: Any,
    ) -> None:
        config = config_of(settings)
        env = as_vector_env(env, num_envs, env_options or {})
        controller = Controller(controller_config(env, config), at_least("seed", seed, 0)).to(_device(device))
        self._begin(controller, config, seed, tensorboard_log, verbose)
        self.set_env(env)

    def _begin(
        self, controller: Controller, config: RL2Config, seed: int, tensorboard_log: str | Path | None, verbose: int
    ) -> None:
        self.env: VectorEnv | None = None
        self.controller, self.config, self.seed = controller, config, seed
        self.tensorboard_log, self.verbose = tensorboard_log, verbose
        self.optimizer = torch.optim.Adam(controller.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)
        self.updates = 0
        self.num_timesteps = 0
        self.return_variance = 0.0
        self.statistics: dict[str, float] = {}
        """Of the last update."""
        self._learned_timesteps = 0
        self._trials = 0
        self._logger, self._logger_was_set = Logger(None, []), False
        self._num_envs = DEFAULT_ENVS
        self._vec_env: VecEnv | None = None

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str = "RL2",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> RL2:
        """Train for ``total_timesteps`` environment steps, rounded up to whole rollouts.

        As stable-baselines3's ``learn``: with ``reset_num_timesteps=False`` they are further ones, and schedules end
        with the last of all. So ``RL2.load(path, env).learn(total - n, reset_num_timesteps=False)`` after ``n`` of them
        gives what ``learn(total)`` would have given.

        Args:
            total_timesteps: steps of all environments together.
            callback: of stable-baselines3's kind. Once one returns False the rollout at hand is given up, and the
                learner is as after its last update.
            log_interval: updates between entries of the log; None for no log.
            tb_log_name: name of the run in TensorBoard.
            reset_num_timesteps: begin to count at 0.
            progress_bar: show one.

        Raises:
            ConfigurationError: if there is no environment.
        """
        at_least("total_timesteps", total_timesteps, 1)
        if log_interval is not None:
            at_least("log_interval", log_interval, 1)
        env = self.env
        if env is None:
            raise ConfigurationError("a loaded learner needs an environment to learn in: call set_env() first")
        if reset_num_timesteps:
            self._learned_timesteps = 0
        self.num_timesteps = begun_with = self._learned_timesteps
        total_timesteps += begun_with
        if not self._logger_was_set:
            folder = None if self.tensorboard_log is None else str(self.tensorboard_log)
            self._logger = configure_logger(self.verbose, folder, tb_log_name, reset_num_timesteps)
        callback = _as_callback(callback, progress_bar)
        callback.init_callback(self)  # type: ignore[arg-type]  # it asks for nothing of BaseAlgorithm that is not here
        callback.on_training_start(locals(), globals())
        torch.empty(KEPT, dtype=torch.uint8)  # and freed
        started = time.monotonic()

        def on_step(step: dict[str, Any]) -> bool:
            self.num_timesteps += step["n_playing"]
            callback.update_locals(step)
            return callback.on_step()

        while self._learned_timesteps < total_timesteps:
            callback.on_rollout_start()
            try:
                rollout = collect(self.controller, env, self._update_seed(), self._trials, on_step)
            except Interrupted:
                self.num_timesteps = self._learned_timesteps
                break
            callback.on_rollout_end()
            self.statistics = self._update(rollout, progress=self._learned_timesteps / total_timesteps)
            self.updates += 1
            self._trials += env.num_envs
            self._learned_timesteps = self.num_timesteps
            if log_interval is not None and self.updates % log_interval == 0:
                self._log((self.num_timesteps - begun_with) / (time.monotonic() - started))
        callback.on_training_end()
        return self

    def _update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """PPO on whole trials: ``minibatches`` of them at a time, ``epochs`` times over."""
        config = self.config
        discount = config.discount * torch.where(rollout.design_ended, config.design_discount, 1.0)
        reward = rollout.reward / self._return_deviation(rollout, discount)
        advantage, target = generalised_advantage(rollout.value, reward, discount, config.gae_lambda)
        earned = advantage[rollout.playing]
        advantage = (advantage - earned.mean()) / (earned.std(correction=0) + 1e-8)
        learning_rate = config.learning_rate + progress * (config.final_learning_rate - config.learning_rate)
        entropy_weight = config.entropy + progress * (config.final_entropy - config.entropy)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        generator = torch.Generator().manual_seed(self._update_seed())
        losses: list[Tensor] = []
        for _ in range(config.epochs):
            order = torch.randperm(rollout.action.shape[1], generator=generator)
            for trials in order.to(advantage.device).tensor_split(min(config.minibatches, len(order))):
                self.optimizer.zero_grad()
                terms = self._backward(rollout, advantage, target, trials, entropy_weight)
                norm = torch.nn.utils.clip_grad_norm_(self.controller.parameters(), config.max_grad_norm)
                self.optimizer.step()
                losses.append(torch.stack([*terms, norm]))
        policy, value, entropy, deviation, norm = torch.stack(losses).double().cpu().unbind(1)
        return {
            **how_it_went(rollout),
            "policy_loss": float(policy.mean()),
            "value_loss": float(value.mean()),
            "entropy": float(entropy.mean()),
            "gradient_norm": float(norm.mean()),
            "first_ratio_deviation": float(deviation[0]),
            "explained_variance": explained_variance(rollout.value[rollout.playing], target[rollout.playing]),
            "learning_rate": learning_rate,
        }

    def _backward(
        self, rollout: Rollout, advantage: Tensor, target: Tensor, trials: Tensor, entropy_weight: float
    ) -> tuple[Tensor, ...]:
        """Gradients of a minibatch of trials; its losses of policy and value, its entropy, how far a ratio is from 1.

        On a CPU they are added up over parts of it, so small that the memory which one gives back does for the next:
        to be given new memory by the operating system costs as much time as all the rest.
        """
        config, device = self.config, self.controller.device
        units = config.hidden_size * (2 if config.separate_value else 1)
        at_once = max(FEWEST, AT_ONCE // (len(rollout.action) * units))
        parts = math.ceil(len(trials) / at_once) if device.type == "cpu" else 1
        steps = rollout.playing.index_select(1, trials).sum()
        losses, deviations = [], []
        for part in trials.tensor_split(parts):
            observation, action, log_prob, gain, worth, playing = (
                of.index_select(1, part)
                for of in (rollout.observation, rollout.action, rollout.log_prob, advantage, target, rollout.playing)
            )
            with torch.autocast(device.type, torch.bfloat16, enabled=config.autocast):
                judged = self.controller.judge(observation, action)
            ratio = (judged.log_prob - log_prob).exp()
            terms = clipped_surrogate(ratio, gain, config.clip), (judged.value - worth).square(), judged.entropy
            policy_loss, value_loss, entropy = ((term * playing).sum() / steps for term in terms)
            loss = policy_loss + config.value * value_loss - entropy_weight * entropy
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(torch.stack([policy_loss, value_loss, entropy]).detach())
            deviations.append(((ratio.detach() - 1).abs() * playing).max())
        return *torch.stack(losses).sum(0), torch.stack(deviations).max()

    def _return_deviation(self, rollout: Rollout, discount: Tensor) -> float:
        """Standard deviation of what followed steps so far, lately above all; rewards are learned from in its units."""
        returns = discounted_sum(rollout.reward, discount)[rollout.playing]
        variance = float(returns.var(correction=0))
        self.return_variance += (variance - self.return_variance) / min(self.updates + 1, 20)
        return float(np.sqrt(self.return_variance)) or 1.0

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.controller.Controller.predict`."""
        return self.controller.predict(observation, state, episode_start, deterministic, action_masks)

    def think(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> Thinking:
        """See :func:`rlnas.agents.agent.think`."""
        return self.controller.think(observation, state, episode_start, deterministic)

    def session(self, deterministic: bool = False) -> Session:
        """The agent with its memory kept for you; see :class:`~rlnas.agents.agent.Session`."""
        return Session(self, deterministic)

    def set_env(
        self,
        env: str | gym.Env[Any, Any] | VectorEnv,
        num_envs: int | None = None,
        env_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Learn in another environment from now on.

        Args:
            env: as for the learner itself.
            num_envs: how many to make of an id; by default as many as there were.
            env_options: arguments of the environments that are made of an id.

        Raises:
            ConfigurationError: if its observations or actions are others.
        """
        env = as_vector_env(env, self._num_envs if num_envs is None else num_envs, env_options or {})
        theirs, ours = controller_config(env, self.config), self.controller.config
        if theirs != ours:
            raise ConfigurationError(f"env must suit a controller of {ours}, got one that needs {theirs}")
        self.env = env
        self.n_envs = self._num_envs = env.num_envs
        self._vec_env = VectorEnvAdapter(env)
        if not self.controller.about:
            space = getattr(env.unwrapped, "search_space", None)
            spec = getattr(env, "spec", None)
            self.controller.about = {"env": spec and spec.id, "space": space and space.spec()}

    def get_env(self) -> VecEnv | None:
        """The environment in stable-baselines3's form, for callbacks to ask what they like; not to be stepped."""
        return self._vec_env

    @property
    def observation_space(self) -> gym.Space[Any] | None:
        """Of a single environment; None without one."""
        return None if self.env is None else self.env.single_observation_space

    @property
    def action_space(self) -> gym.Space[Any] | None:
        """Of a single environment; None without one."""
        return None if self.env is None else self.env.single_action_space

    @property
    def device(self) -> torch.device:
        """Of the controller."""
        return self.controller.device

    def get_vec_normalize_env(self) -> None:
        """There is none: rewards are normalised in the learner, observations are not."""

    @property
    def logger(self) -> Logger:
        """Of stable-baselines3."""
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        """Log to this one from now on; see :func:`stable_baselines3.common.logger.configure`."""
        self._logger, self._logger_was_set = logger, True

    def _log(self, steps_per_second: float) -> None:
        for name, value in self.statistics.items():
            group = "rollout" if name.startswith("ep_") else "train"
            self.logger.record(f"{group}/{name}", value)
        self.logger.record("time/fps", int(steps_per_second))
        self.logger.record("time/updates", self.updates)
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)

    def save(self, path: str | Path) -> None:
        """Write everything that :meth:`load` needs, as JSON and safetensors with a SHA-256 manifest.

        Args:
            path: a folder, made if it is missing, or a file ``.zip``.
        """
        tensors = self.controller.tensors()
        for index, entries in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v.detach().cpu() for k, v in entries.items()}
        learner = {
            "settings": asdict(self.config),
            "seed": self.seed,
            "updates": self.updates,
            "num_timesteps": self._learned_timesteps,
            "num_envs": self._num_envs,
            "trials": self._trials,
            "return_variance": self.return_variance,
        }
        save_checkpoint(path, {**self.controller.data(), "learner": learner}, tensors)

    @classmethod
    def load(
        cls,
        path: str | Path,
        env: str | gym.Env[Any, Any] | VectorEnv | None = None,
        device: str | torch.device = "cpu",
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
    ) -> RL2:
        """Read what :meth:`save` wrote, to act or, given an environment, to go on learning.

        It goes on as if it had never stopped in an environment like the one before, with as many trials at a time.

        Raises:
            CheckpointError: if it is damaged or holds no learner.
            ConfigurationError: if the environment's observations or actions are others.
        """
        data, tensors = load_checkpoint(path)
        controller = Controller.restored(path, data, tensors).to(_device(device))
        learner = cls.__new__(cls)
        try:
            mine = data["learner"]
            config = config_of(dict(mine["settings"]))
            learner._begin(controller, config, at_least("seed", mine["seed"], 0), tensorboard_log, verbose)
            learner.updates = at_least("updates", mine["updates"], 0)
            learner._learned_timesteps = learner.num_timesteps = at_least("num_timesteps", mine["num_timesteps"], 0)
            learner._num_envs = at_least("num_envs", mine["num_envs"], 1)
            learner._trials = at_least("trials", mine["trials"], 0)
            learner.return_variance = float(mine["return_variance"])
            if not 0 <= learner.return_variance < math.inf:
                raise ValueError(f"return_variance must be a number >= 0, got {learner.return_variance}")
            controller.seed(learner.seed)
            state = learner._optimizer_state(tensors) if learner.updates else {}
            learner.optimizer.load_state_dict({**learner.optimizer.state_dict(), "state": state})
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise CheckpointError(f"{path}: holds no learner of this version: {one_line(error)}") from None
        if env is not None:
            learner.set_env(env)
        return learner

    def _optimizer_state(self, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """Adam's moments of every parameter; without them it would start anew and say nothing."""
        state: dict[int, dict[str, Tensor]] = {}
        for index, parameter in enumerate(self.controller.parameters()):
            shapes = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
            state[index] = {entry: tensors[f"optimizer.{index}.{entry}"] for entry in shapes}
            if any(state[index][entry].shape != shape for entry, shape in shapes.items()):
                raise ValueError(f"the optimizer's state of parameter {index} has another shape")
        return state

    def _update_seed(self) -> int:
        return int(np.random.SeedSequence([self.seed, self.updates]).generate_state(1)[0]) >> 1


def _as_callback(callback: MaybeCallback, progress_bar: bool) -> BaseCallback:
    if isinstance(callback, list):
        callback = CallbackList(callback)
    if not isinstance(callback, BaseCallback):
        callback = ConvertCallback(callback)
    return CallbackList([callback, ProgressBarCallback()]) if progress_bar else callback


def _device(name: str | torch.device) -> torch.device:
    return name if isinstance(name, torch.device) else choose_device(name)
