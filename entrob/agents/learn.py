"""Gradient steps on one rollout: A2C's and PPO's losses plus the regularizers'."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from entrob.agents.batching import one_at_a_time
from entrob.agents.model import Model, PolicyParams
from entrob.agents.spec import Build, Hyper
from entrob.regularizers.chaining import States
from entrob.rollout import Context, PolicyOutput, Rollout


def make_optimizer(algorithm: str) -> optax.GradientTransformation:
    """The paper's optimizers without their learning rates: RMSprop for A2C, Adam for PPO."""
    if algorithm == "a2c":
        return optax.scale_by_rms(decay=0.99, eps=1e-8, eps_in_sqrt=False)
    return optax.scale_by_adam(eps=1e-5)


class Learner(NamedTuple):
    """What learning changes about one player.

    Attributes:
      policy: what acts.
      opt_state: the optimizer's state.
      regularizers: `Guarded` states by name.
    """

    policy: PolicyParams
    opt_state: Any
    regularizers: States


def learn(
    build: Build, hyper: Hyper, learner: Learner, rollout: Rollout, carry: Any, key: jax.Array
) -> tuple[Learner, dict[str, jax.Array]]:
    """Epochs of gradient steps on minibatches.

    Minibatches are cut from all T·N steps, or, for a recurrent policy, from the N environments with
    their whole sequences.

    No step is taken from where KL(π_rollout ‖ π), the mean over the minibatch, is above
    ``hyper.max_kl``. Clipping bounds the ratios of what was sampled; a policy that is all but
    deterministic can turn over within an update by what was not.

    Args:
      build: of the player.
      hyper: with the coefficients at this point of training.
      learner: the player before these steps.
      rollout: [T, N], with advantages, targets and notes.
      carry: the policy's where the rollout begins, leaves [N, ...].
      key: PRNG key.

    Returns:
      ``(learner, metrics)``: of the regularizers' states only the faults have changed. They are
      those of the first minibatch in which anything went wrong.
    """
    optimizer, spec = build.optimizer, build.spec

    # A function that runs one at a time may close over nothing that is traced.
    def optimize(learner, hyper, steps, context, carry, key):
        policy, opt_state, states = learner
        loss_fn = _objective(build, hyper, states, policy.moments, context)
        rate = hyper.learning_rate * (1.0 - hyper.anneal * context.progress)
        no_probes = {name: jnp.zeros(()) for name in states}

        def step(loop, inputs):
            network, opt_state, faults, sound = loop
            piece, key = inputs
            (grads, probed), (metrics, looked) = jax.grad(loss_fn, (0, 1), has_aux=True)(
                network, no_probes, piece, key
            )
            # Where the agent's own loss is not finite, it is the one that spoils gradients.
            own = jnp.isfinite(metrics["policy_loss"] + metrics["value_loss"])
            found = {
                name: state.caught("gradient", (probed[name] > 0) & own).fault
                for name, state in looked.items()
            }
            # What follows a fault is nobody's.
            faults = jax.tree.map(lambda new, old: jnp.where(sound, new, old), found, faults)
            norm = optax.tree.norm(grads)
            scale = jnp.minimum(1.0, hyper.max_grad_norm / jnp.maximum(norm, 1e-12))
            grads = jax.tree.map(lambda g: g * scale, grads)
            updates, new_state = optimizer.update(grads, opt_state, network)
            stepped = jax.tree.map(lambda p, u: p - rate * u, network, updates)
            far = metrics["kl"] > hyper.max_kl
            network, opt_state = jax.tree.map(
                lambda old, new: jnp.where(far, old, new),
                (network, opt_state),
                (stepped, new_state),
            )
            sound &= jnp.isfinite(optax.tree.norm(network))
            for fault in faults.values():
                sound &= fault == 0
            metrics = {**metrics, "grad_norm": norm, "stopped": 1.0 * far}
            return (network, opt_state, faults, sound), metrics

        before = {name: jnp.asarray(state.fault) for name, state in states.items()}
        start = policy.network, opt_state, before, jnp.ones((), bool)

        if spec.epochs == spec.minibatches == 1:
            loop, metrics = step(start, ((steps, carry), key))
        else:

            def epoch(loop, key):
                key_perm, key_loss = jax.random.split(key)
                pieces = _cut(build, steps, carry, key_perm)
                keys = jax.random.split(key_loss, spec.minibatches)
                return jax.lax.scan(step, loop, (pieces, keys))

            loop, metrics = jax.lax.scan(epoch, start, jax.random.split(key, spec.epochs))
            metrics = jax.tree.map(jnp.mean, metrics)
        network, opt_state, faults, _ = loop
        states = {name: s._replace(fault=faults[name]) for name, s in states.items()}
        return Learner(policy.replace(network=network), opt_state, states), metrics

    steps, context = rollout.replace(context=None), rollout.context.of_minibatches()
    return one_at_a_time(optimize)(learner, hyper, steps, context, carry, key)


