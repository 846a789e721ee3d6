"""Exact k-nearest-neighbor statistics from counts, for features that take few distinct values.

A batch of n points over S distinct values is a vector of S counts. The k nearest neighbors of a
value are then read off the values sorted by distance, without looking at any pair of points.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_BLOCK = 8  # neighbors looked at before asking whether every value has found its k


class Neighbors(NamedTuple):
    """For each of S values, all values sorted by distance, itself first.

    Attributes:
      order: int32[S, S], row s lists the values from the nearest to the farthest.
      distance: float32[S, S], their Euclidean distances, ascending.
    """

    order: jax.Array
    distance: jax.Array


def neighbors(features: jax.Array) -> Neighbors:
    """Sort the distances between S feature values: float32[S, q] -> `Neighbors`."""
    difference = features[:, None] - features[None]
    distance = jnp.sqrt(jnp.sum(difference**2, -1))
    # Values may coincide; -1 puts each itself before its doubles.
    itself_first = jnp.where(jnp.eye(len(features), dtype=bool), -1.0, distance)
    order = jnp.argsort(itself_first, axis=-1).astype(jnp.int32)
    return Neighbors(order, jnp.take_along_axis(distance, order, -1))


def smallest_from_counts(
    counts: jax.Array,
    near: Neighbors,
    k: int,
    transform: Callable[[jax.Array], jax.Array] = lambda d: d,
) -> tuple[jax.Array, jax.Array]:
    """The k-th smallest distance and the mean of the k smallest, for each value.

    Value j stands for counts[j] points; a value that is present has itself among its neighbors,
    at distance 0. With fewer than k points in all, those there are count.

    Args:
      counts: int32[S] or float32[S], not negative and at most 2^24 in all, where float32 stops
        counting.
      near: the sorted distances.
      k: number of neighbors, at least 1.
      transform: applied to distances before averaging (``jnp.log1p`` gives a mean of logs).

    Returns:
      ``(kth float32[S], mean float32[S])``, the first a distance, the second of transformed ones.
      Values that are absent get the distances to the points found so far, which are finite and
      mean nothing.

    Raises:
      ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    size = counts.shape[0]
    counts = counts.astype(jnp.float32)
    wanted = jnp.minimum(jnp.float32(k), counts.sum())
    pad = ((0, -size % _BLOCK), (0, 0))
    order = jnp.pad(near.order.T, pad, constant_values=size)
    distance = jnp.pad(near.distance.T, pad)
    padded = jnp.append(counts, 0.0)

    def unfinished(carry):
        start, found, _, _ = carry
        return (start < size) & jnp.any((found < wanted) & (counts > 0))

    def look(carry):
        start, found, kth, total = carry
        ids = jax.lax.dynamic_slice_in_dim(order, start, _BLOCK)
        d = jax.lax.dynamic_slice_in_dim(distance, start, _BLOCK)
        here = padded[ids]
        for j in range(_BLOCK):
            taken = jnp.clip(wanted - found, 0.0, here[j])
            kth = jnp.where(taken > 0, d[j], kth)
            total = total + taken * transform(d[j])
            found = found + here[j]
        return start + _BLOCK, found, kth, total

    zero = jnp.zeros(size)
    _, _, kth, total = jax.lax.while_loop(unfinished, look, (jnp.int32(0), zero, zero, zero))
    return kth, total / jnp.maximum(wanted, 1.0)
