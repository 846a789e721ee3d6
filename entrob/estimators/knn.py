"""Nearest-neighbor distances and entropy between points, exact and bounded in memory."""

import math

import jax
import jax.numpy as jnp

_ROWS, _LANES = 128, 16  # a block of rows × lanes stays in registers and cache


def smallest_distances(x: jax.Array, k: int, exclude_self: bool = False) -> jax.Array:
    """Distances from each point to its k nearest points, ascending.

    Every row runs down all points and keeps the k smallest squared distances seen so far in each
    of several lanes, by k minimum-maximum pairs: exact, also with ties, and without the sort that
    `lax.top_k` is on a CPU. Distances are taken from differences, since |a|² + |b|² - 2ab loses
    the digits of small distances between points far from the origin.

    Args:
      x: float32[n, q].
      k: neighbors, 1 <= k <= n (k < n if the point itself is excluded).
      exclude_self: leave the point itself out; otherwise the first distance is 0.

    Returns:
      float32[n, k].

    Raises:
      ValueError: k is out of range.
    """
    n, dim = x.shape
    if not 1 <= k <= n - exclude_self:
        raise ValueError(f"k must be in 1..{n - exclude_self} for {n} points, not {k}")
    rows = min(_ROWS, n)
    blocks, chunks = -(-n // rows), -(-n // _LANES)
    padded_rows = jnp.pad(x, ((0, blocks * rows - n), (0, 0)))
    columns = jnp.pad(x, ((0, chunks * _LANES - n), (0, 0))).reshape(chunks, _LANES, dim)

    def block(args):
        start, points = args
        ids = start + jnp.arange(rows)

        def insert(smallest, chunk):
            offset, others = chunk
            column = offset + jnp.arange(_LANES)
            d = jnp.zeros((rows, _LANES))
            for axis in range(dim):
                d += (points[:, axis, None] - others[None, :, axis]) ** 2
            excluded = (column >= n)[None] | (exclude_self & (column[None] == ids[:, None]))
            d = jnp.where(excluded, jnp.inf, d)
            kept = []
            for m in smallest:
                kept.append(jnp.minimum(m, d))
                d = jnp.maximum(m, d)
            return tuple(kept), None

        empty = (jnp.full((rows, _LANES), jnp.inf),) * k
        offsets = jnp.arange(chunks) * _LANES
        smallest, _ = jax.lax.scan(insert, empty, (offsets, columns))
        return jnp.sort(jnp.concatenate(smallest, -1), -1)[:, :k]

    starts = jnp.arange(blocks) * rows
    squared = jax.lax.map(block, (starts, padded_rows.reshape(blocks, rows, dim)))
    return jnp.sqrt(squared.reshape(-1, k)[:n])


def knn_distances(x: jax.Array, k: int, exclude_self: bool = False) -> jax.Array:
    """Distance from each point to its k-th nearest: float32[n, q] -> float32[n].

    The point itself counts as the first, at distance 0, unless `exclude_self`. Raises
    `ValueError` if k is out of range.
    """
    return smallest_distances(x, k, exclude_self)[:, -1]


def knn_entropy(x: jax.Array, k: int = 5) -> jax.Array:
    """Differential entropy of the density that points were drawn from, in nats: float32[].

    Singh et al. 2003 (the paper, B.1), the point itself excluded:
    mean_i log(n · d_i^q · π^{q/2} / (k Γ(q/2 + 1))) + log k - ψ(k), d_i the distance to the k-th
    nearest other point. Including the point would bias it by about -0.25 nats at k = 5. Points
    that coincide k times over have no density; the estimate is then -inf.

    Args:
      x: float32[n, q].
      k: neighbors, 1 <= k < n; raises `ValueError` otherwise.
    """
    n, dim = x.shape
    log_volume = dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)
    log_distance = jnp.log(knn_distances(x, k, exclude_self=True))
    digamma = jax.scipy.special.digamma(jnp.float32(k))
    return math.log(n) + dim * log_distance.mean() + log_volume - digamma
