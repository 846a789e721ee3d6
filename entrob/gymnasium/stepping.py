"""Compiled programs that begin and continue episodes, of one copy of an environment or of many."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from entrob.compiling import compiler_options
from entrob.envs.environment import offers

Params = Any


class Episode(NamedTuple):
    """A copy of an environment in the middle of an episode.

    Attributes:
      state: the environment's.
      key: the key of the episode's steps; that of step t is ``fold_in(key, t)``.
      time: int32[], steps since the episode began.
    """

    state: Any
    key: jax.Array
    time: jax.Array


class Seen(NamedTuple):
    """What `reset` and `step` return; vector environments have leaves [N, ...].

    Attributes:
      observation: array, as the environment returns it.
      reward: float32[], 0 after a reset.
      terminated: bool[].
      truncated: bool[].
      info: ``success`` bool[] and ``goal_distance`` float32[], where they are known.
    """

    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    info: dict[str, jax.Array]


def _begin(env: Any, seed: jax.Array, params: Params) -> tuple[Episode, Seen]:
    """The first state of the episode with a seed: uint32[]."""
    key_reset, key_steps = jax.random.split(jax.random.key(seed))
    observation, state = env.reset_env(key_reset, params)
    no, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    seen = Seen(observation, jnp.zeros(()), no, no, _facts(env, state, params))
    return Episode(state, key_steps, zero), seen


def _advance(env: Any, episode: Episode, action: Any, params: Params) -> tuple[Episode, Seen]:
    """One step, without any reset after the last one."""
    key = jax.random.fold_in(episode.key, episode.time)
    observation, state, reward, terminated, _ = env.step_env(key, episode.state, action, params)
    reward, truncated = jnp.asarray(reward, jnp.float32), env.is_truncated(state, params)
    seen = Seen(observation, reward, terminated, truncated, _facts(env, state, params))
    return Episode(state, episode.key, episode.time + 1), seen


def _facts(env: Any, state: Any, params: Params) -> dict[str, jax.Array]:
    facts = {"success": "is_success", "goal_distance": "goal_distance"}
    known = {name: method for name, method in facts.items() if offers(env, method)}
    return {name: getattr(env, method)(state, params) for name, method in known.items()}


def _begin_all(env: Any, seeds: jax.Array, params: Params) -> tuple[Episode, Seen]:
    return jax.vmap(functools.partial(_begin, env))(seeds, params)


def _advance_all(
    env: Any, episodes: Episode, actions: Any, over: jax.Array, seeds: jax.Array, params: Params
) -> tuple[Episode, Seen]:
    """One step of every copy, or the first state of a new episode where one is over: bool[N]."""
    stepped = jax.vmap(functools.partial(_advance, env))(episodes, actions, params)

    def some_begin() -> tuple[Episode, Seen]:
        def either(over: jax.Array, new: Any, old: Any) -> Any:
            return jax.tree.map(lambda n, o: jnp.where(over, n, o), new, old)

        begun: tuple[Episode, Seen]
        begun = jax.vmap(either)(over, _begin_all(env, seeds, params), stepped)
        return begun

    after: tuple[Episode, Seen] = jax.lax.cond(over.any(), some_begin, lambda: stepped)
    return after


_compiled = functools.partial(jax.jit, static_argnums=0, compiler_options=compiler_options())
begin_one, advance_one = _compiled(_begin), _compiled(_advance)
begin_many, advance_many = _compiled(_begin_all), _compiled(_advance_all)
