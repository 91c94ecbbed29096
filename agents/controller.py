"""The controller: a masked, recurrent actor-critic whose memory lives through a trial."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rlnas.checkpoint import load_checkpoint, one_line, save_checkpoint
from rlnas.errors import CheckpointError, ConfigurationError, at_least, one_of

from .agent import Session, State, Thinking

Memory: TypeAlias = tuple[Tensor, ...]
"""What is remembered: hidden states (and cells, of an LSTM), each of shape (1, B, hidden)."""

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}

ILLEGAL = -1e9
"""Logit of an illegal action: exp underflows to exactly 0, and unlike -inf it leaves gradients finite."""


@dataclass(frozen=True)
class ControllerConfig:
    """Shape of a controller.

    Args:
        observation_size: entries of an observation.
        actions: number of choices of each action taken in a step; one number where actions are ``Discrete``.
        legal: where the action mask lies in an observation, as (start, stop); None if every action is always legal.
        hidden_size: units of the memory.
        cell: ``"lstm"`` or ``"gru"``.
        separate_value: whether values have a memory of their own instead of the policy's.

    Raises:
        ConfigurationError: if a size is not positive or the mask does not lie in the observation.
    """

    observation_size: int
    actions: tuple[int, ...]
    legal: tuple[int, int] | None = None
    hidden_size: int = 128
    cell: str = "lstm"
    separate_value: bool = False

    def __post_init__(self) -> None:
        for field in ("observation_size", "hidden_size"):
            at_least(field, getattr(self, field), 1)
        object.__setattr__(self, "actions", tuple(at_least("actions", count, 1) for count in self.actions))
        one_of("cell", self.cell, CELLS)
        if not isinstance(self.separate_value, bool):
            raise ConfigurationError(f"separate_value must be True or False, got {self.separate_value!r}")
        if self.legal is not None:
            start, stop = (at_least("legal", end, 0) for end in self.legal)
            if not start + self.num_choices == stop <= self.observation_size:
                raise ConfigurationError(
                    f"legal must span {self.num_choices} of {self.observation_size} entries, got {start} to {stop}"
                )
            object.__setattr__(self, "legal", (start, stop))

    @property
    def num_choices(self) -> int:
        """Logits of the policy."""
        return sum(self.actions)


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


class Controller(nn.Module):
    """Policy and value head on a recurrent memory (RL²: Duan et al. 2016, https://arxiv.org/abs/1611.02779).

    ``T`` time steps, ``B`` trials, ``D`` observation entries, ``A`` logits. Actions are of shape (B,), or (B, K) where
    ``K`` are taken in a step (``MultiDiscrete``).
    """

    def __init__(self, config: ControllerConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.about: dict[str, Any] = {}
        self.log: list[dict[str, float]] = []
        """What training logged, an entry for each update; not saved with it."""
        make = CELLS[config.cell]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.memory = make(config.observation_size, config.hidden_size)
            # The heads see the observation too: what it says outright need not pass through the memory.
            features = config.hidden_size + config.observation_size
            self.policy = nn.Linear(features, config.num_choices)
            self.value = nn.Linear(features, 1)
            # A near-uniform first policy: nothing is preferred before anything is known.
            nn.init.orthogonal_(self.policy.weight, 0.01)
            nn.init.zeros_(self.policy.bias)
            self.value_memory = make(config.observation_size, config.hidden_size) if config.separate_value else None
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def device(self) -> torch.device:
        return self.policy.weight.device

    def seed(self, seed: int) -> None:
        """Seed the generator with which :meth:`predict` samples actions."""
        self._generator.manual_seed(seed)

    def session(self, deterministic: bool = False) -> Session:
        """The controller with its memory kept for you; see :class:`~rlnas.agents.agent.Session`."""
        return Session(self, deterministic)

    def blank(self, trials: int) -> Memory:
        """The memory with which a trial begins."""
        parts = (2 if self.config.cell == "lstm" else 1) * (2 if self.config.separate_value else 1)
        return tuple(torch.zeros(1, trials, self.config.hidden_size, device=self.device) for _ in range(parts))

    def forward(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """Masked logits (T, B, A), values (T, B) and the memory after; observations are (T, B, D)."""
        if self.value_memory is None:
            hidden, memory = _remember(self.memory, observation, memory)
            said = _heads(hidden, observation, self.policy, self.value)
            logits, value = said[..., :-1], said[..., -1]
        else:
            half = len(memory) // 2
            hidden, mine = _remember(self.memory, observation, memory[:half])
            its_hidden, its = _remember(self.value_memory, observation, memory[half:])
            logits = _heads(hidden, observation, self.policy)
            value = _heads(its_hidden, observation, self.value).squeeze(-1)
            memory = (*mine, *its)
        if self.config.legal is not None:
            legal = observation[..., slice(*self.config.legal)] > 0.5
            logits = logits.masked_fill(~legal, ILLEGAL)
        return logits, value, memory

    def act(
        self,
        observation: Tensor,
        memory: Memory,
        generator: torch.Generator | None,
        legal: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Memory]:
        """One step for every trial.

        Args:
            observation: (B, D).
            memory: from before.
            generator: samples the actions; without one the likeliest are taken.
            legal: (B, A) bool, further to what observations say.

        Returns:
            Actions, the logits (B, A) they come of, values (B,) and the memory after.
        """
        logits, value, memory = self.forward(observation[None], memory)
        logits = logits[0] if legal is None else logits[0].masked_fill(~legal, ILLEGAL)
        parts = torch.split(logits.cpu(), list(self.config.actions), dim=-1)
        chosen = [gumbel_argmax(part, generator) for part in parts]
        action = chosen[0] if len(chosen) == 1 else torch.stack(chosen, dim=-1)
        return action.to(self.device), logits, value[0], memory

    def judge(self, observation: Tensor, action: Tensor) -> Judgement:
        """Whole trials at once, from blank memory: observations (T, B, D), actions (T, B) or (T, B, K)."""
        logits, value, _ = self.forward(observation, self.blank(observation.shape[1]))
        return self.judgement(logits.float(), action, value.float())

    def judgement(self, logits: Tensor, action: Tensor, value: Tensor) -> Judgement:
        """What logits (T, B, A) say of actions (T, B) or (T, B, K)."""
        choices = action if len(self.config.actions) > 1 else action[..., None]
        log_prob, entropy = torch.zeros_like(value), torch.zeros_like(value)
        for k, part in enumerate(torch.split(logits, list(self.config.actions), dim=-1)):
            log_probs = part.log_softmax(-1)
            log_prob = log_prob + log_probs.gather(-1, choices[..., k, None]).squeeze(-1)
            entropy = entropy - (log_probs.exp() * log_probs).sum(-1)
        return Judgement(log_prob, entropy, value)

    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], State]:
        """See :meth:`rlnas.agents.agent.Agent.predict`; each part of the state is of shape (1, N, hidden).

        A single observation of shape (D,) is answered with a single action.

        Args:
            action_masks: of shape (N, A), as sb3-contrib's: True where an action is legal. What observations say of
                that holds anyway.
        """
        observation = np.asarray(observation)
        action, _, _, state = self._predict(observation, state, episode_start, deterministic, action_masks)
        return action if observation.ndim == 2 else action[0], state

    def think(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> Thinking:
        """See :func:`rlnas.agents.agent.think`; where several actions are taken in a step, the probabilities of each
        one's choices stand side by side."""
        action, logits, value, state = self._predict(observation, state, episode_start, deterministic)
        parts = torch.split(logits, list(self.config.actions), dim=-1)
        probabilities = torch.cat([part.softmax(-1) for part in parts], dim=-1)
        return Thinking(action, state, probabilities.cpu().numpy(), value.cpu().numpy())

    @torch.no_grad()
    def _predict(
        self,
        observation: NDArray[np.float32],
        state: State,
        episode_start: NDArray[np.bool_] | None,
        deterministic: bool,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], Tensor, Tensor, State]:
        """Actions (N,), the logits (N, A) they come of, values (N,) and the state after."""
        batch = torch.as_tensor(np.atleast_2d(observation), dtype=torch.float32, device=self.device)
        memory = (
            self.blank(len(batch)) if state is None else tuple(torch.as_tensor(s, device=self.device) for s in state)
        )
        if episode_start is not None:
            keep = torch.as_tensor(~np.atleast_1d(episode_start).astype(np.bool_), device=self.device)[None, :, None]
            memory = tuple(part * keep for part in memory)
        legal = None
        if action_masks is not None:
            legal = torch.as_tensor(np.asarray(action_masks, dtype=np.bool_), device=self.device).reshape(
                len(batch), -1
            )
        action, logits, value, memory = self.act(batch, memory, None if deterministic else self._generator, legal)
        return action.cpu().numpy(), logits, value, tuple(part.cpu().numpy() for part in memory)

    def save(self, path: str | Path) -> None:
        """Write the controller, and what it is :attr:`about`, as JSON and safetensors with a SHA-256 manifest.

        Args:
            path: a folder, made if it is missing, or a file ``.zip``; a controller already there is replaced.
        """
        save_checkpoint(path, self.data(), self.tensors())

    def data(self) -> dict[str, Any]:
        """What a checkpoint says of the controller beside its tensors, as JSON."""
        return {"controller": asdict(self.config), "about": self.about}

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the controller."""
        return {f"controller.{name}": tensor.detach().cpu() for name, tensor in self.state_dict().items()}

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Controller:
        """Read what :meth:`save`, or :meth:`rlnas.agents.rl2.RL2.save`, wrote; ``about`` is what was kept with it.

        Raises:
            CheckpointError: if files are missing, damaged or of another kind.
        """
        return cls.restored(path, *load_checkpoint(path)).to(device)

    @classmethod
    def restored(cls, path: str | Path, data: dict[str, Any], tensors: dict[str, Tensor]) -> Controller:
        """The controller that a checkpoint, read from ``path``, holds."""
        prefix = "controller."
        try:
            config = ControllerConfig(**data["controller"])
            mine = {k.removeprefix(prefix): tensor for k, tensor in tensors.items() if k.startswith(prefix)}
            if not all(tensor.is_floating_point() for tensor in mine.values()):
                raise ValueError("tensors must hold floating-point numbers")
            with torch.device("meta"):  # where sizes are compared before memory is taken for what is said to be there
                cls(config).load_state_dict(mine, assign=True)
            controller = cls(config)
            controller.load_state_dict(mine)
            controller.about = dict(data["about"])
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise CheckpointError(f"{path}: not a controller of this version: {one_line(error)}") from None
        return controller


def _remember(cell: nn.Module, observation: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """A cell's outputs (T, B, hidden) and its memory after."""
    hidden, after = cell(observation, memory if len(memory) > 1 else memory[0])
    return hidden, after if isinstance(after, tuple) else (after,)


def _heads(hidden: Tensor, observation: Tensor, *heads: nn.Linear) -> Tensor:
    """What linear heads say of memory and observation together, without a copy of the two, side by side."""
    weight, bias = (torch.cat(parts) for parts in zip(*((head.weight, head.bias) for head in heads), strict=True))
    size = hidden.shape[-1]
    return F.linear(hidden, weight[:, :size].contiguous()) + F.linear(observation, weight[:, size:].contiguous(), bias)
