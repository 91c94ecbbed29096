"""How fast RL² learns beside sb3-contrib's RecurrentPPO: environment steps a second, rollout and update together.

All play trials of 10 designs of six decisions on a synthetic table, and go 4 times over what they played. The
contestants take turns, an update each, so that what else the machine does disturbs all alike; a first round does not
count. One thread works. Rates are of its own processor time (and of wall time in a column of their own), ratios are
medians over the rounds. RecurrentPPO plays in the native vector environment, through ``as_vec_env``; "tuned" stands for
the fastest of its batches with 64 environments and rollouts of one trial each: the whole rollout, if ``--quick`` does
not try the others.

    python benchmarks/trainer.py --json             # some minutes
    python benchmarks/trainer.py --quick --json     # under two minutes on a busy core
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from environment import DESIGNS, TRIAL, synthetic_table
from gymnasium.vector import VectorEnv
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback

import rlnas  # noqa: F401 - registers the environments
from rlnas.agents.rl2 import RL2
from rlnas.agents.rollout import collect
from rlnas.agents.sb3 import as_vec_env
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator

HIDDEN, EPOCHS = 128, 4
TRIALS, TRIALS_AT_ONCE = 512, 64
DEFAULT, EQUAL, OURS = "RecurrentPPO, library's batch", "RL2, two LSTMs", "RL2"
LEAN = {"net_arch": [], "lstm_hidden_size": HIDDEN}
SHARED = {**LEAN, "shared_lstm": True, "enable_critic_lstm": False}


class Split(BaseCallback):
    """Notes how much of the processor time went into rollouts."""

    def __init__(self) -> None:
        super().__init__()
        self.rollout, self._begun = 0.0, 0.0

    def _on_rollout_start(self) -> None:
        self._begun = time.process_time()

    def _on_rollout_end(self) -> None:
        self.rollout += time.process_time() - self._begun

    def _on_step(self) -> bool:
        return True


@dataclass
class Contestant:
    """A learner, and the seconds that each of its updates on ``steps`` environment steps took."""

    learner: Any
    steps: int
    own: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    rollout: list[float] = field(default_factory=list)

    def learn(self) -> None:
        split, own, wall = Split(), time.process_time(), time.perf_counter()
        self.learner.learn(self.steps, split, log_interval=1_000_000, reset_num_timesteps=False)
        self.own.append(time.process_time() - own)
        self.wall.append(time.perf_counter() - wall)
        self.rollout.append(split.rollout)

    def rate(self, seconds: list[float]) -> float:
        """Steps a second in the median round but the first."""
        return self.steps / statistics.median(seconds[1:])

    def times(self, other: Contestant) -> float:
        """How many times as fast as the other this one is."""
        rounds = zip(self.own[1:], other.own[1:], strict=True)
        return statistics.median((its / other.steps) / (mine / self.steps) for mine, its in rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="updates of each contestant that count")
    parser.add_argument("--quick", action="store_true", help="3 rounds, and only what the ratios need")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        table = synthetic_table(Path(folder) / "synthetic.npz")
        everyone = contestants(table, options.quick)
        for _ in range(1 + (3 if options.quick else options.rounds)):
            for contestant in everyone.values():
                contestant.learn()
        rates = {name: round(contestant.rate(contestant.own)) for name, contestant in everyone.items()}
        tuned = max((name for name in everyone if name.startswith("RecurrentPPO, tuned")), key=lambda n: rates[n])
        print(f"{cpu()}; Python {platform.python_version()}, {', '.join(f'{k} {v}' for k, v in versions().items())}\n")
        print("| learner | steps/s | wall | rollout | update | times tuned RecurrentPPO |\n|---|---|---|---|---|---|")
        for name, it in everyone.items():
            update = [own - rollout for own, rollout in zip(it.own, it.rollout, strict=True)]
            parts = " | ".join(f"{it.rate(seconds):,.0f}" for seconds in (it.own, it.wall, it.rollout, update))
            print(f"| {name} | {parts} | {it.times(everyone[tuned]):.2f} |")
        played = rollouts(table, [1024] if options.quick else [64, 256, 1024, 4096])
    print("\n| trials at a time | the environment alone | with the shared LSTM's policy |\n|---|---|---|")
    for envs, (alone, with_policy) in played.items():
        print(f"| {envs:,} | {alone:,.0f} | {with_policy:,.0f} |")
    ratios = {
        "ratio_equal_net_tuned": everyone[EQUAL].times(everyone[tuned]),
        "ratio_equal_net_default": everyone[EQUAL].times(everyone[DEFAULT]),
        "ratio_ours": everyone[OURS].times(everyone[tuned]),
        "ratio_ours_bfloat16": everyone[f"{OURS}, bfloat16"].times(everyone[tuned]),
    }
    print(f"\ntuned: {tuned}", *(f"{name}: {ratio:.2f}" for name, ratio in ratios.items()), sep="\n")
    if options.json:
        rounded = {name: round(ratio, 3) for name, ratio in ratios.items()}
        rollout = {"rollout_steps_per_second": round(max(with_policy for _, with_policy in played.values()))}
        print(json.dumps({**rounded, **rollout, "steps_per_second": rates, "tuned": tuned, "cpu": cpu(), **versions()}))


def contestants(table: Table, quick: bool) -> dict[str, Contestant]:
    """Learners of one trial environment, by name."""

    def theirs(envs: int, steps: int, batch: int, **network: Any) -> Contestant:
        model = RecurrentPPO(
            "MlpLstmPolicy",
            as_vec_env(trials(table, envs)),
            n_steps=steps,
            batch_size=batch,
            n_epochs=EPOCHS,
            policy_kwargs={"lstm_hidden_size": HIDDEN, **network},
            seed=0,
            device="cpu",
        )
        return Contestant(model, envs * steps)

    def ours(envs: int = TRIALS, **settings: Any) -> Contestant:
        settings |= {"epochs": EPOCHS, "minibatches": envs // TRIALS_AT_ONCE, "hidden_size": HIDDEN}
        return Contestant(RL2(trials(table, envs), **settings), envs * TRIAL)

    everyone = {DEFAULT: theirs(16, 128, 128)}
    for batch in (3840,) if quick else (960, 1920, 3840):
        everyone[f"RecurrentPPO, tuned: batch {batch}"] = theirs(64, TRIAL, batch, **LEAN)
    everyone |= {EQUAL: ours(separate_value=True), OURS: ours(), f"{OURS}, bfloat16": ours(autocast=True)}
    if not quick:
        everyone |= {
            "RecurrentPPO, batch 3840, its MLP heads": theirs(64, TRIAL, 3840),
            "RecurrentPPO, batch 3840, shared LSTM": theirs(64, TRIAL, 3840, **SHARED),
            "RecurrentPPO, batch 7680, 4 trials a rollout": theirs(64, 4 * TRIAL, 7680, **LEAN),
            "RecurrentPPO, batch 19200, 10 trials a rollout": theirs(64, 10 * TRIAL, 19200, **LEAN),
            "RecurrentPPO, batch 19200, 10 trials a rollout, shared LSTM": theirs(64, 10 * TRIAL, 19200, **SHARED),
            f"{OURS}, two LSTMs, bfloat16": ours(separate_value=True, autocast=True),
            f"{OURS}, 64 trials": ours(64),
            f"{OURS}, GRU": ours(cell="gru"),
        }
    return everyone


def trials(table: Table, envs: int) -> VectorEnv:
    """So many trials, side by side."""
    return gym.make_vec(
        "rlnas/Trial-v0",
        num_envs=envs,
        space=table.space,
        tasks=(TableSource(table), "all"),
        evaluator=TabularEvaluator(table),
        designs_per_trial=DESIGNS,
    )


def rollouts(table: Table, sizes: list[int], rounds: int = 5) -> dict[int, tuple[float, float]]:
    """Steps a second without learning, by trials at a time: random actions, and the policy's."""
    rates = {}
    for envs in sizes:
        env = trials(table, envs)
        controller = RL2(env, hidden_size=HIDDEN).controller
        actions = np.random.default_rng(0).integers(5, size=(TRIAL, envs))

        def play(env: VectorEnv = env, actions: Any = actions) -> None:
            env.reset(seed=0)
            for action in actions:
                env.step(action)

        rates[envs] = (
            envs * TRIAL / fastest(play, rounds),
            envs * TRIAL / fastest(lambda c=controller, e=env: collect(c, e, 0), rounds),  # type: ignore[misc]
        )
    return rates


def fastest(work: Callable[[], Any], rounds: int) -> float:
    """Processor seconds of the fastest round."""
    seconds = []
    for _ in range(1 + rounds):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def cpu() -> str:
    """Name of the processor and of its widest instructions that torch uses."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "sb3-contrib", "numpy")}


if __name__ == "__main__":
    main()
