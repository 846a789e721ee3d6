"""Noise that says nothing, in the reward and in the loss."""

import jax
import jax.numpy as jnp

from entrob.regularizers.protocol import Regularizer


def placebo_reward(schedule=None) -> Regularizer:
    """Add coef · ξ to the reward, ξ fresh standard normal noise at every step: a control.

    What a bonus does that depends on nothing: it disturbs advantages and values alike. Discrete and
    continuous actions alike: actions do not enter.

    Args:
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.
    """

    def reward(key, state, rollout, coef):
        return coef * jax.random.normal(key, rollout.reward.shape), state

    return Regularizer(
        "placebo_reward",
        reward=reward,
        schedule=schedule,
        coef=0.01,
        label="control: noise for a bonus",
    )


def placebo_loss(schedule=None) -> Regularizer:
    """Add coef · mean (ξ · logits) to the loss, ξ fresh standard normal noise: a control.

    The mean is over the batch and the actions; for continuous actions over the means before tanh
    and their dimensions. Every gradient step draws ξ anew: what a loss does that pulls nowhere.

    Args:
      schedule: multiplies the coefficient, see `entrob.regularizers.schedules`.
    """

    def loss(key, state, policy, batch, coef) -> jax.Array:
        dist = policy.dist
        outputs = dist.logits if hasattr(dist, "logits") else dist.mean
        return coef * jnp.mean(jax.random.normal(key, outputs.shape) * outputs)

    return Regularizer(
        "placebo_loss",
        loss=loss,
        schedule=schedule,
        coef=0.01,
        label="control: noise for a loss",
    )
