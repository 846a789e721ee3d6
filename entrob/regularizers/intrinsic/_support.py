"""What a rollout visited: distinct points, each with how often it occurs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.rollout import Rollout


class Support(NamedTuple):
    """What a rollout visited.

    Attributes:
      points: float32[V, q], flat observations or entropy features.
      counts: float32[V], how many of the rollout's steps stand at each.
      index: int32[T, N], the point of each step.
    """

    points: jax.Array
    counts: jax.Array
    index: jax.Array  # type: ignore[assignment]  # hides tuple.index


def support(rollout: Rollout, field: str) -> Support:
    """The table of a finite environment if it is shorter than the rollout, else the steps.

    Args:
      rollout: T steps of N environments.
      field: ``"observations"`` or ``"features"``.
    """
    shape, size, finite = rollout.reward.shape, rollout.reward.size, rollout.context.finite
    if finite is not None and rollout.index is not None:
        table = getattr(finite, field)
        index = finite.view[rollout.index] if field == "observations" else rollout.index
        if len(table) <= size:
            return Support(_flat(table), jnp.zeros(len(table)).at[index].add(1.0), index)
    points = rollout.obs if field == "observations" else rollout.features
    steps = jnp.arange(size).reshape(shape)
    return Support(_flat(points.reshape(size, *points.shape[2:])), jnp.ones(size), steps)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1).astype(jnp.float32)
