"""RE3: state entropy in the space of a frozen random encoder."""

import math

import jax
import jax.numpy as jnp

from entrob.errors import EntrobError
from entrob.estimators.moments import Moments
from entrob.estimators.weighted import kth_distances
from entrob.regularizers.intrinsic._perceptron import init_perceptron, perceptron
from entrob.regularizers.intrinsic._support import support
from entrob.regularizers.protocol import Regularizer
from entrob.rollout import Rollout

_HIDDEN = 64


def re3(k: int = 3, dim: int = 50, decay: float = 0.0, schedule=None) -> Regularizer:
    """Add coef · log(1 + ‖y − y_kNN‖) / running std to the reward (RE3, Seo et al. 2021).

    y is a frozen random encoding of the observation, y_kNN that of the k-th nearest other step of
    the rollout. Pays for observations unlike the others; what they mean does not matter.

    Adapted on images, where the encoder is a perceptron of the flat image and no convolution, and
    in that neighbors come from the rollout and not from a replay buffer. For vectors, discrete and
    continuous actions alike, faithful else: actions do not enter. On grids states that look the
    same coincide, so that most distances, and bonuses, are 0.

    Args:
      k: neighbor, at least 1, the point itself not counted.
      dim: outputs of the encoder, at least 1.
      decay: in [0, 1); the bonus is multiplied by (1 − decay)^t, t the steps seen before.
      schedule: multiplies the coefficient.

    Raises:
      EntrobError: an option is out of its range.
    """
    if k < 1 or dim < 1 or not 0 <= decay < 1:
        raise EntrobError("re3: k and dim must be at least 1 and decay in [0, 1)")

    def init(key, spec, params):
        return init_encoder(key, spec, dim), Moments.empty()

    def reward(key, state, rollout, coef):
        encoder, moments = state
        raw = jnp.log1p(encoded_distances(encoder, rollout, k))
        new = moments.add(raw)
        return coef * (1.0 - decay) ** moments.count * raw / new.std, (encoder, new)

    return Regularizer(
        "re3",
        init=init,
        reward=reward,
        schedule=schedule,
        coef=0.005,
        source="Seo et al. 2021 (2102.09430)",
        evidence="paper",
        label="adapted: neighbors within the rollout, perceptron instead of convolutions",
    )


def init_encoder(key: jax.Array, spec, dim: int) -> list[dict]:
    """A random perceptron from the flat observation to `dim` numbers."""
    size = math.prod(spec.env.observation_space(spec.env.default_params).shape)
    return init_perceptron(key, (size, _HIDDEN, dim))


def encoded_distances(encoder: list[dict], rollout: Rollout, k: int) -> jax.Array:
    """Distance of each step's code to that of the k-th nearest other step: float32[T, N]."""
    visited = support(rollout, "observations")
    return kth_distances(perceptron(encoder, visited.points), visited.counts, k)[visited.index]
