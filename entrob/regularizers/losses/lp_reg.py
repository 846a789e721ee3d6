"""Lp-Reg: protect rare actions that are not noise from being unlearned."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers import episodes
from entrob.regularizers.losses import subset
from entrob.regularizers.protocol import Regularizer


def lp_reg(threshold: float = 0.1, quantile: float = 0.01, schedule=None) -> Regularizer:
    """Add coef · (e^d - d - 1), d = log π̃ - log π, at rare bad actions (Huang et al. 2025, Lp-Reg).

    π̃ is the acting policy without its noise: actions below κ times the most likely one's
    probability are dropped, the others renormalized. A step is protected if its advantage is
    negative, its log π is in the lowest share of such steps, and π < π̃; its policy loss -ρA is not
    clipped. Rare but sensible actions survive a few bad outcomes.

    π_b is the policy before another regularizer's `behavior`; only actions it took itself count.

    Adapted: κ is 0.1 where the paper's vocabulary of words takes 0.02, since no action among a few
    is that rare. Degenerate while no action is: π̃ is then π_b, and only later minibatches, where π
    has moved, have anything to protect. Needs discrete actions.

    Args:
      threshold: κ, in [0, 1).
      quantile: share of the steps with negative advantage, in (0, 1].
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range, or actions are continuous.
    """
    if not (0 <= threshold < 1 and 0 < quantile <= 1):
        raise EntrobError("lp_reg: threshold must be in [0, 1) and quantile in (0, 1]")

    def protected(policy, batch):
        """(bool[B], d float32[B]) of the actions taken."""
        behavior = subset.log_probs_of("lp_reg", batch.dist)
        keep = behavior >= behavior.max(-1, keepdims=True) + jnp.log(threshold)
        own = lambda x: jnp.take_along_axis(x, batch.action[..., None], -1)[..., 0]
        proxy = own(subset.renormalize(behavior, keep))
        log_prob = policy.dist.log_prob(batch.action)
        fixed = jax.lax.stop_gradient(log_prob)
        bad = (batch.advantage < 0) & batch.executed
        bound = episodes.group_quantile(fixed, jnp.where(bad, 0, 1), quantile, 2)[0]
        where = bad & (fixed <= bound) & (fixed < proxy)
        return where, jnp.clip(jnp.where(where, proxy, fixed) - log_prob, -10.0, 10.0)

    def surrogate(key, state, policy, batch, coef):
        where, _ = protected(policy, batch)
        unclipped = lambda bound: jnp.where(where, jnp.inf, bound)
        return jnp.ones_like(batch.reward), unclipped(batch.clip_low), unclipped(batch.clip_high)

    def loss(key, state, policy, batch, coef) -> jax.Array:
        where, d = protected(policy, batch)
        return coef * jnp.mean(jnp.where(where, jnp.exp(d) - d - 1.0, 0.0))

    return Regularizer(
        "lp_reg",
        surrogate=surrogate,
        loss=loss,
        schedule=schedule,
        coef=1.0,
        source="Huang et al. 2025 (arXiv 2510.03222)",
        actions=("discrete",),
        label="adapted: a threshold for few actions; discrete actions only",
    )
