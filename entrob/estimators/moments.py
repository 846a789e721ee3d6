"""Running mean and spread."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

#: Relative spread that cannot be told from rounding, some hundred float32 roundings.
RESOLUTION = 1e-5


class Moments(NamedTuple):
    """Mean and spread of a stream, merged batch by batch (Chan et al. 1979).

    Attributes:
      count: float32[], values seen.
      mean: float32[...].
      m2: float32[...], sum of squared deviations from the mean.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count
    mean: jax.Array
    m2: jax.Array

    @classmethod
    def empty(cls, shape: tuple[int, ...] = ()) -> "Moments":
        """Moments of no values of a shape."""
        return cls(jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape))

    def add(self, x: jax.Array, reference: bool = False) -> "Moments":
        """Moments after a batch.

        Args:
          x: float32[..., *shape], all leading axes being the batch.
          reference: repeat the slip of the paper's released code, whose mean moves by the batch's
            share of all values instead of by that share of the difference.
        """
        axes = tuple(range(x.ndim - self.mean.ndim))
        size = x.size // self.mean.size
        total = self.count + size
        delta = x.mean(axes) - self.mean
        share = size / total
        mean = self.mean + (share if reference else delta * share)
        m2 = self.m2 + x.var(axes) * size + delta**2 * self.count * share
        return Moments(total, mean, m2)

    @property
    def std(self) -> jax.Array:
        """Population standard deviation, 1 where nothing has varied yet: float32[...].

        A spread below `RESOLUTION` times the mean counts as none: float32's rounding leaves as much
        of a constant, and dividing by it would blow up the least change of that constant.
        """
        variance = self.m2 / jnp.maximum(self.count, 1.0)
        varied = variance > (RESOLUTION * self.mean) ** 2
        return jnp.where(varied, jnp.sqrt(jnp.maximum(variance, 1e-12)), 1.0)
