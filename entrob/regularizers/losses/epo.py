"""EPO: policy entropy, and a penalty on leaving the band of what entropy used to be."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.protocol import Regularizer


class History(NamedTuple):
    """What entropy used to be, by step of the episode.

    Attributes:
      mean: float32[horizon], mean over the updates whose rollouts came to that step.
      updates: float32[horizon], how many those were.
    """

    mean: jax.Array
    updates: jax.Array


def epo(
    smoothing: float = 1.0,
    penalty: float = 0.1,
    band: tuple[float, float] = (0.8, 1.2),
    horizon: int = 256,
    released: bool = False,
    schedule=None,
) -> Regularizer:
    """Subtract coef · [mean H - c_s · w · mean P_t] from the loss (Xu et al. 2025, EPO).

    P_t is p times the distance of H_t to the band (κ_l H̄[t], κ_r H̄[t]) around H̄[t], what entropy at
    step t of an episode was in past updates; w is `phase_weight`. Entropy rises, but not by leaps:
    exploration neither collapses nor oscillates.

    Adapted: as released P_t is p wherever H_t is outside, which has no gradient: the penalty then
    changes the loss and nothing else. Few actions need no scaling, the band being relative.
    For continuous actions entropy may be negative, so it is counted from the least entropy in the
    minibatch and the history. Degenerate where the spread does not depend on the state.

    Args:
      smoothing: c_s, at least 0.
      penalty: p, at least 0.
      band: κ_l <= 1 <= κ_r.
      horizon: steps of an episode that have a history of their own; later ones share the last.
      released: P_t = p outside the band.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    if smoothing < 0 or penalty < 0 or horizon < 1:
        raise EntrobError("epo: smoothing and penalty must be at least 0, horizon at least 1")
    if not (len(band) == 2 and 0 <= band[0] <= 1 <= band[1]):
        raise EntrobError(f"epo: band must be two factors around 1, not {band}")

    def init(key, spec, params) -> History:
        return History(jnp.zeros(horizon), jnp.zeros(horizon))

    def loss(key, state, policy, batch, coef) -> jax.Array:
        entropy = policy.dist.entropy()
        step = jnp.minimum(batch.time, horizon - 1)
        usual, known = state.mean[step], state.updates[step] > 0
        floor: jax.Array | float = 0.0
        if not hasattr(policy.dist, "logits"):
            least = jnp.minimum(entropy, jnp.where(known, usual, entropy)).min()
            floor = jax.lax.stop_gradient(least)
        low, high = (floor + factor * (usual - floor) for factor in band)
        outside = jnp.maximum(low - entropy, 0.0) + jnp.maximum(entropy - high, 0.0)
        distance = jnp.where(outside > 0, 1.0, 0.0) if released else outside
        cost = jnp.mean(jnp.where(known, penalty * distance, 0.0))
        return -coef * (jnp.mean(entropy) - smoothing * phase_weight(batch.context.progress) * cost)

    def update(key, state, rollout, metrics) -> History:
        step = jnp.minimum(rollout.time, horizon - 1)
        count = jnp.zeros(horizon).at[step].add(1.0)
        mean = jnp.zeros(horizon).at[step].add(rollout.dist.entropy()) / jnp.maximum(count, 1.0)
        updates = state.updates + (count > 0)
        moved = (mean - state.mean) / jnp.maximum(updates, 1.0)
        return History(state.mean + jnp.where(count > 0, moved, 0.0), updates)

    return Regularizer(
        "epo",
        init=init,
        loss=loss,
        update=update,
        schedule=schedule,
        coef=1e-3,
        source="Xu et al. 2025 (arXiv 2509.22576)",
        evidence="code",
        label=("faithful, as released" if released else "adapted: a penalty that has a gradient")
        + "; continuous entropy is counted from its least",
    )


def phase_weight(progress: jax.Array) -> jax.Array:
    """w: 1 - 0.2 (1 - e^{-2x}) in the first half of training, 0.8 e^{-3x} in the second.

    Args:
      progress: float32[], fraction of training done; x is the fraction of that half.
    """
    x = 2 * progress - (progress >= 0.5)
    late = 0.8 * jnp.exp(-3 * x)
    return jnp.where(progress < 0.5, 1 - 0.2 * (1 - jnp.exp(-2 * x)), late)
