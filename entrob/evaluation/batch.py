"""Evaluation of a batch of policies on a batch of instances, as one compiled program each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entrob.agents.batching import differing
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
    """Which of I elements are the same.

    Attributes:
      elements: the different ones in the order in which they come first, then anything; [I, ...].
      number: int32[], how many are different.
      index: int32[I], where each one is among them.
    """

    elements: Any
    number: Any
    index: Any


class Same(NamedTuple):
    """What I instances have in common, so that it is computed once.

    Attributes:
      instances: `Distinct` of their params.
      views: `Distinct` of what there is to see in each, see `views`.
    """

    instances: Distinct
    views: Distinct


def distinct(batch: Any) -> Distinct:
    """Find the elements that are different, by their bits; not to be traced."""
    first, index = differing(batch)
    chosen = np.resize(first, len(index))
    own = jax.tree.map(lambda x: np.asarray(x)[chosen], batch)
    return Distinct(own, np.int32(len(first)), index)


def views(env: Any, params: Any) -> Any:
    """All observations that there can be: of each state and, where some are dropped, of nothing.

    Returns:
      [V, ...], V = S where the environment is finite, S + 1 where it has `few_views`.
    """
    seen = jax.vmap(lambda state: env.get_obs(state, params))(env.states(params))
    if env.finite:
        return seen
    return jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x[:1])]), seen)


def _view(env: Any, state: Any, obs: Any) -> jax.Array:
    """Which of `views` an observation is: int32[]."""
    index = env.state_index(state)
    if env.finite:
        return index
    nothing = jnp.all(jnp.stack([jnp.all(x == 0) for x in jax.tree.leaves(obs)]))
    return jnp.where(nothing, -1, index)


def evaluate(
    env: Any,
    model: Model,
    horizon: int,
    params: Any,
    instances: Any,
    keys: Any,
    same: Same | None = None,
):
    """Play every policy on every instance; where the environment is finite, also solve it.

    Args:
      env: an `entrob.envs.Environment`.
      model: the policies' `Model`.
      horizon: steps, static.
      params: `PolicyParams`, leaves [R, ...].
      instances: `EnvParams`, leaves [I, ...].
      keys: PRNG keys of the episodes [I], the same for every policy.
      same: what the instances have in common; by default nothing.

    Returns:
      `Outcome`.
    """
    if model.recurrent or not (env.finite or env.few_views):
        return _sampled_only(env, model, horizon, params, instances, keys)

    size = len(keys)
    if same is None:
        all_differ = lambda elements: Distinct(elements, size, jnp.arange(size))
        seen = jax.vmap(lambda p: views(env, p))(instances)
        same = Same(all_differ(instances), all_differ(seen))
    # Which of the views each of the different instances has.
    shown = jnp.zeros(size, jnp.int32).at[same.instances.index].set(same.views.index)
    tables: Any = ()
    if env.finite:
        tables = jax.vmap(lambda p: transitions(env, p))(same.instances.elements)

    def run(policy):
        look = lambda seen: model.sequence(policy, (), seen, None)[0]
        dist = _over_first(look, same.views.elements, same.views.number, at_once=200)

        def sample(which, env_params, key):
            def look_up(key, carry, state, obs):
                here = jax.tree.map(lambda x: x[which, _view(env, state, obs)], dist)
                return here.execute(here.sample(key)), carry

            return play(env, look_up, (), env_params, key, horizon)

        *sampled, trace = jax.vmap(sample)(same.views.index, instances, keys)
        if not env.finite:
            return sampled, _first(trace), ()
        probs = lambda which: jax.tree.map(lambda x: x[which], dist).probs
        solve = lambda args: success_by_horizon(args[0], probs(args[1]), horizon)[-1]
        exact = _over_first(solve, (tables, shown), same.instances.number, at_once=200)
        first = jax.tree.map(lambda x: x[0], tables)
        visits = occupancy(first, probs(shown[0]), horizon)
        return sampled, _first(trace), (exact[same.instances.index], visits)

    sampled, trace, solved = _in_turn(run, params, at_once=8)
    if not env.finite:
        return _sampled_outcome(sampled, trace)
    optimum = jax.vmap(optimal_steps)(tables)[same.instances.index]
    return Outcome._make([*sampled, *solved, trace, optimum])


def _sampled_only(env, model, horizon, params, instances, keys):
    def run(policy):
        def act(key, carry, state, obs):
            return model.act(key, policy, carry, obs)

        def instance(env_params, key):
            return play(env, act, model.initial(), env_params, key, horizon)

        *sampled, trace = jax.vmap(instance)(instances, keys)
        return sampled, _first(trace)

    return _sampled_outcome(*_in_turn(run, params, at_once=8))


def _sampled_outcome(sampled, trace):
    """Where nothing is solved."""
    unknown = jnp.full(sampled[0].shape, jnp.nan)
    optimum = jnp.full(unknown.shape[1], -1)
    return Outcome._make([*sampled, unknown, unknown[:, :0], trace, optimum])


def _first(trace):
    return None if trace is None else trace[:TRACED]
