"""Stable-baselines3 in design environments: an adapter for vector environments, and its algorithms as agents."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from rlnas.errors import ConfigurationError

from .legal import LegalAgent
from .problem import MakeAgent, SearchProblem

TRIALS = 16
"""Trials that an algorithm plays at a time; RecurrentPPO, which pays for steps one after another, twice as many."""
DESIGN_DISCOUNT = 0.9
"""From one design of a trial to the next, as in :class:`~.rl2_config.RL2Config`; spread over the decisions."""


def as_vec_env(env: VectorEnv) -> VecEnv:
    """A Gymnasium vector environment in the form that stable-baselines3 learns in; still one object for all of it.

    What it returns equals what stable-baselines3's ``DummyVecEnv`` makes of that many monitored single environments.

    Args:
        env: resets an ended environment in the same step (``AutoresetMode.SAME_STEP``), or when it is told to
            (``DISABLED``). Its ``action_masks()``, if it has them, are what sb3-contrib's MaskablePPO asks for.

    Raises:
        ConfigurationError: if it resets in the next step: it ignores the action of that step, which an algorithm of
            stable-baselines3 would take for one that counts.
    """
    mode = env.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        raise ConfigurationError(
            f"autoreset_mode of {env} must be SAME_STEP or DISABLED, got {mode}; Gymnasium's own vectorisers take "
            "vector_kwargs={'autoreset_mode': AutoresetMode.SAME_STEP}, given vectorization_mode='sync'"
        )
    return VectorEnvAdapter(env)


class VectorEnvAdapter(VecEnv):
    """See :func:`as_vec_env`. An attribute or method of the vector environment is that of each environment in it."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self._resets_itself = env.metadata.get("autoreset_mode") is AutoresetMode.SAME_STEP
        self._actions: NDArray[Any] = np.zeros(0)
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, dtype=np.int64)
        self._started = time.time()
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        # In both libraries environment i gets the seed + i.
        observation, info = self.env.reset(seed=self._seeds[0], options=self._options[0] or None)
        self.reset_infos = _rows(info, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        self._returns[:], self._lengths[:] = 0, 0
        return observation  # type: ignore[no-any-return]

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """Options of the next reset, in the form that the vector environment takes them.

        Raises:
            ConfigurationError: if they are a list, one for each environment.
        """
        if isinstance(options, list):
            raise ConfigurationError("options must be one dict, which the vector environment's reset is given")
        self._options = [dict(options or {})] * self.num_envs

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observation, reward, terminated, truncated, info = self.env.step(self._actions)
        over = terminated | truncated
        self._returns += reward
        self._lengths += 1
        infos = _rows(info, self.num_envs)
        for row, out_of_time in enumerate((truncated & ~terminated).tolist()):
            infos[row]["TimeLimit.truncated"] = out_of_time
        if over.any():
            observation = self._end(over, observation, info, infos)
        return observation, reward.astype(np.float32), over, infos

    def _end(self, over: NDArray[np.bool_], observation: Any, info: dict[str, Any], infos: list[dict[str, Any]]) -> Any:
        """Complete the infos of the environments that ended; the observation with which all of them go on."""
        rows = np.flatnonzero(over).tolist()
        if self._resets_itself:
            last = {row: info["final_obs"][row] for row in rows}
            final = _rows(info.get("final_info", {}), self.num_envs)
            for row in rows:
                timeout = infos[row].pop("TimeLimit.truncated")
                self.reset_infos[row] = {k: v for k, v in infos[row].items() if k not in ("final_obs", "final_info")}
                infos[row] = {**final[row], "TimeLimit.truncated": timeout}
        else:
            last = {row: _row(observation, row) for row in rows}
            observation, info = self.env.reset(options={"reset_mask": over.copy()})
            begun = _rows(info, self.num_envs)
            for row in rows:
                self.reset_infos[row] = begun[row]
        seconds = round(time.time() - self._started, 6)
        for row in rows:
            episode = {"r": round(float(self._returns[row]), 6), "l": int(self._lengths[row]), "t": seconds}
            infos[row] |= {"terminal_observation": last[row], "episode": episode}
        self._returns[rows], self._lengths[rows] = 0, 0
        return observation

    def close(self) -> None:
        self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        pictures: Any = self.env.render()
        return list(pictures or [None] * self.num_envs)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        base: Any = self.env.unwrapped
        holds_singles = hasattr(base, "get_attr")  # as Gymnasium's own vectorisers do
        values = base.get_attr(attr_name) if holds_singles else [getattr(base, attr_name)] * self.num_envs
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of all environments.

        Raises:
            ConfigurationError: if ``indices`` are given.
        """
        if indices is not None:
            raise ConfigurationError(f"{attr_name} must be set for all environments, not for {indices!r}")
        base: Any = self.env.unwrapped
        if hasattr(base, "set_attr"):
            base.set_attr(attr_name, value)
        else:
            setattr(base, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        base: Any = self.env.unwrapped
        if hasattr(base, "call"):
            values = base.call(method_name, *method_args, **method_kwargs)
        else:
            values = getattr(base, method_name)(*method_args, **method_kwargs)
        return [values[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """True for ``Monitor``, whose part this adapter plays."""
        return [issubclass(Monitor, wrapper_class) for _ in self._get_indices(indices)]


def _row(observation: Any, row: int) -> Any:
    """One environment's observation, a copy."""
    if isinstance(observation, dict):
        return {name: _row(part, row) for name, part in observation.items()}
    return np.array(observation[row])


def _rows(info: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Gymnasium's info, one array for each entry and another that says who has it, as one dict for each environment."""
    whole, parts = {}, {}
    for name, column in info.items():
        if name.startswith("_") and name[1:] in info:
            continue
        present = info.get(f"_{name}")
        if isinstance(column, dict):
            values: Any = _rows(column, count)
        elif isinstance(column, np.ndarray) and column.shape[:1] == (count,):
            values = column.tolist() if column.ndim == 1 else list(column)
        else:
            values = [column] * count
        if present is None or present.all():
            whole[name] = values
        else:
            parts[name] = values, np.flatnonzero(present).tolist()
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    if whole:
        rows = [dict(zip(whole, row, strict=True)) for row in zip(*whole.values(), strict=True)]
    for name, (values, having) in parts.items():
        for row in having:
            rows[row][name] = values[row]
    return rows


def _ppo(problem: SearchProblem) -> dict[str, Any]:
    steps = _whole(len(problem.space.decisions), 120)
    return {
        "policy": "MlpPolicy",
        "policy_kwargs": {"net_arch": [128, 128]},
        "learning_rate": 1e-3,
        "n_steps": steps,
        "batch_size": steps * TRIALS // 4,
        "n_epochs": 6,
        "ent_coef": 0.02,
    }


def _recurrent_ppo(problem: SearchProblem) -> dict[str, Any]:
    """Whole trials in large minibatches, one LSTM without further layers: several times as fast as the defaults."""
    steps = _whole(len(problem.space.decisions) * problem.designs, 60)
    network = {"net_arch": [], "lstm_hidden_size": 128, "shared_lstm": True, "enable_critic_lstm": False}
    return {
        **_ppo(problem),
        "policy": "MlpLstmPolicy",
        "policy_kwargs": network,
        "n_steps": steps,
        "batch_size": steps * 2 * TRIALS // 4,
    }


def _a2c(problem: SearchProblem) -> dict[str, Any]:
    return {
        "policy": "MlpPolicy",
        "policy_kwargs": {"net_arch": [128, 128]},
        "n_steps": len(problem.space.decisions) * min(problem.designs, 2),
        "gae_lambda": 0.95,
        "ent_coef": 0.02,
    }


def _dqn(problem: SearchProblem) -> dict[str, Any]:
    """Two gradient steps for each step of all trials: the library's ratio, one for four, at four times its batch."""
    return {
        "policy": "MlpPolicy",
        "policy_kwargs": {"net_arch": [128, 128]},
        "learning_rate": 5e-4,
        "buffer_size": min(problem.training_steps, 50_000),
        "learning_starts": min(problem.training_steps // 10, 1_000),
        "batch_size": 128,
        "train_freq": 1,
        "gradient_steps": 2,
        "target_update_interval": 2_000,
        "exploration_fraction": 0.3,
    }


def _whole(unit: int, steps: int) -> int:
    """About so many ``steps`` in whole designs or trials of ``unit`` steps, at least one."""
    return unit * max(1, round(steps / unit))


def _make(algorithm: Any, options: Callable[[SearchProblem], dict[str, Any]], trials: int = TRIALS) -> MakeAgent:
    def make(problem: SearchProblem, seed: int) -> LegalAgent:
        env = as_vec_env(problem.training_env(trials, invalid_action="penalise"))
        gamma = DESIGN_DISCOUNT ** (1 / len(problem.space.decisions))
        model = algorithm(env=env, gamma=gamma, seed=seed, device="cpu", **options(problem))
        model.learn(problem.training_steps, log_interval=None)
        env.close()
        return LegalAgent(model, problem.layout, seed)

    return make


SB3_AGENTS: dict[str, MakeAgent] = {
    "ppo": _make(PPO, _ppo),
    "a2c": _make(A2C, _a2c),
    "dqn": _make(DQN, _dqn),
    "recurrent-ppo": _make(RecurrentPPO, _recurrent_ppo, 2 * TRIALS),
    "maskable-ppo": _make(MaskablePPO, _ppo),
}
"""Each algorithm, trained on the problem's training tasks, by the name it has in comparisons.

They run on the CPU, where networks so small learn fastest, and are taught the same reward, discount and network sizes.
"""
