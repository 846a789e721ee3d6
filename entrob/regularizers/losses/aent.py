"""AEnt: the entropy among the likely actions only."""

import math

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.regularizers.losses import _subset as subset
from entrob.regularizers.protocol import Regularizer

#: The released box of the adaptive coefficient, 1e-5 and 1e-2, over its initial value 1e-3.
BOX = (0.01, 10.0)


def aent(
    dropped: float = 0.3,
    adaptive: bool = False,
    band: tuple[float, float] = (0.1, 0.5),
    rate: float = 1.0,
    schedule=None,
) -> Regularizer:
    """Subtract coef · mean H̃ from the loss, H̃ without the least likely actions (Shen 2025, AEnt).

    The ⌊p|A|⌋ least likely actions of each state are dropped, the others renormalized: the bonus
    spreads choice among sensible actions and pays nothing for making bad ones likelier.

    Adapted: at least one action is dropped, as ⌊0.3 · 3⌋ = 0 would leave `policy_entropy`; for an
    adaptive coefficient H̃ is counted as a share of its maximum, log of the number of kept actions.
    Degenerate for two actions, where one is left and H̃ is 0. Needs discrete actions.

    Args:
      dropped: p in [0, 1); 0 drops none, which is `policy_entropy`.
      adaptive: multiply the coefficient by m, 1 at first, which after every update rises by η times
        what H̃ is short of the band, or falls by η times what it exceeds it, within `BOX`.
      band: where H̃'s share of its maximum is to lie.
      rate: η, at least 0; the released step 1e-3 over its initial coefficient 1e-3.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range, or actions are continuous.
    """
    if not (0 <= dropped < 1 and rate >= 0 and len(band) == 2 and 0 <= band[0] <= band[1]):
        raise EntrobError(
            "aent: dropped must be in [0, 1), rate at least 0, band two numbers in order"
        )

    def kept(actions: int) -> int:
        fewer = max(1, math.floor(dropped * actions + 1e-9)) if dropped else 0
        return max(actions - fewer, 1)

    def entropy(dist) -> jax.Array:
        log_probs = subset.log_probs_of("aent", dist)
        keep = subset.largest(jax.lax.stop_gradient(log_probs), kept(log_probs.shape[-1]))
        return subset.entropy(log_probs, keep)

    def init(key, spec, params):
        return jnp.ones(())

    def loss(key, state, policy, batch, coef) -> jax.Array:
        return -coef * (state if adaptive else 1.0) * jnp.mean(entropy(policy.dist))

    def update(key, state, rollout, metrics):
        most = math.log(max(kept(rollout.dist.logits.shape[-1]), 2))
        share = jnp.mean(entropy(rollout.dist)) / most
        change = jnp.maximum(band[0] - share, 0.0) - jnp.maximum(share - band[1], 0.0)
        return jnp.clip(state + rate * change, *BOX)

    return Regularizer(
        "aent",
        init=init if adaptive else None,
        loss=loss,
        update=update if adaptive else None,
        schedule=schedule,
        coef=1e-3,
        source="Shen 2025 (arXiv 2509.03493)",
        evidence="paper",
        actions=("discrete",),
        label="adapted: drops at least one action; discrete actions only; degenerate with two "
        "actions, where one is left and it is none",
    )
