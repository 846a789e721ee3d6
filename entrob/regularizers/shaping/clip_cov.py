"""Clip-Cov: no gradient from a few of the steps that would lower entropy most."""

import jax
import jax.numpy as jnp

from entrob.regularizers.domain import BELOW_ONE, steps_of
from entrob.regularizers.protocol import Regularizer
from entrob.regularizers.shaping._covariance import check_pool, covariance, drawn, pool


def clip_cov(
    bounds: tuple[float, float] = (0.9, 1.0), absolute: bool = False, schedule=None
) -> Regularizer:
    """Zero the policy loss of max(1, ⌊coef · B⌋) random steps of high covariance (2505.22617).

    Candidates have a covariance c = (A - mean A)(log π - mean log π) within bounds and are not
    clipped already. Likely actions with a large advantage make entropy collapse; that a few of
    them do not count slows it down. The rest of the loss is untouched.

    coef is a fraction of the minibatch, at least one step while it is not 0. It is below the share
    of steps between bounds that are quantiles: there are no more.

    Adapted: the paper's bounds, absolute ones of (1, 5) with a fraction of 2e-4, fit large
    vocabularies. By default bounds are quantiles of c, for few actions and for densities, whose
    logarithm has no fixed scale; `absolute` is faithful where advantages are standardized, as in
    PPO. With one epoch and one minibatch (A2C)
    nothing is clipped already.

    Args:
      bounds: of c, rising: the lower one excluded, the upper one included.
      absolute: bounds are values of c instead of quantiles in [0, 1].
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    check_pool("clip_cov", bounds, absolute)

    def surrogate(key, state, policy, batch, coef):
        log_prob = jax.lax.stop_gradient(policy.dist.log_prob(batch.action))
        ratio = jnp.exp(log_prob - batch.log_prob)
        within = jnp.clip(ratio, 1.0 - batch.clip_low, 1.0 + batch.clip_high)
        already = within * batch.advantage < ratio * batch.advantage
        candidates = pool(covariance(log_prob, batch.advantage), bounds, absolute)
        candidates = candidates & batch.executed & ~already
        weight = jnp.where(drawn(key, candidates, coef), 0.0, 1.0)
        return weight, batch.clip_low, batch.clip_high

    return Regularizer(
        "clip_cov",
        surrogate=surrogate,
        schedule=schedule,
        coef=0.01,
        domain=BELOW_ONE if absolute else (0.0, bounds[1] - bounds[0]),
        distinct=steps_of,
        source="Cui et al. 2025 (2505.22617)",
        evidence="code",
        label="faithful" if absolute else "adapted: bounds are quantiles of the covariance",
    )
