"""LRPG: robust to noisy observations as far as the return does not suffer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.episodes import ended
from entrob.regularizers.losses import _nearby as nearby
from entrob.regularizers.protocol import Regularizer

#: β1, the weight of the return.
FIRST = 2.0
#: Share of the running mean that a new rollout makes up.
SHARE = 0.1


class Constraint(NamedTuple):
    """How the return stands to what it was without the second objective.

    Attributes:
      reward: float32[], running mean of the reward per step, in the environment's units.
      ends: float32[], running mean of the episodes that end per step.
      best: float32[], k̂, the highest J so far.
      multiplier: float32[], λ.
      updates: int32[], how many there were.
    """

    reward: jax.Array
    ends: jax.Array
    best: jax.Array
    multiplier: jax.Array
    updates: jax.Array

    @property
    def performance(self) -> jax.Array:
        """J, the return of an episode: float32[]; before any has ended, the reward per step."""
        return self.reward / jnp.where(self.ends > 0, self.ends, 1.0)


def lrpg(
    begin: float = 1 / 3,
    tolerance: float = 0.05,
    rate: float = 1.0,
    noise: float | None = None,
    schedule=None,
) -> Regularizer:
    """Add coef · K / (β1 + λ · coef), K = ½ E‖π(·|s) - sg π(·|s̃)‖² (Jarne Ornia et al. 2022, LRPG).

    s̃ is s with noise. A first phase learns the return J alone; then K is lowered too, and
    λ ← [λ + η (k̂ - ε - J)]_+ gives the return more weight while it is below k̂, the best it has
    been. The policy comes to do the same at similar observations, at next to no cost in return.

    Adapted: the source ascends (β1 + λβ2) ∇J - β2 ∇K with β2 = coef; divided by J's weight, as
    here, the direction of the policy's step is the same and the rest of the loss keeps its scale. J
    is a running mean of the undiscounted return, which no bonus of another regularizer enters; ε
    and the shortfall are in units of the larger of |k̂| and |J|, so that η fits every scale of
    rewards. The release's η of 1e-3 is for many thousand updates: in a run of hundreds λ would stay
    where it is, so η is 1, and ten updates 10 % short of the bound raise λ by 1. Its k̂ is the mean
    of the last 25 losses, by which a return that falls slowly is never short; here it is the best
    running mean, and ε is 5 %, as such means are no surer (the source's is 1 %). Continuous
    actions: distance between the normals' means and spreads. Few actions are no trouble. Images of
    zeros and ones other than MiniGrid's get small noise, too.

    Args:
      begin: fraction of training after which K counts, in [0, 1).
      tolerance: ε in units of the larger of |k̂| and |J|, at least 0.
      rate: η, at least 0.
      noise: half the width of the uniform noise, at least 0. None is the source's 2 on MiniGrid's
        codes and 0.1 elsewhere; there it is in units of each component's standard deviation.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    if not (0 <= begin < 1 and tolerance >= 0 and rate >= 0 and (noise is None or noise >= 0)):
        raise EntrobError(
            "lrpg: begin must be in [0, 1), tolerance, rate and noise must be at least 0"
        )

    def init(key, spec, params) -> Constraint:
        return Constraint._make([*[jnp.zeros(())] * 4, jnp.zeros((), jnp.int32)])

    def loss(key, state, policy, batch, coef) -> jax.Array:
        at = nearby.sites(policy, batch)
        grid = nearby.is_grid(at.obs)
        width = (2.0 if grid else 0.1) if noise is None else noise
        drawn = width * jax.random.uniform(key, at.obs.shape, minval=-1.0, maxval=1.0)
        noisy = nearby.frozen(at.policy).at(at.obs + (drawn if grid else drawn * at.spread))
        distance = jnp.sum((_numbers(at.policy.dist) - _numbers(noisy.dist)) ** 2, -1)
        term = coef * 0.5 * at.mean(distance) / (FIRST + state.multiplier * coef)
        return jnp.where(batch.context.progress >= begin, term, 0.0)

    def update(key, state, rollout, metrics) -> Constraint:
        share = jnp.where(state.updates == 0, 1.0, SHARE)
        moved = lambda old, x: old + share * (x.mean() - old)
        now = state._replace(
            reward=moved(state.reward, rollout.reward * rollout.context.reward_scale),
            ends=moved(state.ends, ended(rollout)),
            updates=state.updates + 1,
        )
        alone = rollout.context.progress < begin
        highest = jnp.maximum(state.best, now.performance)
        best = jnp.where(state.ends == 0, now.performance, highest)
        unit = jnp.maximum(jnp.abs(best), jnp.abs(now.performance))
        short = (best - now.performance) / jnp.where(unit > 0, unit, 1.0) - tolerance
        multiplier = jnp.maximum(state.multiplier + rate * short, 0.0)
        return now._replace(best=best, multiplier=jnp.where(alone, state.multiplier, multiplier))

    return Regularizer(
        "lrpg",
        init=init,
        loss=loss,
        update=update,
        schedule=schedule,
        coef=1.0,
        source="Jarne Ornia et al. 2022 (arXiv 2209.15320)",
        evidence="code",
        label="adapted: divided by the return's weight, shortfall relative to the best return",
    )


def _numbers(dist) -> jax.Array:
    """What a distribution is: float32[..., A] probabilities, or means and spreads."""
    if hasattr(dist, "logits"):
        return dist.probs
    return jnp.concatenate([dist.mean, jnp.exp(dist.log_std)], -1)
