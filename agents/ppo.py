"""Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor


def generalised_advantage(value: Tensor, reward: Tensor, discount: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over whole trials (Schulman et al. 2016, https://arxiv.org/abs/1506.02438).

    The last step ends the trial, so nothing is bootstrapped there; inner ends of designs do not cut the sum.

    Args:
        value: estimates before each action, (T, B).
        reward: after each action, (T, B).
        discount: of what comes after each action, (T, B).
        lam: the estimator's lambda.

    Returns:
        Advantages and value targets, (T, B) each.
    """
    advantage = torch.zeros_like(value)
    running = torch.zeros_like(value[0])
    following = torch.zeros_like(value[0])
    for t in range(len(value) - 1, -1, -1):
        error = reward[t] + discount[t] * following - value[t]
        running = error + discount[t] * lam * running
        advantage[t] = running
        following = value[t]
    return advantage, advantage + value


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's policy loss (equation 7), to be minimised: a scalar."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def explained_variance(value: Tensor, target: Tensor) -> float:
    """1 for perfect value estimates, 0 for a constant one."""
    variance = target.var(correction=0)
    return float(1 - (target - value).var(correction=0) / variance) if variance > 0 else float("nan")
