"""Behaviour cloning: a controller learns to act as a teacher would, trial by trial, before or instead of PPO.

The controller learns from whole trials, as RL² does, so that what it copies is how the teacher uses its memory. Where
the teacher can advise whoever acts, trials are played by the controller itself ever more often, and the teacher says at
every step what it would have done: DAgger (Ross et al. 2011, https://arxiv.org/abs/1011.0686). Else the controller
would see in its own trials what it never saw in the teacher's. The critic learns from the same trials what follows, in
RL²'s units, so that PPO can go on from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rlnas.errors import ConfigurationError, at_least

from .agent import Agent
from .controller import Controller
from .ppo import discounted_sum
from .rl2_config import RL2Config

KEPT = 20
"""Rollouts that are learned from, the latest of all."""
MAX_GRAD_NORM = 1.0
LEAST_LOG_PROB = -30.0
"""Advice to do what is illegal is heeded no further than this."""


@runtime_checkable
class Adviser(Protocol):
    """A teacher that says what it would do, whoever acts."""

    def advise(
        self, observation: NDArray[np.float32], episode_start: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """How likely each action should be, (N, A), given observations (N, D); asked once at every step."""
        ...


@dataclass(frozen=True)
class CloningConfig:
    """How a controller learns from a teacher.

    Args:
        passes: gradient steps for each rollout.
        batch: trials in a gradient step, of one rollout.
        learning_rate: of Adam at the start; falls linearly to a twentieth.
        alone: part of the trials after which the controller plays all of them; until then its share rises linearly.
        design_discount: of what follows a design, for the critic; RL²'s own.
        value: weight of the critic's loss.

    Raises:
        ConfigurationError: if a value is not allowed.
    """

    passes: int = 24
    batch: int = 64
    learning_rate: float = 2e-3
    alone: float = 0.67
    design_discount: float = RL2Config.design_discount
    value: float = 0.5

    def __post_init__(self) -> None:
        for field in ("passes", "batch"):
            at_least(field, getattr(self, field), 1)
        for field in ("learning_rate", "alone"):
            if not getattr(self, field) > 0:
                raise ConfigurationError(f"{field} must be a positive number, got {getattr(self, field)!r}")
        if not 0 <= self.design_discount <= 1:
            raise ConfigurationError(f"design_discount must be in [0, 1], got {self.design_discount!r}")


@dataclass(frozen=True)
class Lessons:
    """One trial of each environment, time first.

    Args:
        observation: (T, B, D).
        advice: (T, B, A).
        playing: which steps are part of the trial, (T, B) bool.
        target: what followed, discounted, in units of its standard deviation, (T, B).
    """

    observation: Tensor
    advice: Tensor
    playing: Tensor
    target: Tensor


def clone(
    controller: Controller,
    env: VectorEnv,
    teacher: Agent | Adviser,
    trials: int,
    seed: int = 0,
    config: CloningConfig | None = None,
    on_round: Callable[[dict[str, float]], None] = lambda statistics: None,
) -> Controller:
    """Teach a controller to act as a teacher does.

    Args:
        controller: learns; of one action in a step.
        env: a vector environment that resets ended environments in the same step; one rollout is a trial of each.
        teacher: an agent, which then plays every trial itself, or an :class:`Adviser`.
        trials: to play in all, rounded up to whole rollouts.
        seed: of trials, actions and gradient steps.
        config: how it learns.
        on_round: is told of every rollout: ``trials`` so far, ``loss`` (the cross-entropy with the advice) and
            ``agreement`` (how often the likeliest action is the teacher's).

    Returns:
        The controller.

    Raises:
        ConfigurationError: if ``trials`` is less than 1 or the controller takes several actions in a step.
    """
    config = config or CloningConfig()
    if len(controller.config.actions) > 1:
        raise ConfigurationError(f"a clone takes one action in a step, got {len(controller.config.actions)}")
    rounds = -(-at_least("trials", trials, 1) // env.num_envs)
    optimizer = torch.optim.Adam(controller.parameters(), lr=config.learning_rate)
    kept: deque[Lessons] = deque(maxlen=KEPT)
    for number in range(rounds):
        progress = number / rounds
        rng = np.random.default_rng([seed, number])
        kept.append(_lessons(controller, env, teacher, min(1.0, progress / config.alone), rng, config))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - 0.95 * progress)
        told = [
            _learn(controller, optimizer, kept[int(rng.integers(len(kept)))], rng, config) for _ in range(config.passes)
        ]
        loss, agreement = np.mean(told, axis=0).tolist()
        on_round({"trials": float((number + 1) * env.num_envs), "loss": loss, "agreement": agreement})
    return controller


@torch.no_grad()
def _lessons(
    controller: Controller,
    env: VectorEnv,
    teacher: Agent | Adviser,
    share: float,
    rng: np.random.Generator,
    config: CloningConfig,
) -> Lessons:
    """Play a trial of each environment and ask the teacher at every step.

    Args:
        share: of the trials that the controller plays, if the teacher can advise.
    """
    count, actions = env.num_envs, controller.config.num_choices
    seed = int(rng.integers(2**31))
    generator = torch.Generator().manual_seed(seed)
    observation, _ = env.reset(seed=seed)
    memory, state = controller.blank(count), None
    start, over = np.ones(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
    by_controller = rng.random(count) < (share if isinstance(teacher, Adviser) else 0.0)
    steps: list[tuple[Tensor, ...]] = []
    while not over.all():
        if isinstance(teacher, Adviser):
            advice = teacher.advise(observation, start)
            advised = _drawn(advice, rng)
        else:
            advised, state = teacher.predict(observation, state, start)
            advice = np.eye(actions, dtype=np.float32)[advised]
        seen = torch.as_tensor(observation, dtype=torch.float32, device=controller.device)
        own, _, _, memory = controller.act(seen, memory, generator)
        observation, reward, terminated, truncated, info = env.step(np.where(by_controller, own.cpu().numpy(), advised))
        ended = np.asarray(info.get("design_ended", np.zeros(count)), dtype=np.bool_)
        discount = np.where(ended, config.design_discount, 1.0)
        parts = (advice, ~over, np.where(over, 0.0, reward), discount)
        steps.append((seen, *(torch.as_tensor(part, device=controller.device) for part in parts)))
        start = terminated | truncated
        over = over | start
    seen, told, playing, rewards, discounts = (torch.stack(part) for part in zip(*steps, strict=True))
    returns = discounted_sum(rewards.float(), discounts.float())
    return Lessons(seen, told, playing, returns / (returns[playing].std(correction=0) + 1e-8))


def _drawn(advice: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    """An action for each row of probabilities."""
    below = advice.cumsum(1) <= rng.random((len(advice), 1)) * advice.sum(1, keepdims=True)
    return np.asarray(np.minimum(below.sum(1), advice.shape[1] - 1))


def _learn(
    controller: Controller,
    optimizer: torch.optim.Optimizer,
    lessons: Lessons,
    rng: np.random.Generator,
    config: CloningConfig,
) -> tuple[float, float]:
    """One gradient step on some trials; the cross-entropy before it and how often the likeliest actions agree."""
    chosen = torch.as_tensor(rng.permutation(lessons.playing.shape[1])[: config.batch], device=controller.device)
    logits, value, _ = controller.forward(lessons.observation[:, chosen], controller.blank(len(chosen)))
    playing, advice = lessons.playing[:, chosen], lessons.advice[:, chosen]
    log_probs = logits.log_softmax(-1).clamp_min(LEAST_LOG_PROB)
    cross_entropy = -(advice * log_probs).sum(-1)[playing].mean()
    loss = cross_entropy + config.value * F.mse_loss(value[playing], lessons.target[:, chosen][playing])
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(controller.parameters(), MAX_GRAD_NORM)
    optimizer.step()
    agreement = (logits.argmax(-1) == advice.argmax(-1))[playing].float().mean()
    return cross_entropy.item(), agreement.item()
