"""Exact evaluation of a policy in a finite deterministic environment, by dynamic programming."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from entrob.envs.shortest_path import UNREACHABLE


class Transitions(NamedTuple):
    """Where each action leads.

    Attributes:
      next_index: int32[S, A].
      terminated: bool[S, A].
      success: bool[S, A], terminated by success.
      start: int32[], index of the state an episode begins in.
    """

    next_index: jax.Array
    terminated: jax.Array
    success: jax.Array
    start: jax.Array


def transitions(env: Any, params: Any) -> Transitions:
    """The transition table of a finite environment whose dynamics use no randomness."""
    states = env.states(params)
    key = jax.random.key(0)  # unused by a deterministic environment

    def leads_to(state, action):
        _, after, _, terminated, _ = env.step_env(key, state, action, params)
        success = terminated & env.is_success(after, params)
        return env.state_index(after), terminated, success

    actions = jnp.arange(int(env.action_space(params).n))
    table = jax.vmap(jax.vmap(leads_to, (None, 0)), (0, None))(states, actions)
    _, start = env.reset_env(key, params)
    after, terminated, success = table
    return Transitions(after, terminated, success, env.state_index(start))


def success_by_horizon(table: Transitions, probs: jax.Array, horizon: int) -> jax.Array:
    """Probability that an episode has succeeded within 1..horizon steps.

    Backward recursion h_0 = 0, h_{t+1}(s) = Σ_a π(a|s) [success(s, a) + (1 - terminated(s, a))
    h_t(s'(s, a))], read off at the start.

    Args:
      table: the dynamics.
      probs: float32[S, A], the policy.
      horizon: number of steps, static.

    Returns:
      float32[horizon], nondecreasing.
    """
    gain = jnp.sum(probs * table.success, -1)
    stay = probs * ~table.terminated

    def step(h, _):
        h = gain + jnp.sum(stay * h[table.next_index], -1)
        return h, h[table.start]

    return jax.lax.scan(step, jnp.zeros(gain.shape), None, length=horizon)[1]


def optimal_steps(table: Transitions) -> jax.Array:
    """Fewest steps to success from the start: int32[], `UNREACHABLE` where there is no way."""
    blocked = table.terminated & ~table.success

    def relax(carry):
        steps, _ = carry
        after = jnp.where(
            table.success, 0, jnp.where(blocked, UNREACHABLE, steps[table.next_index])
        )
        new = jnp.minimum(steps, jnp.min(after, -1) + 1)
        return new, jnp.any(new < steps)

    start = (jnp.full(table.next_index.shape[0], UNREACHABLE), jnp.bool_(True))
    return jax.lax.while_loop(lambda c: c[1], relax, start)[0][table.start]


def occupancy(table: Transitions, probs: jax.Array, horizon: int) -> jax.Array:
    """Expected number of steps spent in each state within the horizon: float32[S]."""
    stay = probs * ~table.terminated

    def step(mass, _):
        moved = jnp.zeros_like(mass).at[table.next_index].add(mass[:, None] * stay)
        return moved, mass

    start = jnp.zeros(probs.shape[0]).at[table.start].set(1.0)
    return jax.lax.scan(step, start, None, length=horizon)[1].sum(0)
