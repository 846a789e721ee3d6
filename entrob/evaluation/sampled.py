"""Sampled evaluation: one episode of a policy per perturbation instance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Episodes(NamedTuple):
    """What became of each episode; leaves have the shape of the batch that was played.

    Attributes:
      steps_to_success: int32[], steps until success, 0 where the episode did not succeed.
      episode_return: float32[], undiscounted.
    """

    steps_to_success: jax.Array
    episode_return: jax.Array


def play(env: Any, policy: Callable, params: Any, key: jax.Array, horizon: int) -> Episodes:
    """Play one episode, sampling actions from the policy (not the most likely ones).

    Args:
      env: gymnax environment.
      policy: ``(state, obs) -> distribution``.
      params: the instance's `EnvParams`.
      key: PRNG key of the episode.
      horizon: static bound on the number of steps, at least the params' own limit.
    """
    key_reset, key_steps = jax.random.split(key)
    obs, state = env.reset_env(key_reset, params)

    def step(carry, key):
        obs, state, done, time, result = carry
        key_act, key_env = jax.random.split(key)
        action = policy(state, obs).sample(key_act)
        obs, state, reward, terminated, _ = env.step_env(key_env, state, action, params)
        success = ~done & terminated & _success(env, state, params)
        result = Episodes(
            jnp.where(success, time + 1, result.steps_to_success),
            result.episode_return + jnp.where(done, 0.0, reward),
        )
        done = done | terminated | env.is_truncated(state, params)
        return (obs, state, done, time + 1, result), None

    start = (obs, state, jnp.zeros((), bool), jnp.int32(0), Episodes(jnp.int32(0), jnp.float32(0)))
    keys = jax.random.split(key_steps, horizon)
    return jax.lax.scan(step, start, keys)[0][-1]


def _success(env: Any, state: Any, params: Any) -> jax.Array:
    return env.is_success(state, params) if hasattr(env, "is_success") else jnp.zeros((), bool)
