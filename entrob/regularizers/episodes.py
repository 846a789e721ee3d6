"""Episodes inside a rollout [T, N]: a piece is what lies there between two ends of episodes.

The first piece of a column may have begun before the rollout, the last one may end after it.
"""

import jax
import jax.numpy as jnp

from entrob.regularizers.protocol import Rollout


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
