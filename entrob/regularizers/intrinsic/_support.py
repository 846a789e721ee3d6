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
    """The states of a finite environment if they are fewer than the steps, else the steps.

    Args:
      rollout: T steps of N environments.
      field: ``"observations"`` or ``"features"``.
    """
    shape, size = rollout.reward.shape, rollout.reward.size
    table = None if rollout.context.finite is None else getattr(rollout.context.finite, field)
    if table is not None and rollout.index is not None and len(table) <= size:
        counts = jnp.zeros(len(table)).at[rollout.index].add(1.0)
        return Support(_flat(table), counts, rollout.index)
    points = rollout.obs if field == "observations" else rollout.features
    steps = jnp.arange(size).reshape(shape)
    return Support(_flat(points.reshape(size, *points.shape[2:])), jnp.ones(size), steps)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1).astype(jnp.float32)
