"""Tsallis entropy: a bonus that forgives actions of probability zero."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.protocol import Regularizer


def tsallis(q: float = 2.0, schedule=None) -> Regularizer:
    """Subtract coef · mean S_q(π(·|s)), S_q = (1 - Σ π^q) / (q - 1) (Lee, Choi, Oh 2018).

    Lee, Choi and Oh's is half of it at q = 2, ½ (1 - Σ π²): coefficients are half theirs. Unlike
    Shannon's entropy, which it is at q = 1, its slope at π(a) = 0 is finite for q > 1: bad actions
    may be dropped altogether and noise is kept among good ones.

    Faithful for discrete actions; few are no trouble. For continuous ones the sum is the integral
    of the density's power over the box, which depends on the unit of actions and falls without
    bound as the policy becomes deterministic.

    Args:
      q: entropic index, above 0; 1 is Shannon's entropy.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: q is not above 0.
    """
    if not q > 0:
        raise EntrobError(f"tsallis: q must be above 0, not {q}")

    def loss(key, state, policy, batch, coef) -> jax.Array:
        if q == 1:
            return -coef * jnp.mean(policy.dist.entropy())
        return coef * jnp.mean(jnp.expm1(policy.dist.log_power(q))) / (q - 1)

    return Regularizer(
        "tsallis",
        loss=loss,
        schedule=schedule,
        coef=0.01,
        source="Lee et al. 2018 (arXiv 1709.06293)",
        evidence="secondary",
        label="faithful; continuous actions: without bound, depends on their unit",
    )
