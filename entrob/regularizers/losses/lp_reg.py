"""Lp-Reg: protect rare actions that are not noise from being unlearned."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.losses import _subset as subset
from entrob.regularizers.protocol import Regularizer


def lp_reg(threshold: float = 0.1, share: float = 0.1, schedule=None) -> Regularizer:
    """Add coef · (e^d - d - 1), d = log π̃ - log π, at rare bad actions (Huang et al. 2025, Lp-Reg).

    π̃ is the acting policy without its noise: actions below κ times the most likely one's
    probability are dropped, the others renormalized. Of the steps with a negative advantage whose
    action is no noise, not the most likely one, and has π < π̃, those with the lowest π are
    protected, max(1, ⌊share · steps of negative advantage⌋) by count; their policy loss -ρA is not
    clipped. Rare but sensible actions survive a few bad outcomes.

    π_b is the policy before another regularizer's `behavior`; only actions it took itself count.

    Adapted to few actions. The release takes the lowest 0.5 to 1 % of the steps of negative
    advantage, then those with π < π̃ among them (none if that is a single step): with few actions
    these are all noise, so here noise is left out before counting, and a minibatch of hundreds of
    steps gets a tenth. κ is 0.1 where a vocabulary of words takes 0.02, since no action among a few
    is that rare. Steps with equal π are told apart by their place, not all taken in, and the most
    likely action is never protected: neither can happen in the release's vocabulary. Degenerate
    while no action is noise: π̃ is then π_b, and only later minibatches, where π has moved, have
    anything to protect; of two actions the rarer one is either noise or all that is left, so too.
    Needs discrete actions.

    Args:
      threshold: κ, in [0, 1).
      share: of the steps with negative advantage, in (0, 1].
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range, or actions are continuous.
    """
    if not (0 <= threshold < 1 and 0 < share <= 1):
        raise EntrobError("lp_reg: threshold must be in [0, 1) and share in (0, 1]")

    def protected(policy, batch):
        """(bool[B], d float32[B]) of the actions taken."""
        behavior = subset.log_probs_of("lp_reg", batch.dist)
        keep = behavior >= behavior.max(-1, keepdims=True) + jnp.log(threshold)
        own = lambda x: jnp.take_along_axis(x, batch.action[..., None], -1)[..., 0]
        proxy = own(subset.renormalize(behavior, keep))
        log_prob = policy.dist.log_prob(batch.action)
        fixed = jax.lax.stop_gradient(log_prob)
        bad = (batch.advantage < 0) & batch.executed
        below = (own(behavior) < behavior.max(-1)) & (fixed < _highest(policy.dist))
        eligible = bad & below & (fixed < proxy)
        count = jnp.maximum(1.0, jnp.floor(share * bad.sum()))
        where = eligible & (_rank(jnp.where(eligible, fixed, jnp.inf)) < count)
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
        evidence="code",
        actions=("discrete",),
        label="adapted: threshold and share for few actions, noise and the most likely action left "
        "out; discrete actions only; degenerate with two actions, where only π's moves are undone",
    )


def _highest(dist) -> jax.Array:
    """max log π, float32[B], without gradient."""
    return jax.lax.stop_gradient(dist.log_probs.max(-1))


def _rank(x: jax.Array) -> jax.Array:
    """Place of each entry in rising order, of equal ones the first first: int32[B]."""
    return jnp.argsort(jnp.argsort(x))
