"""α-divergence to a reference policy: between both directions of KL, and beyond."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.losses import _reference as references
from entrob.regularizers.protocol import Regularizer


def alpha_divergence(
    alpha: float = 0.5,
    reference: str | Sequence[float] | Callable = "initial",
    schedule=None,
) -> Regularizer:
    """Add coef · mean D_α, D_α = (1 - Σ π0^{1-α} π^α) / (α(1 - α)) (Brekelmans et al. 2022).

    α → 1 is KL(π ‖ π0), α → 0 is KL(π0 ‖ π), ½ four times the squared Hellinger distance, 2 half of
    χ². The larger α, the more it shuns what the reference rarely does; below 1 it is bounded by
    1 / (α(1 - α)) and lets go of the reference where reward is large enough. To the uniform policy
    it is an affine function of `tsallis` at q = α.

    Faithful for discrete and continuous actions, few included; but the initial policy is nearly
    uniform, to which it is `tsallis` at q = α in all but its scale. Between squashed normals it is
    finite for every policy only up to α = 1.

    Args:
      alpha: above 0; above 1 with continuous actions only for the uniform reference.
      reference: see `entrob.regularizers.losses._reference.make_reference`.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: α or the reference is out of range, or does not fit the actions.
    """
    if not alpha > 0:
        raise EntrobError(f"alpha_divergence: alpha must be above 0, not {alpha}")
    made = references.make_reference("alpha_divergence", reference)

    def loss(key, state, policy, batch, coef) -> jax.Array:
        other = made.at(state, policy, batch)
        if alpha == 1:
            return coef * jnp.mean(references.kl(policy.dist, other))
        if alpha > 1 and other is not None and not hasattr(policy.dist, "logits"):
            raise EntrobError(
                "alpha_divergence: above alpha = 1 continuous actions need the uniform reference"
            )
        overlap = references.log_overlap(policy.dist, other, alpha)
        return coef * jnp.mean(-jnp.expm1(overlap)) / (alpha * (1 - alpha))

    return Regularizer(
        "alpha_divergence",
        init=made.init,
        loss=loss,
        schedule=schedule,
        coef=0.01,
        source="Brekelmans et al. 2022 (arXiv 2203.12592)",
        evidence="secondary",
        label="degenerate: is tsallis at q = α where the reference is nearly uniform"
        if reference in ("initial", "uniform")
        else "faithful",
    )
