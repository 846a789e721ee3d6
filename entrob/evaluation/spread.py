"""How much what a policy sees varies in the nominal environment: what noise is measured in."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def observation_spread(
    env: Any, act: Callable, carry: Any, params: Any, keys: jax.Array, horizon: int
) -> Any:
    """The standard deviation of every number observed, over all steps of all episodes.

    What an environment declares as its ``observation_spread``, see
    `entrob.envs.wrappers.Noise`, is this of policies trained without a regularizer.

    Args:
      env: gymnax environment.
      act, carry, horizon: as of `entrob.evaluation.play`.
      params: nominal `EnvParams`.
      keys: PRNG keys of the episodes [N].

    Returns:
      A tree like an observation, float32 of each leaf's shape.
    """

    def episode(key):
        key_reset, key_steps = jax.random.split(key)
        obs, state = env.reset_env(key_reset, params)

        def step(loop, key):
            obs, state, carry, done = loop
            key_act, key_env = jax.random.split(key)
            action, carry = act(key_act, carry, state, obs)
            after, state, _, terminated, _ = env.step_env(key_env, state, action, params)
            ended = done | terminated | env.is_truncated(state, params)
            return (after, state, carry, ended), (obs, ~done)

        begin = (obs, state, carry, jnp.bool_(False))
        return jax.lax.scan(step, begin, jax.random.split(key_steps, horizon))[1]

    seen, alive = jax.vmap(episode)(keys)

    def deviation(leaf):
        weight = jnp.broadcast_to(jnp.expand_dims(alive, range(2, leaf.ndim)), leaf.shape)
        leaf = leaf.astype(jnp.float32)
        mean = jnp.average(leaf, (0, 1), weight)
        return jnp.sqrt(jnp.average((leaf - mean) ** 2, (0, 1), weight))

    return jax.tree.map(deviation, seen)
