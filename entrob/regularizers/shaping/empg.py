"""EMPG: entropy modulates policy gradients."""

import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.domain import MIXTURE
from entrob.regularizers.episodes import ended
from entrob.regularizers.protocol import Regularizer

#: The least range of entropies, in nats, that is stretched to [0, 1]; less may be rounding.
LEAST = 1e-4


def empg(
    sharpness: float = 1.0, lookahead: float = 1.0, bonus: float = 0.1, schedule=None
) -> Regularizer:
    """A ← A + coef · (A' - A), A' = A g(h) + ζ std(A) e^(-k' h_next), centered (2509.09265).

    h is the entropy stretched to [0, 1] over the rollout, g = e^(-kh) / mean e^(-kh), and A' loses
    its mean. Sure steps learn more, unsure ones less, and steps toward states where the policy is
    sure are rewarded: it works against exploration. The value target stays.

    coef = 1 is the paper's; less mixes it with the plain advantage.

    Adapted: a step is one of the environment, not a turn of many tokens; steps that end an episode,
    and a rollout's last one, whose next entropy is not known, get no bonus, and it is given in
    units of the advantages' standard deviation, which is 1 in the paper. Few actions and negative
    differential entropies do no harm, as h is a place within the range. Degenerate where entropy
    hardly depends on the state.

    Args:
      sharpness: k, at least 0.
      lookahead: k', at least 0.
      bonus: ζ, at least 0.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is negative.
    """
    if min(sharpness, lookahead, bonus) < 0:
        raise EntrobError("empg: sharpness, lookahead and bonus must be at least 0")

    def advantage(state, rollout, coef):
        entropy = rollout.dist.entropy()
        h = (entropy - entropy.min()) / jnp.maximum(jnp.ptp(entropy), LEAST)
        gain = jnp.exp(-sharpness * h)
        follows = ~ended(rollout).at[-1].set(True)
        clarity = jnp.where(follows, jnp.exp(-lookahead * jnp.roll(h, -1, 0)), 0.0)
        plain = rollout.advantage
        shaped = plain * gain / gain.mean() + bonus * plain.std() * clarity
        return plain + coef * (shaped - shaped.mean() - plain)

    return Regularizer(
        "empg",
        advantage=advantage,
        schedule=schedule,
        coef=1.0,
        domain=MIXTURE,
        source="Wang et al. 2025 (2509.09265)",
        evidence="code",
        label="adapted: no bonus at a rollout's last step, bonus in units of the advantages",
    )
