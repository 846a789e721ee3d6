"""KL-Cov: hold back the steps that would lower entropy most."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.domain import BELOW_ONE, steps_of
from entrob.regularizers.protocol import Regularizer
from entrob.regularizers.shaping._covariance import count_of, covariance


def kl_cov(weight: float = 1.0, clipped: bool = True, schedule=None) -> Regularizer:
    """Add κ · mean 1[top of c] |log π - log π_b| to the loss (2505.22617).

    c = (A - mean A)(log π - mean log π); the mean is over the whole minibatch, of which the
    max(1, ⌊coef · B⌋) steps with the largest c are penalized. Likely actions with a large advantage
    may move less, so entropy falls more slowly.

    coef is the share k of steps that are penalized, 0.002 in the paper, which of a minibatch of
    512 would be one step whatever κ is.

    Adapted: PPO's clip stays, so that few penalized steps are nearly `none`; the released code
    clips ρA nowhere, from the smallest share on. Continuous actions: π is a density. Degenerate
    with one epoch and one minibatch (A2C): π = π_b, where the penalty has no gradient; nor has it
    one in PPO's first minibatch.

    Args:
      weight: κ, above 0.
      clipped: keep PPO's clip; the release does not.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: the weight is not above 0.
    """
    if not weight > 0:
        raise EntrobError(f"kl_cov: weight must be above 0, not {weight!r}")

    def surrogate(key, state, policy, batch, coef):
        unlimited = jnp.full_like(batch.reward, jnp.inf)
        return jnp.ones_like(batch.reward), unlimited, unlimited

    def loss(key, state, policy, batch, coef) -> jax.Array:
        log_prob = policy.dist.log_prob(batch.action)
        cov = jnp.where(batch.executed, covariance(log_prob, batch.advantage), -jnp.inf)
        rank = jnp.argsort(jnp.argsort(-cov))
        top = batch.executed & (rank < count_of(coef, log_prob.size))
        return weight * jnp.mean(jnp.where(top, jnp.abs(log_prob - batch.log_prob), 0.0))

    return Regularizer(
        "kl_cov",
        surrogate=None if clipped else surrogate,
        loss=loss,
        schedule=schedule,
        coef=0.02,
        domain=BELOW_ONE,
        distinct=steps_of,
        source="Cui et al. 2025 (2505.22617)",
        evidence="code",
        label=("adapted: ρA stays clipped" if clipped else "faithful") + "; degenerate in A2C",
    )
