"""KL divergence to a reference policy: stay near it."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from entrob.regularizers.losses import _reference as references
from entrob.regularizers.protocol import Regularizer


def kl(reference: str | Sequence[float] | Callable = "average", schedule=None) -> Regularizer:
    """Add coef · mean KL(π(·|s) ‖ π0(·|s)), π0 a reference policy (Jaques et al. 2017).

    The policy keeps to the reference wherever reward does not pay for leaving it, and never takes
    an action that the reference rules out. The source's is a policy trained before, on data. Here
    there is none, and to the uniform policy, or the initial one, whose actions are nearly equally
    likely, it is log |A| - H(π): its gradient is that of `policy_entropy`. So by default it is the
    moving average of the policy's own parameters, as in T1 (Hou et al. 2025), which slows the
    policy down but never holds it back for good.

    Adapted in its reference alone, for discrete and continuous actions, few included; between
    squashed normals it is the KL of the normals.

    Args:
      reference: see `entrob.regularizers.losses._reference.make_reference`.
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
        update=made.update,
        schedule=schedule,
        coef=0.01,
        source="Jaques et al. 2017 (arXiv 1611.02796), Hou et al. 2025 (arXiv 2501.11651)",
        evidence="secondary",
        label="degenerate: is policy_entropy where the reference is nearly uniform"
        if reference in ("initial", "uniform")
        else "adapted: the reference is a moving average of the policy, as none is trained before",
    )
