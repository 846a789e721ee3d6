"""The policy that draws every action uniformly: what normalized scores begin at."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces

from entrob.agents.model import Model
from entrob.distributions import Categorical


@struct.dataclass
class UniformBox:
    """Uniform actions in a box.

    Attributes:
      low, high: float32[..., d], the bounds.
    """

    low: jax.Array
    high: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """One action per distribution: float32[..., d]."""
        return jax.random.uniform(key, self.low.shape, minval=self.low, maxval=self.high)

    def execute(self, action: jax.Array) -> jax.Array:
        """The environment's action, here the same."""
        return action


def uniform_model(env: Any) -> Model:
    """A `Model` without parameters (``()``) that acts uniformly in the action space of `env`."""
    space = env.action_space(env.default_params)

    def dist(shape: tuple[int, ...]):
        if isinstance(space, spaces.Discrete):
            return Categorical(jnp.zeros((*shape, int(space.n))))
        bounds = (jnp.broadcast_to(jnp.float32(x), space.shape) for x in (space.low, space.high))
        return UniformBox(*(jnp.broadcast_to(x, (*shape, *space.shape)) for x in bounds))

    def step(policy, carry, obs, is_first):
        return dist(obs.shape[:1]), jnp.zeros(obs.shape[:1]), carry

    return Model(
        recurrent=False,
        init=lambda key, obs: (),
        init_carry=lambda n: (),
        step=step,
        sequence=lambda policy, carry, obs, is_first: (
            dist(obs.shape[:1]),
            jnp.zeros(obs.shape[0]),
        ),
    )
