"""Evaluation of a batch of policies on a batch of instances, as one compiled program each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from entrob.evaluation.exact import (
    occupancy,
    optimal_steps,
    success_by_horizon,
    transitions,
)
from entrob.evaluation.sampled import play


class Outcome(NamedTuple):
    """R policies on I instances over a horizon of T steps; exact fields NaN where unknown.

    Attributes:
      steps_to_success: int32[R, I], 0 = failed.
      episode_return: float32[R, I].
      exact: float32[R, I], probability of success within the horizon.
      occupancy: float32[R, S], expected visits to each state on the first instance, or [R, 0].
      optimum: int32[I], fewest steps to success, `UNREACHABLE` if none, or -1 where unknown.
    """

    steps_to_success: jax.Array
    episode_return: jax.Array
    exact: jax.Array
    occupancy: jax.Array
    optimum: jax.Array


def _map_runs(f: Callable, params: Any) -> Any:
    """Apply `f` to each run's network: one after the other on a CPU, whose cache holds one."""
    return jax.lax.map(f, params, batch_size=1 if jax.default_backend() == "cpu" else 8)


def evaluate(env: Any, apply: Callable, horizon: int, params: Any, instances: Any, keys: Any):
    """Play every policy on every instance; where the environment is finite, also solve it.

    Args:
      env: gymnax environment.
      apply: ``(network params, obs) -> (distribution, value)``.
      horizon: steps, static.
      params: network parameters, leaves [R, ...].
      instances: `EnvParams`, leaves [I, ...].
      keys: PRNG keys of the episodes [I], the same for every policy.

    Returns:
      `Outcome`.
    """
    if not getattr(env, "finite", False):
        return _sampled_only(env, apply, horizon, params, instances, keys)

    tables = jax.vmap(lambda p: transitions(env, p))(instances)
    observe = jax.vmap(lambda p: jax.vmap(lambda s: env.get_obs(s, p))(env.states(p)))
    observations = observe(instances)

    def run(net):
        # One instance at a time: the activations of 256 states fit the cache.
        dist = jax.lax.map(lambda obs: apply(net, obs)[0], observations)

        def instance(dist, table, env_params, key):
            def policy(state, obs):
                return jax.tree.map(lambda x: x[env.state_index(state)], dist)

            episode = play(env, policy, env_params, key, horizon)
            exact = success_by_horizon(table, dist.probs, horizon)[-1]
            return *episode, exact

        first = jax.tree.map(lambda x: x[0], (tables, dist))
        visits = occupancy(first[0], first[1].probs, horizon)
        return *jax.vmap(instance)(dist, tables, instances, keys), visits

    return Outcome(*_map_runs(run, params), jax.vmap(optimal_steps)(tables))


def _sampled_only(env, apply, horizon, params, instances, keys):
    def run(net):
        def instance(env_params, key):
            return play(env, lambda state, obs: apply(net, obs)[0], env_params, key, horizon)

        return tuple(jax.vmap(instance)(instances, keys))

    steps, returns = _map_runs(run, params)
    unknown = jnp.full(returns.shape, jnp.nan)
    optimum = jnp.full(returns.shape[1], -1)
    return Outcome(steps, returns, unknown, unknown[:, :0], optimum)
