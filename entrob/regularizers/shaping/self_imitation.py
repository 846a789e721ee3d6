"""Self-imitation: repeat what went better than expected, also long ago."""

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.protocol import Regularizer
from entrob.regularizers.shaping import _replay as replay
from entrob.regularizers.shaping._covariance import check_pool, covariance, drawn, pool

#: No log-probability below it is raised: such a step's gradient would drown the others'.
RAREST = -5.0


def self_imitation(
    warmup: float = 0.5,
    fraction: float = 0.02,
    bounds: tuple[float, float] = (0.9, 1.0),
    absolute: bool = False,
    critic: float = 0.01,
    capacity: int = 65536,
    schedule=None,
) -> Regularizer:
    """Add coef · γ(t) · mean w ([R - V]_+ (-log π) + β/2 [R - V]_+²) (SIL, 1806.05635).

    The mean is over steps drawn from a buffer of the run's own, as many as a minibatch has: R is
    the discounted return that followed the step until its episode ended, V the present value, which
    [R - V]_+ of the first term does not move and of the second does. A step's priority is
    max(R - V, 1e-6)^0.6, w corrects for it with an exponent of 0.1. What once went better than
    expected is imitated until it is expected.

    As in SPEAR (2509.22601) γ(t) = (1 - cos(π t / T₁)) / 2 rises from 0 to 1 in the first part of
    training, and, as in Clip-Cov, max(1, ⌊0.02 · M⌋) random steps whose covariance of log π and
    [R - V]_+ is within bounds are left out.

    Adapted: priorities are those of when an episode ended, V being the value of when it was played
    (the source updates them whenever a step is drawn); an episode cut off by a time limit is worth
    what the value function says of its end; the buffer holds the last 65,536 steps, or the last
    rollout if that is longer, where the source's holds 100,000; the bound of 1 for R - V in ports,
    made for rewards that are clipped to ±1, is left out. SPEAR's bounds are absolute, (1, 40); ours
    are quantiles by default, see `clip_cov`. Discrete and continuous actions alike. How long γ
    rises is our choice. A policy with a memory cannot be asked about single steps: it is refused.

    Args:
      warmup: T₁ as a fraction of training, in [0, 1]; 0 is none.
      fraction: of the drawn steps that is left out, in [0, 1); at least one, none if it is 0.
      bounds: of the covariance, rising: the lower one excluded, the upper one included.
      absolute: bounds are values instead of quantiles in [0, 1].
      critic: β, at least 0.
      capacity: steps the buffer has room for, at least 1; rollouts are kept whole.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range, or, at the first use, the policy has a memory.
    """
    check_pool("self_imitation", bounds, absolute)
    if not (0 <= warmup <= 1 and 0 <= fraction < 1 and critic >= 0 and capacity >= 1):
        raise EntrobError(
            "self_imitation: warmup must be in [0, 1], fraction in [0, 1), critic at least 0 and "
            "capacity at least 1"
        )

    def init(key, spec, params) -> replay.Replay:
        if spec.network == "lstm" or hasattr(spec.network, "memory"):
            raise EntrobError("self_imitation: replays single steps, but the policy has a memory")
        return replay.empty(spec, capacity)

    def loss(key, state, policy, batch, coef) -> jax.Array:
        key_draw, key_drop = jax.random.split(key)
        sample = replay.draw(key_draw, state, batch.reward.size)
        now = policy.at(sample.obs)
        log_prob = now.dist.log_prob(sample.action)
        better = jnp.maximum(sample.gain / batch.context.reward_scale - now.value, 0.0)
        imitated = jax.lax.stop_gradient(better)
        if fraction:
            candidates = pool(covariance(log_prob, imitated), bounds, absolute)
            imitated = jnp.where(drawn(key_drop, candidates, fraction), 0.0, imitated)
        terms = imitated * jnp.minimum(-log_prob, -RAREST) + 0.5 * critic * better**2
        done = jnp.minimum(batch.context.progress / warmup, 1.0) if warmup else 1.0
        rise = 0.5 * (1.0 - jnp.cos(jnp.pi * done))
        return coef * rise * jnp.mean(sample.weight * terms)

    def update(key, state, rollout, metrics) -> replay.Replay:
        return replay.add(state, rollout)

    return Regularizer(
        "self_imitation",
        init=init,
        loss=loss,
        update=update,
        schedule=schedule,
        coef=0.1,
        source="Oh et al. 2018 (1806.05635), Qin et al. 2025 (2509.22601)",
        evidence="secondary",
        label="adapted: priorities of when episodes ended, bootstrapped at time limits",
    )
