"""Linear systems, one at a time by LAPACK, in batches by elimination of our own.

jaxlib hands a batch of matrices to LAPACK on several threads and waits for them; with two devices
on two cores the waiting take all threads there are, and nothing moves again (jaxlib 0.10).
"""

import jax
import jax.numpy as jnp


@jax.custom_batching.custom_vmap
def solve(A: jax.Array, b: jax.Array) -> jax.Array:
    """x with A x = b: float64[S].

    In a batch there is no pivoting: A must be diagonally dominant, as I - γP, or symmetric and
    positive definite, so that elimination is stable without.

    Args:
      A: float64[S, S].
      b: float64[S].
    """
    return jnp.linalg.solve(A, b)


@solve.def_vmap
def _solve_batch(size: int, batched: tuple[bool, bool], A: jax.Array, b: jax.Array):
    # The batch runs along the last axis, where a processor's vectors do.
    A = jnp.moveaxis(A, 0, -1) if batched[0] else A[..., None]
    b = jnp.moveaxis(b, 0, -1) if batched[1] else b[..., None]
    states = A.shape[0]
    A, b = (jnp.broadcast_to(x, (*x.shape[:-1], size)) for x in (A, b))
    table = jnp.concatenate([A, b[:, None]], 1)

    def eliminate(k, table):
        row = table[k] / table[k, k]
        factor = table[:, k].at[k].set(0.0)
        return (table - factor[:, None] * row).at[k].set(row)

    table = jax.lax.fori_loop(0, states, eliminate, table)
    return jnp.moveaxis(table[:, -1], -1, 0), True
