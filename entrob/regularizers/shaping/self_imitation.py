"""Self-imitation: repeat what went better than expected."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.protocol import Regularizer
from entrob.regularizers.shaping.covariance import check_pool, covariance, drawn, pool


def self_imitation(
    warmup: float = 0.5,
    fraction: float = 0.02,
    bounds: tuple[float, float] = (0.9, 1.0),
    absolute: bool = False,
    schedule=None,
) -> Regularizer:
    """Add -coef · γ(t) · mean sg[R - V]_+ log π to the loss (SPEAR, 2509.22601).

    R is the value target, V the present value, γ(t) = (1 - cos(π t / T₁)) / 2 rises from 0 to 1 in
    the first part of training. Actions whose return beat the value function are imitated, on top of
    the policy loss; late in training this narrows the policy. As Clip-Cov does, max(1, ⌊0.02 · B⌋)
    random steps whose covariance of log π and [R - V]_+ is within bounds are left out.

    coef multiplies the term, in units of the value function.

    Adapted: imitated is the minibatch, not a buffer of good episodes, so nothing is remembered; R
    is the λ-return, which unlike a Monte Carlo return exists at a rollout's end. The paper's bounds
    are absolute, (1, 40); ours are quantiles by default, see `clip_cov`. Discrete and continuous
    actions alike. How long γ rises is our choice.

    Args:
      warmup: T₁ as a fraction of training, in [0, 1]; 0 is none.
      fraction: of the minibatch that is left out, in [0, 1); at least one step, none if it is 0.
      bounds: of the covariance, rising: the lower one excluded, the upper one included.
      absolute: bounds are values instead of quantiles in [0, 1].
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    check_pool("self_imitation", bounds, absolute)
    if not (0 <= warmup <= 1 and 0 <= fraction < 1):
        raise EntrobError("self_imitation: warmup must be in [0, 1] and fraction in [0, 1)")

    def loss(key, state, policy, batch, coef) -> jax.Array:
        log_prob = policy.dist.log_prob(batch.action)
        better = jnp.maximum(batch.target - jax.lax.stop_gradient(policy.value), 0.0)
        better = jnp.where(batch.executed, better, 0.0)
        if fraction:
            candidates = pool(covariance(log_prob, better), bounds, absolute)
            better = jnp.where(drawn(key, candidates, fraction), 0.0, better)
        done = jnp.minimum(batch.progress / warmup, 1.0) if warmup else 1.0
        rise = 0.5 * (1.0 - jnp.cos(jnp.pi * done))
        return -coef * rise * jnp.mean(better * log_prob)

    return Regularizer(
        "self_imitation",
        loss=loss,
        schedule=schedule,
        coef=0.1,
        source="Qin et al. 2025 (2509.22601)",
        label="adapted: imitates the minibatch, without a buffer",
    )
