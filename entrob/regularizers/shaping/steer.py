"""STEER: smaller weights where a step's own update changes entropy most."""

import jax
import jax.numpy as jnp

from entrob.regularizers.domain import BELOW_ONE
from entrob.regularizers.protocol import Regularizer

#: The least max |Ω| that weights are scaled by; below it hardly any weight differs from 1.
LEAST = 0.02


def steer(schedule=None) -> Regularizer:
    """Weight the policy loss by λ^(|Ω| / max |Ω|), Ω the step's change of entropy (2510.10150).

    Ω = (A / π_b) · π(1 - π)(log π + H), to first order what a step of the action's logit along the
    gradient of (A / π_b) log π takes from the entropy of its state. The formula is the paper's
    max(λ, e^(-k|Ω|)) with k = -log λ / max(max |Ω|, 0.02), where the first maximum never acts.
    Steps that would change most how sure the policy is count less, others fully.

    coef is 1 - λ, the share of its weight that the most extreme step loses, in [0, 1).

    Faithful for discrete actions, where advantages are standardized, as in PPO; degenerate in A2C
    while they are far below 0.02. Adapted for continuous ones: π is a density, all other actions
    together have probability 1, so the factor 1 - π is left out.

    Args:
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.
    """

    def surrogate(key, state, policy, batch, coef):
        dist = jax.lax.stop_gradient(policy.dist)
        log_prob = dist.log_prob(batch.action)
        ratio = jnp.exp(log_prob - batch.log_prob)
        change = jnp.abs(batch.advantage * ratio * (log_prob + dist.entropy()))
        if jnp.issubdtype(batch.action.dtype, jnp.integer):
            change = change * (1.0 - jnp.exp(log_prob))
        weight = (1.0 - coef) ** (change / jnp.maximum(change.max(), LEAST))
        return weight, batch.clip_low, batch.clip_high

    return Regularizer(
        "steer",
        surrogate=surrogate,
        schedule=schedule,
        coef=0.2,
        domain=BELOW_ONE,
        evidence="paper",
        source="Hao et al. 2025 (2510.10150)",
        label="faithful with PPO; continuous actions adapted: without the factor 1 - π",
    )
