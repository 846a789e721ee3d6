"""KL divergence to a reference policy: stay near it."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from entrob.regularizers.losses import reference as references
from entrob.regularizers.protocol import Regularizer


def kl(reference: str | Sequence[float] | Callable = "initial", schedule=None) -> Regularizer:
    """Add coef · mean KL(π(·|s) ‖ π0(·|s)), π0 a fixed policy (Todorov 2007; Jaques et al. 2017).

    The policy keeps to the reference wherever reward does not pay for leaving it, and never takes
    an action that the reference rules out. To the uniform policy it is log |A| - H(π), so its
    gradient is that of `policy_entropy`; the initial policy is near uniform but differs by state.

    Faithful for discrete and continuous actions, few included; between squashed normals it is the
    KL of the normals.

    Args:
      reference: see `entrob.regularizers.losses.reference.make_reference`.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: the reference is none, or does not fit the actions.
    """
    made = references.make_reference("kl", reference)

    def loss(key, state, policy, batch, coef) -> jax.Array:
        return coef * jnp.mean(references.kl(policy.dist, made.at(state, policy, batch)))

    return Regularizer(
        "kl",
        init=made.init,
        loss=loss,
        schedule=schedule,
        coef=0.01,
        source="Jaques et al. 2017 (arXiv 1611.02796)",
    )
