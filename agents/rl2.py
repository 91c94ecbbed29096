"""RL²: an LSTM policy meta-trained by PPO over whole trials, so that searching is what its memory does.

Duan et al. 2016 (https://arxiv.org/abs/1611.02779), Wang et al. 2016 (https://arxiv.org/abs/1611.05763).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rlnas.checkpoint import load_checkpoint, one_line, save_checkpoint
from rlnas.errors import CheckpointError, ConfigurationError, at_least

from .agent import State
from .controller import ControllerConfig, LSTMController
from .ppo import clipped_surrogate, explained_variance, generalised_advantage
from .rollout import Interrupted, Rollout, collect

Callback: TypeAlias = Callable[["RL2", dict[str, float]], bool | None]
"""Called after every update with the learner and its statistics; returning False stops learning."""


@dataclass(frozen=True)
class RL2Config:
    """How RL² learns.

    Args:
        hidden_size: units of the LSTM.
        learning_rate: of Adam; falls linearly to a tenth over the training.
        epochs: passes over each rollout.
        minibatches: parts a rollout is divided into, by trial, if it has so many: a trial is never cut.
        clip: PPO's clipping range.
        gae_lambda: lambda of generalised advantage estimation.
        design_discount: discount from one design of a trial to the next; within a design nothing is discounted.
        entropy: weight of the policy's entropy; falls linearly to 0 over the training.
        value: weight of the value loss.
        max_grad_norm: gradients are clipped to this norm.
    """

    hidden_size: int = 128
    learning_rate: float = 1e-3
    epochs: int = 6
    minibatches: int = 4
    clip: float = 0.2
    gae_lambda: float = 0.95
    design_discount: float = 0.9
    entropy: float = 0.08
    value: float = 0.5
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        for field in ("hidden_size", "epochs", "minibatches"):
            at_least(field, getattr(self, field), 1)
        for field in ("learning_rate", "clip", "max_grad_norm"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{field} must be a positive number, got {value!r}")
        for field in ("entropy", "value"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(f"{field} must be a number >= 0, got {value!r}")
        for field in ("gae_lambda", "design_discount"):
            if not 0 <= getattr(self, field) <= 1:
                raise ConfigurationError(f"{field} must be in [0, 1], got {getattr(self, field)!r}")


class RL2:
    """Trains an :class:`~rlnas.agents.controller.LSTMController`; is an agent itself.

    Everything random in update ``u`` follows from ``seed`` and ``u``, so weights, optimiser state and the number of
    updates are all that a resumed training needs to go on as if it had never stopped.

    Args:
        env: native vector environment of design trials; one trial of each makes a rollout.
        config: how it learns.
        seed: of weights, tasks, actions and minibatches.
        device: of the controller.
    """

    def __init__(
        self, env: VectorEnv, config: RL2Config | None = None, seed: int = 0, device: str | torch.device = "cpu"
    ) -> None:
        self.env = env
        self.config = config or RL2Config()
        self.seed = at_least("seed", seed, 0)
        if not hasattr(env, "layout") or not hasattr(env, "single_action_space"):
            raise ConfigurationError(f"RL2 needs a native vector environment, from gymnasium.make_vec(ID), got {env}")
        layout, num_actions = env.layout, int(env.single_action_space.n)  # type: ignore[attr-defined]
        legal = layout["legal"].start, layout["legal"].stop
        shape = ControllerConfig(layout.size, num_actions, legal, self.config.hidden_size)
        self.controller = LSTMController(shape, seed).to(device)
        space = env.search_space.spec()  # type: ignore[attr-defined]
        self.controller.about = {"env": env.spec.id if env.spec else None, "space": space}
        self.optimizer = torch.optim.Adam(self.controller.parameters(), lr=self.config.learning_rate, eps=1e-5)
        self.updates = 0
        self.timesteps = 0

    def learn(
        self, total_timesteps: int, callback: Callback | None = None, stop: Callable[[], bool] = lambda: False
    ) -> RL2:
        """Train until ``total_timesteps`` environment steps have been taken, counting those before a resume.

        Args:
            total_timesteps: steps of all environments together; rounded up to whole rollouts.
            callback: called after every update.
            stop: asked before every environment step; once it returns True the rollout at hand is given up and the
                learner is as after its last update.
        """
        at_least("total_timesteps", total_timesteps, 1)
        while self.timesteps < total_timesteps:
            progress = self.timesteps / total_timesteps
            first_trial = self.updates * self.env.num_envs
            try:
                rollout = collect(self.controller, self.env, self._rollout_seed(), first_trial, stop)
            except Interrupted:
                break
            statistics = self._update(rollout, progress)
            self.updates += 1
            self.timesteps += int(rollout.playing.sum())
            statistics = {"timesteps": float(self.timesteps), "updates": float(self.updates), **statistics}
            if callback is not None and callback(self, statistics) is False:
                break
        return self

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`."""
        return self.controller.predict(observation, state, episode_start, deterministic)

    def save(self, folder: str | Path) -> None:
        """Write everything that :meth:`restore` needs, as JSON and safetensors with a SHA-256 manifest."""
        tensors = {f"controller.{k}": v.detach().cpu() for k, v in self.controller.state_dict().items()}
        for index, entries in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v.detach().cpu() for k, v in entries.items()}
        data = {
            "learner": asdict(self.config),
            "seed": self.seed,
            "num_envs": self.env.num_envs,
            "updates": self.updates,
            "timesteps": self.timesteps,
        }
        save_checkpoint(folder, data, tensors)

    def restore(self, folder: str | Path) -> RL2:
        """Go on from what :meth:`save` wrote.

        Raises:
            CheckpointError: if it is damaged, or was made with other settings, which would not be the same training.
        """
        data, tensors = load_checkpoint(folder)
        mine = {"learner": asdict(self.config), "seed": self.seed, "num_envs": self.env.num_envs}
        for field, value in mine.items():
            if data.get(field) != value:
                raise CheckpointError(f"{folder}: was trained with {field} = {data.get(field)}, not {value}")
        try:
            updates, timesteps = (at_least(count, data[count], 0) for count in ("updates", "timesteps"))
            state = self._optimizer_state(tensors) if updates else {}
            self.controller.load_state_dict(
                {k.removeprefix("controller."): v for k, v in tensors.items() if k.startswith("controller.")}
            )
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
            self.updates, self.timesteps = updates, timesteps
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{folder}: does not fit this controller and space: {one_line(error)}") from None
        return self

    def _optimizer_state(self, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """Adam's moments of every parameter; without them it would start anew and say nothing."""
        state: dict[int, dict[str, Tensor]] = {}
        for index, parameter in enumerate(self.controller.parameters()):
            shapes = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
            state[index] = {entry: tensors[f"optimizer.{index}.{entry}"] for entry in shapes}
            if any(state[index][entry].shape != shape for entry, shape in shapes.items()):
                raise ValueError(f"the optimizer's state of parameter {index} has another shape")
        return state

    def _rollout_seed(self) -> int:
        return int(np.random.SeedSequence([self.seed, self.updates]).generate_state(1)[0]) >> 1

    def _update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        config = self.config
        discount = torch.where(rollout.design_ended, config.design_discount, 1.0)
        advantage, target = generalised_advantage(rollout.value, rollout.reward, discount, config.gae_lambda)
        earned = advantage[rollout.playing]
        advantage = (advantage - earned.mean()) / (earned.std(correction=0) + 1e-8)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - 0.9 * progress)
        entropy_weight = config.entropy * (1 - progress)
        generator = torch.Generator().manual_seed(self._rollout_seed())
        losses: list[tuple[float, ...]] = []
        for _ in range(config.epochs):
            order = torch.randperm(rollout.action.shape[1], generator=generator)
            for trials in order.tensor_split(min(config.minibatches, len(order))):
                playing = rollout.playing[:, trials]
                judged = self.controller.judge(rollout.observation[:, trials], rollout.action[:, trials])
                ratio = (judged.log_prob - rollout.log_prob[:, trials])[playing].exp()
                policy_loss = clipped_surrogate(ratio, advantage[:, trials][playing], config.clip)
                value_loss = F.mse_loss(judged.value[playing], target[:, trials][playing])
                entropy = judged.entropy[playing].mean()
                loss = policy_loss + config.value * value_loss - entropy_weight * entropy
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                norm = torch.nn.utils.clip_grad_norm_(self.controller.parameters(), config.max_grad_norm)
                self.optimizer.step()
                deviation = (ratio.detach() - 1).abs().max()
                losses.append(tuple(x.item() for x in (policy_loss, value_loss, entropy, norm, deviation)))
        policy, value, entropies, norms, deviations = zip(*losses, strict=True)
        return {
            **_progress(rollout),
            "policy_loss": float(np.mean(policy)),
            "value_loss": float(np.mean(value)),
            "entropy": float(np.mean(entropies)),
            "gradient_norm": float(np.mean(norms)),
            "first_ratio_deviation": deviations[0],
            "explained_variance": explained_variance(rollout.value[rollout.playing], target[rollout.playing]),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }


def _progress(rollout: Rollout) -> dict[str, float]:
    """How the designs of the trials went, from first to last."""
    ended = rollout.design_ended.T
    accuracy = rollout.accuracy.T[ended].reshape(ended.shape[0], -1)  # (B, designs)
    return {
        "designs": float(accuracy.numel()),
        "reward": float(rollout.reward.sum(0).mean()),
        "accuracy": float(accuracy.mean()),
        "first_accuracy": float(accuracy[:, 0].mean()),
        "last_accuracy": float(accuracy[:, -1].mean()),
        "best_accuracy": float(accuracy.amax(1).mean()),
    }
