"""Rollouts: T steps in N environments of one run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from entrob.agents.adversarial import play
from entrob.agents.batching import one_at_a_time, where_needed
from entrob.agents.model import Model, PolicyParams
from entrob.agents.normalizer import PerEnvironment
from entrob.agents.spec import Build, tabulated
from entrob.envs import entropy_features
from entrob.rollout import Context, Finite, Rollout


class RolloutState(NamedTuple):
    """Where a run's environments stand between two rollouts.

    Attributes:
      env_state: environment states, leaves [N, ...].
      obs: [N, ...], observations, or int32[N] state indices where the environment is finite.
      carry: the policy's, leaves [N, ...].
      episode_return: float32[N], undiscounted return since the episode began.
      episode_time: int32[N], steps since the episode began.
      standing: the adversary's `Standing`, or ().
    """

    env_state: Any
    obs: jax.Array
    carry: Any
    episode_return: jax.Array
    episode_time: jax.Array
    standing: Any = ()


def begin(
    build: Build,
    env_params: Any,
    key: jax.Array,
    adversary: play.AdversaryBuild | None = None,
):
    """N environments at the start of an episode: ``(RolloutState, observations[N, ...])``."""
    env, n, model = build.spec.env, build.spec.num_envs, build.model
    obs, env_state = jax.vmap(env.reset_env, (0, None))(jax.random.split(key, n), env_params)
    stored = jax.vmap(env.state_index)(env_state) if tabulated(build.spec, model) else obs
    standing = play.begin(adversary, n, key) if adversary else ()
    time = jnp.zeros(n, jnp.int32)
    return RolloutState(env_state, stored, model.init_carry(n), jnp.zeros(n), time, standing), obs


def collect(
    build: Build,
    env_params: Any,
    context: Context,
    policy: PolicyParams,
    behavior: Callable,
    rollout_state: RolloutState,
    key: jax.Array,
    game: play.Game | None = None,
    own: PerEnvironment | tuple[()] = (),
):
    """Let the actors take T steps.

    Args:
      build: of the agent.
      env_params: nominal params.
      context: of the rollout; its tables are used where the environment is finite.
      policy: what acts.
      behavior: ``dist -> dist`` that actions are sampled from.
      rollout_state: where the environments stand.
      key: PRNG key.
      game: the adversary that interferes, if any, with its policy.
      own: each environment's statistics, which observations and rewards of the rollout are in units
        of, or () for observations and rewards as they are.

    Returns:
      ``(RolloutState, Rollout, next_value, episodes, moves, own)``: V of the true next observations
      float32[T, N], sums over the episodes that ended, float32[] each, the adversary's `Moves`,
      None if there is none, and the statistics after the rollout.
    """
    spec, model, finite = build.spec, build.model, context.finite
    env, n = spec.env, spec.num_envs
    again = where_needed(env.reset_env)
    heads = _heads(model, finite, policy)
    if game:
        their_heads = _heads(game.adversary.model, finite, game.learner.policy)

    def env_step(key, env_state, action):
        key_step, key_reset = jax.random.split(key)
        next_obs, next_state, reward, terminated, _ = env.step_env(
            key_step, env_state, action, env_params
        )
        truncated = env.is_truncated(next_state, env_params)
        done = terminated | truncated
        if env.draws:
            new_obs, new_state = again(done, (next_obs, next_state), key_reset, env_params)
        else:
            began = env.reset_env(key_reset, env_params)
            if finite is not None:
                next_obs, began = env.state_index(next_state), (env.state_index(began[1]), began[1])
            select = lambda a, b: jnp.where(done, a, b)
            new_obs, new_state = jax.tree.map(select, began, (next_obs, next_state))
        return (
            new_state,
            new_obs,
            next_obs,
            reward,
            terminated,
            truncated,
            env.is_success(next_state, env_params) & done,
        )

    def step(loop, key):
        (env_state, obs, carry, ret, time, standing), own = loop
        key_act, key_env = jax.random.split(key)
        seen = own.standardize(obs) if own else obs
        dist, value, carry = heads(carry, seen, time == 0)
        sampled = behavior(dist)
        action = sampled.sample(key_act)
        executed, moves = sampled.execute(action), None
        if game:
            executed, env_state, standing, moves = play.interfere(
                game, their_heads, standing, seen, time == 0, executed, env_state, key
            )
        keys = jax.random.split(key_env, n)
        new_env, new_obs, next_obs, reward, terminated, truncated, success = jax.vmap(env_step)(
            keys, env_state, executed
        )
        done = terminated | truncated
        ret, length = ret + reward, time + 1
        ended = {
            "episodes": done.sum(),
            "return_sum": jnp.where(done, ret, 0.0).sum(),
            "success_sum": success.sum(),
            "length_sum": jnp.where(done, length, 0).sum(),
        }
        if own:
            own, next_obs, reward = own.step(next_obs, reward, terminated, context.gamma)
            own = own.see(new_obs, done)
        seen = seen if own else None
        log_prob = sampled.drawn_log_prob(action)
        acted = (obs, seen, env_state, time, action, log_prob, dist, value, reward)
        came = (terminated, truncated, success, next_obs, carry, ended)
        if game and moves is not None:
            standing = play.redraw(game, standing, done, key)
            moves = moves._replace(episode_return=ret)
        left = jnp.where(done, 0.0, ret), jnp.where(done, 0, length), standing
        return (RolloutState(new_env, new_obs, carry, *left), own), (*acted, *came, moves)

    loop, keys = (rollout_state, own), jax.random.split(key, spec.num_steps)
    (rollout_state, own), out = jax.lax.scan(step, loop, keys)
    obs, seen, env_state, time, action, log_prob, dist, value, reward = out[:9]
    terminated, truncated, success, next_obs, carries, ended, moves = out[9:]
    if model.recurrent:
        done = terminated | truncated
        next_value = _next_value_shared(model, policy, carries, next_obs, value, done)
    else:
        next_value = _next_value(heads, carries, next_obs)
    if game:
        view = play.seen(game.adversary, next_obs, moves.temperature)
        next_moves = _next_value(their_heads, moves.carry, view)
        moves = moves._replace(carry=None, next_value=next_moves)

    if finite is not None:
        features, image = finite.features[obs], finite.of_states(finite.observations, obs)
    else:
        per_env = lambda s, o: entropy_features(env, s, o, env_params)
        features, image = jax.vmap(jax.vmap(per_env))(env_state, obs), obs if seen is None else seen
    zero = jnp.zeros_like(reward)
    rollout = Rollout(
        obs=image,
        features=features,
        time=time,
        action=action,
        log_prob=log_prob,
        value=value,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        success=success,
        advantage=zero,
        target=zero,
        dist=dist,
        context=context,
        index=obs if finite is not None else None,
        acted=None if moves is None or moves.acted is None else ~moves.acted,
    )
    episodes = {k: x.sum().astype(jnp.float32) for k, x in ended.items()}
    return rollout_state, rollout, next_value, episodes, moves, own


def _next_value(heads, carries, next_obs):
    """Values of all steps' next observations at once; each continues from its own memory."""
    size = jax.tree.leaves(next_obs)[0].shape[:2]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (carries, next_obs))
    return heads(*flat, jnp.zeros(size[0] * size[1], bool))[1].reshape(size)


