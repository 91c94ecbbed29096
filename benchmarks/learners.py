"""How fast trials are played and learned from, on a table of recorded evaluations, where nothing else takes time.

First random actions in 64 trials: in the native vector environment, in the same through ``as_vec_env``, and in
stable-baselines3's own ``DummyVecEnv`` of single environments; the fastest of three counts. Then each algorithm that
learns, from its first step to the trained agent. One thread works and its own time is counted, so that other programs
disturb little.

    python benchmarks/learners.py nasbench201/nb201.npz --values test_200
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

import rlnas  # noqa: F401 - registers the environments
from rlnas.agents.learned import rl2
from rlnas.agents.problem import SearchProblem
from rlnas.agents.sb3 import SB3_AGENTS, as_vec_env
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator

ENV, TRIALS, DESIGNS = "rlnas/Trial-v0", 64, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="an .npz file")
    parser.add_argument("--values", help="the value array to read, if it holds several")
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps of each measurement")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table.load(options.table, options.values)
    tasks, evaluator = (TableSource(table), "all"), TabularEvaluator(table)
    arguments = {"space": table.space, "tasks": tasks, "evaluator": evaluator, "designs_per_trial": DESIGNS}

    def single() -> gym.Env[Any, Any]:
        return Monitor(gym.make(ENV, disable_env_checker=True, **arguments))

    native = gym.make_vec(ENV, num_envs=TRIALS, **arguments)
    played = {"native": native, "as_vec_env": as_vec_env(native), "DummyVecEnv": DummyVecEnv([single] * TRIALS)}
    rates = {}
    for name, env in played.items():
        env.reset()
        for _ in table.space.decisions:  # the first look-ups read the table
            env.step(np.zeros(TRIALS, dtype=np.int64))
        actions = np.random.default_rng(0).integers(table.space.num_choices, size=(options.steps // TRIALS, TRIALS))
        play = lambda env=env, actions=actions: [env.step(a) for a in actions]  # noqa: E731
        rates[f"play {name}"] = max(_rate(actions.size, play) for _ in range(3))
    layout = native.layout  # type: ignore[attr-defined]
    problem = SearchProblem(ENV, {"space": table.space}, table.space, layout, DESIGNS, evaluator, tasks, options.steps)
    for name, make in {"rl2": rl2, **SB3_AGENTS}.items():
        rates[f"learn {name}"] = _rate(options.steps, lambda make=make: make(problem, 0))
    for name, rate in rates.items():
        print(f"{name:20}{rate:>10,.0f} steps/s")
    if options.json:
        print(json.dumps(rates))


def _rate(steps: int, work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return steps / (time.process_time() - started)


if __name__ == "__main__":
    main()
