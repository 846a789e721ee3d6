"""A pilot: what a task's rewards are like before anybody learns."""

import jax
import jax.numpy as jnp

#: Environments and steps of the pilot.
ENVS, STEPS = 32, 512


def reward_spread(env) -> jax.Array:
    """Standard deviation of a uniformly random policy's rewards, 1 if all are equal: float32[].

    From 16,384 steps in the environment with its default params, always with the same key: whoever
    asks, and with whatever seed, gets the same number for the same environment. Where rewards are
    so rare that no step of the pilot meets one it is 1 for everybody.

    Args:
      env: gymnax environment with `step_env`, `reset_env`, `is_truncated` and `action_space`.
    """
    params = env.default_params
    actions = env.action_space(params)

    def one(state, key):
        key_act, key_step, key_reset = jax.random.split(key, 3)
        action = actions.sample(key_act)
        _, after, reward, terminated, _ = env.step_env(key_step, state, action, params)
        done = terminated | env.is_truncated(after, params)
        _, fresh = env.reset_env(key_reset, params)
        return jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, after), reward

    def step(states, key):
        return jax.vmap(one)(states, jax.random.split(key, ENVS))

    key_begin, key_run = jax.random.split(jax.random.key(0))
    begin = lambda key: env.reset_env(key, params)[1]
    states = jax.vmap(begin)(jax.random.split(key_begin, ENVS))
    _, rewards = jax.lax.scan(step, states, jax.random.split(key_run, STEPS))
    rewards = jnp.asarray(rewards, jnp.float32)
    # Equal rewards may differ from their mean by rounding.
    spread = jnp.where(jnp.ptp(rewards) > 0, rewards.std(), 0.0)
    return jnp.where(spread > 0, spread, 1.0)
