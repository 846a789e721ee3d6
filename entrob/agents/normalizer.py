"""Running normalization of observations and rewards."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.estimators.moments import Moments

#: Normalized observations and rewards lie within ± this (paper, B.3).
BOUND = 10.0


class Normalizer(NamedTuple):
    """Statistics of one run, merged after every rollout.

    Attributes:
      observation: `Moments` of observations, of their shape.
      discounted: `Moments` of the discounted sum of rewards since an episode began, scalar.
      running: float32[N], that sum in each environment.
    """

    observation: Moments
    discounted: Moments
    running: jax.Array

    @classmethod
    def empty(cls, observation_shape: tuple[int, ...], num_envs: int) -> "Normalizer":
        """Statistics before training: nothing is changed by them."""
        return cls(Moments.empty(observation_shape), Moments.empty(), jnp.zeros(num_envs))

    def add(self, observation: jax.Array, reward: jax.Array, done: jax.Array, gamma: jax.Array):
        """Merge a rollout.

        A rollout is acted on, and learned from, with the observation statistics of those before
        it, so that the behavior policy and the learner's first pass agree exactly; the reward's
        scale includes it.

        Args:
          observation: [T, N, ...].
          reward: float32[T, N].
          done: bool[T, N], whether the episode ended with the step.
          gamma: float32[], discount.

        Returns:
          ``(Normalizer, scale)``: rewards are to be divided by scale, float32[].
        """

        def step(total, inputs):
            reward, done = inputs
            total = gamma * total + reward
            return jnp.where(done, 0.0, total), total

        running, sums = jax.lax.scan(step, self.running, (reward, done))
        discounted = self.discounted.add(sums)
        new = Normalizer(self.observation.add(observation), discounted, running)
        return new, discounted.std


def standardize(moments: Moments, observation: jax.Array) -> jax.Array:
    """Observations in units of their spread, clipped to ±`BOUND`: float32[..., D]."""
    scaled = (observation - moments.mean) / moments.std
    return jnp.clip(scaled, -BOUND, BOUND)
