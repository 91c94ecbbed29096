"""Whole trials, played by the current policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from .controller import LSTMController


@dataclass(frozen=True)
class Rollout:
    """One whole trial of each environment, time first.

    Args:
        observation: (T, B, D).
        action: (T, B).
        log_prob: of each action under the policy that took it, (T, B).
        value: the critic's estimate before each action, (T, B).
        reward: after each action, (T, B).
        design_ended: whether each action completed a design, (T, B) bool.
        accuracy: of the design that an action completed, else 0, (T, B).
    """

    observation: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    reward: Tensor
    design_ended: Tensor
    accuracy: Tensor


class Interrupted(Exception):
    """A rollout was given up because ``stop`` said so; nothing was learned from it."""


@torch.no_grad()
def collect(
    controller: LSTMController,
    env: VectorEnv,
    seed: int,
    first_trial: int,
    stop: Callable[[], bool] = lambda: False,
) -> Rollout:
    """Play one trial in every environment, from reset to the end.

    Legal designs all take the same number of decisions, so the trials end together.

    Args:
        controller: samples the actions; its generator is seeded with ``seed`` too.
        env: a native vector environment of design trials.
        seed: of the reset; environment i gets ``seed + i``.
        first_trial: number of the first environment's trial.
        stop: asked before each step.

    Raises:
        Interrupted: if ``stop`` returned True.
    """
    controller.seed(seed)
    observation, _ = env.reset(seed=seed, options={"trial": first_trial})
    memory = controller.blank(env.num_envs)
    columns: list[tuple[Tensor, ...]] = []
    over = np.zeros(env.num_envs, dtype=np.bool_)
    while not over.any():
        if stop():
            raise Interrupted
        seen = torch.as_tensor(observation, device=controller.device)
        action, log_prob, value, memory = controller.act(seen, memory)
        observation, reward, terminated, truncated, info = env.step(action.cpu().numpy())
        over = terminated | truncated
        last = info["final_info"] if over.any() else info
        feedback = (
            torch.as_tensor(array, device=controller.device)
            for array in (reward.astype(np.float32), last["design_ended"], last["accuracy"].astype(np.float32))
        )
        columns.append((seen, action, log_prob, value, *feedback))
    if not over.all():
        raise RuntimeError("the trials of one vector environment must all take the same number of steps")
    return Rollout(*(torch.stack(column) for column in zip(*columns, strict=True)))
