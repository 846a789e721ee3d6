"""APT: distances to many neighbors, averaged inside the logarithm."""

import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.estimators.counting import smallest_from_counts
from entrob.estimators.knn import smallest_distances
from entrob.estimators.moments import Moments
from entrob.regularizers.protocol import Regularizer


def apt(k: int = 12, schedule=None) -> Regularizer:
    """Add coef · log(1 + mean of the k smallest distances) / running mean to the reward (APT).

    Liu & Abbeel 2021. Distances are between entropy features of the rollout's states, the state
    itself included, as the released code has it. Division by the running mean, not the spread,
    makes the average bonus 1 · coef whatever the features' units.

    Adapted: the source learns its features by contrast of augmented images and draws neighbors
    from a replay buffer. Discrete and continuous actions alike: actions do not enter.

    Args:
      k: neighbors, the point itself being the first; at least 2, else all distances are 0.
      schedule: multiplies the coefficient.

    Raises:
      EntrobError: k is below 2.
    """
    if k < 2:
        raise EntrobError("apt: k must be at least 2")

    def reward(key, state, rollout, coef):
        shape, size = rollout.reward.shape, rollout.reward.size
        if (table := rollout.context.finite) is not None:
            counts = jnp.zeros(len(table.features)).at[rollout.index].add(1.0)
            mean = smallest_from_counts(counts, table.neighbors, k)[1][rollout.index]
        else:
            points = rollout.features.reshape(size, -1)
            mean = smallest_distances(points, min(k, size)).mean(-1).reshape(shape)
        raw = jnp.log1p(mean)
        state = state.add(raw)
        return coef * raw / jnp.where(state.mean > 0, state.mean, 1.0), state

    return Regularizer(
        "apt",
        init=lambda key, spec, params: Moments.empty(),
        reward=reward,
        schedule=schedule,
        coef=0.005,
        source="Liu & Abbeel 2021 (2103.04551)",
        evidence="code",
        label="adapted: entropy features instead of learned ones, neighbors within the rollout",
    )
