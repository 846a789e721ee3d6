"""A2C and PPO: one actor-critic loop with two losses.

An agent is three pure functions of one run; the sweep vmaps them. Where an environment is finite,
the network is evaluated once per distinct state and update instead of once per frame, and steps
look the result up. That changes the order of additions, nothing else.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from entrob.agents.advantages import gae
from entrob.agents.distributions import Categorical
from entrob.agents.spec import (
    Finite,
    Hyper,
    Spec,
    default_network,
    entropy_features,
    tabulate,
)
from entrob.regularizers.protocol import Policy, Rollout

#: `AgentState.cause` of a run that did not diverge, and of one whose own loss or weights did;
#: a value of 2 + i blames regularizer i of the chain.
HEALTHY, AGENT = 0, 1


@struct.dataclass
class AgentState:
    """Everything that changes while one run trains.

    Attributes:
      key: PRNG key.
      params: network parameters.
      opt_state: optimizer state.
      env_state: environment states, leaves [N, ...].
      obs: [N, ...], observations, or int32[N] state indices where the environment is finite.
      episode_return: float32[N], undiscounted return since the episode began.
      episode_time: int32[N], steps since the episode began.
      regularizers: per-regularizer states by name.
      update: int32[], updates done.
      diverged_at: int32[], the update at which the run was frozen, -1 if it was not.
      cause: int32[], why: `HEALTHY`, `AGENT`, or 2 + the index of the regularizer.
    """

    key: jax.Array
    params: Any
    opt_state: Any
    env_state: Any
    obs: jax.Array
    episode_return: jax.Array
    episode_time: jax.Array
    regularizers: dict[str, Any]
    update: jax.Array
    diverged_at: jax.Array
    cause: jax.Array


class Agent(NamedTuple):
    """Pure functions of one run.

    Attributes:
      spec: the static part.
      init: ``(key, hyper, env_params) -> AgentState``.
      train_chunk: ``(state, hyper, env_params, updates) -> (state, curves)``; curves are
        float32[updates] each. ``updates`` is static.
      act: ``(key, params, memory, obs) -> (action, memory)``; memory is ``()``: these agents
        have none.
      apply: ``(params, obs) -> (Categorical, value)``.
    """

    spec: Spec
    init: Callable
    train_chunk: Callable
    act: Callable
    apply: Callable


def make_agent(spec: Spec) -> Agent:
    """Build the functions of an A2C or PPO agent.

    Raises:
      EntrobError: the environment's actions are not discrete.
      ValueError: unknown algorithm, or the minibatches do not divide the rollout.
    """
    if spec.algorithm not in ("a2c", "ppo"):
        raise ValueError(f"unknown algorithm {spec.algorithm!r}: a2c or ppo")
    if spec.frames_per_update % spec.minibatches:
        raise ValueError("minibatches must divide num_envs * num_steps")
    env = spec.env
    network = spec.network or default_network(env, env.default_params)

    def apply(params, obs):
        logits, value = network.apply(params, obs)
        return Categorical(logits), value

    optimizer = (
        optax.scale_by_rms(decay=0.99, eps=1e-8, eps_in_sqrt=False)
        if spec.algorithm == "a2c"
        else optax.scale_by_adam(eps=1e-5)
    )

    def init(key: jax.Array, hyper: Hyper, env_params: Any) -> AgentState:
        """The state before training; hyper is not used but fixes the signature of `vmap`."""
        key, key_net, key_env, key_reg = jax.random.split(key, 4)
        obs, env_state = jax.vmap(env.reset_env, (0, None))(
            jax.random.split(key_env, spec.num_envs), env_params
        )
        params = network.init(key_net, obs)
        finite = tabulate(spec, env_params)
        return AgentState(
            key=key,
            params=params,
            opt_state=optimizer.init(params),
            env_state=env_state,
            obs=jax.vmap(env.state_index)(env_state) if finite else obs,
            episode_return=jnp.zeros(spec.num_envs),
            episode_time=jnp.zeros(spec.num_envs, jnp.int32),
            regularizers=spec.regularizer.init(key_reg, spec, params),
            update=jnp.zeros((), jnp.int32),
            diverged_at=jnp.full((), -1, jnp.int32),
            cause=jnp.zeros((), jnp.int32),
        )

    def train_chunk(state: AgentState, hyper: Hyper, env_params: Any, updates: int):
        """Train for a number of updates: ``(state, curves)``."""
        finite = tabulate(spec, env_params)

        def body(state, _):
            return _update(spec, apply, optimizer, finite, env_params, hyper, state)

        return jax.lax.scan(body, state, None, length=updates)

    def act(key, params, memory, obs):
        """One sampled action."""
        dist, _ = apply(params, obs)
        return dist.sample(key), memory

    return Agent(spec, init, train_chunk, act, apply)


def _one_at_a_time(f: Callable) -> Callable:
    """On a CPU, make `vmap` run `f` for one run after the other.

    The activations of one agent's network fit the cache and those of 75 do not: three times
    faster there. Accelerators keep the plain `vmap`. `f` must not close over traced values.
    """
    if jax.default_backend() != "cpu":
        return f
    return jax.custom_batching.sequential_vmap(f)


def _heads(apply: Callable, finite: Finite | None, params: Any) -> Callable:
    """The network as a function of what the agent stores: state indices or observations."""
    if finite is None:
        return lambda obs: apply(params, obs)
    table = _one_at_a_time(apply)(params, finite.observations)
    return lambda index: jax.tree.map(lambda x: x[index], table)


def _update(spec, apply, optimizer, finite, env_params, hyper, state: AgentState):
    """One update of one run: rollout, bonuses, advantages, gradient steps, regularizer states."""
    chain = spec.regularizer
    key, key_roll, key_reward, key_learn, key_reg = jax.random.split(state.key, 5)
    progress = state.update / hyper.total_updates
    coefs = chain.coefs(hyper.coefs, progress)

    heads = _heads(apply, finite, state.params)
    actor, rollout, next_value, episodes = _collect(
        spec, heads, finite, env_params, coefs, progress, state, key_roll
    )
    bonus, reg_states, bad_bonus = chain.reward(key_reward, state.regularizers, rollout, coefs)
    advantage = gae(
        rollout.reward + bonus,
        rollout.value,
        next_value,
        rollout.terminated,
        rollout.truncated,
        hyper.gamma,
        hyper.gae_lambda,
    )
    rollout = rollout.replace(advantage=advantage, target=advantage + rollout.value)
    rollout, bad_advantage = chain.advantage(reg_states, rollout, coefs)
    params, opt_state, metrics, bad_loss = _learn(
        spec, apply, optimizer, finite, hyper, coefs, reg_states, state, rollout, key_learn
    )
    reg_states = chain.update(key_reg, reg_states, rollout, metrics)

    new = AgentState(
        key=key,
        params=params,
        opt_state=opt_state,
        regularizers=reg_states,
        update=state.update + 1,
        diverged_at=state.diverged_at,
        cause=state.cause,
        **actor,
    )
    curves = {"bonus_mean": bonus.mean(), **metrics, **episodes}
    return _freeze_if_diverged(state, new, curves, bad_bonus | bad_advantage | bad_loss)


def _collect(spec, heads, finite, env_params, coefs, progress, state: AgentState, key):
    """T steps in N environments.

    Returns:
      The fields of `AgentState` that moved, the `Rollout`, V of the true next observations
      float32[T, N], and sums over the episodes that ended.
    """
    env, chain = spec.env, spec.regularizer

    def env_step(key, env_state, action):
        key_step, key_reset = jax.random.split(key)
        next_obs, next_state, reward, terminated, _ = env.step_env(
            key_step, env_state, action, env_params
        )
        truncated = env.is_truncated(next_state, env_params)
        reset_obs, reset_state = env.reset_env(key_reset, env_params)
        done = terminated | truncated
        if finite is not None:
            next_obs, reset_obs = env.state_index(next_state), env.state_index(reset_state)
        select = lambda a, b: jnp.where(done, a, b)
        return (
            jax.tree.map(select, reset_state, next_state),
            select(reset_obs, next_obs),
            next_obs,
            reward,
            terminated,
            truncated,
            _success(env, next_state, env_params) & terminated,
        )

    def step(carry, key):
        env_state, obs, ret, time = carry
        key_act, key_env = jax.random.split(key)
        dist, value = heads(obs)
        dist = chain.behavior(state.regularizers, dist, coefs)
        action = dist.sample(key_act)
        keys = jax.random.split(key_env, spec.num_envs)
        new_env, new_obs, next_obs, reward, terminated, truncated, success = jax.vmap(env_step)(
            keys, env_state, action
        )
        done = terminated | truncated
        ret, length = ret + reward, time + 1
        ended = {
            "episodes": done.sum(),
            "return_sum": jnp.where(done, ret, 0.0).sum(),
            "success_sum": (done & success).sum(),
            "length_sum": jnp.where(done, length, 0).sum(),
        }
        out = (obs, env_state, time, action, dist.log_prob(action), value, reward)
        out += (terminated, truncated, success, next_obs, ended)
        carry = (new_env, new_obs, jnp.where(done, 0.0, ret), jnp.where(done, 0, length))
        return carry, out

    carry = (state.env_state, state.obs, state.episode_return, state.episode_time)
    carry, out = jax.lax.scan(step, carry, jax.random.split(key, spec.num_steps))
    obs, env_state, time, action, log_prob, value, reward = out[:7]
    terminated, truncated, success, next_obs, ended = out[7:]
    _, next_value = heads(next_obs)

    if finite is not None:
        features, image = finite.features[obs], finite.observations[obs]
    else:
        per_env = lambda s, o: entropy_features(env, s, o, env_params)
        features, image = jax.vmap(jax.vmap(per_env))(env_state, obs), obs
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
        progress=progress,
        index=obs if finite is not None else None,
        finite=finite,
    )
    moved = dict(zip(("env_state", "obs", "episode_return", "episode_time"), carry))
    episodes = {name: x.sum().astype(jnp.float32) for name, x in ended.items()}
    return moved, rollout, next_value, episodes


def _success(env, state, params):
    """Whether the state counts as success; environments without the notion say False."""
    return env.is_success(state, params) if hasattr(env, "is_success") else jnp.zeros((), bool)


def _learn(spec, apply, optimizer, finite, hyper, coefs, reg_states, state, rollout, key):
    """Gradient steps on one rollout: ``(params, opt_state, metrics, bad)``."""
    flat = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]),
        rollout.replace(progress=None, finite=None),
    )

    def learn(params, opt_state, reg_states, batch, finite, coefs, hyper, progress, key):
        def loss_fn(params, batch, key):
            batch = batch.replace(progress=progress, finite=finite)
            if finite is None:
                dist, value = apply(params, batch.obs)
            else:
                table = apply(params, finite.observations)
                dist, value = jax.tree.map(lambda x: x[batch.index], table)
            policy = Policy(dist, value, params, apply)
            return _loss(spec, hyper, coefs, reg_states, policy, batch, key)

        def step(carry, inputs):
            params, opt_state = carry
            minibatch, key = inputs
            grads, (metrics, bad) = jax.grad(loss_fn, has_aux=True)(params, minibatch, key)
            norm = optax.tree.norm(grads)
            scale = jnp.minimum(1.0, hyper.max_grad_norm / jnp.maximum(norm, 1e-12))
            grads = jax.tree.map(lambda g: g * scale, grads)
            steps, opt_state = optimizer.update(grads, opt_state, params)
            params = jax.tree.map(lambda p, u: p - hyper.learning_rate * u, params, steps)
            return (params, opt_state), ({**metrics, "grad_norm": norm}, bad)

        if spec.epochs == spec.minibatches == 1:
            carry, (metrics, bad) = step((params, opt_state), (batch, key))
            return *carry, metrics, bad
        keys = jax.random.split(key, spec.epochs)

        def epoch(carry, key):
            key_perm, key_loss = jax.random.split(key)
            order = jax.random.permutation(key_perm, spec.frames_per_update)
            cut = lambda x: x[order].reshape(spec.minibatches, -1, *x.shape[1:])
            pieces = jax.tree.map(cut, batch)
            return jax.lax.scan(step, carry, (pieces, jax.random.split(key_loss, spec.minibatches)))

        carry, (metrics, bad) = jax.lax.scan(epoch, (params, opt_state), keys)
        return *carry, jax.tree.map(jnp.mean, metrics), bad.any((0, 1))

    progress = rollout.progress
    return _one_at_a_time(learn)(
        state.params, state.opt_state, reg_states, flat, finite, coefs, hyper, progress, key
    )


def _loss(spec, hyper, coefs, reg_states, policy: Policy, batch: Rollout, key):
    """A2C's or PPO's loss plus the regularizers': ``(float32[], (metrics, bad))``."""
    chain = spec.regularizer
    key_surrogate, key_loss = jax.random.split(key)
    log_prob = policy.dist.log_prob(batch.action)
    weight, low, high = chain.surrogate(key_surrogate, reg_states, policy, batch, coefs, hyper.clip)
    if spec.algorithm == "a2c":
        gain = log_prob * batch.advantage
    else:
        std = batch.advantage.std() + 1e-8
        advantage = (batch.advantage - batch.advantage.mean()) / std
        ratio = jnp.exp(log_prob - batch.log_prob)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - low, 1.0 + high) * advantage)
    policy_loss = -jnp.mean(weight * gain)
    value_loss = jnp.mean((policy.value - batch.target) ** 2)
    extra, bad = chain.loss(key_loss, reg_states, policy, batch, coefs)
    total = policy_loss + hyper.value_coef * value_loss + extra
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "regularizer_loss": extra,
        "policy_entropy": policy.dist.entropy().mean(),
    }
    return total, (metrics, bad)


def _freeze_if_diverged(old: AgentState, new: AgentState, curves: dict, bad: jax.Array):
    """Keep the old state of a run that is, or now becomes, not finite; its curves read NaN."""
    leaves = jax.tree.leaves((new.params, new.opt_state))
    finite = jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()
    faulty = bad.any() | ~finite
    frozen = (old.diverged_at >= 0) | faulty
    cause = jnp.where(bad.any(), 2 + jnp.argmax(bad) if bad.size else AGENT, AGENT)
    first = frozen & (old.diverged_at < 0)
    state = jax.tree.map(lambda a, b: jnp.where(frozen, a, b), old, new).replace(
        diverged_at=jnp.where(first, old.update, old.diverged_at),
        cause=jnp.where(first, cause, old.cause).astype(jnp.int32),
    )
    return state, jax.tree.map(lambda x: jnp.where(frozen, jnp.nan, x), curves)
