"""Trained models of stable-baselines3 that keep to the legal actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from rlnas.errors import ConfigurationError

from .agent import State, Thinking
from .controller import ILLEGAL, gumbel_argmax


class LegalAgent:
    """A trained model of stable-baselines3 or sb3-contrib that chooses among the legal actions alone.

    Only MaskablePPO knows of illegal actions; whoever trained without learns to avoid them from their reward, and in a
    search a design must not be lost to the rest. Actions are drawn from the model's distribution over the legal ones;
    for DQN, with the rate of exploration that it ended with, any of them, else the one of greatest value.

    Args:
        model: DQN, or an actor-critic: PPO, A2C, RecurrentPPO, MaskablePPO and the like.
        layout: of the environment's observations.
        seed: of the actions drawn.

    Raises:
        ConfigurationError: if the model is of another kind.
    """

    def __init__(self, model: BaseAlgorithm, layout: Any, seed: int = 0) -> None:
        if not isinstance(model, DQN) and not hasattr(model.policy, "get_distribution"):
            raise ConfigurationError(f"model must be DQN or an actor-critic, got {type(model).__name__}")
        self._model = model
        self._legal = layout["legal"]
        self._generator = torch.Generator().manual_seed(seed)
        model.policy.set_training_mode(False)

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`; the state is that of RecurrentPPO, for others None."""
        action, _, state = self._choose(self._batch(observation), state, episode_start, deterministic)
        return action if observation.ndim == 2 else action[0], state

    @torch.no_grad()
    def think(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> Thinking:
        """See :func:`rlnas.agents.agent.think`; DQN's value is the greatest of a legal action, and RecurrentPPO has
        none if its critic remembers by itself: an agent's state is the policy's."""
        batch, policy = self._batch(observation), self._policy
        if isinstance(self._model, DQN):
            value = policy.q_net(batch).masked_fill(~self._is_legal(batch), -torch.inf).amax(-1)
        elif not isinstance(self._model, RecurrentPPO):
            value = policy.predict_values(batch)[:, 0]
        elif policy.lstm_critic is None:
            value = policy.predict_values(batch, *self._memory(batch, state, episode_start))[:, 0]
        else:
            value = None
        action, logits, state = self._choose(batch, state, episode_start, deterministic)
        return Thinking(action, state, logits.softmax(-1).numpy(), None if value is None else value.cpu().numpy())

    @property
    def _policy(self) -> Any:
        return self._model.policy

    def _batch(self, observation: NDArray[np.float32]) -> Tensor:
        return torch.as_tensor(np.atleast_2d(observation), dtype=torch.float32, device=self._model.device)

    def _is_legal(self, batch: Tensor) -> Tensor:
        return batch[:, self._legal] > 0.5

    @torch.no_grad()
    def _choose(
        self, batch: Tensor, state: State, episode_start: NDArray[np.bool_] | None, deterministic: bool
    ) -> tuple[NDArray[np.int64], Tensor, State]:
        """Actions (N,), the logits (N, A) that they come of, and the state after."""
        legal = self._is_legal(batch)
        if isinstance(self._model, DQN):
            logits = _epsilon_greedy(self._policy.q_net(batch), legal, self._model.exploration_rate)
        elif isinstance(self._model, RecurrentPPO):
            distribution, memory = self._policy.get_distribution(batch, *self._memory(batch, state, episode_start))
            logits, state = distribution.distribution.logits, tuple(part.cpu().numpy() for part in memory)
        else:
            logits = self._policy.get_distribution(batch).distribution.logits
        logits = logits.masked_fill(~legal, ILLEGAL).cpu()
        return gumbel_argmax(logits, None if deterministic else self._generator).numpy(), logits, state

    def _memory(
        self, batch: Tensor, state: State, episode_start: NDArray[np.bool_] | None
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """RecurrentPPO's memory, and where it is to be forgotten."""
        layers, _, units = self._policy.lstm_hidden_state_shape
        blank = np.zeros((layers, len(batch), units), dtype=np.float32)
        hidden, cell = (torch.as_tensor(s, device=batch.device) for s in state or (blank, blank))
        started = np.zeros(len(batch)) if episode_start is None else np.atleast_1d(episode_start)
        return (hidden, cell), torch.as_tensor(started, dtype=torch.float32, device=batch.device)


def _epsilon_greedy(values: Tensor, legal: Tensor, rate: float) -> Tensor:
    """Logits (B, A) of taking the legal action of greatest value, or with probability ``rate`` any legal one."""
    best = values.masked_fill(~legal, -torch.inf).argmax(-1, keepdim=True)
    uniform = legal / legal.sum(-1, keepdim=True)
    return (rate * uniform).scatter_add(-1, best, torch.full_like(uniform, 1 - rate)).log()
