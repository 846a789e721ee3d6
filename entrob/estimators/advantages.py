"""Returns and generalized advantages of a rollout."""

import jax
import jax.numpy as jnp


def gae(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    gamma: jax.Array | float,
    gae_lambda: jax.Array | float,
) -> jax.Array:
    """Generalized advantage estimates (Schulman et al. 2016, eqs. 11-16).

    δ_t = r_t + γ (1 - terminated_t) V(s'_t) - V(s_t) and A_t = δ_t + γλ (1 - done_t) A_{t+1}.
    A truncated episode is bootstrapped from its true last observation, a terminated one is not.

    Args:
      reward: float32[T, N].
      value: float32[T, N], V(s_t).
      next_value: float32[T, N], V of the observation that followed, before any reset.
      terminated, truncated: bool[T, N].
      gamma, gae_lambda: float32[], discount and trace decay, in [0, 1].

    Returns:
      float32[T, N].
    """
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    decay = gamma * gae_lambda * jnp.where(terminated | truncated, 0.0, 1.0)

    def step(advantage, inputs):
        delta, decay = inputs
        advantage = delta + decay * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(step, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)
    return advantages


def discounted(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    gamma: jax.Array | float,
) -> jax.Array:
    """Σ_k γ^k r_{t+k} up to the end of the episode or of the rollout: float32[T, N].

    Args:
      reward: float32[T, N].
      terminated, truncated: bool[T, N].
      gamma: float32[], discount.
    """
    zero = jnp.zeros_like(reward)
    return gae(reward, zero, zero, terminated, truncated, gamma, jnp.ones_like(gamma))
