"""Episodes inside a rollout [T, N]: a piece is what lies there between two ends of episodes.

The first piece of a column may have begun before the rollout, the last one may end after it.
"""

import jax
import jax.numpy as jnp

from entrob.rollout import Rollout


def ended(rollout: Rollout) -> jax.Array:
    """bool[T, N]: whether an episode ended with the step, by termination or truncation."""
    return rollout.terminated | rollout.truncated


def piece_of(rollout: Rollout) -> jax.Array:
    """int32[T, N], the number of each step's piece, in 0..T·N - 1; not all numbers are taken."""
    done = ended(rollout).astype(jnp.int32)
    steps, envs = done.shape
    return jnp.cumsum(done, 0) - done + steps * jnp.arange(envs)


def sum_by_piece(x: jax.Array, piece: jax.Array) -> jax.Array:
    """float32[T·N], the sums of float32[T, N] over each piece; 0 for numbers not taken."""
    return jax.ops.segment_sum(x.ravel(), piece.ravel(), num_segments=x.size)


def group_quantile(x: jax.Array, group: jax.Array, q: float, groups: int) -> jax.Array:
    """The q-quantile within each group of steps, interpolated linearly as in `numpy.quantile`.

    Args:
      x: float32[...].
      group: int32[...], from 0 to groups - 1.
      q: in [0, 1].
      groups: how many groups there are; those without steps get numbers that mean nothing.

    Returns:
      float32[groups].
    """
    x, group = x.reshape(-1), group.reshape(-1)
    ordered = x[jnp.lexsort((x, group))]
    count = jax.ops.segment_sum(jnp.ones_like(group), group, num_segments=groups)
    first = jnp.cumsum(count) - count
    place = q * jnp.maximum(count - 1, 0)
    # A step that is itself the quantile must not fall short of it by rounding.
    low = jnp.floor(place + 1e-4).astype(jnp.int32)
    share = jnp.maximum(place - low, 0.0)
    high = jnp.minimum(low + 1, jnp.maximum(count - 1, 0))
    low, high = (ordered[jnp.minimum(first + i, x.size - 1)] for i in (low, high))
    return low + share * (high - low)
