"""Whole trials, played by the current policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from rlnas.edits import WAIT

from .controller import LSTMController


@dataclass(frozen=True)
class Rollout:
    """One whole trial of each environment, time first; shorter ones are followed by steps that are not ``playing``.

    Args:
        observation: (T, B, D).
        action: (T, B).
        log_prob: of each action under the policy that took it, (T, B).
        value: the critic's estimate before each action, (T, B).
        reward: after each action, (T, B).
        design_ended: whether each action completed a design, (T, B) bool.
        accuracy: of the design that an action completed, else 0, (T, B).
        playing: whether each step belongs to the trial, (T, B) bool; elsewhere value and reward are 0.
    """

    observation: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    reward: Tensor
    design_ended: Tensor
    accuracy: Tensor
    playing: Tensor


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

    Trials of decisions end together. Trials of edits do not: one that is over waits for the others.

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
    while not over.all():
        if stop():
            raise Interrupted
        seen = torch.as_tensor(observation, device=controller.device)
        action, log_prob, value, memory = controller.act(seen, memory)
        playing = ~over
        observation, reward, terminated, truncated, info = env.step(np.where(playing, action.cpu().numpy(), WAIT))
        ending = terminated | truncated
        over = over | ending
        ended, accuracy = (
            np.where(ending, info["final_info"][name], info[name]) if ending.any() else info[name]
            for name in ("design_ended", "accuracy")
        )
        feedback = [
            torch.as_tensor(array, device=controller.device)
            for array in (reward.astype(np.float32), ended, accuracy.astype(np.float32), playing)
        ]
        columns.append((seen, action, log_prob, value * feedback[-1], *feedback))
    return Rollout(*(torch.stack(column) for column in zip(*columns, strict=True)))
