"""Evaluation of a batch of policies on a batch of instances, as one compiled program each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.agents.model import Model
from entrob.evaluation.exact import (
    occupancy,
    optimal_steps,
    success_by_horizon,
    transitions,
)
from entrob.evaluation.sampled import play

#: Episodes of a policy whose traces are kept, as many as the paper draws in its Fig. 1.
TRACED = 50


class Outcome(NamedTuple):
    """R policies on I instances over a horizon of T steps; exact fields NaN where unknown.

    Attributes:
      steps_to_success: int32[R, I], 0 = failed.
      episode_return: float32[R, I].
      final_distance: float32[R, I], see `entrob.evaluation.sampled.Episodes`.
      exact: float32[R, I], probability of success within the horizon.
      occupancy: float32[R, S], expected visits to each state on the first instance, or [R, 0].
      trace: float32[R, I', T + 1, q], where the first `TRACED` episodes went, None if unknown.
      optimum: int32[I], fewest steps to success, `UNREACHABLE` if none, or -1 where unknown.
    """

    steps_to_success: jax.Array | np.ndarray
    episode_return: jax.Array | np.ndarray
    final_distance: jax.Array | np.ndarray
    exact: jax.Array | np.ndarray
    occupancy: jax.Array | np.ndarray
    trace: jax.Array | np.ndarray | None
    optimum: jax.Array | np.ndarray


def _in_turn(f: Callable, xs: Any, at_once: int) -> Any:
    """Map `f` over the leading axis, `at_once` elements together; on a CPU one by one.

    One network's activations on one instance's 256 states fit a CPU's cache, more do not.
    """
    return jax.lax.map(f, xs, batch_size=1 if jax.default_backend() == "cpu" else at_once)


def _over_first(f: Callable, xs: Any, count: Any, at_once: int) -> Any:
    """`_in_turn` over the first `count` elements, int32[]; for the others it is zeros."""
    size = len(jax.tree.leaves(xs)[0])
    at_once = 1 if jax.default_backend() == "cpu" else min(at_once, size)
    short = -size % at_once
    xs = jax.tree.map(lambda x: jnp.concatenate([x, x[-1:].repeat(short, 0)]), xs)
    block = lambda i: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i, at_once), xs)
    made = jax.eval_shape(lambda: jax.vmap(f)(block(0)))
    empty = jax.tree.map(lambda x: jnp.zeros((size + short, *x.shape[1:]), x.dtype), made)

    def body(i, found):
        at = i * at_once
        put = lambda all_, new: jax.lax.dynamic_update_slice_in_dim(all_, new, at, 0)
        return jax.tree.map(put, found, jax.vmap(f)(block(at)))

    found = jax.lax.fori_loop(0, -(-count // at_once), body, empty)
    return jax.tree.map(lambda x: x[:size], found)


class Distinct(NamedTuple):
    """Which of I instances are the same.

    Attributes:
      instances: the different ones in the order in which they come first, then anything; [I, ...].
      number: int32[], how many are different.
      index: int32[I], where each one is among them.
    """

    instances: Any
    number: Any
    index: Any


def distinct(instances: Any) -> Distinct:
    """Find the instances that are different, by their bits; not to be traced."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(instances)]
    size = len(leaves[0])
    rows = [np.ascontiguousarray(x).reshape(size, -1).view(np.uint8) for x in leaves if x.size]
    _, first, inverse = np.unique(
        np.concatenate([row.reshape(size, -1) for row in rows], 1),
        axis=0, return_index=True, return_inverse=True,
    )  # fmt: skip
    order = np.argsort(first)  # by where they come first
    place = np.argsort(order)
    chosen = np.resize(first[order], size)
    own = jax.tree.map(lambda x: jnp.asarray(x)[chosen], instances)
    return Distinct(own, np.int32(len(first)), place[inverse.ravel()].astype(np.int32))


def evaluate(
    env: Any,
    model: Model,
    horizon: int,
    params: Any,
    instances: Any,
    keys: Any,
    same: Distinct | None = None,
):
    """Play every policy on every instance; where the environment is finite, also solve it.

    Args:
      env: an `entrob.envs.Environment`.
      model: the policies' `Model`.
      horizon: steps, static.
      params: `PolicyParams`, leaves [R, ...].
      instances: `EnvParams`, leaves [I, ...].
      keys: PRNG keys of the episodes [I], the same for every policy.
      same: which instances are the same, each of which is solved once; by default all differ.

    Returns:
      `Outcome`.
    """
    if model.recurrent or not env.finite:
        return _sampled_only(env, model, horizon, params, instances, keys)

    size = len(keys)
    same = same or Distinct(instances, size, jnp.arange(size))
    tables = jax.vmap(lambda p: transitions(env, p))(same.instances)
    observe = jax.vmap(lambda p: jax.vmap(lambda s: env.get_obs(s, p))(env.states(p)))
    observations = observe(same.instances)

    def run(policy):
        def solve(args):
            observation, table = args
            dist, _ = model.sequence(policy, (), observation, None)
            return dist, success_by_horizon(table, dist.probs, horizon)[-1]

        def sample(dist, env_params, key):
            def look_up(key, carry, state, obs):
                here = jax.tree.map(lambda x: x[env.state_index(state)], dist)
                return here.execute(here.sample(key)), carry

            return play(env, look_up, (), env_params, key, horizon)

        solved = _over_first(solve, (observations, tables), same.number, at_once=200)
        first, first_dist = jax.tree.map(lambda x: x[0], (tables, solved[0]))
        visits = occupancy(first, first_dist.probs, horizon)
        dist, exact = jax.tree.map(lambda x: x[same.index], solved)
        *sampled, trace = jax.vmap(sample)(dist, instances, keys)
        return *sampled, exact, visits, _first(trace)

    optimum = jax.vmap(optimal_steps)(tables)[same.index]
    return Outcome._make([*_in_turn(run, params, at_once=8), optimum])


def _sampled_only(env, model, horizon, params, instances, keys):
    def run(policy):
        def act(key, carry, state, obs):
            return model.act(key, policy, carry, obs)

        def instance(env_params, key):
            return play(env, act, model.initial(), env_params, key, horizon)

        *sampled, trace = jax.vmap(instance)(instances, keys)
        return *sampled, _first(trace)

    *sampled, trace = _in_turn(run, params, at_once=8)
    unknown = jnp.full(sampled[0].shape, jnp.nan)
    optimum = jnp.full(unknown.shape[1], -1)
    return Outcome._make([*sampled, unknown, unknown[:, :0], trace, optimum])


def _first(trace):
    return None if trace is None else trace[:TRACED]
