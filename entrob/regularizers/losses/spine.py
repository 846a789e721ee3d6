"""SPINE: learn at the uncertain steps only, and keep their entropy within a band."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers import episodes
from entrob.regularizers.domain import MIXTURE
from entrob.regularizers.losses import _reference as references
from entrob.regularizers.protocol import Regularizer


def spine(
    share: float = 0.2,
    band: tuple[float, float] = (0.1, 0.5),
    pull: float = 0.1,
    schedule=None,
) -> Regularizer:
    """Policy loss on forking steps only, + pull · mean(KL + band) there (Wu et al. 2025, SPINE).

    Forking steps are those whose entropy is in the top share of their episode; the band is
    [H - q_high]_+ + [q_low - H]_+ and KL is that to the initial policy. The policy learns where it
    has a choice, and there it neither collapses nor becomes noise.

    coef mixes that with the plain agent: steps that are not chosen weigh 1 - coef, chosen ones
    1 + coef (1 / share of the chosen - 1), and KL and band coef · pull. 1 is SPINE, 0 is none, with
    all between; no weights of KL and band are published.

    Adapted: episodes are the pieces in the rollout; the steps are chosen,
    and q_low and q_high are quantiles over all chosen ones, by the policy that acted (over whole
    episodes every chosen step would lie above the middle); the losses are means over the chosen
    steps. Faithful for discrete and continuous actions otherwise, few included, as nothing depends
    on entropy's scale. Degenerate (every step is chosen) where it does not depend on the state; and
    KL is policy entropy where the initial policy is nearly uniform.

    Args:
      share: of an episode's steps that are chosen, in (0, 1].
      band: quantiles q_low <= q_high, in [0, 1].
      pull: weight of KL and band, at least 0.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    if not (0 < share <= 1 and len(band) == 2 and 0 <= band[0] <= band[1] <= 1 and pull >= 0):
        raise EntrobError(
            "spine: share must be in (0, 1], band two quantiles in order and pull at least 0"
        )

    def init(key, spec, params):
        return params

    def prepare(state, rollout, coef):
        entropy, piece = rollout.dist.entropy(), episodes.piece_of(rollout)
        bound = episodes.group_quantile(entropy, piece, 1 - share, entropy.size)[piece]
        chosen = entropy >= bound
        group = jnp.where(chosen, 0, 1)
        low, high = (episodes.group_quantile(entropy, group, q, 2)[0] for q in band)
        return {"chosen": chosen, "low": 0 * entropy + low, "high": 0 * entropy + high}

    def weights(notes) -> jax.Array:
        """float32[B], of mean 1 over the minibatch, 0 where a step is not chosen."""
        chosen = notes["chosen"].astype(jnp.float32)
        return chosen / jnp.maximum(chosen.mean(), 1 / chosen.size)

    def surrogate(key, state, policy, batch, coef):
        weight = 1.0 + coef * (weights(batch.notes) - 1.0)
        return weight, batch.clip_low, batch.clip_high

    def loss(key, state, policy, batch, coef) -> jax.Array:
        entropy = policy.dist.entropy()
        above = jnp.maximum(entropy - batch.notes["high"], 0.0)
        below = jnp.maximum(batch.notes["low"] - entropy, 0.0)
        distance = policy.dist.kl(references.initial(state, policy, batch))
        return coef * pull * jnp.mean(weights(batch.notes) * (distance + above + below))

    return Regularizer(
        "spine",
        init=init,
        prepare=prepare,
        surrogate=surrogate,
        loss=loss,
        schedule=schedule,
        coef=0.5,
        domain=MIXTURE,
        source="Wu et al. 2025 (arXiv 2511.17938)",
        evidence="secondary",
        label="adapted: pieces of episodes, band of the chosen steps' own quantiles; mixture",
    )
