"""Running normalization of observations and rewards, per run or per environment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from entrob.estimators.moments import Moments

#: Normalized observations and rewards lie within ± this (paper, B.3).
BOUND = 10.0
#: Of `PerEnvironment`: how many values of variance 1 each stream begins with, and what is added to
#: a variance before its root is taken.
BEGIN, FLOOR = 1e-4, 1e-8


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

    @property
    def tested(self) -> Moments:
        """What a policy is tested with."""
        return self.observation


class Average(NamedTuple):
    """What a policy is tested with whose N environments had statistics of their own.

    Attributes:
      mean, variance: float32[...], means over the environments.
    """

    mean: jax.Array
    variance: jax.Array


class PerEnvironment(NamedTuple):
    """Statistics of each of N environments, updated at every step before they are used.

    They are those of Gymnasium's `NormalizeObservation` and `NormalizeReward` around every
    environment of its own, as the paper's released Pusher code has them. Observations are seen as
    they were standardized when they were made, by the learner as well.

    Attributes:
      observation: `Moments` of observations, leaves [N, ...].
      discounted: `Moments` of the discounted sum of rewards, leaves [N].
      running: float32[N], that sum, which a time limit does not end.
    """

    observation: Moments
    discounted: Moments
    running: jax.Array

    @classmethod
    def begin(cls, observation: jax.Array) -> "PerEnvironment":
        """Statistics of the first observations [N, ...]."""
        n = observation.shape[0]

        def empty(shape: tuple[int, ...]) -> Moments:
            few = jnp.full(n, BEGIN)
            return Moments(few, jnp.zeros((n, *shape)), jnp.full((n, *shape), BEGIN))

        new = cls(empty(observation.shape[1:]), empty(()), jnp.zeros(n))
        return new.see(observation, jnp.ones(n, bool))

    def see(self, observation: jax.Array, which: jax.Array) -> "PerEnvironment":
        """Statistics after one more observation [N, ...] of the environments in bool[N]."""
        seen = _one_more(self.observation, observation)
        kept = jax.vmap(lambda new, a, b: jax.tree.map(lambda x, y: jnp.where(new, x, y), a, b))
        return self._replace(observation=kept(which, seen, self.observation))

    def standardize(self, observation: jax.Array) -> jax.Array:
        """Observations [N, ...] in units of their environment's spread, clipped to ±`BOUND`."""
        average = Average(self.observation.mean, _variance(self.observation))
        return jnp.clip(standardize(average, observation), -BOUND, BOUND)

    def step(
        self, observation: jax.Array, reward: jax.Array, terminated: jax.Array, gamma: jax.Array
    ) -> tuple["PerEnvironment", jax.Array, jax.Array]:
        """Statistics after a step, and what it led to in their units.

        Args:
          observation: [N, ...], after the step, before any reset.
          reward: float32[N].
          terminated: bool[N], after the step; the sum of rewards begins anew with its reward.
          gamma: float32[], discount.

        Returns:
          ``(PerEnvironment, observation, reward)``, the last two clipped to ±`BOUND`.
        """
        running = gamma * jnp.where(terminated, 0.0, self.running) + reward
        new = self.see(observation, jnp.ones_like(terminated))._replace(
            discounted=_one_more(self.discounted, running), running=running
        )
        return new, new.standardize(observation), jnp.clip(reward / new.scale, -BOUND, BOUND)

    @property
    def scale(self) -> jax.Array:
        """What rewards are divided by: float32[N]."""
        return jnp.sqrt(_variance(self.discounted) + FLOOR)

    @property
    def tested(self) -> Average:
        """What a policy is tested with."""
        both = self.observation.mean, _variance(self.observation)
        return Average(*(x.mean(0) for x in both))


def standardize(moments: Moments | Average, observation: jax.Array) -> jax.Array:
    """Observations in units of their spread: float32[..., D].

    By `Moments` they are clipped to ±`BOUND`; by an `Average` they are not, as in the released
    code's test.
    """
    if isinstance(moments, Average):
        return (observation - moments.mean) / jnp.sqrt(moments.variance + FLOOR)
    scaled = (observation - moments.mean) / moments.std
    return jnp.clip(scaled, -BOUND, BOUND)


def _one_more(moments: Moments, values: jax.Array) -> Moments:
    """Moments of N streams, leaves [N, ...], after one more value of each, [N, ...]."""
    return jax.vmap(lambda one, value: one.add(value[None]))(moments, values)


def _variance(moments: Moments) -> jax.Array:
    """Population variance of N streams: float32[N, ...]."""
    return jax.vmap(lambda one: one.m2 / one.count)(moments)