def _next_value_shared(model: Model, policy: PolicyParams, carries, next_obs, value, done):
    """`_next_value` of a recurrent policy, whose values of the rollout, [T, N], are known.

    Where an episode goes on, the next observation's value is that of the next step. So if none ends
    before the last step, as in tasks that only a time limit ends, the last step's is all there is
    to evaluate.
    """

    def of_one_run(policy, carries, next_obs, value, done):
        heads = _heads(model, None, policy)
        since = lambda t: jax.tree.map(lambda x: x[t:], (carries, next_obs))
        return jax.lax.cond(
            done[:-1].any(),
            lambda: _next_value(heads, *since(0)),
            lambda: jnp.concatenate([value[1:], _next_value(heads, *since(-1))]),
        )

    # Side by side, runs would all take both branches.
    return one_at_a_time(of_one_run)(policy, carries, next_obs, value, done)


def _heads(model: Model, finite: Finite | None, policy: PolicyParams):
    """The policy as ``(carry, stored obs, is_first) -> (dist, value, carry)``."""
    if finite is None:
        return lambda carry, obs, is_first: model.step(policy, carry, obs, is_first)
    everywhere = lambda policy, obs: model.sequence(policy, (), obs, None)
    table = one_at_a_time(everywhere)(policy, finite.observations)
    return lambda carry, index, is_first: (*finite.of_states(table, index), carry)
