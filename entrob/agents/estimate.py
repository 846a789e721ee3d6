"""From rewards and values to what the policy learns from: advantages, and how far to trust them."""

import jax
import jax.numpy as jnp

from entrob.agents.spec import Hyper
from entrob.estimators.advantages import discounted, gae
from entrob.rollout import Rollout


def estimate(rollout: Rollout, bonus: jax.Array, next_value: jax.Array, hyper: Hyper) -> Rollout:
    """The rollout with advantages, targets of the value function, and `trust`.

    Args:
      rollout: with rewards and values.
      bonus: float32[T, N], added to the rewards.
      next_value: float32[T, N], V of the true next observations.
      hyper: its discount and trace decay are used.
    """
    reward, ends = rollout.reward + bonus, (rollout.terminated, rollout.truncated)
    advantage = gae(reward, rollout.value, next_value, *ends, hyper.gamma, hyper.gae_lambda)
    rollout = rollout.replace(advantage=advantage, target=advantage + rollout.value)
    return rollout.with_context(trust=trust(advantage, discounted(reward, *ends, hyper.gamma)))


def trust(advantage: jax.Array, returns: jax.Array) -> jax.Array:
    """How much of the standardized advantages is not the critic's error: float32[] in [0, 1].

    Advantages of an accurate critic vary less than returns: G = V(s) + (G - V(s)), uncorrelated, so
    std(A) ≤ std(G). Where they vary more, as in a rollout that met no reward, standardizing would
    turn the critic's error into a signal of deviation 1, on which a policy collapses that nothing
    tells better. Nor would a floor under the deviation cure that: Adam makes steps of one size out
    of gradients of any size that lasts. This is min(1, std(G) / std(A)): 0 without rewards, exactly
    1 where returns vary more than advantages, as they do where rewards are met often.

    Args:
      advantage, returns: float32[T, N]; the returns are discounted and not bootstrapped.
    """
    spread, most = advantage.std(), returns.std()
    return jnp.where(spread > most, most / jnp.where(spread > most, spread, 1.0), 1.0)
