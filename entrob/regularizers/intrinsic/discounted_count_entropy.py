"""Discounted count entropy: states that are rare early in episodes pay."""

import jax.numpy as jnp

from entrob.regularizers.intrinsic._occupancy import bins_of, cells, check_width, frequency, no_bins
from entrob.regularizers.protocol import Regularizer

#: Discounted frequencies below it count as this much.
FLOOR = 1e-8


def discounted_count_entropy(width: float = 1.0, schedule=None) -> Regularizer:
    """Add −coef · log d̂_γ(s) to the reward, d̂_γ(s) ∝ Σ γ^t 1[s_t = s] (Islam et al. 2019).

    t counts steps since the episode began, γ is the agent's. Entropy of the marginal discounted
    state distribution: what is reached late has little weight in it and pays much, up to −log 1e-8.

    Adapted: the source bounds that entropy with a density of latent states it learns, here states
    are counted on grids and bins of the entropy features elsewhere, as in `count_entropy`,
    degenerate with many features as there.
    Discrete and continuous actions alike: actions do not enter.

    Args:
      width: of the bins in standard deviations of the first rollout, positive; grids have none.
      schedule: multiplies the coefficient.

    Raises:
      EntrobError: width is not positive.
    """
    check_width("discounted_count_entropy", width)

    def reward(key, state, rollout, coef):
        bins = bins_of(state, rollout)
        # The earliest step weighs 1: γ^t may underflow where a rollout holds only late ones.
        weight = rollout.context.gamma ** (rollout.time - rollout.time.min())
        share = frequency(*cells(rollout, bins, width), weight)
        return -coef * jnp.log(jnp.maximum(share, FLOOR)), bins

    return Regularizer(
        "discounted_count_entropy",
        init=no_bins,
        reward=reward,
        schedule=schedule,
        coef=0.001,
        source="Islam et al. 2019 (1912.05128)",
        evidence="secondary",
        label="adapted: discounted counts of states or of bins of features",
    )
