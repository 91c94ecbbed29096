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

from .agent import State
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

    @torch.no_grad()
    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`; the state is that of RecurrentPPO, for others None."""
        batch = torch.as_tensor(np.atleast_2d(observation), dtype=torch.float32, device=self._model.device)
        legal = batch[:, self._legal] > 0.5
        policy: Any = self._model.policy
        if isinstance(self._model, DQN):
            logits = _epsilon_greedy(policy.q_net(batch), legal, self._model.exploration_rate)
        elif isinstance(self._model, RecurrentPPO):
            logits, state = self._remembering(batch, state, episode_start)
        else:
            logits = policy.get_distribution(batch).distribution.logits
        action = gumbel_argmax(logits.masked_fill(~legal, ILLEGAL).cpu(), None if deterministic else self._generator)
        chosen = action.numpy()
        return chosen if observation.ndim == 2 else chosen[0], state

    def _remembering(
        self, batch: Tensor, state: State, episode_start: NDArray[np.bool_] | None
    ) -> tuple[Tensor, State]:
        policy: Any = self._model.policy
        layers, _, units = policy.lstm_hidden_state_shape
        blank = np.zeros((layers, len(batch), units), dtype=np.float32)
        hidden, cell = (torch.as_tensor(s, device=batch.device) for s in state or (blank, blank))
        started = np.zeros(len(batch)) if episode_start is None else np.atleast_1d(episode_start)
        starts = torch.as_tensor(started, dtype=torch.float32, device=batch.device)
        distribution, memory = policy.get_distribution(batch, (hidden, cell), starts)
        return distribution.distribution.logits, tuple(part.cpu().numpy() for part in memory)


def _epsilon_greedy(values: Tensor, legal: Tensor, rate: float) -> Tensor:
    """Logits (B, A) of taking the legal action of greatest value, or with probability ``rate`` any legal one."""
    best = values.masked_fill(~legal, -torch.inf).argmax(-1, keepdim=True)
    uniform = legal / legal.sum(-1, keepdim=True)
    return (rate * uniform).scatter_add(-1, best, torch.full_like(uniform, 1 - rate)).log()
