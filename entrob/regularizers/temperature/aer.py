"""AER: an entropy bonus that follows a target, and only where success is rare."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.episodes import ended
from entrob.regularizers.protocol import Regularizer

#: Weight of a rollout's success rate among all before it.
NEWEST = 0.1


class Adaptive(NamedTuple):
    """What the bonus has learned.

    Attributes:
      alpha: float32[], its coefficient in units of the regularizer's.
      first: float32[], the first rollout's entropy share, -1 before.
      success: float32[groups], running success rates, 0 at first.
    """

    alpha: jax.Array
    first: jax.Array
    success: jax.Array


def aer(
    share: float = 0.4,
    rate: float = 0.05,
    most: float = 10.0,
    easy: float = 1.0,
    groups: int = 1,
    schedule=None,
) -> Regularizer:
    """Subtract coef · mean α max(0, 1 - g / g*) H from the loss (2510.10959).

    g is the success rate from the step's start, g* the rate above which it needs no exploration.
    After each update α ← clip(α + η (τ H₀ - H), 0, α_max), H the rollout's mean entropy share and
    H₀ the first one's. The bonus holds entropy near a part of what it was at first, and turns
    itself off where the policy succeeds.

    coef is the bonus's coefficient at first, when α = 1.

    Degenerate once solved: by its design there is no bonus where every episode succeeds; g* = 1 is
    the latest that can be. Adapted (accounts of the paper leave the shape uncertain; η, α_max, g*
    and the first α are ours). The paper's g belongs to a prompt. Here environments have one start,
    or one distribution of starts: g is a running mean of the share of successes among the episodes
    that ended in a rollout, those where none did left out. `groups` gives blocks of environments a
    g each. Where a task knows no success (Pendulum, MinAtar) g stays 0 and α works alone. Targets
    compare H / log A, or the entropy share of a continuous policy (see `TanhNormal.entropy_share`);
    the bonus itself is H.

    Args:
      share: τ in (0, 1].
      rate: η, above 0.
      most: α_max, at least 1.
      easy: g* in (0, 1].
      groups: blocks that the N environments are cut into.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range, or the groups do not divide the environments.
    """
    if not (0 < share <= 1 and rate > 0 and most >= 1 and 0 < easy <= 1 and groups >= 1):
        raise EntrobError(
            "aer: share and easy must be in (0, 1], rate above 0, most and groups at least 1"
        )

    def init(key, spec, params) -> Adaptive:
        if spec.num_envs % groups:
            raise EntrobError(f"aer: {groups} groups do not divide {spec.num_envs} environments")
        return Adaptive(jnp.ones(()), jnp.float32(-1.0), jnp.zeros(groups))

    def prepare(state, rollout, coef):
        need = state.alpha * jnp.maximum(1.0 - state.success / easy, 0.0)
        steps, envs = rollout.reward.shape
        return jnp.broadcast_to(jnp.repeat(need, envs // groups), (steps, envs))

    def loss(key, state, policy, batch, coef) -> jax.Array:
        return -coef * jnp.mean(batch.notes * policy.dist.entropy())

    def update(key, state, rollout, metrics) -> Adaptive:
        now = rollout.dist.entropy_share().mean()
        first = jnp.where(state.first < 0, now, state.first)
        alpha = jnp.clip(state.alpha + rate * (share * first - now), 0.0, most)
        count = lambda x: x.reshape(-1, groups, x.shape[1] // groups).sum((0, 2))
        episodes, won = count(ended(rollout)), count(rollout.success)
        moved = NEWEST * (won / jnp.maximum(episodes, 1) - state.success)
        return Adaptive(alpha, first, state.success + jnp.where(episodes > 0, moved, 0.0))

    return Regularizer(
        "aer",
        init=init,
        prepare=prepare,
        loss=loss,
        update=update,
        schedule=schedule,
        coef=0.01,
        source="Zhang et al. 2025 (2510.10959)",
        evidence="secondary",
        label="degenerate once solved, where its design turns it off; adapted: success by rollout "
        "instead of by prompt",
    )
