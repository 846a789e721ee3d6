"""A buffer of steps with the returns that followed them, for imitation of one's own past."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from entrob.rollout import Rollout

#: Priorities are max(R - V, LEAST)^SHARPNESS, weights (n p)^-CORRECTION (Oh et al. 2018).
LEAST, SHARPNESS, CORRECTION = 1e-6, 0.6, 0.1


class Replay(NamedTuple):
    """The last K rollouts of T steps in N environments; numbers are in the environment's units.

    Attributes:
      obs: [K, T, N, ...].
      action: int32[K, T, N], or raw float32[K, T, N, d].
      value: float32[K, T, N], V when the step was taken.
      gain: float32[K, T, N], discounted rewards since.
      left: float32[K, T, N], what the next reward is multiplied by; 0 once the episode has ended.
      own: bool[K, T, N], whether a step is stored there that the policy chose itself.
      rollouts: int32[], how many there were.
    """

    obs: jax.Array
    action: jax.Array
    value: jax.Array
    gain: jax.Array
    left: jax.Array
    own: jax.Array
    rollouts: jax.Array


class Sample(NamedTuple):
    """Steps drawn from a `Replay`, M of them.

    Attributes:
      obs: [M, ...].
      action: int32[M] or float32[M, d].
      gain: float32[M], the return from the step on.
      weight: float32[M] in [0, 1], against the bias of priorities; 0 if there was nothing to draw.
    """

    obs: jax.Array
    action: jax.Array
    gain: jax.Array
    weight: jax.Array


def empty(spec: Any, capacity: int) -> Replay:
    """No steps yet, room for as many whole rollouts as fit the capacity, at least one."""
    env, params = spec.env, spec.env.default_params
    per_rollout = spec.num_steps * spec.num_envs
    shape = (max(1, capacity // per_rollout), spec.num_steps, spec.num_envs)
    obs = jax.eval_shape(lambda key: env.reset_env(key, params)[0], jax.random.key(0))
    space = env.action_space(params)
    number = jnp.int32 if hasattr(space, "n") else jnp.float32
    return Replay(
        obs=jnp.zeros((*shape, *obs.shape), obs.dtype),
        action=jnp.zeros(shape if hasattr(space, "n") else (*shape, *space.shape), number),
        value=jnp.zeros(shape),
        gain=jnp.zeros(shape),
        left=jnp.zeros(shape),
        own=jnp.zeros(shape, bool),
        rollouts=jnp.zeros((), jnp.int32),
    )


def add(replay: Replay, rollout: Rollout) -> Replay:
    """The buffer with a rollout in the place of the oldest, and what it earned for earlier steps.

    Where an episode is cut off by a time limit, its last reward is the step's value target, which
    holds the value of what would have come.
    """
    gain, left = returns(rollout)
    # Steps of episodes that go on earn what the rollout earns in the same environment.
    replay = replay._replace(gain=replay.gain + replay.left * gain[0], left=replay.left * left[0])
    place = replay.rollouts % len(replay.gain)
    put = lambda old, new: old.at[place].set(new.astype(old.dtype))
    return Replay(
        obs=put(replay.obs, rollout.obs),
        action=put(replay.action, rollout.action),
        value=put(replay.value, rollout.value * rollout.context.reward_scale),
        gain=put(replay.gain, gain),
        left=put(replay.left, left),
        own=put(replay.own, rollout.executed),
        rollouts=replay.rollouts + 1,
    )


def returns(rollout: Rollout) -> tuple[jax.Array, jax.Array]:
    """``(gain, left)`` of each step within the rollout, float32[T, N] each, as in `Replay`."""
    cut = rollout.truncated & ~rollout.terminated
    pay = jnp.where(cut, rollout.target, rollout.reward) * rollout.context.reward_scale
    goes_on = rollout.context.gamma * ~(rollout.terminated | rollout.truncated)

    def back(after, now):
        gain, left = after
        pay, goes_on = now
        out = pay + goes_on * gain, goes_on * left
        return out, out

    end = jnp.zeros_like(pay[0]), jnp.ones_like(pay[0])
    return jax.lax.scan(back, end, (pay, goes_on), reverse=True)[1]


def priorities(replay: Replay) -> jax.Array:
    """float32[K, T, N], 0 for steps of unfinished episodes and of another player."""
    better = jnp.maximum(replay.gain - replay.value, LEAST)
    return jnp.where(replay.own & (replay.left <= 0), better**SHARPNESS, 0.0)


def draw(key: jax.Array, replay: Replay, size: int) -> Sample:
    """Steps in proportion to their priorities, with replacement."""
    flat = lambda x, axes: x.reshape(-1, *x.shape[axes:])
    priority = priorities(replay).ravel()
    mass = jnp.cumsum(priority)
    lot = jax.random.uniform(key, (size,)) * mass[-1]
    index = jnp.minimum(jnp.searchsorted(mass, lot, side="right"), mass.size - 1)
    chosen = priority[index]
    some = jnp.where(priority > 0, priority, jnp.inf).min()
    # The rarest step weighs 1; what both have in common, n and the total, cancels.
    ratio = jnp.where(chosen > 0, chosen, 1.0) / jnp.where(jnp.isfinite(some), some, 1.0)
    weight = jnp.where(chosen > 0, ratio**-CORRECTION, 0.0)
    take = lambda x: flat(x, 3)[index]
    return Sample(take(replay.obs), take(replay.action), take(replay.gain), weight)
