"""SAC's automatic temperature, on a policy-entropy bonus."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from entrob.errors import EntrobError
from entrob.regularizers.protocol import Regularizer


class Temperature(NamedTuple):
    """A coefficient that is learned.

    Attributes:
      log_alpha: float32[], logarithm of α in units of the coefficient.
      optimizer: Adam's state.
    """

    log_alpha: jax.Array
    optimizer: Any


def sac_temperature(share: float = 0.98, learning_rate: float = 3e-3, schedule=None) -> Regularizer:
    """Subtract coef · α · mean H from the loss, α led by a target entropy H̄ (1812.05905).

    Each update takes a step of Adam down sg(H - H̄) · α over log α, H the rollout's mean entropy:
    the bonus grows while the policy is surer than H̄ and shrinks while it is less sure.

    coef is the bonus's coefficient at first, when α = 1; Adam does not see it, as its steps do not
    depend on the objective's scale.

    Adapted: only the loss has the bonus, values are not soft. H is exact instead of sampled. α
    moves once per rollout, not per gradient step, so its rate is ten times SAC's 3e-4. H̄ is
    0.98 log A for discrete actions, which even for few of them is nearly uniform, and -d for
    continuous ones scaled to [-1, 1]; other ranges shift it with the entropy.

    Args:
      share: of log A that is H̄ for discrete actions, in (0, 1].
      learning_rate: of log α, above 0.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    if not (0 < share <= 1 and learning_rate > 0):
        raise EntrobError("sac_temperature: share must be in (0, 1] and learning_rate above 0")
    adam = optax.adam(learning_rate)

    def init(key, spec, params) -> Temperature:
        return Temperature(jnp.zeros(()), adam.init(jnp.zeros(())))

    def loss(key, state, policy, batch, coef) -> jax.Array:
        return -coef * jnp.exp(state.log_alpha) * jnp.mean(policy.dist.entropy())

    def update(key, state, rollout, metrics) -> Temperature:
        dist = rollout.dist
        if jnp.issubdtype(rollout.action.dtype, jnp.integer):
            target = share * dist.max_entropy
        else:
            # log 2 is the width of [-1, 1].
            target = dist.max_entropy - (1.0 + jnp.log(2.0)) * rollout.action.shape[-1]
        slope = jnp.exp(state.log_alpha) * (dist.entropy().mean() - target)
        step, optimizer = adam.update(slope, state.optimizer)
        return Temperature(state.log_alpha + step, optimizer)

    return Regularizer(
        "sac_temperature",
        init=init,
        loss=loss,
        update=update,
        schedule=schedule,
        coef=0.01,
        source="Haarnoja et al. 2018 (1812.05905)",
        label="adapted: on a policy-entropy bonus, values are not soft",
    )
