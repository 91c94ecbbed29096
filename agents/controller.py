"""The controller: a masked actor-critic with an LSTM whose state lives through a trial."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlnas.checkpoint import load_checkpoint, one_line, save_checkpoint
from rlnas.errors import CheckpointError, ConfigurationError, at_least

from .agent import State

Memory: TypeAlias = tuple[Tensor, Tensor]
"""LSTM state: hidden and cell, each of shape (1, B, hidden)."""

ILLEGAL = -1e9
"""Logit of an illegal action: exp underflows to exactly 0, and unlike -inf it leaves gradients finite."""


@dataclass(frozen=True)
class ControllerConfig:
    """Shape of a controller.

    Args:
        observation_size: entries of an observation.
        num_actions: size of the action space.
        legal: where the action mask lies in an observation, as (start, stop).
        hidden_size: units of the LSTM.

    Raises:
        ConfigurationError: if a size is not positive or the mask does not lie in the observation.
    """

    observation_size: int
    num_actions: int
    legal: tuple[int, int]
    hidden_size: int = 128

    def __post_init__(self) -> None:
        for field in ("observation_size", "num_actions", "hidden_size"):
            at_least(field, getattr(self, field), 1)
        start, stop = self.legal
        if not (at_least("legal", start, 0) + self.num_actions == at_least("legal", stop, 0) <= self.observation_size):
            raise ConfigurationError(
                f"legal must span {self.num_actions} of {self.observation_size} entries, got {start} to {stop}"
            )
        object.__setattr__(self, "legal", (start, stop))


@dataclass(frozen=True)
class Judgement:
    """What the controller thinks of a rollout; all of shape (T, B)."""

    log_prob: Tensor
    entropy: Tensor
    value: Tensor


def gumbel_argmax(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """The likeliest choices, or samples of the softmax if there is a generator: logits (B, A) to choices (B,)."""
    if generator is not None:  # the largest of the logits with Gumbel noise is a sample of their softmax
        uniform = torch.rand(logits.shape, generator=generator).clamp_min(1e-12)
        logits = logits - torch.log(-torch.log(uniform))
    return logits.argmax(-1)


class LSTMController(nn.Module):
    """Policy and value head on one LSTM (RL²: Duan et al. 2016, https://arxiv.org/abs/1611.02779).

    ``T`` time steps, ``B`` trials, ``D`` observation entries, ``A`` actions.
    """

    def __init__(self, config: ControllerConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.about: dict[str, Any] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.lstm = nn.LSTM(config.observation_size, config.hidden_size)
            # The heads see the observation too: what it says outright need not pass through the memory.
            self.policy = nn.Linear(config.hidden_size + config.observation_size, config.num_actions)
            self.value = nn.Linear(config.hidden_size + config.observation_size, 1)
            # A near-uniform first policy: nothing is preferred before anything is known.
            nn.init.orthogonal_(self.policy.weight, 0.01)
            nn.init.zeros_(self.policy.bias)
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def device(self) -> torch.device:
        return self.policy.weight.device

    def seed(self, seed: int) -> None:
        """Seed the generator that samples actions."""
        self._generator.manual_seed(seed)

    def blank(self, trials: int) -> Memory:
        """The memory with which a trial begins."""
        zeros = torch.zeros(1, trials, self.config.hidden_size, device=self.device)
        return zeros, zeros.clone()

    def forward(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """Masked logits (T, B, A), values (T, B) and the memory after; observations are (T, B, D)."""
        hidden, memory = self.lstm(observation, memory)
        features = torch.cat([hidden, observation], dim=-1)
        legal = observation[..., slice(*self.config.legal)] > 0.5
        logits = self.policy(features).masked_fill(~legal, ILLEGAL)
        return logits, self.value(features).squeeze(-1), memory

    def act(
        self, observation: Tensor, memory: Memory, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Memory]:
        """One step for every trial: actions, their log-probabilities and values, all (B,), and the memory after."""
        logits, value, memory = self.forward(observation[None], memory)
        action = gumbel_argmax(logits[0].cpu(), None if deterministic else self._generator).to(self.device)
        log_prob = logits[0].log_softmax(-1).gather(-1, action[:, None]).squeeze(-1)
        return action, log_prob, value[0], memory

    def judge(self, observation: Tensor, action: Tensor) -> Judgement:
        """Whole trials at once, from blank memory: observations (T, B, D), actions (T, B)."""
        logits, value, _ = self.forward(observation, self.blank(observation.shape[1]))
        log_probs = logits.log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return Judgement(log_probs.gather(-1, action[..., None]).squeeze(-1), entropy, value)

    @torch.no_grad()
    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`; the state is (hidden, cell), each of shape (1, N, hidden).

        A single observation of shape (D,) is answered with a single action.
        """
        batch = torch.as_tensor(np.atleast_2d(observation), dtype=torch.float32, device=self.device)
        if state is None:
            memory = self.blank(len(batch))
        else:
            hidden, cell = (torch.as_tensor(s, device=self.device) for s in state)
            memory = (hidden, cell)
        if episode_start is not None:
            keep = torch.as_tensor(~np.atleast_1d(episode_start), device=self.device)[None, :, None]
            memory = (memory[0] * keep, memory[1] * keep)
        action, _, _, memory = self.act(batch, memory, deterministic)
        chosen = action.cpu().numpy()
        return chosen if observation.ndim == 2 else chosen[0], tuple(part.cpu().numpy() for part in memory)

    def save(self, folder: str | Path) -> None:
        """Write the controller, and what it is :attr:`about`, as JSON and safetensors with a SHA-256 manifest.

        Args:
            folder: made if it is missing; a controller already there is replaced.
        """
        tensors = {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}
        save_checkpoint(folder, {"controller": asdict(self.config), "about": self.about}, tensors)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> LSTMController:
        """Read what :meth:`save` wrote; ``about`` is then what was kept with it.

        Raises:
            CheckpointError: if files are missing, damaged or of another kind.
        """
        data, tensors = load_checkpoint(folder)
        try:
            controller = cls(ControllerConfig(**data["controller"]))
            controller.load_state_dict(tensors)
            controller.about = dict(data["about"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{folder}: not a controller of this version: {one_line(error)}") from None
        return controller.to(device)
