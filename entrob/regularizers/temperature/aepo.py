"""AEPO: hold entropy at a target by imitating successes of a warmer or cooler policy."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.episodes import ended, piece_of, sum_by_piece
from entrob.regularizers.protocol import Regularizer


def aepo(
    target: float = 0.5,
    hot: float = 1.2,
    cold: float = 0.8,
    cap: float = 0.1,
    draw: bool = False,
    schedule=None,
) -> Regularizer:
    """A ← (1 - a) A + a std(A) 1[success] sg(π^T / π), π^T ∝ π^(1/T) (2510.08141).

    T = 1.2 if the rollout before had an entropy of at most H*, else 0.8. a = a₀ / (1 + a₀), a₀ =
    coef · min(|H* - H|, 0.1) / success rate, 0 without success. Successful episodes
    are imitated as if the warmer or cooler policy had lived them, which pulls entropy to H* from
    both sides. The value target stays. Actions are drawn from π, as DCPO does (2601.12730), or
    from π^T, as AEPO does.

    coef scales a₀, 1 is the paper's; T is what it is from the smallest coefficient on.

    Adapted: an episode is its piece inside the rollout, and one that has not ended is no success;
    H and H* are shares of log A, or of the range (see `TanhNormal.entropy_share`); the success
    term is in units of the advantages' standard deviation, which is 1 in the paper. A Gaussian's
    spread becomes σ √T, before tanh. T of the first rollout is 1.2. Degenerate in rollouts without
    success: there T draws actions, if asked, and nothing else changes; tasks that know none
    (Pendulum, MinAtar) have no other rollouts.

    Args:
      target: H* as a share of the greatest entropy, in (0, 1); the paper's are 0.5 to 0.75.
      hot, cold: T below and above the target; 0 < cold <= 1 <= hot.
      cap: of |H* - H|, above 0.
      draw: draw the rollout's actions from π^T. PPO's ratio corrects for that, A2C does not.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    if not (0 < target < 1 and 0 < cold <= 1 <= hot and cap > 0):
        raise EntrobError("aepo: needs target in (0, 1), 0 < cold <= 1 <= hot and cap above 0")

    def init(key, spec, params) -> jax.Array:
        return jnp.float32(hot)

    def behavior(state, dist, coef):
        return dist.tempered(state)

    def advantage(state, rollout, coef):
        dist, action, plain = rollout.dist, rollout.action, rollout.advantage
        piece = piece_of(rollout)
        won = sum_by_piece(rollout.success.astype(plain.dtype), piece)[piece] > 0
        episodes = jnp.maximum(ended(rollout).sum(), 1)
        wins = rollout.success.sum()
        rate = jnp.maximum(wins, 1) / episodes
        gap = jnp.minimum(jnp.abs(target - dist.entropy_share().mean()), cap)
        gap = jnp.where(wins > 0, gap, 0.0)
        a = coef * gap / (rate + coef * gap)
        tempered = dist.tempered(state)
        ratio = jnp.exp(tempered.log_prob(action) - dist.log_prob(action))
        return (1.0 - a) * plain + a * plain.std() * jnp.where(won, ratio, 0.0)

    def update(key, state, rollout, metrics) -> jax.Array:
        low = rollout.dist.entropy_share().mean() <= target
        return jnp.where(low, jnp.float32(hot), jnp.float32(cold))

    return Regularizer(
        "aepo",
        init=init,
        behavior=behavior if draw else None,
        advantage=advantage,
        update=update,
        schedule=schedule,
        coef=1.0,
        source="Wang et al. 2025 (2510.08141), Li et al. 2026 (2601.12730)",
        evidence="paper",
        label="adapted: pieces of episodes, entropy as a share of its maximum; needs successes",
    )
