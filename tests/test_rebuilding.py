"""Rebuilding: what the environment showed when a trial was recorded, bit for bit, and nothing that was not recorded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, DataError
from rlnas.rebuilding import Rebuilt, rebuilt, rebuilt_trials
from rlnas.registration import PRESETS

from .fake_evaluator import FakeEvaluator
from .tables import ENV_IDS

SPACE = {"kind": "chain", "max_layers": 2, "input_size": 4, "widths": [4], "dense_widths": [8]}


def record(env_id: str, trials: int = 1, **options: Any) -> tuple[list[DesignEpisode], list[Rebuilt]]:
    """Trials of a random agent, now and then illegal: what was recorded of them, and what it saw."""
    if PRESETS[env_id]["evaluator"]["kind"] != "table":
        options = {"evaluator": FakeEvaluator(), **options}
    episodes: list[DesignEpisode] = []
    env = gym.make(env_id, recorder=episodes.extend, **options)
    rng = np.random.default_rng(0)
    return episodes, [see(env, rng, seed) for seed in range(trials)]


def see(env: gym.Env[NDArray[np.float32], np.int64], rng: np.random.Generator, seed: int) -> Rebuilt:
    observation, info = env.reset(seed=seed)
    seen, infos, steps, over = [observation], [info], [], False
    while not over:
        legal = info["action_mask"] if rng.random() < 0.95 else np.ones_like(info["action_mask"])
        action = rng.choice(np.flatnonzero(legal))
        observation, reward, over, truncated, info = env.step(action)
        seen.append(observation)
        infos.append(info)
        steps.append((action, reward, over, truncated))
    actions, rewards, ends, cuts = (np.array(column) for column in zip(*steps, strict=True))
    stacked = {key: np.array([info[key] for info in infos]) for key in infos[0]}
    return Rebuilt(np.stack(seen), actions, rewards, ends, cuts, stacked)


def assert_same(mine: Rebuilt, its: Rebuilt) -> None:
    for field in ("observations", "actions", "rewards", "terminations", "truncations"):
        first, second = getattr(mine, field), getattr(its, field)
        assert first.dtype == second.dtype
        assert np.array_equal(first, second), field
    assert mine.infos.keys() == its.infos.keys()
    for key, column in mine.infos.items():
        assert np.array_equal(column, its.infos[key]), key
        assert key in ("task", "architecture", "status") or column.dtype == its.infos[key].dtype


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_every_preset_environment_is_rebuilt_bit_for_bit(env_id: str) -> None:
    episodes, seen = record(env_id, trials=3)
    again = list(rebuilt_trials(episodes))
    assert [episode for trial, _ in again for episode in trial] == episodes
    for (_, mine), its in zip(again, seen, strict=True):
        assert_same(mine, its)


@pytest.mark.parametrize("env_id", ["rlnas/EditTrial-v0", "rlnas/Trial-v0", "rlnas/DigitsTableTrial-v0"])
@pytest.mark.parametrize("duplicates", ["count", "refuse"])
def test_whatever_the_options(env_id: str, duplicates: str) -> None:
    options: dict[str, Any] = {"duplicates": duplicates, "descriptor": False}
    if env_id != "rlnas/DigitsTableTrial-v0":
        options |= {"space": SPACE, "evaluation_seed": None}
    if env_id == "rlnas/EditTrial-v0":
        options |= {"start": "incumbent", "max_edits": 3}
    for reward in ("improvement", "normalised"):
        episodes, seen = record(env_id, reward=reward, designs_per_trial=4, **options)
        assert_same(rebuilt(episodes), seen[0])


def test_trials_of_a_vector_environment() -> None:
    episodes: list[DesignEpisode] = []
    env = gym.make_vec("rlnas/DigitsTableTrial-v0", num_envs=2, recorder=episodes.extend, designs_per_trial=2)
    observations, info = env.reset(seed=3)
    rng = np.random.default_rng(0)
    seen: list[list[NDArray[np.float32]]] = [[row] for row in observations]
    while len(episodes) < 12:
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in info["action_mask"]])
        observations, _, over, _, info = env.step(actions)
        for row in range(2):
            if over[row]:
                seen[row].append(info["final_obs"][row])
            seen[row].append(observations[row])
    episodes.sort(key=lambda episode: (episode.trial, episode.design))
    again = [trial.observations for _, trial in rebuilt_trials(episodes)]
    for row in range(2):
        expected = np.concatenate(again[row::2])
        assert np.array_equal(expected, np.stack(seen[row])[: len(expected)])


def test_a_trial_cut_short_ends_truncated() -> None:
    episodes, seen = record("rlnas/DigitsTableTrial-v0")
    cut = rebuilt(episodes[:4])
    steps = sum(len(episode.actions) for episode in episodes[:4])
    assert np.array_equal(cut.observations, seen[0].observations[: steps + 1])
    assert not cut.terminations.any()
    assert cut.truncations.tolist() == [False] * (steps - 1) + [True]


def test_a_record_that_does_not_fit_its_environment_is_refused() -> None:
    episodes, _ = record("rlnas/DigitsTableTrial-v0")
    second = episodes[1]
    wrong_mask = replace(second, masks=("0" * len(second.masks[0]), *second.masks[1:]))
    wrong_result = replace(second, best=0.99)
    wrong_design = replace(second, architecture=episodes[0].architecture)
    for wrong, message in ((wrong_mask, "choices"), (wrong_result, "result"), (wrong_design, "lead to the design")):
        with pytest.raises(DataError, match=message):
            rebuilt([episodes[0], wrong])
    with pytest.raises(DataError, match="where design 1 of the same trial is expected"):
        rebuilt([episodes[0], episodes[2]])
    with pytest.raises(DataError, match="task"):
        rebuilt([replace(episodes[0], task_digest="0" * 64)])
    with pytest.raises(ConfigurationError):
        rebuilt([replace(episodes[0], env={**episodes[0].env, "space": {"kind": "hexagon"}})])
