"""How often a rollout was where: counts of states, or of bins of their entropy features."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.estimators.moments import Moments
from entrob.regularizers.intrinsic._perceptron import feature_size
from entrob.rollout import Rollout


def check_width(name: str, width: float) -> None:
    """Raise `EntrobError` unless the width of bins is positive."""
    if not width > 0:
        raise EntrobError(f"{name}: width must be positive")


def no_bins(key: jax.Array, spec, params) -> Moments:
    """The state of a regularizer that counts, before the first rollout."""
    return Moments.empty((feature_size(spec),))


def bins_of(moments: Moments, rollout: Rollout) -> Moments:
    """Mean and spread of the features of the first rollout, which fix the bins from then on."""
    first = moments.add(rollout.features)
    return jax.tree.map(lambda old, new: jnp.where(moments.count > 0, old, new), moments, first)


def cells(rollout: Rollout, moments: Moments, width: float) -> tuple[jax.Array, int]:
    """Which cell each step is in, and a bound on their number: ``(int32[T, N], S)``.

    A cell is a state where the environment is finite; else a box of the entropy features, `width`
    standard deviations of the first rollout wide in each.
    """
    if rollout.context.finite is not None and rollout.index is not None:
        return rollout.index, len(rollout.context.finite.features)
    size = rollout.reward.size
    where = jnp.floor((rollout.features - moments.mean) / (width * moments.std))
    where = where.reshape(size, -1)
    order = jnp.lexsort(where.T)
    ordered = where[order]
    new = (ordered[1:] != ordered[:-1]).any(-1)
    label = jnp.append(0, jnp.cumsum(new.astype(jnp.int32)))
    return jnp.zeros(size, jnp.int32).at[order].set(label).reshape(rollout.reward.shape), size


def frequency(cell: jax.Array, size: int, weight: jax.Array | float = 1.0) -> jax.Array:
    """Share of the weight that lies in each step's cell: float32[T, N], in (0, 1].

    Args:
      cell: int32[T, N] below `size`.
      size: number of cells.
      weight: float32[T, N] or a number, of each step.
    """
    weight = jnp.broadcast_to(weight, cell.shape)
    return jnp.zeros(size).at[cell].add(weight)[cell] / weight.sum()
