"""State-action entropy: what is rarely done where pays."""

import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.estimators.knn import knn_surprisal
from entrob.estimators.moments import Moments
from entrob.regularizers.intrinsic._occupancy import bins_of, cells, check_width, frequency, no_bins
from entrob.regularizers.protocol import Regularizer
from entrob.rollout import Rollout

#: Distances below it count as this much, in standard deviations.
FLOOR = 1e-3


def state_action_entropy(width: float = 1.0, k: int = 3, schedule=None) -> Regularizer:
    """Add −coef · log ρ̂(s, a) to the reward, ρ̂ the occupancy of state and action (the paper).

    The sum of state and policy entropy, earned as a reward: spreads visits and keeps actions apart.

    Discrete actions: faithful on grids, by counts of the rollout; elsewhere bins of the entropy
    features as in `count_entropy`, degenerate with many features. Continuous actions: adapted, ρ̂
    is the density of features and executed action, both in standard deviations of the rollout, by
    the k-th nearest other step. It grows with their number of dimensions and may be negative.

    Args:
      width: of the bins in standard deviations of the first rollout, positive; discrete actions.
      k: neighbor, at least 1; continuous actions.
      schedule: multiplies the coefficient.

    Raises:
      EntrobError: an option is out of its range.
    """
    check_width("state_action_entropy", width)
    if k < 1:
        raise EntrobError("state_action_entropy: k must be at least 1")

    def reward(key, state, rollout, coef):
        bins = bins_of(state, rollout)
        if jnp.issubdtype(rollout.action.dtype, jnp.floating):
            return coef * _surprisal(rollout, k), bins
        cell, size = cells(rollout, bins, width)
        actions = rollout.dist.logits.shape[-1]
        share = frequency(cell * actions + rollout.action, size * actions)
        return -coef * jnp.log(share), bins

    return Regularizer(
        "state_action_entropy",
        init=no_bins,
        reward=reward,
        schedule=schedule,
        coef=0.001,
        source="Ashlag et al. 2025 (NeurIPS)",
        evidence="paper",
        label="adapted: bins of features, or a neighbor density where actions are continuous",
    )


def _surprisal(rollout: Rollout, k: int):
    """−log of the density of each step's features and action: float32[T, N]."""
    parts = rollout.features, rollout.dist.execute(rollout.action)
    x = jnp.concatenate(parts, -1).reshape(rollout.reward.size, -1)
    moments = Moments.empty(x.shape[1:]).add(x)
    x = (x - moments.mean) / moments.std
    return knn_surprisal(x, k, FLOOR).reshape(rollout.reward.shape)
