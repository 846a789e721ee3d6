"""Policy entropy: the classic bonus, which spreads noise along one path."""

import jax
import jax.numpy as jnp

from entrob.regularizers.protocol import Regularizer


def policy_entropy(schedule=None) -> Regularizer:
    """Subtract coef · mean H(π(·|s)) from the loss (Williams & Peng 1991; the paper, B.1).

    Faithful for discrete and continuous actions. The paper's coefficient is 0.01. Of continuous
    ones H is what the agent's `entropy_of` says, see `entrob.agents.spec.Spec`.
    """

    def loss(key, state, policy, batch, coef) -> jax.Array:
        return -coef * jnp.mean(policy.dist.counted_entropy())

    return Regularizer(
        "policy_entropy",
        loss=loss,
        schedule=schedule,
        coef=0.01,
        source="Williams & Peng 1991",
        evidence="secondary",
    )
