"""Count entropy: rare states pay, by their frequency alone."""

import jax.numpy as jnp

from entrob.regularizers.intrinsic._occupancy import bins_of, cells, check_width, frequency, no_bins
from entrob.regularizers.protocol import Regularizer


def count_entropy(width: float = 1.0, schedule=None) -> Regularizer:
    """Add −coef · log d̂(s) to the reward, d̂ the share of the rollout's steps in s.

    Its mean is the entropy of visits and, but for a constant, it is that entropy's gradient, which
    Hazan et al. 2019 give a planner as the reward. It has no geometry: a rare state pays the same
    wherever it lies.

    Faithful on grids. Adapted elsewhere, and for recurrent policies, whose rollouts have no table
    of states: s is a bin of the entropy features, `width` standard deviations of the first rollout
    wide; degenerate with many features, where each step has a bin of its own and all earn
    log(T · N). Discrete and continuous actions alike: actions do not enter.

    Args:
      width: of the bins, positive; grids have none.
      schedule: multiplies the coefficient.

    Raises:
      EntrobError: width is not positive.
    """
    check_width("count_entropy", width)

    def reward(key, state, rollout, coef):
        bins = bins_of(state, rollout)
        return -coef * jnp.log(frequency(*cells(rollout, bins, width))), bins

    return Regularizer(
        "count_entropy",
        init=no_bins,
        reward=reward,
        schedule=schedule,
        coef=0.001,
        source="Hazan et al. 2019 (1812.02690)",
        evidence="secondary",
        label="adapted: bins of features where states are not finite",
    )
