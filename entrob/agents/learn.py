"""Gradient steps on one rollout: A2C's and PPO's losses plus the regularizers'."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from entrob.agents.model import Model, PolicyParams
from entrob.agents.sequential import one_at_a_time
from entrob.agents.spec import Hyper, Spec
from entrob.rollout import Context, PolicyOutput, Rollout


def make_optimizer(algorithm: str) -> optax.GradientTransformation:
    """The paper's optimizers without their learning rates: RMSprop for A2C, Adam for PPO."""
    if algorithm == "a2c":
        return optax.scale_by_rms(decay=0.99, eps=1e-8, eps_in_sqrt=False)
    return optax.scale_by_adam(eps=1e-5)


def learn(
    spec: Spec,
    model: Model,
    optimizer: optax.GradientTransformation,
    hyper: Hyper,
    coefs: dict[str, jax.Array],
    reg_states: dict[str, Any],
    policy: PolicyParams,
    opt_state: Any,
    memory: Any,
    rollout: Rollout,
    key: jax.Array,
):
    """Epochs of gradient steps on minibatches.

    Minibatches are cut from all T·N steps, or, for a recurrent policy, from the N environments with
    their whole sequences, which begin with `memory` (leaves [N, ...]).

    No step is taken from where KL(π_rollout ‖ π), the mean over the minibatch, is above
    ``hyper.max_kl``. Clipping bounds the ratios of what was sampled; a policy that is all but
    deterministic can turn over within an update by what was not.

    Returns:
      ``(network, opt_state, metrics, bad)``; bad holds the regularizers at fault, bool[R] by hook
      and for ``"gradient"``, in the first minibatch in which anything went wrong.
    """

    # A function that runs one at a time may close over nothing that is traced.
    def optimize(network, opt_state, moments, reg_states, steps, context, memory, swept, key):
        coefs, hyper = swept
        loss_fn = _objective(spec, model, hyper, coefs, reg_states, moments, context)
        rate = hyper.learning_rate * (1.0 - hyper.anneal * context.progress)

        def step(carry, inputs):
            network, opt_state, sound = carry
            piece, key = inputs
            (grads, probed), (metrics, bad) = jax.grad(loss_fn, (0, 1), has_aux=True)(
                network, jnp.zeros(len(coefs)), piece, key
            )
            # Where the agent's own loss is not finite, it is the one that spoils gradients.
            own = jnp.isfinite(metrics["policy_loss"] + metrics["value_loss"])
            bad = jax.tree.map(lambda x: x & sound, bad | {"gradient": (probed > 0) & own})
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
            # What follows a fault is nobody's.
            faultless = ~jnp.stack(jax.tree.leaves(bad)).any()
            sound &= faultless & jnp.isfinite(optax.tree.norm(network))
            return (network, opt_state, sound), (
                {**metrics, "grad_norm": norm, "stopped": 1.0 * far},
                bad,
            )

        start = network, opt_state, jnp.ones((), bool)

        if spec.epochs == spec.minibatches == 1:
            carry, (metrics, bad) = step(start, ((steps, memory), key))
            return *carry[:2], metrics, bad

        def epoch(carry, key):
            key_perm, key_loss = jax.random.split(key)
            pieces = _cut(model, spec.minibatches, steps, memory, key_perm)
            return jax.lax.scan(step, carry, (pieces, jax.random.split(key_loss, spec.minibatches)))

        keys = jax.random.split(key, spec.epochs)
        carry, (metrics, bad) = jax.lax.scan(epoch, start, keys)
        return (
            *carry[:2],
            jax.tree.map(jnp.mean, metrics),
            jax.tree.map(lambda x: x.any((0, 1)), bad),
        )

    steps, context = rollout.replace(context=None), rollout.context
    return one_at_a_time(optimize)(
        policy.network, opt_state, policy.moments, reg_states, steps, context, memory,
        (coefs, hyper), key,
    )  # fmt: skip


def first_gradient(
    spec: Spec,
    model: Model,
    hyper: Hyper,
    coefs: dict[str, jax.Array],
    reg_states: dict[str, Any],
    policy: PolicyParams,
    memory: Any,
    rollout: Rollout,
    key: jax.Array,
) -> Any:
    """The gradient that `learn` begins with, of its first minibatch, before it is clipped."""
    steps, context = rollout.replace(context=None), rollout.context
    loss_fn = _objective(spec, model, hyper, coefs, reg_states, policy.moments, context)
    piece = steps, memory
    if not spec.epochs == spec.minibatches == 1:
        key_perm, key_loss = jax.random.split(jax.random.split(key, spec.epochs)[0])
        pieces = _cut(model, spec.minibatches, steps, memory, key_perm)
        piece = jax.tree.map(lambda x: x[0], pieces)
        key = jax.random.split(key_loss, spec.minibatches)[0]
    return jax.grad(loss_fn, has_aux=True)(policy.network, jnp.zeros(len(coefs)), piece, key)[0]


