"""Whole trials, played by the current policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .controller import Controller

OnStep: TypeAlias = Callable[[dict[str, Any]], bool]
"""Is told of every step, under stable-baselines3's names; returning False gives the rollout up."""


@dataclass(frozen=True)
class Rollout:
    """One whole trial of each environment, time first; shorter ones are followed by steps that are not ``playing``.

    Args:
        observation: (T, B, D).
        action: (T, B), or (T, B, K) where K actions are taken in a step.
        log_prob: of each action under the policy that took it, (T, B).
        value: the critic's estimate before each action, (T, B).
        reward: after each action, (T, B).
        design_ended: whether each action ended an inner episode (completed a design), (T, B) bool.
        accuracy: of the design that an action completed, else 0, (T, B); NaN where the environment tells none.
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
    """A rollout was given up because ``on_step`` said so; nothing was learned from it."""


@torch.no_grad()
def collect(
    controller: Controller, env: VectorEnv, seed: int, first_trial: int = 0, on_step: OnStep = lambda step: True
) -> Rollout:
    """Play one trial in every environment, from reset to the end.

    A trial that is over waits for the others: an environment with an ``idle_action`` is given that, any other plays on
    unseen.

    Args:
        controller: samples the actions.
        env: each of its episodes is a trial.
        seed: of the reset, where environment i gets ``seed + i``, and of the actions.
        first_trial: number of the first environment's trial, for environments that record them.
        on_step: called after each step with ``rewards``, ``dones`` (B,) and ``infos``, a dict for each environment,
            which holds the return ``r`` and length ``l`` of a trial that ended under ``episode``.

    Raises:
        Interrupted: if ``on_step`` returned False.
    """
    generator = torch.Generator().manual_seed(seed)
    # Only environments that number their trials are told a number: others may refuse options they do not know.
    observation, _ = env.reset(seed=seed, options={"trial": first_trial} if hasattr(env.unwrapped, "trials") else None)
    idle = getattr(env.unwrapped, "idle_action", None)
    memory = controller.blank(env.num_envs)
    unknown = {"design_ended": np.zeros(env.num_envs, dtype=np.bool_), "accuracy": np.full(env.num_envs, np.nan)}
    thought: list[tuple[Tensor, ...]] = []
    told: list[tuple[NDArray[Any], ...]] = []
    over = np.zeros(env.num_envs, dtype=np.bool_)
    returns = np.zeros(env.num_envs)
    while not over.all():
        # A copy: an environment may write its next observations where it wrote these.
        seen = torch.tensor(observation, dtype=torch.float32, device=controller.device)
        action, logits, value, memory = controller.act(seen, memory, generator)
        thought.append((seen, action, logits, value))
        sent = action.cpu().numpy()
        observation, reward, terminated, truncated, info = env.step(
            sent if idle is None else np.where(over, idle, sent)
        )
        playing = ~over
        reward = np.where(playing, reward, 0.0)
        returns += reward
        ending = (terminated | truncated) & playing
        over = over | ending
        ended, accuracy = (_told(info, ending, name, nothing) for name, nothing in unknown.items())
        told.append((reward, ended, accuracy, playing))
        infos: list[dict[str, Any]] = [{} for _ in returns]
        for row in np.flatnonzero(ending).tolist():
            infos[row]["episode"] = {"r": float(returns[row]), "l": len(told)}
        if not on_step({"rewards": reward, "dones": ending, "infos": infos, "n_playing": int(playing.sum())}):
            raise Interrupted
    observations, actions, logits, value = (torch.stack(column) for column in zip(*thought, strict=True))
    judged = controller.judgement(logits, actions, value)
    types = (np.float32, np.bool_, np.float32, np.bool_)
    rewards, design_ended, accuracies, played = (
        torch.as_tensor(np.stack(column).astype(kind), device=controller.device)
        for column, kind in zip(zip(*told, strict=True), types, strict=True)
    )
    return Rollout(observations, actions, judged.log_prob, value * played, rewards, design_ended, accuracies, played)


def _told(info: dict[str, Any], ending: NDArray[np.bool_], name: str, nothing: NDArray[Any]) -> NDArray[Any]:
    """What ``info`` says of each environment under a name, in the last step of a trial, too, or ``nothing``: (B,)."""
    now = np.array(info.get(name, nothing))
    if not ending.any():
        return now
    return np.where(ending, info.get("final_info", info).get(name, nothing), now)


def how_it_went(rollout: Rollout) -> dict[str, float]:
    """How the trials went, and from their first design to their last: by accuracy, or else by the reward of each."""
    statistics = {
        "ep_rew_mean": float(rollout.reward.sum(0).mean()),
        "ep_len_mean": float(rollout.playing.sum(0, dtype=torch.float32).mean()),
    }
    ended = rollout.design_ended & rollout.playing
    if not ended.any(0).all():
        return statistics
    steps = torch.arange(len(ended), device=ended.device)[:, None]
    first, last = torch.where(ended, steps, len(ended)).argmin(0), torch.where(ended, steps, -1).argmax(0)
    name, worth = "accuracy", rollout.accuracy
    if worth[ended].isnan().any():
        name, worth = "reward", _reward_of_designs(rollout.reward, torch.where(ended, steps, -1))
    return statistics | {
        "designs": float(ended.sum()),
        name: float(worth[ended].mean()),
        f"first_{name}": float(worth.gather(0, first[None]).mean()),
        f"last_{name}": float(worth.gather(0, last[None]).mean()),
        f"best_{name}": float(worth.masked_fill(~ended, -torch.inf).amax(0).mean()),
    }


def _reward_of_designs(reward: Tensor, ends: Tensor) -> Tensor:
    """Sums of rewards since the last inner end before each step, (T, B); ``ends`` are numbers of steps or -1."""
    total = reward.cumsum(0)
    previous = F.pad(ends.cummax(0).values[:-1], (0, 0, 1, 0), value=-1)
    return total - torch.where(previous < 0, 0.0, total.gather(0, previous.clamp_min(0)))
