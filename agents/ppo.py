"""Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def discounted_sum(terms: Tensor, discount: Tensor) -> Tensor:
    """What each step's term and all later ones come to: ``y[t] = terms[t] + discount[t] * y[t + 1]``.

    Sums over twice as many steps at a time, so that T of them take log2(T) passes instead of T.

    Args:
        terms: (T, B).
        discount: of what comes after each step, (T, B).
    """
    reach = 1
    while reach < len(terms):
        later = F.pad(terms[reach:], (0, 0, 0, reach))
        terms = terms + discount * later
        discount = discount * F.pad(discount[reach:], (0, 0, 0, reach))
        reach *= 2
    return terms


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
    following = F.pad(value[1:], (0, 0, 0, 1))
    advantage = discounted_sum(reward + discount * following - value, discount * lam)
    return advantage, advantage + value


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's policy loss of each step (equation 7), to be minimised in the mean; of the shape of ``ratio``."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def explained_variance(value: Tensor, target: Tensor) -> float:
    """1 for perfect value estimates, 0 for a constant one."""
    variance = target.var(correction=0)
    return float(1 - (target - value).var(correction=0) / variance) if variance > 0 else float("nan")
