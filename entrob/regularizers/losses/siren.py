"""SIREN: keep the entropy of the uncertain steps where it was at the beginning."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers import episodes
from entrob.regularizers.losses import _subset as subset
from entrob.regularizers.protocol import Regularizer
from entrob.rollout import Rollout


class Anchor(NamedTuple):
    """The entropy to be kept.

    Attributes:
      entropy: float32[], H̃ of the first rollout.
      known: bool[], whether there was one.
    """

    entropy: jax.Array
    known: jax.Array


def siren(
    nucleus: float = 0.8,
    quantile: float = 0.8,
    released: bool = False,
    schedule=None,
) -> Regularizer:
    """Add coef · (H̃ - H*)² to the loss, H* being H̃ at the first update (Jiang et al. 2025, SIREN).

    H̃ is the entropy within the nucleus, the most likely actions with mass p, renormalized, of the
    steps above the quantile of their episode: mean per episode, then over episodes. It neither lets
    entropy collapse nor pays for more of it.

    Adapted: episodes are the pieces in the rollout, the steps are chosen by the policy that acted,
    and a minibatch's H̃ is that of its chosen steps. As released the nucleus lacks the action
    that crosses p: with few actions it is empty wherever one has more than p, and H̃ is 0 there.
    Continuous actions have no nucleus: it is their whole entropy. Degenerate (every step is chosen)
    where the entropy does not depend on the state.

    Args:
      nucleus: p in (0, 1].
      quantile: of the entropies of an episode, in [0, 1].
      released: leave the crossing action out of the nucleus.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    if not (0 < nucleus <= 1 and 0 <= quantile <= 1):
        raise EntrobError("siren: nucleus must be in (0, 1] and quantile in [0, 1]")

    def entropy(dist) -> jax.Array:
        if not hasattr(dist, "logits"):
            return dist.entropy()
        log_probs = dist.log_probs
        keep = subset.nucleus(jax.lax.stop_gradient(log_probs), nucleus, crossing=not released)
        return subset.entropy(log_probs, keep)

    def shares(rollout: Rollout):
        """(H float32[T, N], each step's share in H̃ float32[T, N])."""
        value, piece = entropy(rollout.dist), episodes.piece_of(rollout)
        bound = episodes.group_quantile(value, piece, quantile, value.size)[piece]
        chosen = (value >= bound).astype(value.dtype)
        count = episodes.sum_by_piece(chosen, piece)
        return value, chosen / count[piece] / jnp.sum(count > 0)

    def init(key, spec, params) -> Anchor:
        return Anchor(jnp.zeros(()), jnp.zeros((), bool))

    def anchored(state, value, share) -> Anchor:
        now = jnp.sum(share * value)
        return Anchor(jnp.where(state.known, state.entropy, now), jnp.ones((), bool))

    def prepare(state, rollout, coef):
        value, share = shares(rollout)
        target = anchored(state, value, share).entropy
        return {"share": share, "target": jnp.full_like(share, target)}

    def loss(key, state, policy, batch, coef) -> jax.Array:
        share, target = batch.notes["share"], batch.notes["target"][0]
        total = share.sum()
        mean = jnp.sum(share * entropy(policy.dist)) / jnp.where(total > 0, total, 1.0)
        return coef * jnp.where(total > 0, (mean - target) ** 2, 0.0)

    def update(key, state, rollout, metrics) -> Anchor:
        return anchored(state, *shares(rollout))

    return Regularizer(
        "siren",
        init=init,
        prepare=prepare,
        loss=loss,
        update=update,
        schedule=schedule,
        coef=0.005,
        source="Jiang et al. 2025 (arXiv 2509.25133)",
        evidence="code",
        label="adapted: pieces of episodes, steps chosen by the policy that acted",
    )
