"""What a controller can learn in: environments of any origin, and the shape of a controller for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from rlnas.errors import ConfigurationError, UnknownNameError, at_least

from .controller import ControllerConfig
from .rl2_config import RL2Config


def as_vector_env(env: str | gym.Env[Any, Any] | VectorEnv, num_envs: int, options: Mapping[str, Any]) -> VectorEnv:
    """A vector environment of an id, of a single environment, or as it is.

    Args:
        env: an id is made ``num_envs`` times, natively where the environment knows how.
        num_envs: at least 1.
        options: arguments of the environments that are made of an id.

    Raises:
        ConfigurationError: if it is something else, is not registered, or has to be told to reset.
    """
    if isinstance(env, str):
        if ":" not in env and env not in gym.registry:  # with a colon Gymnasium imports a module first
            raise UnknownNameError("environment", env, gym.registry)
        ready = ":" not in env and gym.spec(env).vector_entry_point is not None
        how = (
            {}
            if ready
            else {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}}
        )
        env = gym.make_vec(env, num_envs=at_least("num_envs", num_envs, 1), **how, **options)  # type: ignore[arg-type]
    elif isinstance(env, gym.Env):
        single: gym.Env[Any, Any] = env
        env = SyncVectorEnv([lambda: single], autoreset_mode=AutoresetMode.SAME_STEP)
    if not isinstance(env, VectorEnv):
        raise ConfigurationError(f"env must be an id or an environment of Gymnasium, got {env!r}")
    if env.metadata.get("autoreset_mode") is AutoresetMode.DISABLED:
        raise ConfigurationError(f"autoreset_mode of {env} must be SAME_STEP or NEXT_STEP, got DISABLED")
    return env


def controller_config(env: VectorEnv, config: RL2Config) -> ControllerConfig:
    """The controller for an environment.

    Raises:
        ConfigurationError: if its observations are no flat box or its actions neither Discrete nor MultiDiscrete.
    """
    observed, acted = env.single_observation_space, env.single_action_space
    if not isinstance(observed, spaces.Box) or len(observed.shape) != 1:
        raise ConfigurationError(f"observations must be a flat Box (see RL2Observation), got {observed}")
    if isinstance(acted, spaces.Discrete) and acted.start == 0:
        actions: tuple[int, ...] = (int(acted.n),)
    elif isinstance(acted, spaces.MultiDiscrete) and acted.nvec.shape > (1,) and not acted.start.any():
        actions = tuple(int(n) for n in acted.nvec)
    else:
        raise ConfigurationError(f"actions must be Discrete or MultiDiscrete of several, from 0 on, got {acted}")
    layout = _layout_of(env)
    legal = layout["legal"] if layout is not None and "legal" in layout else None
    return ControllerConfig(
        observed.shape[0],
        actions,
        None if legal is None else (legal.start, legal.stop),
        config.hidden_size,
        config.cell,
        config.separate_value,
    )


def _layout_of(env: VectorEnv) -> Any:
    """The layout of the environments' observations, of whatever wraps them; None if they have none.

    Raises:
        ConfigurationError: if the action mask lies in observations that a wrapper has changed.
    """
    base = env.unwrapped
    if isinstance(base, SyncVectorEnv):
        layout, seen = _owned_layout(base.envs[0])
    elif isinstance(base, AsyncVectorEnv):
        probe = base.env_fns[0]()  # what runs in another process cannot be asked for what it may not have
        layout, seen = _owned_layout(probe)
        probe.close()
    else:
        layout, seen = getattr(base, "layout", None), base.single_observation_space
    if layout is not None and "legal" in layout and seen != env.single_observation_space:
        raise ConfigurationError("the action mask lies in observations that a wrapper has changed: wrap before it")
    return layout


def _owned_layout(env: gym.Env[Any, Any]) -> tuple[Any, Any]:
    """The layout of the outermost environment that has one, and that one's observation space."""
    while "layout" not in vars(env) and isinstance(env, gym.Wrapper):
        env = env.env
    return getattr(env, "layout", None), env.observation_space