def first_gradient(
    build: Build, hyper: Hyper, learner: Learner, rollout: Rollout, carry: Any, key: jax.Array
) -> Any:
    """The gradient that `learn` begins with, of its first minibatch, before it is clipped."""
    spec = build.spec
    steps, context = rollout.replace(context=None), rollout.context.of_minibatches()
    policy, states = learner.policy, learner.regularizers
    loss_fn = _objective(build, hyper, states, policy.moments, context)
    piece = steps, carry
    if not spec.epochs == spec.minibatches == 1:
        key_perm, key_loss = jax.random.split(jax.random.split(key, spec.epochs)[0])
        pieces = _cut(build, steps, carry, key_perm)
        piece = jax.tree.map(lambda x: x[0], pieces)
        key = jax.random.split(key_loss, spec.minibatches)[0]
    no_probes = {name: jnp.zeros(()) for name in states}
    return jax.grad(loss_fn, has_aux=True)(policy.network, no_probes, piece, key)[0]


def _objective(build: Build, hyper: Hyper, states: States, moments, context: Context) -> Callable:
    """``(network, probes, (steps, carry), key) -> (loss, (metrics, states))`` of a minibatch."""
    model = build.model

    def loss_fn(network, probes, piece, key):
        steps, carry = piece
        batch = _flat(steps).replace(context=context)
        at = _evaluator(model, moments, carry, steps.time == 0)
        if context.finite is None:
            dist, value = at(network, batch.obs)
        else:
            table = at(network, context.finite.observations)
            dist, value = context.finite.of_states(table, batch.index)
        policy = PolicyOutput(dist, value, network, at)
        probed = {name: state._replace(probe=probes[name]) for name, state in states.items()}
        return _loss(build, hyper, probed, policy, batch, key)

    return loss_fn


def _flat(steps: Rollout) -> Rollout:
    """Steps [T, n, ...] as a batch [B, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), steps)


def _evaluator(model: Model, moments: Any, carry: Any, start: jax.Array) -> Callable:
    """``(network, obs[B, ...]) -> (dist[B], value[B])`` along the sequences of a minibatch."""
    if not model.recurrent:
        return lambda network, obs: model.sequence(PolicyParams(network, moments), (), obs, None)

    def at(network, obs):
        if obs.shape[0] != start.size:
            raise ValueError("a recurrent policy is evaluated on whole sequences, [T * n, ...]")
        obs = obs.reshape(*start.shape, *obs.shape[1:])
        out = model.sequence(PolicyParams(network, moments), carry, obs, start)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)

    return at


def _cut(build: Build, steps: Rollout, carry: Any, key: jax.Array):
    """Minibatches ``(steps [M, T', n', ...], carry [M, n', ...])`` in a random order."""
    pieces, (horizon, envs) = build.spec.minibatches, steps.reward.shape
    if build.model.recurrent:
        order = jax.random.permutation(key, envs).reshape(pieces, -1)
        cut = jax.tree.map(lambda x: jnp.moveaxis(x[:, order], 1, 0), steps)
        return cut, jax.tree.map(lambda x: x[order], carry)
    order = jax.random.permutation(key, horizon * envs).reshape(pieces, -1)
    return jax.tree.map(lambda x: x[order][:, None], _flat(steps)), ()


def _loss(build: Build, hyper: Hyper, states: States, policy: PolicyOutput, batch: Rollout, key):
    """A2C's or PPO's loss plus the regularizers': ``(float32[], (metrics, states))``."""
    chain, algorithm, coefs = build.chain, build.spec.algorithm, hyper.coefs
    key_surrogate, key_loss = jax.random.split(key)
    log_prob, old, advantage = policy.dist.log_prob(batch.action), batch.log_prob, batch.advantage
    if algorithm == "ppo":
        ddof = int(build.spec.advantage_std == "sample")
        advantage = (advantage - advantage.mean()) / (advantage.std(ddof=ddof) + 1e-8)
        advantage = advantage * batch.context.trust
        batch = batch.replace(advantage=advantage)
    (weight, low, high), states = chain.surrogate(
        key_surrogate, states, policy, batch, coefs, hyper.clip
    )
    gain = log_prob * advantage
    if algorithm == "ppo":
        ratio = jnp.exp(log_prob - old)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - low, 1.0 + high) * advantage)
    if batch.acted is not None:
        gain = jnp.where(batch.acted, gain, 0.0)
    policy_loss = -jnp.sum(weight * gain) / batch.reward.size
    moved = jnp.clip(policy.value - batch.value, -hyper.value_clip, hyper.value_clip)
    errors = (policy.value - batch.target) ** 2, (batch.value + moved - batch.target) ** 2
    value_loss = jnp.mean(jnp.maximum(*errors))
    extra, states = chain.loss(key_loss, states, policy, batch, coefs)
    total = policy_loss + hyper.value_coef * value_loss + extra
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "regularizer_loss": extra,
        "policy_entropy": policy.dist.counted_entropy().mean(),
        "kl": batch.dist.kl(policy.dist).mean(),  # type: ignore[arg-type]  # both of one kind
    }
    return total, (metrics, states)