def _objective(spec, model, hyper, coefs, reg_states, moments, context: Context) -> Callable:
    """``(network, probes, (steps, memory), key) -> (loss, (metrics, bad))`` of a minibatch."""

    def loss_fn(network, probes, piece, key):
        steps, memory = piece
        batch = _flat(steps).replace(context=context)
        at = _evaluator(model, moments, memory, steps.time == 0)
        if context.finite is None:
            dist, value = at(network, batch.obs)
        else:
            table = at(network, context.finite.observations)
            dist, value = jax.tree.map(lambda x: x[batch.index], table)
        policy = PolicyOutput(dist, value, network, at)
        return _loss(spec, hyper, coefs, reg_states, policy, batch, key, probes)

    return loss_fn


def _flat(steps: Rollout) -> Rollout:
    """Steps [T, n, ...] as a batch [B, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), steps)


def _evaluator(model: Model, moments: Any, memory: Any, start: jax.Array) -> Callable:
    """``(network, obs[B, ...]) -> (dist[B], value[B])`` along the sequences of a minibatch."""
    if not model.recurrent:
        return lambda network, obs: model.sequence(PolicyParams(network, moments), (), obs, None)

    def at(network, obs):
        if obs.shape[0] != start.size:
            raise ValueError("a recurrent policy is evaluated on whole sequences, [T * n, ...]")
        obs = obs.reshape(*start.shape, *obs.shape[1:])
        out = model.sequence(PolicyParams(network, moments), memory, obs, start)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)

    return at


def _cut(model: Model, pieces: int, steps: Rollout, memory: Any, key: jax.Array):
    """Minibatches ``(steps [M, T', n', ...], memory [M, n', ...])`` in a random order."""
    horizon, envs = steps.reward.shape
    if model.recurrent:
        order = jax.random.permutation(key, envs).reshape(pieces, -1)
        cut = jax.tree.map(lambda x: jnp.moveaxis(x[:, order], 1, 0), steps)
        return cut, jax.tree.map(lambda x: x[order], memory)
    order = jax.random.permutation(key, horizon * envs).reshape(pieces, -1)
    return jax.tree.map(lambda x: x[order][:, None], _flat(steps)), ()


def _loss(spec, hyper, coefs, reg_states, policy: PolicyOutput, batch: Rollout, key, probes):
    """A2C's or PPO's loss plus the regularizers': ``(float32[], (metrics, bad))``."""
    chain = spec.regularizer
    key_surrogate, key_loss = jax.random.split(key)
    log_prob, old, advantage = policy.dist.log_prob(batch.action), batch.log_prob, batch.advantage
    if spec.algorithm == "ppo":
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8) * batch.context.trust
        batch = batch.replace(advantage=advantage)
    (weight, low, high), bad_surrogate = chain.surrogate(
        key_surrogate, reg_states, policy, batch, coefs, hyper.clip, probes
    )
    gain = log_prob * advantage
    if spec.algorithm == "ppo":
        ratio = jnp.exp(log_prob - old)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - low, 1.0 + high) * advantage)
    if batch.acted is not None:
        gain = jnp.where(batch.acted, gain, 0.0)
    policy_loss = -jnp.sum(weight * gain) / batch.reward.size
    moved = jnp.clip(policy.value - batch.value, -hyper.value_clip, hyper.value_clip)
    errors = (policy.value - batch.target) ** 2, (batch.value + moved - batch.target) ** 2
    value_loss = jnp.mean(jnp.maximum(*errors))
    extra, bad_loss = chain.loss(key_loss, reg_states, policy, batch, coefs, probes)
    total = policy_loss + hyper.value_coef * value_loss + extra
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "regularizer_loss": extra,
        "policy_entropy": policy.dist.entropy().mean(),
        "kl": batch.dist.kl(policy.dist).mean(),  # type: ignore[arg-type]  # both of one kind
    }
    return total, (metrics, {"surrogate": bad_surrogate, "loss": bad_loss})
