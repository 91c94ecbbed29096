"""Learners of other libraries train in the environments as they are, with no adapter."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from rlnas.episode import DesignEpisode
from rlnas.evaluator import Status
from rlnas.registration import PRESETS

LAYERS = 4
STEPS, ROLLOUT = 2_000, 250
TINY: dict[str, Any] = {
    "space": {"kind": "chain", "max_layers": LAYERS, "input_size": 2, "widths": [2], "dense_widths": [4]},
    "evaluator": {"kind": "sequential", "adaptation": {"steps": 1}},
}
PPO_OPTIONS: dict[str, Any] = {"n_steps": ROLLOUT, "batch_size": 50, "n_epochs": 2, "seed": 0, "device": "cpu"}


class EpisodeStarts(BaseCallback):
    """Counts where a learner forgets: the starts of episodes in its rollouts."""

    count = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.count += int(self.locals["rollout_buffer"].episode_starts.sum())


@pytest.mark.parametrize("env_id", ["rlnas/Digits-v0", "rlnas/DigitsTrial-v0"])
@pytest.mark.parametrize(
    ("algorithm", "policy", "policy_options"),
    [
        (PPO, "MlpPolicy", {"net_arch": [16]}),
        (RecurrentPPO, "MlpLstmPolicy", {"net_arch": [16], "lstm_hidden_size": 16}),
        (MaskablePPO, "MlpPolicy", {"net_arch": [16]}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_learners_train_unchanged_and_forget_between_trials_alone(
    env_id: str, algorithm: Any, policy: str, policy_options: dict[str, Any]
) -> None:
    records: list[DesignEpisode] = []
    env = gym.make(env_id, **TINY, recorder=records.extend)
    model = algorithm(policy, env, policy_kwargs=policy_options, **PPO_OPTIONS)
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    starts = EpisodeStarts()
    model.learn(STEPS, callback=starts)

    designs = PRESETS[env_id]["designs_per_trial"]
    recorded = sum(len(record.actions) for record in records)
    assert STEPS - LAYERS < recorded <= STEPS
    whole_trials, left = divmod(len(records), designs)
    in_progress = left > 0 or recorded < STEPS
    assert starts.count == whole_trials + in_progress  # memory is wiped between trials and never within one
    assert [record.trial * designs + record.design for record in records] == list(range(len(records)))
    assert any(record.evaluation.status is Status.INVALID for record in records) == (algorithm is not MaskablePPO)
    assert max(record.evaluation.accuracy for record in records) > 0.2
    assert all(value.isfinite().all() for value in model.policy.parameters())
    assert any((value != before[name]).any() for name, value in model.policy.named_parameters())
    returns = [episode["r"] for episode in model.ep_info_buffer]
    of_trials = [sum(r.rewards[-1] for r in records[i * designs : (i + 1) * designs]) for i in range(whole_trials)]
    np.testing.assert_allclose(returns, of_trials[-len(returns) :], atol=1e-5)
