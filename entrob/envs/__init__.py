"""Environments: gymnax `Environment`s whose every knob is a traced leaf of their params."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from entrob.envs.minigrid import MiniGrid
from entrob.registry import Registry

#: Environment id -> a function without arguments that builds the environment.
environments: Registry[Callable] = Registry("environment")
environments.register("minigrid/empty-8x8", lambda: MiniGrid(10, 10))
environments.register("minigrid/empty-16x16", lambda: MiniGrid(18, 18))


def make(id: str, noise: bool = False):
    """Build an environment and its nominal params.

    Args:
      id: a registered id, e.g. ``"minigrid/empty-8x8"``.
      noise: wrap the environment so that the diffuse perturbations (slip, sticky action,
        observation dropout, reward noise) can act; their params start at zero, which is off.

    Returns:
      ``(env, params)``, a gymnax `Environment` and its `EnvParams`.

    Raises:
      EntrobError: the id is not registered.
    """
    env = environments.get(id)()
    params = env.default_params
    if noise:
        from entrob.perturbations.noise import with_noise

        env, params = with_noise(env, params)
    return env, params


def is_success(env: Any, state: Any, params: Any) -> jax.Array:
    """Whether a state counts as success: bool[]; never, in an environment without the notion."""
    return env.is_success(state, params) if hasattr(env, "is_success") else jnp.zeros((), bool)


def entropy_features(env: Any, state: Any, obs: jax.Array, params: Any) -> jax.Array:
    """The environment's entropy features, by default the flat observation: float32[q]."""
    if hasattr(env, "entropy_features"):
        return env.entropy_features(state, params)
    return jnp.ravel(obs).astype(jnp.float32)
