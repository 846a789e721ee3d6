"""Nearest-neighbor distances and entropy between points, exact and bounded in memory."""

import math

import jax
import jax.numpy as jnp

from entrob.estimators.weighted import by_rows

_ROWS = 4096  # points served at a time: bounds the memory at about k × _ROWS × lanes floats
_MANY = 8  # neighbors from which on sorting beats keeping them in order: three times at twelve
_UNROLL = 4  # coordinates added per step: unrolling hundreds is slow to compile and to run


def smallest_distances(x: jax.Array, k: int, exclude_self: bool = False) -> jax.Array:
    """Distances from each point to its k nearest points, ascending.

    Exact, also with ties. Distances come from differences of coordinates: |a|² + |b|² - 2ab would
    lose the digits of small distances between points far from the origin. They are squared in
    float32, so they are accurate between about 1e-18 and 1e18. A coordinate that is NaN or infinite
    makes all results NaN, since every point's neighbors are then in doubt.

    Args:
      x: float32[n, q], q >= 1; other real types are converted.
      k: neighbors, 1 <= k <= n (k < n if the point itself is excluded).
      exclude_self: leave the point itself out; otherwise the first distance is 0.

    Returns:
      float32[n, k].

    Raises:
      ValueError: x has another shape, or k is out of range.
    """
    x = jnp.asarray(x, jnp.float32)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"x must have shape [n, q] with q >= 1, not {list(x.shape)}")
    n, most = x.shape[0], x.shape[0] - exclude_self
    if not 1 <= k <= most:
        raise ValueError(f"k must be in 1..{most} for {n} points, not {k}")
    wanted = k + exclude_self
    # A core is fastest with one column at a time, which keeps all it needs in its cache; an
    # accelerator is slow at many small steps.
    lanes = 1 if jax.default_backend() == "cpu" else 64
    # The point itself is at distance 0, the smallest there is: leaving it out is leaving out the
    # first, whichever of the points that coincide with it that was.
    if wanted > _MANY:
        squared = by_rows(lambda rows: _sorted_squared(x, rows, wanted), n)
    else:
        squared = _smallest_squared(x, wanted, lanes)
    squared = squared[:, int(exclude_self) :]
    return jnp.where(jnp.isfinite(x).all(), jnp.sqrt(squared), jnp.nan)


def _sorted_squared(x: jax.Array, rows: jax.Array, k: int) -> jax.Array:
    """The k smallest squared distances from some of the points: int32[r] -> float32[r, k]."""
    squared = ((x[rows][:, None] - x) ** 2).sum(-1)
    return -jax.lax.top_k(-squared, k)[0]


def _smallest_squared(x: jax.Array, k: int, lanes: int) -> jax.Array:
    """The k smallest squared distances from each point, the point included: float32[n, k].

    All rows run down the columns together, `lanes` columns a step. Each lane keeps its k smallest
    in order: a newcomer passes through k minimum-maximum pairs, and what falls out at the end is
    dropped. That is one pass over memory, where `lax.top_k` on a CPU costs a sort. The lanes are
    merged at the end.
    """
    n, dim = x.shape
    blocks, steps = -(-n // _ROWS), -(-n // lanes)
    rows = -(-n // blocks)
    padded = jnp.pad(x, ((0, blocks * rows - n), (0, 0)))
    padded = padded.reshape(blocks, rows, dim).transpose(0, 2, 1)  # rows run along vector registers
    columns = jnp.pad(x, ((0, steps * lanes - n), (0, 0)), constant_values=jnp.inf)
    columns = columns.reshape(steps, lanes, dim).transpose(0, 2, 1)

    def add_axis(squared, axis):
        here, there = axis
        return squared + (here - there[:, None]) ** 2, None

    def insert(points, smallest, others):
        zero = jnp.zeros((lanes, rows))
        d, _ = jax.lax.scan(add_axis, zero, (points, others), unroll=_UNROLL)
        kept = []
        for m in smallest:
            kept.append(jnp.minimum(m, d))
            d = jnp.maximum(m, d)
        return tuple(kept), None

    def block(points):
        empty = (jnp.full((lanes, rows), jnp.inf),) * k
        smallest, _ = jax.lax.scan(lambda m, c: insert(points, m, c), empty, columns)
        merged = jnp.concatenate(smallest)
        return merged if lanes == 1 else jnp.sort(merged, 0)[:k]

    return jax.lax.map(block, padded).transpose(0, 2, 1).reshape(-1, k)[:n]


def knn_distances(x: jax.Array, k: int, exclude_self: bool = False) -> jax.Array:
    """Distance from each point to its k-th nearest: float32[n, q] -> float32[n].

    The point itself counts as the first, at distance 0, unless `exclude_self`. Errors as in
    `smallest_distances`.
    """
    return smallest_distances(x, k, exclude_self)[:, -1]


def knn_surprisal(x: jax.Array, k: int = 5, floor: float = 0.0) -> jax.Array:
    """−log of the density at each point, in nats: float32[n, q] -> float32[n].

    Singh et al. 2003: log(n · d_i^q · π^{q/2} / (k Γ(q/2 + 1))) + log k - ψ(k), with d_i the
    distance to the k-th nearest of the n - 1 *other* points, at least `floor`.

    Args:
      x: float32[n, q].
      k: neighbors, 1 <= k < n.
      floor: smallest distance; without it a point that others coincide with has -inf.

    Raises:
      ValueError: x has another shape, or k is out of range.
    """
    log_distance = jnp.log(jnp.maximum(knn_distances(x, k, exclude_self=True), floor))
    n, dim = jnp.shape(x)
    log_volume = dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)  # of the unit ball
    digamma = jax.scipy.special.digamma(jnp.float32(k))
    return math.log(n) + dim * log_distance + log_volume - digamma


def knn_entropy(x: jax.Array, k: int = 5) -> jax.Array:
    """Differential entropy of the density that points were drawn from, in nats: float32[].

    The mean of `knn_surprisal` (Singh et al. 2003; the paper, B.1). Kozachenko and Leonenko's
    constant is ψ(n) in place of log n, a difference of 1/(2n). With the point itself as the first,
    its distance would belong to the (k - 1)-th other and the estimate fall by
    ψ(k) - ψ(k - 1) = 1/(k - 1): 0.25 nats at k = 5.

    Where the density varies within the reach of k neighbors the estimate is biased, more so in
    high dimension. Points that coincide more than k times over have no density: the estimate is
    then -inf. Nothing is added to the distances to hide this; for values that repeat, take the
    entropy of their frequencies.

    Args:
      x: float32[n, q].
      k: neighbors, 1 <= k < n.

    Raises:
      ValueError: x has another shape, or k is out of range.
    """
    return knn_surprisal(x, k).mean()
