"""Sampled evaluation: one episode of a policy per perturbation instance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from entrob.envs import Environment


class Episodes(NamedTuple):
    """What became of each episode; leaves have the shape of the batch that was played.

    Attributes:
      steps_to_success: int32[], steps until the first success, 0 where the episode did not succeed.
      episode_return: float32[], undiscounted.
      final_distance: float32[], the environment's ``goal_distance`` where it ended, NaN if unknown.
      trace: float32[T + 1, q], where the episode went if the environment has a ``trace``,
        NaN after its end; else None.
    """

    steps_to_success: jax.Array
    episode_return: jax.Array
    final_distance: jax.Array
    trace: jax.Array | None


def play(
    env: Environment, act: Callable, carry: Any, params: Any, key: jax.Array, horizon: int
) -> Episodes:
    """Play one episode, sampling actions from the policy (not the most likely ones).

    It ends where a training episode does, so that its return is the same quantity; with success
    only where the environment terminates there or declares ``ends_at_success``.

    Args:
      env: an `entrob.envs.Environment`.
      act: ``(key, carry, state, obs) -> (action, carry)``.
      carry: what the episode begins with.
      params: the instance's `EnvParams`.
      key: PRNG key of the episode.
      horizon: static bound on the number of steps, at least the params' own limit.
    """
    key_reset, key_steps = jax.random.split(key)
    keys = jax.random.split(key_steps, horizon)
    obs, state = env.reset_env(key_reset, params)
    trace = env.trace

    def step(loop):
        (obs, state, carry), done, time, (steps, ret, _, path) = loop
        key_act, key_env = jax.random.split(keys[time])
        action, carry = act(key_act, carry, state, obs)
        obs, state, reward, terminated, _ = env.step_env(key_env, state, action, params)
        time += 1
        success = env.is_success(state, params)
        steps = jnp.where(success & (steps == 0), time, steps)
        path = path.at[time].set(trace(state)) if trace else None
        done = terminated | (success & env.ends_at_success) | env.is_truncated(state, params)
        found = Episodes(steps, ret + reward, env.goal_distance(state, params), path)
        return (obs, state, carry), done, time, found

    # Under `vmap` the longest episode sets how many steps are computed.
    goes_on = lambda loop: ~loop[1] & (loop[2] < horizon)
    path = None
    if trace:
        first = jnp.asarray(trace(state))
        path = jnp.full((horizon + 1, *first.shape), jnp.nan, first.dtype).at[0].set(first)
    nothing = Episodes(jnp.int32(0), jnp.float32(0), env.goal_distance(state, params), path)
    begin = (obs, state, carry), jnp.bool_(False), jnp.int32(0), nothing
    return jax.lax.while_loop(goes_on, step, begin)[-1]
