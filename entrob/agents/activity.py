"""How much of an update is a method's doing: its activity."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from entrob.agents.batching import one_at_a_time
from entrob.agents.estimate import estimate
from entrob.agents.learn import Learner, first_gradient
from entrob.agents.spec import Build, Hyper
from entrob.rollout import Rollout


def activity(
    build: Build,
    hyper: Hyper,
    learner: Learner,
    rollout: Rollout,
    carry: Any,
    bonus: jax.Array,
    next_value: jax.Array,
    learned: Any,
    key: jax.Array,
) -> jax.Array:
    """‖g − g₀‖ / ‖g₀‖, or the shift of the behavior where that is more: float32[], at least 0.

    g is the gradient of the update's first minibatch, at the parameters that the update begins with
    and, where several steps are taken on a rollout, at those that it ends with; the larger ratio
    counts. (What pulls a policy back to that of the rollout has no gradient before it has moved.)
    g₀ is the same at coefficients of 0 on the same rollout:
    without bonuses, with advantages estimated anew and left as they are, and without the
    regularizers' weights, clip ranges and losses. Of `behavior` it is the total variation between
    what actions are drawn from, b, and the policy, E_b[max(0, 1 − π(a) / b(a))], estimated from the
    actions of the rollout. At coefficients of 0 it is exactly 0.

    Args:
      build, hyper, learner, rollout, carry, key: as of `learn`.
      bonus: float32[T, N], the sum of bonuses.
      next_value: float32[T, N], V of the true next observations.
      learned: the network's parameters after the update.
    """
    spec, chain = build.spec, build.chain
    shifts = any(part.behavior for part in chain.parts)

    several = spec.epochs * spec.minibatches > 1

    def measure(hyper, learner, rollout, carry, bonus, next_value, learned, key):
        policy, _, states = learner

        # Once on and once off by the same instructions, so that what is equal has equal bits.
        def once(case):
            on, network = case
            live, extra = jax.tree.map(lambda x: jnp.where(on, x, 0.0), (hyper.coefs, bonus))
            own = estimate(rollout, extra, next_value, hyper)
            own, _ = chain.advantage(states, own, live)
            own = own.replace(notes=chain.prepare(states, own, live))
            at = learner._replace(policy=policy.replace(network=network))
            grads = first_gradient(
                build, dataclasses.replace(hyper, coefs=live), at, own, carry, key
            )
            drawn = chain.behavior(states, rollout.dist, live) if shifts else rollout.dist
            return grads, drawn.log_prob(rollout.action)

        networks = (policy.network, learned) if several else (policy.network,)
        twice = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), 2, axis=0), *networks)
        grads, log_probs = jax.lax.map(once, (jnp.array([True, False] * len(networks)), twice))

        def compared(i):
            on = jax.tree.map(lambda x: x[2 * i], grads)
            off = jax.tree.map(lambda x: x[2 * i + 1], grads)
            moved = optax.tree.norm(optax.tree.sub(on, off))
            return jnp.where(moved == 0, 0.0, moved / optax.tree.norm(off))

        ratio = jnp.stack([compared(i) for i in range(len(networks))]).max()
        shift = jnp.maximum(1.0 - jnp.exp(log_probs[1] - log_probs[0]), 0.0).mean()
        return jnp.maximum(ratio, shift)

    return one_at_a_time(measure)(hyper, learner, rollout, carry, bonus, next_value, learned, key)
