"""Agentic AEPO: clipped steps keep a gradient, unsure ones count more."""

import jax
import jax.numpy as jnp

from entrob.regularizers.domain import BELOW_ONE
from entrob.regularizers.protocol import Regularizer

#: The paper's weight of z.
PAPER = 0.2


def agentic_aepo(schedule=None) -> Regularizer:
    """Clip above at (1 + ε) ρ / sg(ρ) and A ← A max(0, 1 + coef · sg z(H)) (2510.14545).

    The upper bound's value is PPO's, yet a step clipped there keeps the gradient (1 + ε) A ∇log π.
    z standardizes the entropy over the minibatch. Steps at which the policy is unsure learn more,
    and what they gain is not thrown away by the clip.

    coef is the weight of z, the paper's is 0.2; below that clipped steps keep a share coef / 0.2 of
    their gradient, so that 0 is none. No weight is below 0, where it would turn PPO's clip around:
    at 0.2 five deviations below the mean, at 1 one.

    Faithful from 0.2 on for discrete actions, few of them included, and for continuous ones: z is
    free of units and of the entropy's sign. Degenerate where entropy hardly depends on the state;
    the bound then remains. Nothing is clipped in the first minibatch of the first epoch, nor in
    A2C.

    Args:
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.
    """

    def surrogate(key, state, policy, batch, coef):
        entropy = jax.lax.stop_gradient(policy.dist.entropy())
        # A spread below 1e-4 nats may be rounding and is not blown up.
        z = (entropy - entropy.mean()) * jax.lax.rsqrt(entropy.var() + 1e-8)
        log_prob = policy.dist.log_prob(batch.action)
        one = jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))
        # An infinite range (KL-Cov's) would have a gradient of 0 · inf.
        bound = 1.0 + jnp.minimum(batch.clip_high, 1e6)
        kept = jnp.minimum(coef / PAPER, 1.0)
        high = bound * (1.0 + kept * (one - 1.0)) - 1.0
        return jnp.maximum(1.0 + coef * z, 0.0), batch.clip_low, high

    return Regularizer(
        "agentic_aepo",
        surrogate=surrogate,
        schedule=schedule,
        coef=PAPER,
        domain=BELOW_ONE,
        source="Dong et al. 2025 (2510.14545)",
        evidence="paper",
        label="faithful from 0.2 on, but that no weight is below 0; adapted below",
    )
