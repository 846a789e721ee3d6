"""How much a step's own update lowers entropy: its share of Cov(log π, A) (Cui et al. 2025)."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError


def check_pool(name: str, bounds: tuple[float, float], absolute: bool) -> None:
    """Raise `EntrobError` unless `pool` can use these bounds; `name` is the regularizer's."""
    low, high = bounds
    if not low < high:
        raise EntrobError(f"{name}: bounds must rise, not {bounds!r}")
    if not absolute and not 0 <= low < high <= 1:
        raise EntrobError(f"{name}: bounds that are quantiles must be in [0, 1], not {bounds!r}")


def covariance(log_prob: jax.Array, advantage: jax.Array) -> jax.Array:
    """(A - mean A)(log π - mean log π) of each of B steps, without gradient: float32[B]."""
    parts = (advantage - advantage.mean()) * (log_prob - log_prob.mean())
    return jax.lax.stop_gradient(parts)


def pool(cov: jax.Array, bounds: tuple[float, float], absolute: bool) -> jax.Array:
    """bool[B]: which covariances float32[B] are within bounds, absolute ones or quantiles."""
    low, high = bounds if absolute else jnp.quantile(cov, jnp.array(bounds))
    return (cov > low) & (cov <= high)


def drawn(key: jax.Array, eligible: jax.Array, fraction: jax.Array | float) -> jax.Array:
    """bool[B]: max(1, ⌊fraction · B⌋) of the eligible steps at random, or all if there are fewer.

    Args:
      key: PRNG key.
      eligible: bool[B].
      fraction: float32[], of all B steps.
    """
    lot = jnp.where(eligible, jax.random.uniform(key, eligible.shape), jnp.inf)
    rank = jnp.argsort(jnp.argsort(lot))
    return eligible & (rank < count_of(fraction, eligible.size))


def count_of(fraction: jax.Array | float, steps: int) -> jax.Array:
    """max(1, ⌊fraction · steps⌋): float32[]. `entrob.regularizers.domain.steps_of` is the same."""
    return jnp.maximum(1.0, jnp.floor(fraction * steps))
