"""SAC's automatic temperature, on a policy-entropy bonus."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from entrob.errors import EntrobError
from entrob.regularizers.domain import BELOW_ONE
from entrob.regularizers.protocol import Regularizer

#: How far log α may go from 0.
FARTHEST = 10.0


class Temperature(NamedTuple):
    """A coefficient that is learned.

    Attributes:
      log_alpha: float32[], logarithm of α.
      optimizer: Adam's state.
      steps: int32[], steps of Adam per update: as many as the agent takes gradient steps.
    """

    log_alpha: jax.Array
    optimizer: Any
    steps: jax.Array


def sac_temperature(
    initial: float = 0.03, learning_rate: float = 3e-3, schedule=None
) -> Regularizer:
    """Subtract coef · α · mean H from the loss, α led by a target entropy H̄ (1812.05905).

    For each gradient step of the agent there is one of Adam down sg(H - H̄) · α over log α, H the
    rollout's mean entropy: the bonus grows while the policy is surer than H̄ and shrinks while it is
    less sure.

    coef is H̄'s strength, a share of the greatest entropy: H̄ is coef · log A for discrete actions,
    and for d continuous ones the entropy of a uniform distribution over a share coef of each
    dimension's range. The source's are 0.98 (1910.07207) and -d, which is 0.18 of each range. At
    0.98 the best of three actions has at most a probability of 0.43.

    Adapted: only the loss has the bonus, values are not soft. H is exact instead of sampled. The
    rate is ten times SAC's 3e-4, as a run has thousands of gradient steps and not a million. The
    bonus is multiplied by coef, so that it vanishes with it, and α stays within e^±10.

    Args:
      initial: α at first, above 0.
      learning_rate: of log α, above 0.
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.

    Raises:
      EntrobError: an option is out of its range.
    """
    if not (initial > 0 and learning_rate > 0):
        raise EntrobError("sac_temperature: initial and learning_rate must be above 0")
    adam = optax.adam(learning_rate)

    def init(key, spec, params) -> Temperature:
        steps = jnp.int32(spec.epochs * spec.minibatches)
        log_alpha = jnp.log(jnp.float32(initial))
        return Temperature(log_alpha, adam.init(log_alpha), steps)

    def loss(key, state, policy, batch, coef) -> jax.Array:
        return -coef * jnp.exp(state.log_alpha) * jnp.mean(policy.dist.entropy())

    def update(key, state, rollout, metrics) -> Temperature:
        dist, share = rollout.dist, jnp.maximum(metrics["coef"], 1e-6)
        if jnp.issubdtype(rollout.action.dtype, jnp.integer):
            target = share * dist.max_entropy
        else:
            target = dist.max_entropy + rollout.action.shape[-1] * jnp.log(share)
        surplus = dist.entropy().mean() - target

        def step(_, now):
            log_alpha, optimizer = now
            move, optimizer = adam.update(jnp.exp(log_alpha) * surplus, optimizer)
            return jnp.clip(log_alpha + move, -FARTHEST, FARTHEST), optimizer

        now = state.log_alpha, state.optimizer
        log_alpha, optimizer = jax.lax.fori_loop(0, state.steps, step, now)
        return Temperature(log_alpha, optimizer, state.steps)

    return Regularizer(
        "sac_temperature",
        init=init,
        loss=loss,
        update=update,
        schedule=schedule,
        coef=0.3,
        domain=BELOW_ONE,
        source="Haarnoja et al. 2018 (1812.05905)",
        evidence="paper",
        label="adapted: on a policy-entropy bonus, values are not soft; coefficient is the target",
    )
