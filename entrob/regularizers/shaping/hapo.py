"""HAPO: temperature, clip range and advantage by a step's place among entropies."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.domain import MIXTURE
from entrob.regularizers.protocol import Regularizer

#: The least entropy share whose logarithm is told apart, and the least spread of logarithms.
FLOOR, LEAST = 1e-6, 1e-4


class Scale(NamedTuple):
    """Where a rollout's logarithms of entropy lie.

    Attributes:
      center: float32[], their quantile.
      above, below: float32[], distances from it to the greatest and the least.
    """

    center: jax.Array
    above: jax.Array
    below: jax.Array


def _log_entropy(dist):
    return jnp.log(jnp.maximum(dist.entropy_share(), FLOOR))


def _scale_of(dist, quantile: float) -> Scale:
    u = _log_entropy(dist)
    center = jnp.quantile(u, quantile)
    far = lambda distance: jnp.maximum(distance, LEAST)
    return Scale(center, far(u.max() - center), far(center - u.min()))


def _place(dist, scale: Scale):
    """ĥ in [-1, 1]: 0 at the center, 1 at the greatest entropy, -1 at the least."""
    u = _log_entropy(dist) - scale.center
    return jnp.clip(u / jnp.where(u > 0, scale.above, scale.below), -1.0, 1.0)


def hapo(quantile: float = 0.8, heat: float = 0.05, schedule=None) -> Regularizer:
    """Sample at T = 1 + 0.05 h, clip at ε (1 + |h|), weigh by 1 + h; h = coef · ĥ (2509.16591).

    ĥ is the place of u = log H between its least value (-1), its 0.8-quantile (0) and its greatest
    (1); the division by a root mean square that defines it cancels. Where ĥ > 0 the upper clip
    range is ε_high (1 + h), else the lower one is ε_low (1 - h). The advantage is multiplied by
    1 + h where ĥ > 0 and the ratio is beyond half of these ranges, or ĥ ≤ 0 and it is within.
    Unsure steps explore and move more, sure ones less.

    coef scales ĥ, 1 is the paper's and the most at which no weight would be negative.

    Adapted: H is taken as H / log A, or as the entropy share of a continuous policy (see
    `TanhNormal.entropy_share`), which cannot be negative; ε is the agent's clip. As in the release
    steps are placed within their minibatch, and for sampling within the rollout before (none yet:
    T = 1). The release divides ĥ ≤ 0 by the negative minimum, which turns its sign; ours keeps it.
    Degenerate where entropy hardly depends on the state. In A2C, which knows no ratio, temperatures
    are not corrected for, and all steps with ĥ ≤ 0 lose weight.

    Args:
      quantile: of u that ĥ = 0 stands for, in (0, 1).
      heat: share by which the temperature moves, in [0, 1).
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    if not (0 < quantile < 1 and 0 <= heat < 1):
        raise EntrobError("hapo: quantile must be in (0, 1) and heat in [0, 1)")

    def init(key, spec, params) -> Scale:
        # So far away that every entropy is at the center.
        return Scale(jnp.zeros(()), jnp.float32(jnp.inf), jnp.float32(jnp.inf))

    def behavior(state, dist, coef):
        return dist.tempered(1.0 + heat * coef * _place(dist, state))

    def surrogate(key, state, policy, batch, coef):
        dist = jax.lax.stop_gradient(policy.dist)
        ratio = jnp.exp(dist.log_prob(batch.action) - batch.log_prob)
        place = _place(dist, _scale_of(dist, quantile))
        unsure, h = place > 0, coef * place
        low = jnp.where(unsure, batch.clip_low, batch.clip_low * (1.0 - h))
        high = jnp.where(unsure, batch.clip_high * (1.0 + h), batch.clip_high)
        inside = (ratio > 1.0 - low / 2) & (ratio < 1.0 + high / 2)
        return jnp.where(inside ^ unsure, 1.0 + h, 1.0), low, high

    def update(key, state, rollout, metrics) -> Scale:
        return _scale_of(rollout.dist, quantile)

    return Regularizer(
        "hapo",
        init=init,
        behavior=behavior,
        surrogate=surrogate,
        update=update,
        schedule=schedule,
        coef=1.0,
        domain=MIXTURE,
        source="Liu et al. 2025 (2509.16591)",
        evidence="code",
        label="adapted: entropy as a share of its maximum",
    )
