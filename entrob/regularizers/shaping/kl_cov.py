"""KL-Cov: hold back the steps that would lower entropy most."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.protocol import Regularizer
from entrob.regularizers.shaping.covariance import covariance


def kl_cov(share: float = 0.002, clipped: bool = False, schedule=None) -> Regularizer:
    """Add coef · mean 1[top share of c] |log π - log π_b| to the loss (2505.22617).

    c = (A - mean A)(log π - mean log π); the mean is over the whole minibatch, and at least one
    step is penalized. Likely actions with a large advantage may move less, so entropy falls more
    slowly.

    Faithful for discrete actions, and for continuous ones, where π is a density. As in the
    released code ρA is not clipped anywhere, from the smallest coefficient on. Degenerate with one
    epoch and one minibatch (A2C): π = π_b, where the penalty has no gradient. A minibatch of
    fewer than 500 steps holds one penalized step at the paper's share, a larger share than its.

    Args:
      share: of the steps that are penalized, in (0, 1].
      clipped: keep PPO's clip.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: the share is out of its range.
    """
    if not 0 < share <= 1:
        raise EntrobError(f"kl_cov: share must be in (0, 1], not {share!r}")

    def surrogate(key, state, policy, batch, coef):
        unlimited = jnp.full_like(batch.reward, jnp.inf)
        return jnp.ones_like(batch.reward), unlimited, unlimited

    def loss(key, state, policy, batch, coef) -> jax.Array:
        log_prob = policy.dist.log_prob(batch.action)
        count = max(1, int(share * log_prob.size))
        share_of = jnp.where(batch.executed, covariance(log_prob, batch.advantage), -jnp.inf)
        _, top = jax.lax.top_k(share_of, count)
        return coef * jnp.sum(jnp.abs(log_prob - batch.log_prob)[top]) / log_prob.size

    return Regularizer(
        "kl_cov",
        surrogate=None if clipped else surrogate,
        loss=loss,
        schedule=schedule,
        coef=1.0,
        source="Cui et al. 2025 (2505.22617)",
        label="adapted: ρA stays clipped" if clipped else "faithful; degenerate in A2C",
    )
